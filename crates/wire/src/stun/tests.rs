//! The vectors of RFC 5769 and RFC 8489 appendix B, and properties of the codec.

use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

/// RFC 5769 section 2.1.
fn sample_request() -> Vec<u8> {
    unhex(
        "00010058 2112a442 b7e7a701bc34d686fa87dfae 80220010 5354554e207465737420636c69656e74 00240004 6e0001ff
         80290008 932ff9b151263b36 00060009 6576746a3a68367659 202020
         00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004 e57a3bcf",
    )
}

/// RFC 5769 section 2.2.
fn sample_ipv4_response() -> Vec<u8> {
    unhex(
        "0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f72 20 00200008 0001a147e112a643
         00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96",
    )
}

/// RFC 5769 section 2.3.
fn sample_ipv6_response() -> Vec<u8> {
    unhex(
        "01010048 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f72 20
         00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
         00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004 c8fb0b4c",
    )
}

/// RFC 5769 section 2.4.
fn sample_long_term_request() -> Vec<u8> {
    unhex(
        "00010060 2112a442 78ad3433c6ad72c029da412e 00060012 e3839ee38388e383aae38383e382afe382b9 0000
         0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341 0014000b 6578616d706c652e6f7267 00
         00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666",
    )
}

/// RFC 8489 appendix B.1, with the corrections of its verified errata.
fn sample_sha256_request() -> Vec<u8> {
    unhex(
        "00010090 2112a442 78ad3433c6ad72c029da412e
         001e0020 4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704
         00150029 6f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341 000000
         0014000b 6578616d706c652e6f7267 00 001d0004 00020000
         001c0020 b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65",
    )
}

#[test]
fn sample_request_verifies() {
    let bytes = sample_request();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(
        message.get(kind::SOFTWARE),
        Ok(Some(Attribute::Software("STUN test client")))
    );
    assert_eq!(message.get(kind::USERNAME), Ok(Some(Attribute::Username("evtj:h6vY"))));
    assert_eq!(message.fingerprint(), Fingerprint::Valid);
    let integrity = message.raw(kind::MESSAGE_INTEGRITY).unwrap();
    assert!(message.verify_sha1(&integrity, SHORT_TERM_PASSWORD));
    assert!(!message.verify_sha1(&integrity, b"another"));
}

#[test]
fn sample_responses_carry_the_mapped_address() {
    for (bytes, ip) in [
        (sample_ipv4_response(), "192.0.2.1"),
        (sample_ipv6_response(), "2001:db8:1234:5678:11:2233:4455:6677"),
    ] {
        let message = Message::parse(&bytes).unwrap();
        let expected = SocketAddr::new(ip.parse().unwrap(), 32853);
        assert_eq!(message.class(), Class::Success);
        assert_eq!(
            message.get(kind::XOR_MAPPED_ADDRESS),
            Ok(Some(Attribute::XorMappedAddress(expected)))
        );
        assert_eq!(message.fingerprint(), Fingerprint::Valid);
        let integrity = message.raw(kind::MESSAGE_INTEGRITY).unwrap();
        assert!(message.verify_sha1(&integrity, SHORT_TERM_PASSWORD));
    }
}

#[test]
fn sample_long_term_request_verifies_and_is_rebuilt() {
    let bytes = sample_long_term_request();
    let message = Message::parse(&bytes).unwrap();
    let key = long_term_key_md5(USER, "example.org", "TheMatrIX");
    let integrity = message.raw(kind::MESSAGE_INTEGRITY).unwrap();
    assert!(message.verify_sha1(&integrity, &key));
    let rebuilt = Builder::new(Class::Request, Method::BINDING, &message.transaction())
        .add(&Attribute::Username(USER))
        .add(&Attribute::Nonce(b"f//499k954d6OL34oL9FSTvy64sA"))
        .add(&Attribute::Realm("example.org"))
        .integrity_sha1(&key)
        .finish();
    assert_eq!(rebuilt, bytes);
}

