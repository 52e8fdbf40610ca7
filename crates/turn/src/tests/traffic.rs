//! Permissions, channels and what passes through them.

use super::*;

const PEER: &str = "192.0.2.77:5000";

fn peer() -> SocketAddr {
    PEER.parse().unwrap()
}

#[test]
fn nothing_passes_without_a_permission() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    assert_eq!(client.send(&mut world, PEER, b"x"), None);
    client.allocate(&mut world);
    assert_eq!(client.send(&mut world, PEER, b"x"), None);
    assert_eq!(world.peer_sends(peer(), b"x"), None);
    assert_eq!(world.server.counters().dropped, 3);
    assert_eq!(client.permit(&mut world, "192.0.2.77:0"), 0);
    assert_eq!(
        client.send(&mut world, PEER, b"hello"),
        Some((peer(), b"hello".to_vec()))
    );
    assert_eq!(client.send(&mut world, "192.0.2.78:5000", b"x"), None);
}

#[test]
fn peers_answer_in_data_indications() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.permit(&mut world, PEER);
    let mut transactions = HashSet::new();
    for payload in [&b"answer"[..], b"", b"1234"] {
        let framed = world.peer_sends(peer(), payload).unwrap();
        let message = Message::parse(&framed).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
        assert_eq!(
            message.get(kind::XOR_PEER_ADDRESS),
            Ok(Some(Attribute::XorPeerAddress(peer())))
        );
        assert_eq!(message.get(kind::DATA), Ok(Some(Attribute::Data(payload))));
        transactions.insert(message.transaction());
    }
    assert_eq!(transactions.len(), 3);
}

#[test]
fn channels_carry_both_ways() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    assert_eq!(client.send_over(&mut world, 0x4001, b"x"), None);
    assert_eq!(client.bind(&mut world, 0x4001, PEER), 0);
    assert_eq!(
        client.send_over(&mut world, 0x4001, b"ping"),
        Some((peer(), b"ping".to_vec()))
    );
    assert_eq!(client.send_over(&mut world, 0x4001, b""), Some((peer(), Vec::new())));
    assert_eq!(
        world.peer_sends(peer(), b"pong"),
        Some(b"\x40\x01\x00\x04pong".to_vec())
    );
    let other_port = "192.0.2.77:5001".parse().unwrap();
    let framed = world.peer_sends(other_port, b"pong").unwrap();
    assert!(
        Message::parse(&framed).is_ok(),
        "the permission covers the address, the channel only one port"
    );
    assert_eq!(client.send(&mut world, PEER, b"mixed").unwrap().1, b"mixed");
}

#[test]
fn padded_channel_data_is_accepted_and_short_is_not() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.bind(&mut world, 0x4001, PEER);
    let forward = world.feed(client.address, b"\x40\x01\x00\x03abc\0").unwrap();
    assert_eq!(forward.payload, 4..7);
    assert_eq!(world.feed(client.address, b"\x40\x01\x00\x05abc\0"), None);
    assert_eq!(world.feed(client.address, b"\x50\x01\x00\x03abc\0"), None);
}

#[test]
fn dont_fragment_is_passed_on() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.permit(&mut world, PEER);
    for (flag, expected) in [(Some(Attribute::DontFragment), true), (None, false)] {
        let mut builder = Builder::new(Class::Indication, Method::SEND, &[9; 12]);
        builder
            .add(&Attribute::XorPeerAddress(peer()))
            .add(&Attribute::Data(b"x"));
        flag.iter().for_each(|attribute| {
            builder.add(attribute);
        });
        assert_eq!(
            world.feed(client.address, &builder.finish()).unwrap().dont_fragment,
            expected
        );
    }
}

