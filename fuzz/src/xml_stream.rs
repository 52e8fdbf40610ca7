//! The framer as a server meets it: a stream in two cuts gives the same events, and what it lets in can be sent on, to a
//! client and to another server.
//!
//! The first byte of the input says where the rest is cut.

use moim_wire::xml::{ns, serialise, Element, Form, Framer, Limits, XmlEvent};

const FORM: Form<'static> = Form {
    default_ns: ns::CLIENT,
    stream_prefix: false,
    server: false,
};

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let mut framer = Framer::stream(Limits::bytes(4096));
    let mut seen = Vec::new();
    for mut piece in pieces {
        loop {
            match framer.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(XmlEvent::Element(element, _))) => {
                    sent_to_a_server(&element);
                    seen.push(sent_on(&element));
                }
                Ok(Some(other)) => seen.push(format!("{other:?}")),
                Err(error) => {
                    seen.push(error.to_string());
                    return seen;
                }
            }
        }
    }
    seen
}

/// The canonical form, which must mean what the element means.
fn sent_on(element: &Element) -> String {
    let mut out = b"<w xmlns='jabber:client'>".to_vec();
    serialise(&mut out, element, FORM);
    out.extend_from_slice(b"</w>");
    let mut framer = Framer::document(Limits::bytes(1 << 20));
    match framer.next(&mut out.as_slice()) {
        Ok(Some(XmlEvent::Element(outer, _))) => {
            assert_eq!(outer.elements().next().map(|inner| &**inner), Some(element));
        }
        other => panic!("{other:?}"),
    }
    String::from_utf8(out).expect("the serialiser writes UTF-8")
}

/// On the way to another server a stanza changes its namespace; there it means the same again.
fn sent_to_a_server(element: &Element) {
    let mut out = b"<w xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
        xmlns:stream='http://etherx.jabber.org/streams'>"
        .to_vec();
    serialise(&mut out, element, Form::SERVER);
    out.extend_from_slice(b"</w>");
    let mut framer = Framer::document(Limits::bytes(1 << 20));
    match framer.next(&mut out.as_slice()) {
        Ok(Some(XmlEvent::Element(outer, _))) => {
            let mut inner = outer.elements().next().map(|inner| Element::clone(inner));
            if let Some(stanza) = inner.as_mut().filter(|_| element.ns() == ns::CLIENT) {
                stanza.swap_content();
            }
            assert_eq!(inner.as_ref(), Some(element));
        }
        other => panic!("{other:?}"),
    }
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (left, right) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let at_once = read([bytes]);
    assert_eq!(at_once, read([left, right]));
    assert_eq!(at_once, read(bytes.chunks(1)));
}
