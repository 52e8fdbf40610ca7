//! The push framer: bytes in any pieces go in, stream headers and whole elements come out.
//!
//! Every byte is looked at once, whatever the pieces; between elements it holds next to nothing. What it holds inside an
//! element is bounded by [`Limits`].

use super::chars::{is_space, is_xml_char, CDATA_STOP, NAME_BYTE, TEXT_STOP, VALUE_STOP};
use super::element::{Attr, Element, Node};
use super::error::{Condition, XmlError};
use super::ns;
use super::scope::Scope;
use super::strings::Str;
use super::tag::Tag;

mod declaration;

/// Bounds on one element (a stanza) and on the stream header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one top-level element on the wire.
    pub max_bytes: u32,
    /// Elements inside one another, the top one included.
    pub max_depth: u16,
    /// Attributes and namespace declarations of one tag.
    pub max_attrs: u16,
    /// Bytes of an element's or attribute's name, prefix included.
    pub max_name: u16,
    /// Elements in one top-level element; a tree takes more memory than its bytes.
    pub max_elements: u32,
}

/// Bytes of a stream header.
const MAX_HEADER: u32 = 4096;

impl Limits {
    /// The bounds for elements of at most `max_bytes`.
    pub const fn bytes(max_bytes: u32) -> Self {
        let max_elements = max_bytes / 16;
        let max_elements = if max_elements < 64 { 64 } else { max_elements };
        Self {
            max_bytes,
            max_depth: 96,
            max_attrs: 48,
            max_name: 256,
            max_elements,
        }
    }
}

/// The start of a stream: the attributes of `<stream:stream>` and the namespace its stanzas are in by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub default_ns: Str,
    pub attrs: Vec<Attr>,
}

/// What comes out of the framer.
#[derive(Debug)]
pub enum XmlEvent {
    /// The stream header is complete. Never in document mode.
    Open(Header),
    /// A top-level element is complete; with its size on the wire in bytes.
    Element(Element, u32),
    /// The stream's end tag. Never in document mode.
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Content,
    Less,
    Bang,
    Cdata,
    Declaration,
    Name,
    InTag,
    AttrName,
    AfterAttrName,
    BeforeValue,
    Value,
    AfterValue,
    SlashEnd,
    EndName,
    AfterEndName,
    Reference,
    ByteOrderMark,
    Finished,
    Failed(XmlError),
}

struct Open {
    prefix: Str,
    name: Str,
    ns: Str,
    default_ns: Str,
    attrs: Vec<Attr>,
    children: Vec<Node>,
    mark: u16,
}

struct Root {
    prefix: Str,
    default_ns: Str,
}

/// Reads a stream, or a row of documents, in pieces.
pub struct Framer {
    state: State,
    streaming: bool,
    quote: u8,
    /// What ran just before in character data: the last carriage return, or the number of closing brackets.
    after_return: bool,
    brackets: u8,
    /// Whether nothing but a byte order mark has come yet.
    fresh: bool,
    in_value: bool,
    short: [u8; 12],
    short_len: u8,
    limits: Limits,
    used: u32,
    elements: u32,
    tag: Tag,
    text: Vec<u8>,
    stack: Vec<Open>,
    scope: Scope,
    root: Option<Box<Root>>,
}

impl Framer {
    /// A framer for `<stream:stream>` … `</stream:stream>` (RFC 6120 §4).
    pub fn stream(limits: Limits) -> Self {
        Self::new(limits, true)
    }

    /// A framer for whole elements, one document each (RFC 7395 §3.3.3): call [`Framer::end_document`] after each.
    pub fn document(limits: Limits) -> Self {
        Self::new(limits, false)
    }

    fn new(limits: Limits, streaming: bool) -> Self {
        Self {
            state: State::Content,
            streaming,
            quote: 0,
            after_return: false,
            brackets: 0,
            fresh: true,
            in_value: false,
            short: [0; 12],
            short_len: 0,
            limits,
            used: 0,
            elements: 0,
            tag: Tag::default(),
            text: Vec::new(),
            stack: Vec::new(),
            scope: Scope::default(),
            root: None,
        }
    }