#[test]
fn permissions_last_five_minutes_and_channels_ten() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.refresh(&mut world, 3600);
    client.bind(&mut world, 0x4001, PEER);
    world.pass(299);
    assert!(client.send_over(&mut world, 0x4001, b"x").is_some());
    world.pass(1);
    assert_eq!(
        client.send_over(&mut world, 0x4001, b"x"),
        None,
        "data refreshes nothing"
    );
    assert_eq!(world.peer_sends(peer(), b"x"), None);
    client.permit(&mut world, PEER);
    assert!(client.send_over(&mut world, 0x4001, b"x").is_some());
    world.pass(299);
    client.permit(&mut world, PEER);
    world.pass(1);
    assert_eq!(client.send_over(&mut world, 0x4001, b"x"), None, "the channel is over");
    assert!(
        Message::parse(&world.peer_sends(peer(), b"x").unwrap()).is_ok(),
        "the permission is not"
    );
    assert_eq!(
        client.bind(&mut world, 0x4002, PEER),
        0,
        "the peer is free for another channel"
    );
}

#[test]
fn a_channel_and_a_peer_belong_to_each_other() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 437);
    client.allocate(&mut world);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4000, PEER), 0);
    assert_eq!(client.bind(&mut world, 0x4001, PEER), 400);
    assert_eq!(client.bind(&mut world, 0x4000, "192.0.2.77:5001"), 400);
    let no_number = client.ask(&mut world, Method::CHANNEL_BIND, &[Attribute::XorPeerAddress(peer())]);
    assert_eq!(no_number.code(), 400);
    let no_peer = client.ask(&mut world, Method::CHANNEL_BIND, &[Attribute::ChannelNumber(0x4002)]);
    assert_eq!(no_peer.code(), 400);
}

#[test]
fn channel_numbers_follow_the_setting() {
    for (old, cases) in [
        (
            false,
            [(0x3FFF, 400), (0x4FFF, 0), (0x5000, 400), (0x7FFF, 400), (0x8000, 400)],
        ),
        (
            true,
            [(0x3FFF, 400), (0x4FFF, 0), (0x5000, 0), (0x7FFF, 0), (0x8000, 400)],
        ),
    ] {
        let mut world = World::with(Options {
            old_channel_range: old,
            ..Options::default()
        });
        let client = Client::new(&mut world, "203.0.113.5:40000");
        client.allocate(&mut world);
        for (index, (number, code)) in cases.into_iter().enumerate() {
            assert_eq!(
                client.bind(&mut world, number, &format!("192.0.2.{index}:1")),
                code,
                "{number:x} {old}"
            );
        }
        assert_eq!(client.send_over(&mut world, 0x7FFF, b"x").is_some(), old);
    }
}

#[test]
fn denied_peers_are_forbidden_by_every_request() {
    let mut world = World::with(Options {
        allow: &["10.0.0.7:7000"],
        ..Options::default()
    });
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    for peer in ["127.0.0.1:1", "10.0.0.1:1", "198.51.100.1:3478", "224.0.0.1:1"] {
        assert_eq!(client.permit(&mut world, peer), 403, "{peer}");
        assert_eq!(client.bind(&mut world, 0x4000, peer), 403, "{peer}");
        assert_eq!(client.send(&mut world, peer, b"x"), None);
    }
    assert_eq!(client.permit(&mut world, "[::1]:1"), 443);
    let mixed = [
        Attribute::XorPeerAddress(peer()),
        Attribute::XorPeerAddress("10.0.0.1:1".parse().unwrap()),
    ];
    assert_eq!(client.ask(&mut world, Method::CREATE_PERMISSION, &mixed).code(), 403);
    assert_eq!(client.send(&mut world, PEER, b"x"), None, "all or none");
    assert!(world
        .events
        .iter()
        .any(|event| matches!(event, Event::Refused { code: 403, reason, .. }
        if reason == "peer 198.51.100.1 is an address of this server")));
    // One port allowed by name: the permission for its address covers only that port, both ways.
    assert_eq!(client.permit(&mut world, "10.0.0.7:1"), 0);
    assert!(client.send(&mut world, "10.0.0.7:7000", b"x").is_some());
    assert_eq!(client.send(&mut world, "10.0.0.7:7001", b"x"), None);
    assert_eq!(client.bind(&mut world, 0x4000, "10.0.0.7:7001"), 403);
    assert_eq!(client.bind(&mut world, 0x4000, "10.0.0.7:7000"), 0);
    assert!(world.peer_sends("10.0.0.7:7000".parse().unwrap(), b"x").is_some());
    assert!(world.peer_sends("10.0.0.7:7001".parse().unwrap(), b"x").is_none());
}

