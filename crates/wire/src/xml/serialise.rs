//! The canonical form on the wire: single quotes, namespaces declared where they change, nothing the tree does not say.

use super::element::{swapped_content, Element, Node};
use super::ns;

/// What the surroundings of an element have declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form<'a> {
    /// The default namespace in force.
    pub default_ns: &'a str,
    /// Whether the prefix `stream` is bound to the streams namespace.
    pub stream_prefix: bool,
    /// Whether the stream is one between servers: the prefix `db` is bound to dialback, and a stanza of the tree, which is
    /// in `jabber:client`, goes out in `jabber:server` (see [`Element::swap_content`]).
    pub server: bool,
}

impl Form<'static> {
    /// Inside a client's TCP stream.
    pub const STREAM: Self = Self {
        default_ns: ns::CLIENT,
        stream_prefix: true,
        server: false,
    };
    /// Inside a stream between servers.
    pub const SERVER: Self = Self {
        default_ns: ns::SERVER,
        stream_prefix: true,
        server: true,
    };
    /// A message of its own over WebSocket (RFC 7395 §3.3.3).
    pub const MESSAGE: Self = Self {
        default_ns: "",
        stream_prefix: false,
        server: false,
    };
}

/// Appends an element to `out`.
pub fn serialise(out: &mut Vec<u8>, element: &Element, form: Form<'_>) {
    write(out, element, form, form.server && element.ns() == ns::CLIENT);
}

/// How a name is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Prefix {
    None,
    Xml,
    Stream,
    Dialback,
}

/// `swap` while everything above, up to the stanza, is in a content namespace that is called otherwise on this stream.
fn write(out: &mut Vec<u8>, element: &Element, form: Form<'_>, swap: bool) {
    let swapped = if swap { swapped_content(element.ns()) } else { None };
    let namespace = swapped.unwrap_or(element.ns());
    let mut inside = form;
    let prefix = if namespace == form.default_ns {
        Prefix::None
    } else {
        match namespace {
            ns::XML => Prefix::Xml,
            ns::STREAMS => Prefix::Stream,
            ns::DIALBACK if form.server => Prefix::Dialback,
            _ => Prefix::None,
        }
    };
    out.push(b'<');
    let start = out.len();
    out.extend_from_slice(match prefix {
        Prefix::None => b"",
        Prefix::Xml => b"xml:",
        Prefix::Stream => b"stream:",
        Prefix::Dialback => b"db:",
    });
    out.extend_from_slice(element.name().as_bytes());
    let end = out.len();
    match prefix {
        Prefix::Stream if !form.stream_prefix => {
            attribute(out, "xmlns:stream", ns::STREAMS);
            inside.stream_prefix = true;
        }
        Prefix::None if namespace != form.default_ns => {
            attribute(out, "xmlns", namespace);
            inside.default_ns = namespace;
        }
        _ => {}
    }
    for (index, attr) in element.attrs().iter().enumerate() {
        match attr.key.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) {
            Some((namespace, local)) => {
                attribute(out, &format!("xmlns:n{index}"), namespace);
                attribute(out, &format!("n{index}:{local}"), &attr.value);
            }
            None => attribute(out, &attr.key, &attr.value),
        }
    }
    if element.children().is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    for node in element.children() {
        match node {
            Node::Element(child) => write(out, child, inside, swapped.is_some()),
            Node::Text(text) => escape_text(out, text),
        }
    }
    out.extend_from_slice(b"</");
    out.extend_from_within(start..end);
    out.push(b'>');
}

fn attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_attribute(out, value);
    out.push(b'\'');
}

/// Appends a value that is to stand between single quotes.
pub fn escape_attribute(out: &mut Vec<u8>, value: &str) {
    escape(out, value.as_bytes(), |byte| match byte {
        b'&' => Some(b"&amp;"),
        b'<' => Some(b"&lt;"),
        b'>' => Some(b"&gt;"),
        b'\'' => Some(b"&apos;"),
        b'\t' => Some(b"&#x9;"),
        b'\n' => Some(b"&#xA;"),
        b'\r' => Some(b"&#xD;"),
        _ => None,
    });
}

/// Appends character data.
pub fn escape_text(out: &mut Vec<u8>, text: &str) {
    escape(out, text.as_bytes(), |byte| match byte {
        b'&' => Some(b"&amp;"),
        b'<' => Some(b"&lt;"),
        b'>' => Some(b"&gt;"),
        b'\r' => Some(b"&#xD;"),
        _ => None,
    });
}

fn escape(out: &mut Vec<u8>, bytes: &[u8], replace: impl Fn(u8) -> Option<&'static [u8]>) {
    let mut plain = 0;
    for (index, byte) in bytes.iter().enumerate() {
        // Nothing above '>' is ever replaced; this keeps the common byte cheap.
        if *byte <= b'>' {
            if let Some(replacement) = replace(*byte) {
                out.extend_from_slice(&bytes[plain..index]);
                out.extend_from_slice(replacement);
                plain = index + 1;
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}