    /// Changes the bounds; they hold from the next element on, and for what is still to come of this one.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Forgets everything: the next byte begins a new stream or document.
    pub fn restart(&mut self) {
        *self = Self::new(self.limits, self.streaming);
    }

    /// Whether the framer stands between top-level elements.
    pub fn is_between(&self) -> bool {
        self.stack.is_empty() && matches!(self.state, State::Content | State::Finished)
    }

    /// Reads from `data` until something is complete or nothing is left, and moves `data` past what was read.
    ///
    /// # Errors
    /// The stream error that answers the input. The framer stays failed.
    pub fn next(&mut self, data: &mut &[u8]) -> Result<Option<XmlEvent>, XmlError> {
        let input = *data;
        let mut at = 0;
        let mut counted = 0;
        let result = loop {
            if at == input.len() {
                break self.count(at - counted).map(|()| None);
            }
            let between = self.is_between();
            match self.step(input, &mut at) {
                Ok(false) if between => counted = at,
                Ok(false) => {}
                Ok(true) => match self.count(at - counted).and_then(|()| self.complete()) {
                    Ok(None) => counted = at,
                    done => break done,
                },
                Err(error) => break Err(error),
            }
            if at - counted > 4096 {
                if let Err(error) = self.count(at - counted) {
                    break Err(error);
                }
                counted = at;
            }
        };
        *data = &input[at..];
        match &result {
            Err(error) => {
                self.state = State::Failed(*error);
                self.rest();
            }
            Ok(None) if self.is_between() => self.rest(),
            Ok(_) => {}
        }
        result
    }

    /// Says that the document is over (document mode).
    ///
    /// # Errors
    /// When it was not: no element, or one that has not ended.
    pub fn end_document(&mut self) -> Result<(), XmlError> {
        if let State::Failed(error) = self.state {
            return Err(error);
        }
        let whole = self.state == State::Finished;
        if !whole {
            let error = XmlError::malformed("the document ends before its element");
            self.state = State::Failed(error);
            return Err(error);
        }
        self.state = State::Content;
        self.fresh = true;
        self.used = 0;
        Ok(())
    }

    /// Gives back the memory of the last element.
    fn rest(&mut self) {
        self.tag.release();
        self.text = Vec::new();
        self.stack = Vec::new();
    }

    /// Accounts for bytes of the present element.
    fn count(&mut self, bytes: usize) -> Result<(), XmlError> {
        if self.is_between() {
            return Ok(());
        }
        self.used = self.used.saturating_add(bytes as u32);
        let header = self.streaming && self.root.is_none();
        let max = if header { MAX_HEADER } else { self.limits.max_bytes };
        if self.used > max {
            return Err(XmlError::policy(if header {
                "the stream header is too long"
            } else {
                "the stanza is too big"
            }));
        }
        Ok(())
    }