#[test]
fn new_rules_end_what_they_deny() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.bind(&mut world, 0x4000, PEER);
    client.permit(&mut world, "192.0.2.200:1");
    world
        .server
        .set_policy(policy(&[(USER, PASSWORD)], &[], &["192.0.2.77"]));
    world.settle();
    assert_eq!(client.send_over(&mut world, 0x4000, b"x"), None);
    assert_eq!(world.peer_sends(peer(), b"x"), None);
    assert!(client.send(&mut world, "192.0.2.200:9", b"x").is_some());
}

#[test]
fn permissions_and_channels_are_bounded() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    for index in 0..128u16 {
        assert_eq!(
            client.bind(&mut world, 0x4000 + index, &format!("192.0.2.{index}:1")),
            0
        );
    }
    assert_eq!(client.bind(&mut world, 0x4100, "192.0.2.200:1"), 508);
    assert_eq!(client.permit(&mut world, "192.0.2.200:1"), 508);
    assert_eq!(client.bind(&mut world, 0x4100, "192.0.2.1:2"), 508);
    assert_eq!(client.permit(&mut world, "192.0.2.1:1"), 0);
}

#[test]
fn the_table_shows_peers_and_counters() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let relay = client.allocate(&mut world);
    client.bind(&mut world, 0x4000, PEER);
    client.permit(&mut world, "10.0.0.1:1");
    client.send_over(&mut world, 0x4000, b"12345");
    client.send(&mut world, PEER, b"123");
    world.peer_sends(peer(), b"1234567");
    client.send(&mut world, "192.0.2.9:1", b"dropped");
    world.pass(10);
    let rows = world.server.allocations(world.now);
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(
        (row.flow.client, &row.relays, row.username.as_str()),
        (client.address, &vec![relay], USER)
    );
    assert_eq!((row.age_s, row.expires_in_s), (10, 590));
    assert_eq!(row.to_peers, Traffic { packets: 2, bytes: 8 });
    assert_eq!(row.from_peers, Traffic { packets: 1, bytes: 7 });
    assert_eq!((row.requests, row.successes, row.errors, row.dropped), (3, 2, 1, 1));
    assert_eq!((row.permissions.len(), row.channels.len()), (1, 1));
    assert_eq!(row.channels[0].to_peer, Traffic { packets: 1, bytes: 5 });
    assert_eq!(row.permissions[0].to_peer, Traffic { packets: 2, bytes: 8 });
    assert_eq!(
        (row.channels[0].expires_in_s, row.permissions[0].expires_in_s),
        (590, 290)
    );
    assert_eq!(world.server.counters().packets_to_peers, 2);
}

#[test]
fn streams_get_padded_channel_data() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let flow = Flow {
        client: client.address,
        transport: Transport::Stream,
    };
    let requests = [
        client.build(&mut world, Method::ALLOCATE, &[UDP]),
        client.build(
            &mut world,
            Method::CHANNEL_BIND,
            &[Attribute::ChannelNumber(0x4000), Attribute::XorPeerAddress(peer())],
        ),
    ];
    for bytes in requests {
        world.server.receive(world.now, flow, &bytes);
        world.settle();
    }
    assert_eq!(
        world.peer_sends(peer(), b"abcde"),
        Some(b"\x40\x00\x00\x05abcde\0\0\0".to_vec())
    );
    world.server.flow_closed(&flow);
    world.settle();
    assert!(world.bound.is_empty());
}