#[test]
fn sample_sha256_request_verifies_and_is_rebuilt() {
    let bytes = sample_sha256_request();
    let message = Message::parse(&bytes).unwrap();
    let key = long_term_key_sha256(USER, "example.org", "TheMatrIX");
    let hash = user_hash(USER, "example.org");
    assert_eq!(message.get(kind::USERHASH), Ok(Some(Attribute::UserHash(hash))));
    let integrity = message.raw(kind::MESSAGE_INTEGRITY_SHA256).unwrap();
    assert!(message.verify_sha256(&integrity, &key));
    let rebuilt = Builder::new(Class::Request, Method::BINDING, &message.transaction())
        .add(&Attribute::UserHash(hash))
        .add(&Attribute::Nonce(b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"))
        .add(&Attribute::Realm("example.org"))
        .add(&Attribute::PasswordAlgorithm(Algorithm::Sha256))
        .integrity_sha256(&key)
        .finish();
    assert_eq!(rebuilt, bytes);
}

#[test]
fn key_example_of_rfc_8489_section_9_2_2() {
    assert_eq!(
        long_term_key_md5("user", "realm", "pass").to_vec(),
        unhex("8493fbc53ba582fb4c044c456bdc40eb")
    );
}

#[test]
fn base64_vectors_of_rfc_4648() {
    for (plain, coded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}

#[test]
fn message_types_of_turn() {
    assert_eq!(message_type(Class::Request, Method::ALLOCATE), 0x0003);
    assert_eq!(message_type(Class::Success, Method::ALLOCATE), 0x0103);
    assert_eq!(message_type(Class::Error, Method::CHANNEL_BIND), 0x0119);
    assert_eq!(message_type(Class::Indication, Method::SEND), 0x0016);
    assert_eq!(message_type(Class::Indication, Method::DATA), 0x0017);
}

#[test]
fn malformed_headers_are_told_apart() {
    let good = sample_request();
    let with = |at: usize, byte: u8| {
        let mut changed = good.clone();
        changed[at] = byte;
        changed
    };
    assert_eq!(Message::parse(&good[..19]).err(), Some(ParseError::Truncated));
    assert_eq!(Message::parse(&good[..104]).err(), Some(ParseError::Truncated));
    assert_eq!(Message::parse(&with(0, 0x40)).err(), Some(ParseError::NotStun));
    assert_eq!(Message::parse(&with(5, 0)).err(), Some(ParseError::NotStun));
    assert_eq!(Message::parse(&with(3, 0x57)).err(), Some(ParseError::Length));
    assert_eq!(Message::parse(&with(3, 0x54)).err(), Some(ParseError::Length));
    assert_eq!(
        Message::parse(&with(22, 0x7F)).err(),
        Some(ParseError::AttributeOverrun)
    );
}

#[test]
fn too_many_attributes_are_refused() {
    let mut builder = Builder::new(Class::Request, Method::BINDING, &[0; 12]);
    for _ in 0..=MAX_ATTRIBUTES {
        builder.add(&Attribute::DontFragment);
    }
    assert_eq!(
        Message::parse(&builder.finish()).err(),
        Some(ParseError::TooManyAttributes)
    );
}

#[test]
fn nothing_counts_after_the_seals() {
    let bytes = Builder::new(Class::Request, Method::ALLOCATE, &[1; 12])
        .add(&Attribute::Username("u"))
        .integrity_sha1(b"k")
        .add(&Attribute::Lifetime(1))
        .integrity_sha256(b"k")
        .add(&Attribute::Realm("r"))
        .fingerprint()
        .finish();
    let kinds: Vec<u16> = Message::parse(&bytes)
        .unwrap()
        .attributes()
        .map(|found| found.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            kind::USERNAME,
            kind::MESSAGE_INTEGRITY,
            kind::MESSAGE_INTEGRITY_SHA256,
            kind::FINGERPRINT
        ]
    );
}

#[test]
fn shortened_sha256_integrity_is_accepted_down_to_sixteen_bytes() {
    for (length, fits) in [(32, true), (16, true), (12, false)] {
        let mut bytes = Builder::new(Class::Request, Method::ALLOCATE, &[1; 12]).finish();
        bytes[2..4].copy_from_slice(&(4 + length as u16).to_be_bytes());
        let digest = hmac_sha256(b"key", &bytes);
        bytes.extend_from_slice(&kind::MESSAGE_INTEGRITY_SHA256.to_be_bytes());
        bytes.extend_from_slice(&(length as u16).to_be_bytes());
        bytes.extend_from_slice(&digest[..length]);
        let message = Message::parse(&bytes).unwrap();
        let found = message.raw(kind::MESSAGE_INTEGRITY_SHA256).unwrap();
        assert_eq!(message.verify_sha256(&found, b"key"), fits, "{length}");
    }
}

#[test]
fn channel_data_is_framed_and_read() {
    let mut buffer = [0xAA; 64];
    let message = put_channel_header(&mut buffer, 16..21, 0x4001, true);
    assert_eq!(message, 12..24);
    assert_eq!(
        buffer[12..24],
        [0x40, 0x01, 0, 5, 0xAA, 0xAA, 0xAA, 0xAA, 0xAA, 0, 0, 0]
    );
    assert_eq!(channel_data(&buffer[message.clone()]), Some((0x4001, 4..9)));
    assert_eq!(channel_data(&buffer[12..20]), None, "shorter than its length field");
    assert_eq!(channel_data(&[0x40, 0, 0]), None);
    assert_eq!(channel_data(&[0x40, 0, 0, 0]), Some((0x4000, 4..4)), "empty is valid");
    assert_eq!(channel_data(&sample_request()), None);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn attribute() -> impl Strategy<Value = Attribute<'static>> {
    use std::borrow::Cow;
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        address().prop_map(Attribute::MappedAddress),
        address().prop_map(Attribute::XorMappedAddress),
        address().prop_map(Attribute::XorPeerAddress),
        address().prop_map(Attribute::XorRelayedAddress),
        address().prop_map(Attribute::AlternateServer),
        any::<[u8; 32]>().prop_map(Attribute::UserHash),
        any::<u32>().prop_map(Attribute::Lifetime),
        any::<u16>().prop_map(Attribute::ChannelNumber),
        any::<u8>().prop_map(Attribute::RequestedTransport),
        any::<bool>().prop_map(Attribute::EvenPort),
        any::<[u8; 8]>().prop_map(Attribute::ReservationToken),
        Just(Attribute::DontFragment),
        Just(Attribute::Username("사용자")),
        Just(Attribute::Realm("example.org")),
        Just(Attribute::Software("x")),
        Just(Attribute::Data(b"payload")),
        Just(Attribute::PasswordAlgorithm(Algorithm::Sha256)),
        Just(Attribute::PasswordAlgorithms(
            Attribute::algorithm_list(&[Algorithm::Sha256, Algorithm::Md5]).into()
        )),
        family.clone().prop_map(Attribute::RequestedAddressFamily),
        family.clone().prop_map(Attribute::AdditionalAddressFamily),
        (300u16..700, family).prop_map(|(code, family)| Attribute::AddressErrorCode {
            family,
            code,
            reason: Cow::Borrowed("why")
        }),
        (300u16..700).prop_map(|code| Attribute::ErrorCode {
            code,
            reason: Cow::Borrowed("정말")
        }),
        prop::collection::vec(any::<u16>(), 0..8).prop_map(|kinds| Attribute::UnknownAttributes(kinds.into())),
        (any::<u8>(), any::<u8>(), any::<u32>()).prop_map(|(kind, code, data)| Attribute::Icmp(Icmp {
            kind,
            code,
            data
        })),
    ]
}

proptest! {
    #[test]
    fn type_field_round_trips(method in 0u16..0x1000) {
        for class in [Class::Request, Class::Indication, Class::Success, Class::Error] {
            let field = message_type(class, Method(method));
            prop_assert_eq!(field & 0xC000, 0);
            prop_assert_eq!(split_message_type(field), (class, Method(method)));
        }
    }

    #[test]
    fn what_is_built_is_read_back(
        attributes in prop::collection::vec(attribute(), 0..20),
        transaction in any::<[u8; 12]>(),
    ) {
        let mut builder = Builder::new(Class::Success, Method::ALLOCATE, &transaction);
        attributes.iter().for_each(|one| { builder.add(one); });
        let bytes = builder.integrity_sha1(b"key").fingerprint().finish();
        let message = Message::parse(&bytes).unwrap();
        let read: Vec<_> = message
            .attributes()
            .map(|raw| Attribute::decode(&raw, &transaction).unwrap())
            .take(attributes.len())
            .collect();
        prop_assert_eq!(read, attributes);
        prop_assert_eq!(message.fingerprint(), Fingerprint::Valid);
        prop_assert!(message.verify_sha1(&message.raw(kind::MESSAGE_INTEGRITY).unwrap(), b"key"));
    }

    #[test]
    fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = channel_data(&bytes);
        exercise(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic_and_never_verify(at in 0usize..108, change in 1u8..=255) {
        let mut bytes = sample_request();
        bytes[at] ^= change;
        exercise(&bytes);
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert_ne!(message.fingerprint(), Fingerprint::Valid);
            let integrity = message.raw(kind::MESSAGE_INTEGRITY);
            // Bytes 100 and later are the fingerprint, which integrity does not cover.
            prop_assert!(at >= 100 || !integrity.is_some_and(|found| message.verify_sha1(&found, SHORT_TERM_PASSWORD)));
        }
    }

    #[test]
    fn data_indications_are_framed_in_place(
        peer in address(),
        payload in prop::collection::vec(any::<u8>(), 0..64),
        transaction in any::<[u8; 12]>(),
    ) {
        let mut buffer = vec![0xEE; HEADROOM];
        buffer.extend_from_slice(&payload);
        buffer.extend_from_slice(&[0xEE; TAILROOM]);
        let range = put_data_indication(&mut buffer, HEADROOM..HEADROOM + payload.len(), peer, &transaction).unwrap();
        let message = Message::parse(&buffer[range]).unwrap();
        prop_assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
        prop_assert_eq!(message.get(kind::XOR_PEER_ADDRESS), Ok(Some(Attribute::XorPeerAddress(peer))));
        prop_assert_eq!(message.get(kind::DATA), Ok(Some(Attribute::Data(&payload))));
    }
}

fn exercise(bytes: &[u8]) {
    if let Ok(message) = Message::parse(bytes) {
        let _ = (message.class(), message.method(), message.fingerprint());
        for raw in message.attributes() {
            let _ = Attribute::decode(&raw, &message.transaction());
            let _ = message.verify_sha1(&raw, b"k") || message.verify_sha256(&raw, b"k");
        }
    }
}