    /// Takes one or more bytes. True when a start or end tag is complete: its outcome waits in [`Framer::complete`].
    fn step(&mut self, input: &[u8], at: &mut usize) -> Result<bool, XmlError> {
        let byte = input[*at];
        match self.state {
            State::Content => return self.content(input, at).map(|()| false),
            State::Value => return self.value(input, at).map(|()| false),
            State::Cdata => return self.cdata(input, at).map(|()| false),
            State::Name | State::AttrName | State::EndName => return self.named(input, at),
            State::Finished => {
                if !self.streaming && !is_space(byte) {
                    return Err(XmlError::new(
                        Condition::BadFormat,
                        "there is more than one element in the message",
                    ));
                }
            }
            State::Less => match byte {
                b'/' => {
                    self.flush_text()?;
                    self.tag.clear();
                    self.state = State::EndName;
                }
                b'!' => {
                    self.short_len = 0;
                    self.state = State::Bang;
                }
                b'?' => {
                    let first = self.stack.is_empty() && self.root.is_none() && self.fresh;
                    if !first {
                        return Err(XmlError::restricted("processing instructions are not allowed"));
                    }
                    self.text.clear();
                    self.state = State::Declaration;
                }
                _ if NAME_BYTE[usize::from(byte)] => {
                    self.flush_text()?;
                    self.tag.clear();
                    self.state = State::Name;
                    return self.named(input, at);
                }
                _ => return Err(XmlError::malformed("a tag has no name")),
            },
            State::Bang => self.bang(byte)?,
            State::Declaration => self.declaration(byte)?,
            State::InTag => match byte {
                b'>' => {
                    *at += 1;
                    return Ok(true);
                }
                b'/' => self.state = State::SlashEnd,
                _ if is_space(byte) => {}
                _ if NAME_BYTE[usize::from(byte)] => {
                    if self.tag.attr_count() >= usize::from(self.limits.max_attrs) {
                        return Err(XmlError::policy("a tag has too many attributes"));
                    }
                    self.tag.begin_attr();
                    self.state = State::AttrName;
                    return self.named(input, at);
                }
                _ => return Err(XmlError::malformed("a tag has a character where none belongs")),
            },
            State::AfterAttrName => match byte {
                b'=' => self.state = State::BeforeValue,
                _ if is_space(byte) => {}
                _ => return Err(XmlError::malformed("an attribute has no value")),
            },
            State::BeforeValue => match byte {
                b'"' | b'\'' => {
                    self.quote = byte;
                    self.after_return = false;
                    self.tag.begin_value();
                    self.state = State::Value;
                }
                _ if is_space(byte) => {}
                _ => return Err(XmlError::malformed("an attribute's value is not quoted")),
            },
            State::AfterValue => match byte {
                b'>' | b'/' => {
                    self.state = State::InTag;
                    return Ok(false);
                }
                _ if is_space(byte) => self.state = State::InTag,
                _ => return Err(XmlError::malformed("there is no space between two attributes")),
            },
            State::SlashEnd => match byte {
                b'>' => {
                    *at += 1;
                    return Ok(true);
                }
                _ => return Err(XmlError::malformed("a slash stands inside a tag")),
            },
            State::AfterEndName => match byte {
                b'>' => {
                    *at += 1;
                    return Ok(true);
                }
                _ if is_space(byte) => {}
                _ => return Err(XmlError::malformed("an end tag has more than a name")),
            },
            State::Reference => self.reference(byte)?,
            State::ByteOrderMark => {
                self.short_len += 1;
                if byte != [0xBB, 0xBF][usize::from(self.short_len) - 1] {
                    return Err(XmlError::new(Condition::UnsupportedEncoding, "the stream is not UTF-8"));
                }
                if self.short_len == 2 {
                    self.state = State::Content;
                }
            }
            State::Failed(error) => return Err(error),
        }
        *at += 1;
        Ok(false)
    }

    /// Content of an element, or what stands between top-level elements.
    fn content(&mut self, input: &[u8], at: &mut usize) -> Result<(), XmlError> {
        if self.stack.is_empty() {
            return self.outside(input[*at], at);
        }
        let run = run(&input[*at..], &TEXT_STOP);
        if run > 0 {
            self.text.extend_from_slice(&input[*at..*at + run]);
            self.after_return = false;
            self.brackets = 0;
            *at += run;
        }
        let Some(&byte) = input.get(*at) else { return Ok(()) };
        *at += 1;
        let brackets = std::mem::take(&mut self.brackets);
        let after_return = std::mem::take(&mut self.after_return);
        match byte {
            b'<' => self.state = State::Less,
            b'&' => self.begin_reference(false),
            b'>' if brackets >= 2 => return Err(XmlError::malformed("']]>' stands in character data")),
            b'>' => self.text.push(b'>'),
            b']' => {
                self.brackets = brackets.saturating_add(1);
                self.text.push(b']');
            }
            b'\r' => {
                self.after_return = true;
                self.text.push(b'\n');
            }
            b'\n' if after_return => {}
            b'\n' => self.text.push(b'\n'),
            _ => return Err(XmlError::malformed("a control character")),
        }
        Ok(())
    }

