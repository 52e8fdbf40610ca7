//! What a complete tag does: opens or closes an element, the stream, or nothing because a bound is reached.

use super::super::element::{Element, Node};
use super::super::ns;
use super::super::strings::Str;
use super::super::tag::Start;
use super::{Condition, Framer, Header, Open, Root, State, XmlError, XmlEvent};

/// Bytes that an element takes in the tree besides its strings.
const NODE_WEIGHT: u32 = 128;

impl Framer {
    /// Moves the text read so far into the innermost element.
    pub(super) fn flush_text(&mut self) -> Result<(), XmlError> {
        if !self.text.is_empty() {
            if let Some(open) = self.stack.last_mut() {
                open.children
                    .push(Node::Text(Str::value(super::super::chars::decode(&self.text)?)));
            }
            self.text.clear();
        }
        Ok(())
    }

    /// A tag is complete: opens or closes an element.
    pub(super) fn complete(&mut self) -> Result<Option<XmlEvent>, XmlError> {
        match self.state {
            State::AfterEndName => self.end(),
            State::SlashEnd => {
                self.start(true)?;
                self.pop()
            }
            _ => self.start(false),
        }
    }

    pub(super) fn start(&mut self, empty: bool) -> Result<Option<XmlEvent>, XmlError> {
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
        self.nodes = self.nodes.saturating_add(1 + start.attrs.len() as u32);
        if self.nodes > self.limits.max_nodes {
            return Err(XmlError::policy("a stanza has too many elements"));
        }
        let parent_ns = self
            .stack
            .last()
            .map(|open| &open.ns)
            .or(self.root.as_ref().map(|root| &root.default_ns));
        let repeated = if parent_ns == Some(&start.ns) {
            0
        } else {
            start.ns.len()
        };
        let keys = start
            .attrs
            .iter()
            .filter(|attr| attr.key.starts_with('{'))
            .map(|attr| attr.key.len());
        self.used = self.used.saturating_add((repeated + keys.sum::<usize>()) as u32);
        if self.used > self.limits.max_bytes {
            return Err(XmlError::policy("the stanza is too big"));
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

    pub(super) fn header(&mut self, start: Start, empty: bool) -> Result<Option<XmlEvent>, XmlError> {
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

    pub(super) fn end(&mut self) -> Result<Option<XmlEvent>, XmlError> {
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
    pub(super) fn pop(&mut self) -> Result<Option<XmlEvent>, XmlError> {
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
        let weight = std::mem::take(&mut self.used).saturating_add(self.nodes.saturating_mul(NODE_WEIGHT));
        Ok(Some(XmlEvent::Element(element, weight)))
    }
}
