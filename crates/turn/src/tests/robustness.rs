//! Rubbish, damage and random conversations: the machine never panics and never loses count.

use super::*;
use proptest::prelude::*;

const FINGERPRINT_BYTES: usize = 8;

#[test]
fn rubbish_is_dropped_in_silence() {
    let mut world = World::new();
    let address = "203.0.113.5:40000".parse().unwrap();
    let unknown_method = Builder::new(Class::Request, Method::CONNECT, &[1; 12]).finish();
    let answer = Builder::new(Class::Success, Method::ALLOCATE, &[1; 12]).finish();
    let mut bad_fingerprint = Builder::new(Class::Request, Method::BINDING, &[1; 12])
        .fingerprint()
        .finish();
    *bad_fingerprint.last_mut().unwrap() ^= 1;
    let keep_alive = Builder::new(Class::Indication, Method::BINDING, &[1; 12]).finish();
    for bytes in [
        &b""[..],
        b"\0",
        b"\x16\x03\x01",
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        world.silence(address, bytes);
    }
    for bytes in [unknown_method, answer, bad_fingerprint, keep_alive] {
        world.silence(address, &bytes);
    }
}

#[test]
fn send_indications_with_unknown_demands_are_dropped() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.permit(&mut world, "192.0.2.1:1");
    let peer = Attribute::XorPeerAddress("192.0.2.1:1".parse().unwrap());
    let data = Attribute::Data(b"x");
    let strange = Attribute::Other {
        kind: 0x7ABC,
        value: b"",
    };
    let optional = Attribute::Other {
        kind: 0xFABC,
        value: b"",
    };
    for (attributes, passes) in [
        (vec![peer.clone(), data.clone()], true),
        (vec![data.clone(), optional, peer.clone()], true),
        (vec![peer.clone()], false),
        (vec![data.clone()], false),
        (vec![peer, data, strange], false),
    ] {
        let mut builder = Builder::new(Class::Indication, Method::SEND, &[1; 12]);
        attributes.iter().for_each(|attribute| {
            builder.add(attribute);
        });
        assert_eq!(world.feed(client.address, &builder.finish()).is_some(), passes);
    }
}

#[test]
fn late_packets_of_a_closed_relay_go_nowhere() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.permit(&mut world, "192.0.2.1:1");
    let old = *world.bound.keys().next().unwrap();
    client.refresh(&mut world, 0);
    client.allocate(&mut world);
    client.permit(&mut world, "192.0.2.1:1");
    let mut buffer = [0; HEADROOM + 1 + TAILROOM];
    let place = HEADROOM..HEADROOM + 1;
    let peer = "192.0.2.1:1".parse().unwrap();
    assert_eq!(world.server.relayed(world.now, old, peer, &mut buffer, place), None);
    assert_eq!(RelayId::from_bits(old.to_bits()), old);
}

#[derive(Clone, Debug)]
enum Step {
    Ask { who: usize, what: usize },
    Data { who: usize, channel: u16 },
    Rubbish(Vec<u8>),
    Pass(u64),
    Busy(u16),
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0usize..4, 0usize..12).prop_map(|(who, what)| Step::Ask { who, what }),
        2 => (0usize..4, 0x4000u16..0x4004).prop_map(|(who, channel)| Step::Data { who, channel }),
        1 => prop::collection::vec(any::<u8>(), 0..64).prop_map(Step::Rubbish),
        2 => (0u64..400).prop_map(Step::Pass),
        1 => (24000u16..24008).prop_map(Step::Busy),
        1 => any::<bool>().prop_map(Step::Fail),
    ]
}