    /// Before, between and after top-level elements only white space may stand.
    fn outside(&mut self, byte: u8, at: &mut usize) -> Result<(), XmlError> {
        *at += 1;
        match byte {
            b'<' => {
                self.used = 1;
                self.elements = 0;
                self.state = State::Less;
            }
            _ if is_space(byte) => {}
            0xEF if self.fresh && self.root.is_none() => {
                self.short_len = 0;
                self.state = State::ByteOrderMark;
            }
            0xFE | 0xFF | 0x00 if self.fresh && self.root.is_none() => {
                return Err(XmlError::new(Condition::UnsupportedEncoding, "the stream is not UTF-8"));
            }
            _ if byte < 0x20 => return Err(XmlError::malformed("a control character")),
            _ => {
                return Err(XmlError::new(
                    Condition::BadFormat,
                    "character data stands outside of any stanza",
                ))
            }
        }
        Ok(())
    }

    fn cdata(&mut self, input: &[u8], at: &mut usize) -> Result<(), XmlError> {
        let run = run(&input[*at..], &CDATA_STOP);
        if run > 0 {
            self.text.extend_from_slice(&input[*at..*at + run]);
            self.after_return = false;
            self.brackets = 0;
            *at += run;
        }
        let Some(&byte) = input.get(*at) else { return Ok(()) };
        *at += 1;
        let brackets = std::mem::take(&mut self.brackets);
        let after_return = std::mem::take(&mut self.after_return);
        match byte {
            b']' => {
                self.brackets = brackets.saturating_add(1);
                self.text.push(b']');
            }
            b'>' if brackets >= 2 => {
                self.text.truncate(self.text.len() - 2);
                self.state = State::Content;
            }
            b'>' => self.text.push(b'>'),
            b'\r' => {
                self.after_return = true;
                self.text.push(b'\n');
            }
            b'\n' if after_return => {}
            b'\n' => self.text.push(b'\n'),
            _ => return Err(XmlError::malformed("a control character")),
        }
        Ok(())
    }

    fn value(&mut self, input: &[u8], at: &mut usize) -> Result<(), XmlError> {
        let run = run(&input[*at..], &VALUE_STOP);
        if run > 0 {
            self.tag.extend(&input[*at..*at + run]);
            self.after_return = false;
            *at += run;
        }
        let Some(&byte) = input.get(*at) else { return Ok(()) };
        *at += 1;
        let after_return = std::mem::take(&mut self.after_return);
        match byte {
            _ if byte == self.quote => {
                self.tag.end_value();
                self.state = State::AfterValue;
            }
            b'"' | b'\'' => self.tag.push(byte),
            b'&' => self.begin_reference(true),
            // XML 1.0 §3.3.3: literal white space in a value is a space, a line end is one of them.
            b'\n' if after_return => {}
            b'\r' => {
                self.after_return = true;
                self.tag.push(b' ');
            }
            b'\t' | b'\n' => self.tag.push(b' '),
            b'<' => return Err(XmlError::malformed("'<' stands in an attribute's value")),
            _ => return Err(XmlError::malformed("a control character")),
        }
        Ok(())
    }

    /// A name of a tag or attribute.
    fn named(&mut self, input: &[u8], at: &mut usize) -> Result<bool, XmlError> {
        let rest = &input[*at..];
        let run = rest
            .iter()
            .position(|byte| !NAME_BYTE[usize::from(*byte)])
            .unwrap_or(rest.len());
        self.tag.extend(&rest[..run]);
        *at += run;
        let attr = self.state == State::AttrName;
        let length = if attr {
            self.tag.attr_name_len()
        } else {
            self.tag.name_len()
        };
        if length > usize::from(self.limits.max_name) {
            return Err(XmlError::policy("a name is too long"));
        }
        let Some(&byte) = input.get(*at) else { return Ok(false) };
        let next = match self.state {
            State::AttrName => {
                self.tag.begin_value();
                State::AfterAttrName
            }
            State::Name => {
                self.tag.end_name();
                State::InTag
            }
            _ => State::AfterEndName,
        };
        self.state = next;
        // A name ends at white space, '>', '/' or '='; the next state refuses what does not fit it.
        if next == State::InTag && !is_space(byte) && byte != b'>' && byte != b'/' {
            return Err(XmlError::malformed("a tag has a character where none belongs"));
        }
        Ok(false)
    }

