//! The push framer: bytes in any pieces go in, stream headers and whole elements come out.
//!
//! Every byte is looked at once, whatever the pieces; between elements it holds next to nothing. What it holds inside an
//! element is bounded by [`Limits`].

use super::chars::{is_space, NAME_BYTE};
use super::element::{Attr, Element, Node};
use super::error::{Condition, XmlError};
use super::scope::Scope;
use super::strings::Str;
use super::tag::Tag;

mod characters;
mod declaration;
mod tree;

/// Bounds on one element (a stanza) and on the stream header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one top-level element, as it came and as it goes on: a namespace counts again wherever the canonical form
    /// has to repeat it.
    pub max_bytes: u32,
    /// Elements inside one another, the top one included.
    pub max_depth: u16,
    /// Attributes and namespace declarations of one tag.
    pub max_attrs: u16,
    /// Bytes of an element's or attribute's name, prefix included.
    pub max_name: u16,
    /// Elements and attributes in one top-level element; in a tree they take more memory than on the wire.
    pub max_nodes: u32,
}

/// Bytes of a stream header.
const MAX_HEADER: u32 = 4096;

impl Limits {
    /// The bounds for elements of at most `max_bytes`.
    pub const fn bytes(max_bytes: u32) -> Self {
        let max_nodes = if max_bytes / 8 < 128 { 128 } else { max_bytes / 8 };
        Self {
            max_bytes,
            max_depth: 96,
            max_attrs: 48,
            max_name: 256,
            max_nodes,
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
    /// A top-level element is complete; with the memory that its tree takes, roughly, in bytes.
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
    nodes: u32,
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
            nodes: 0,
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
                // What is too long already is so wherever the input was cut.
                Err(error) => break self.count(at - counted).and(Err(error)),
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
}
