//! STUN and ChannelData as they come from anybody: reading never fails badly, and what was read can be written again.

use moim_wire::stun::{channel_data, kind, Attribute, Builder, Message};

/// One input.
pub fn run(data: &[u8]) {
    if let Some((channel, payload)) = channel_data(data) {
        assert!((0x4000..0x8000).contains(&channel));
        assert!(data.get(payload).is_some());
    }
    let Ok(message) = Message::parse(data) else {
        return;
    };
    let transaction = message.transaction();
    let _ = message.fingerprint();
    let mut decoded = Vec::new();
    for raw in message.attributes() {
        let _ = message.verify_sha1(&raw, b"key") || message.verify_sha256(&raw, b"key");
        let Ok(attribute) = Attribute::decode(&raw, &transaction) else {
            continue;
        };
        // Seals hide what follows them, so they cannot stand anywhere in a message that is read back whole.
        if !matches!(
            raw.kind,
            kind::MESSAGE_INTEGRITY | kind::MESSAGE_INTEGRITY_SHA256 | kind::FINGERPRINT
        ) {
            decoded.push(attribute);
        }
    }
    let mut builder = Builder::new(message.class(), message.method(), &transaction);
    for attribute in &decoded {
        builder.add(attribute);
    }
    let bytes = builder.integrity_sha256(b"key").fingerprint().finish();
    let again = Message::parse(&bytes).expect("what was built is a message");
    assert_eq!((again.class(), again.method()), (message.class(), message.method()));
    for (raw, attribute) in again.attributes().zip(&decoded) {
        let read = Attribute::decode(&raw, &transaction).expect("what was built can be read");
        // Reasons that were not UTF-8 are mended on the way, so the second reading is the one that must be stable.
        assert_eq!(&read, attribute);
    }
}