    fn bang(&mut self, byte: u8) -> Result<(), XmlError> {
        const CDATA: &[u8] = b"[CDATA[";
        let index = usize::from(self.short_len);
        if CDATA[index] != byte {
            return Err(match (index, byte) {
                (0, b'-') => XmlError::restricted("comments are not allowed"),
                (0, b'D') => XmlError::restricted("document type definitions are not allowed"),
                _ => XmlError::malformed("a tag has no name"),
            });
        }
        if self.stack.is_empty() {
            return Err(XmlError::malformed("character data stands outside of any element"));
        }
        self.short_len += 1;
        if index + 1 == CDATA.len() {
            self.brackets = 0;
            self.after_return = false;
            self.state = State::Cdata;
        }
        Ok(())
    }

    fn begin_reference(&mut self, in_value: bool) {
        self.in_value = in_value;
        self.short_len = 0;
        self.state = State::Reference;
    }

    fn reference(&mut self, byte: u8) -> Result<(), XmlError> {
        let length = usize::from(self.short_len);
        if byte != b';' {
            if !byte.is_ascii_alphanumeric() && byte != b'#' {
                return Err(if length > 0 && NAME_BYTE[usize::from(byte)] {
                    XmlError::restricted("only the five predefined entities are allowed")
                } else {
                    XmlError::malformed("'&' stands for itself")
                });
            }
            if length == self.short.len() {
                return Err(XmlError::restricted("only the five predefined entities are allowed"));
            }
            self.short[length] = byte;
            self.short_len += 1;
            return Ok(());
        }
        let char = match &self.short[..length] {
            b"amp" => '&',
            b"lt" => '<',
            b"gt" => '>',
            b"apos" => '\'',
            b"quot" => '"',
            [b'#', number @ ..] => {
                character(number).ok_or(XmlError::malformed("a character reference to no character"))?
            }
            [] => return Err(XmlError::malformed("'&' stands for itself")),
            _ => return Err(XmlError::restricted("only the five predefined entities are allowed")),
        };
        let mut utf8 = [0u8; 4];
        let bytes = char.encode_utf8(&mut utf8).as_bytes();
        if self.in_value {
            self.tag.extend(bytes);
            self.state = State::Value;
        } else {
            self.text.extend_from_slice(bytes);
            self.state = State::Content;
        }
        Ok(())
    }

    /// Moves the text read so far into the innermost element.
    fn flush_text(&mut self) -> Result<(), XmlError> {
        if !self.text.is_empty() {
            if let Some(open) = self.stack.last_mut() {
                open.children
                    .push(Node::Text(Str::value(super::chars::decode(&self.text)?)));
            }
            self.text.clear();
        }
        Ok(())
    }

    /// A tag is complete: opens or closes an element.
    fn complete(&mut self) -> Result<Option<XmlEvent>, XmlError> {
        match self.state {
            State::AfterEndName => self.end(),
            State::SlashEnd => {
                self.start(true)?;
                self.pop()
            }
            _ => self.start(false),
        }
    }

