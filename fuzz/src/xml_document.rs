//! Single documents, as WebSocket messages are: read, written in the canonical form, and read again they are the same.

use moim_wire::xml::{serialise, Element, Form, Framer, Limits, XmlEvent};

fn parse(bytes: &[u8], limits: Limits) -> Option<Element> {
    let mut framer = Framer::document(limits);
    let mut rest = bytes;
    let Ok(Some(XmlEvent::Element(element, _))) = framer.next(&mut rest) else {
        return None;
    };
    let clean = matches!(framer.next(&mut rest), Ok(None)) && framer.end_document().is_ok();
    clean.then_some(element)
}

/// One input.
pub fn run(data: &[u8]) {
    let Some(element) = parse(data, Limits::bytes(65_536)) else {
        return;
    };
    let mut out = Vec::new();
    serialise(&mut out, &element, Form::MESSAGE);
    // Escapes and repeated declarations may make it longer, within reason.
    assert!(out.len() <= 8 * 65_536 + 8 * data.len());
    assert_eq!(
        parse(
            &out,
            Limits {
                max_nodes: u32::MAX,
                ..Limits::bytes(u32::MAX)
            }
        ),
        Some(element)
    );
}