fn attributes(what: usize, token: Token) -> (Method, Vec<Attribute<'static>>) {
    let peer = |last: u8| Attribute::XorPeerAddress(([192, 0, 2, last], 1).into());
    match what {
        0 | 1 => (Method::ALLOCATE, vec![UDP]),
        2 => (Method::ALLOCATE, vec![UDP, Attribute::EvenPort(true)]),
        3 => (
            Method::ALLOCATE,
            vec![UDP, Attribute::AdditionalAddressFamily(Family::V6)],
        ),
        4 => (Method::ALLOCATE, vec![UDP, Attribute::ReservationToken(token)]),
        5 => (Method::REFRESH, vec![Attribute::Lifetime(0)]),
        6 => (Method::REFRESH, vec![Attribute::Lifetime(700)]),
        7 => (
            Method::REFRESH,
            vec![Attribute::Lifetime(0), Attribute::RequestedAddressFamily(Family::V4)],
        ),
        8 => (Method::CREATE_PERMISSION, vec![peer(1), peer(2)]),
        9 => (Method::CHANNEL_BIND, vec![Attribute::ChannelNumber(0x4000), peer(1)]),
        10 => (Method::CHANNEL_BIND, vec![Attribute::ChannelNumber(0x4001), peer(2)]),
        _ => (Method::BINDING, vec![]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, sockets, quotas, ports and the table agree, and time ends everything.
    #[test]
    fn books_balance_after_any_conversation(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::with(Options { ports: (24000, 24007), user_quota: 3, ..Options::default() });
        let clients: Vec<Client> =
            (1..=4).map(|port| Client::new(&mut world, &format!("203.0.113.5:{port}"))).collect();
        let mut token = [0; 8];
        for step in steps {
            match step {
                Step::Ask { who, what } => {
                    let (method, attributes) = attributes(what, token);
                    let bytes = clients[who].build(&mut world, method, &attributes);
                    let reply = world.ask(clients[who].address, &bytes);
                    if let Some(Attribute::ReservationToken(new)) = reply.get(kind::RESERVATION_TOKEN) {
                        token = new;
                    }
                }
                Step::Data { who, channel } => {
                    clients[who].send_over(&mut world, channel, b"data");
                }
                Step::Rubbish(bytes) => {
                    world.feed(clients[0].address, &bytes);
                }
                Step::Pass(seconds) => world.pass(seconds),
                Step::Busy(port) => {
                    world.busy.insert(port);
                }
                Step::Fail(failing) => world.failing = failing,
            }
            let rows = world.server.allocations(world.now);
            prop_assert_eq!(rows.iter().map(|row| row.relays.len()).sum::<usize>(), world.bound.len());
            prop_assert_eq!(rows.len() as u64, world.server.counters().allocations);
            let mut used: Vec<_> = world.bound.values().chain(world.held.values()).collect();
            let total = used.len();
            used.sort();
            used.dedup();
            prop_assert_eq!(used.len(), total, "no port twice");
        }
        world.pass(8000);
        prop_assert!(world.bound.is_empty() && world.held.is_empty());
        prop_assert_eq!(world.server.deadline(), None);
        world.busy.clear();
        world.failing = false;
        let fresh = Client::new(&mut world, "203.0.113.9:1");
        let before = world.bound.len();
        for port in 0..3 {
            let client = Client::new(&mut world, &format!("203.0.113.9:{}", port + 10));
            client.allocate(&mut world);
        }
        prop_assert_eq!(world.bound.len(), before + 3);
        prop_assert_eq!(fresh.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 486);
    }
}

/// One bit of a signed request flipped, each in turn: nothing is allocated. What follows MESSAGE-INTEGRITY is not
/// protected: a FINGERPRINT that turned into an unknown attribute is ignored (RFC 8489 section 14.5).
#[test]
fn a_damaged_request_allocates_nothing() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let whole = client.build(&mut world, Method::ALLOCATE, &[UDP, Attribute::EvenPort(true)]);
    let protected = whole.len() - FINGERPRINT_BYTES;
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut world = World::new();
        let client = Client::new(&mut world, "203.0.113.5:40000");
        let mut bytes = client.build(&mut world, Method::ALLOCATE, &[UDP, Attribute::EvenPort(true)]);
        bytes[at] ^= 1 << bit;
        world.feed(client.address, &bytes);
        assert!(at >= protected || world.bound.is_empty(), "bit {bit} of byte {at}");
    }
}