    fn start(&mut self, empty: bool) -> Result<Option<XmlEvent>, XmlError> {
        let mark = self.scope.mark();
        let none = Str::EMPTY;
        let inherited = match (self.stack.last(), &self.root) {
            (Some(open), _) => &open.default_ns,
            (None, Some(root)) => &root.default_ns,
            (None, None) => &none,
        };
        let start = self.tag.resolve(&mut self.scope, inherited, mark)?;
        self.fresh = false;
        self.state = State::Content;
        self.after_return = false;
        self.brackets = 0;
        if self.streaming && self.stack.is_empty() && start.ns == ns::STREAMS && start.name == "stream" {
            return self.header(start, empty);
        }
        if self.streaming && self.root.is_none() {
            let error = if start.ns == ns::STREAMS {
                XmlError::new(Condition::BadFormat, "the first element is not a stream header")
            } else {
                XmlError::new(
                    Condition::InvalidNamespace,
                    "the stream header is not in the streams namespace",
                )
            };
            return Err(error);
        }
        if self.stack.len() >= usize::from(self.limits.max_depth) {
            return Err(XmlError::policy("elements are nested too deeply"));
        }
        self.elements += 1;
        if self.elements > self.limits.max_elements {
            return Err(XmlError::policy("a stanza has too many elements"));
        }
        self.stack.push(Open {
            prefix: start.prefix,
            name: start.name,
            ns: start.ns,
            default_ns: start.default_ns,
            attrs: start.attrs,
            children: Vec::new(),
            mark,
        });
        Ok(None)
    }

    fn header(&mut self, start: super::tag::Start, empty: bool) -> Result<Option<XmlEvent>, XmlError> {
        if self.root.is_some() {
            return Err(XmlError::new(
                Condition::BadFormat,
                "a stream header stands inside a stream",
            ));
        }
        if empty {
            return Err(XmlError::new(
                Condition::BadFormat,
                "the stream header is an empty element",
            ));
        }
        self.scope.shrink();
        self.root = Some(Box::new(Root {
            prefix: start.prefix,
            default_ns: start.default_ns.clone(),
        }));
        self.used = 0;
        Ok(Some(XmlEvent::Open(Header {
            default_ns: start.default_ns,
            attrs: start.attrs,
        })))
    }

    fn end(&mut self) -> Result<Option<XmlEvent>, XmlError> {
        let name = self.tag.raw_name();
        let (prefix, local) = match (self.stack.last(), &self.root) {
            (Some(open), _) => (open.prefix.as_str(), open.name.as_str()),
            (None, Some(root)) => (root.prefix.as_str(), "stream"),
            (None, None) => return Err(XmlError::malformed("an end tag without a start tag")),
        };
        let matches = if prefix.is_empty() {
            name == local.as_bytes()
        } else {
            name.strip_prefix(prefix.as_bytes())
                .and_then(|rest| rest.strip_prefix(b":"))
                == Some(local.as_bytes())
        };
        if !matches {
            return Err(XmlError::malformed("an end tag does not match its start tag"));
        }
        if self.stack.is_empty() {
            self.state = State::Finished;
            return Ok(Some(XmlEvent::Close));
        }
        self.pop()
    }

    /// Ends the innermost element.
    fn pop(&mut self) -> Result<Option<XmlEvent>, XmlError> {
        self.state = State::Content;
        let Some(open) = self.stack.pop() else { return Ok(None) };
        self.scope.leave(open.mark);
        let element = Element::from_parts(open.name, open.ns, open.attrs, open.children)
            .ok_or(XmlError::policy("elements are nested too deeply"))?;
        if let Some(parent) = self.stack.last_mut() {
            parent.children.push(Node::Element(element.into()));
            return Ok(None);
        }
        if !self.streaming {
            self.state = State::Finished;
        }
        let size = std::mem::take(&mut self.used);
        Ok(Some(XmlEvent::Element(element, size)))
    }
}

/// Length of the run before the first byte that a table stops at.
fn run(bytes: &[u8], stop: &[bool; 256]) -> usize {
    bytes
        .iter()
        .position(|byte| stop[usize::from(*byte)])
        .unwrap_or(bytes.len())
}

/// The character of a numeric reference, the part between `#` and `;`.
fn character(number: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(number).ok()?;
    let value = match text.strip_prefix('x') {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16),
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse(),
        _ => return None,
    };
    value.ok().and_then(char::from_u32).filter(|char| is_xml_char(*char))
}
