//! What the plane reads out of a stanza: traits of messages, what may wait for an inactive client, what goes out for it.

use std::sync::Arc;

use moim_plane::xmpp::fuzzing::{is_forged, Held, Parcel, Traits};
use moim_plane::xmpp::{archivable, copied, ArchiveIds};
use moim_wire::xml::{Element, Framer, Limits, XmlEvent};

/// One input: any number of elements.
pub fn run(data: &[u8]) {
    let mut framer = Framer::stream(Limits::bytes(16_384));
    let header =
        b"<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
    let mut input = [header.as_slice(), data].concat();
    input.truncate(65_536);
    let (mut rest, mut held) = (input.as_slice(), Held::default());
    let (mut given, mut back) = (0, 0);
    while let Ok(Some(event)) = framer.next(&mut rest) {
        let XmlEvent::Element(element, _) = event else { continue };
        judge(&element);
        given += 1;
        if held.take(Parcel::sole(Arc::new(element))).is_err() {
            back += 1;
        }
    }
    let released = held.release().len();
    assert!(released + back <= given && released <= 512, "nothing comes twice");
    assert!(held.release().is_empty());
}

fn judge(message: &Element) {
    let serves = |domain: &str| domain == "x";
    let traits = Traits::of(message, serves);
    assert_eq!(traits, Traits::of(message, serves));
    if message.name() == "message" && matches!(message.attr("type"), None | Some("chat" | "normal")) {
        assert_eq!((traits.archived, traits.copied), (archivable(message), copied(message)));
    }
    let (ids, owner) = (
        ArchiveIds::new(*b"what fuzzers see"),
        message.attr("by").unwrap_or("b@x"),
    );
    for text in message.attrs().iter().map(|attr| attr.value.as_str()) {
        if let Some(number) = ids.read(owner, text) {
            assert_eq!(ids.write(owner, number), text, "nothing has two names");
        }
    }
    let mut clean = message.clone();
    clean.retain_elements(|child| !is_forged(child, serves));
    assert!(!Traits::of(&clean, serves).forged, "what is forged can be taken out");
    let mut twice = message.clone();
    twice.swap_content();
    twice.swap_content();
    assert_eq!(&twice, message, "on the way to another server and back");
}
