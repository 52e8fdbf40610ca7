//! Allocations: their making, refreshing, ending, and every way of refusing one.

use super::*;

#[test]
fn an_allocation_is_made_refreshed_and_released() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let reply = client.ask(&mut world, Method::ALLOCATE, &[UDP]);
    assert_eq!(reply.code(), 0);
    assert_eq!(reply.lifetime(), 600);
    let relay = reply.relays()[0];
    assert_eq!(relay.ip().to_string(), "198.51.100.1", "the address before the NAT");
    assert!((24000..=24999).contains(&relay.port()));
    assert_eq!(world.relay_socket().to_string(), format!("10.0.0.2:{}", relay.port()));
    assert_eq!(
        reply.get(kind::XOR_MAPPED_ADDRESS),
        Some(Attribute::XorMappedAddress(client.address))
    );
    assert_eq!(reply.get(kind::SOFTWARE), Some(Attribute::Software("Moim")));
    assert_eq!(client.refresh(&mut world, 1200).lifetime(), 1200);
    assert_eq!(client.refresh(&mut world, 9999).lifetime(), 3600);
    assert_eq!(client.refresh(&mut world, 10).lifetime(), 600);
    assert_eq!(client.refresh(&mut world, 0).lifetime(), 0);
    assert!(world.bound.is_empty());
    assert_eq!(client.refresh(&mut world, 600).code(), 437);
    let user = USER.to_owned();
    assert!(
        matches!(&world.events[..], [Event::Allocated { user: first, .. }, Event::Closed { reason, .. }, ..]
            if *first == user && *reason == "released by the client")
    );
}

#[test]
fn an_allocation_expires_unless_refreshed() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    world.pass(599);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    world.pass(599);
    assert_eq!(world.bound.len(), 1);
    world.pass(1);
    assert!(world.bound.is_empty());
    assert!(matches!(world.events.last(), Some(Event::Closed { reason, .. }) if reason.contains("refreshed")));
    assert_eq!(world.server.deadline(), None);
}

#[test]
fn shortening_a_lifetime_moves_the_timer_forward() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.refresh(&mut world, 3600);
    for _ in 0..50 {
        client.refresh(&mut world, 600);
        client.refresh(&mut world, 3600);
    }
    client.refresh(&mut world, 600);
    assert!(world.server.timers.len() <= 2, "timers do not pile up");
    world.pass(600);
    assert!(world.bound.is_empty());
}

#[test]
fn retransmitted_requests_get_the_same_answer() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let allocate = client.build(&mut world, Method::ALLOCATE, &[UDP, Attribute::EvenPort(true)]);
    let first = world.ask(client.address, &allocate);
    let again = world.ask(client.address, &allocate);
    assert_eq!(first.bytes, again.bytes);
    assert_eq!(world.bound.len(), 1);
    let release = client.build(&mut world, Method::REFRESH, &[Attribute::Lifetime(0)]);
    let first = world.ask(client.address, &release);
    world.pass(30);
    let again = world.ask(client.address, &release);
    assert_eq!(first.bytes, again.bytes);
    world.pass(30);
    assert_eq!(world.ask(client.address, &release).code(), 437);
}

#[test]
fn a_second_allocation_on_a_5_tuple_is_a_mismatch() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    assert_eq!(client.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 437);
    let bob = Client::named(&mut world, "203.0.113.5:40000", "bob", "b");
    assert_eq!(bob.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 437);
    assert_eq!(bob.refresh(&mut world, 600).code(), 441);
    assert_eq!(bob.permit(&mut world, "192.0.2.1:1"), 441);
    assert_eq!(bob.bind(&mut world, 0x4000, "192.0.2.1:1"), 441);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    use Attribute::{AdditionalAddressFamily, EvenPort, RequestedAddressFamily, RequestedTransport, ReservationToken};
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let token = ReservationToken([7; 8]);
    let v6 = RequestedAddressFamily(Family::V6);
    for (attributes, code) in [
        (&[][..], 400),
        (&[RequestedTransport(6)], 442),
        (&[UDP, token.clone()], 508),
        (&[UDP, token.clone(), EvenPort(false)], 400),
        (&[UDP, token.clone(), v6.clone()], 400),
        (&[UDP, token, AdditionalAddressFamily(Family::V6)], 400),
        (&[UDP, v6, AdditionalAddressFamily(Family::V6)], 400),
        (&[UDP, AdditionalAddressFamily(Family::V4)], 400),
        (&[UDP, AdditionalAddressFamily(Family::V6), EvenPort(true)], 400),
        (&[UDP, RequestedAddressFamily(Family::Other(9))], 440),
    ] {
        assert_eq!(
            client.ask(&mut world, Method::ALLOCATE, attributes).code(),
            code,
            "{attributes:?}"
        );
    }
    assert!(world.bound.is_empty());
}

#[test]
fn unknown_attributes_are_listed() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let strange = Attribute::Other {
        kind: 0x7ABC,
        value: b"",
    };
    let optional = Attribute::Other {
        kind: 0xFABC,
        value: b"",
    };
    let reply = client.ask(
        &mut world,
        Method::ALLOCATE,
        &[UDP, strange.clone(), strange.clone(), optional.clone()],
    );
    assert_eq!(reply.code(), 420);
    assert_eq!(
        reply.get(kind::UNKNOWN_ATTRIBUTES),
        Some(Attribute::UnknownAttributes(vec![0x7ABC].into()))
    );
    assert_eq!(
        client
            .ask(&mut world, Method::ALLOCATE, &[UDP, optional, Attribute::DontFragment])
            .code(),
        0
    );
    let binding = Builder::new(Class::Request, Method::BINDING, &[3; 12])
        .add(&strange)
        .finish();
    assert_eq!(world.ask(client.address, &binding).code(), 420);
}

#[test]
fn even_ports_come_with_a_reserved_neighbour() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let reply = client.ask(&mut world, Method::ALLOCATE, &[UDP, Attribute::EvenPort(true)]);
    let rtp = reply.relays()[0];
    assert_eq!(rtp.port() % 2, 0);
    let Some(Attribute::ReservationToken(token)) = reply.get(kind::RESERVATION_TOKEN) else {
        panic!("no token")
    };
    let other = Client::named(&mut world, "203.0.113.6:40000", "bob", "b");
    let attributes = [UDP, Attribute::ReservationToken(token)];
    let reply = other.ask(&mut world, Method::ALLOCATE, &attributes);
    assert_eq!(reply.relays()[0].port(), rtp.port() + 1);
    assert!(world.held.is_empty());
    let third = Client::new(&mut world, "203.0.113.7:40000");
    assert_eq!(
        third.ask(&mut world, Method::ALLOCATE, &attributes).code(),
        508,
        "a token is good once"
    );
    world.pass(31);
    assert_eq!(
        world.bound.len(),
        2,
        "what was redeemed does not expire as a reservation"
    );
}

#[test]
fn reservations_are_held_for_thirty_seconds() {
    let mut world = World::with(Options {
        ports: (24000, 24001),
        ..Options::default()
    });
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let reply = client.ask(&mut world, Method::ALLOCATE, &[UDP, Attribute::EvenPort(true)]);
    let Some(Attribute::ReservationToken(token)) = reply.get(kind::RESERVATION_TOKEN) else {
        panic!("no token")
    };
    let other = Client::new(&mut world, "203.0.113.6:40000");
    world.pass(29);
    assert_eq!(
        other.ask(&mut world, Method::ALLOCATE, &[UDP]).code(),
        508,
        "the port is held"
    );
    world.pass(2);
    assert!(world.held.is_empty());
    assert_eq!(
        other
            .ask(&mut world, Method::ALLOCATE, &[UDP, Attribute::ReservationToken(token)])
            .code(),
        508
    );
    assert_eq!(other.allocate(&mut world).port(), 24001);
}

#[test]
fn a_dual_allocation_has_both_families() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let dual = [UDP, Attribute::AdditionalAddressFamily(Family::V6)];
    let reply = client.ask(&mut world, Method::ALLOCATE, &dual);
    let families: Vec<bool> = reply.relays().iter().map(SocketAddr::is_ipv4).collect();
    assert_eq!(families, [true, false]);
    assert_eq!(client.permit(&mut world, "192.0.2.1:1"), 0);
    assert_eq!(client.permit(&mut world, "[2001:db8::7]:1"), 0);
    let v6 = Attribute::RequestedAddressFamily(Family::V6);
    assert_eq!(
        client
            .ask(&mut world, Method::REFRESH, &[Attribute::Lifetime(0), v6.clone()])
            .code(),
        0
    );
    assert_eq!(world.bound.len(), 1);
    assert_eq!(client.permit(&mut world, "[2001:db8::7]:1"), 443);
    assert_eq!(client.permit(&mut world, "192.0.2.1:1"), 0);
    assert_eq!(client.ask(&mut world, Method::REFRESH, &[v6]).code(), 443);
    assert_eq!(client.refresh(&mut world, 0).code(), 0);
    assert!(world.bound.is_empty());
}

#[test]
fn half_of_a_dual_allocation_is_better_than_none() {
    let mut world = World::with(Options {
        v6: false,
        ..Options::default()
    });
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let reply = client.ask(
        &mut world,
        Method::ALLOCATE,
        &[UDP, Attribute::AdditionalAddressFamily(Family::V6)],
    );
    assert_eq!(reply.relays().len(), 1);
    assert!(matches!(
        reply.get(kind::ADDRESS_ERROR_CODE),
        Some(Attribute::AddressErrorCode {
            family: Family::V6,
            code: 440,
            ..
        })
    ));
    let other = Client::new(&mut world, "203.0.113.6:40000");
    let v6 = Attribute::RequestedAddressFamily(Family::V6);
    assert_eq!(other.ask(&mut world, Method::ALLOCATE, &[UDP, v6]).code(), 440);
}

#[test]
fn ports_of_other_programs_are_passed_over() {
    let mut world = World::with(Options {
        ports: (24000, 24009),
        ..Options::default()
    });
    world.busy = (24000..=24008).collect();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    assert_eq!(client.allocate(&mut world).port(), 24009);
    let other = Client::new(&mut world, "203.0.113.6:40000");
    assert_eq!(other.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 508);
    world.busy.clear();
    assert_ne!(
        other.allocate(&mut world).port(),
        24009,
        "what was busy may be free again"
    );
}

#[test]
fn a_machine_without_descriptors_says_508() {
    let mut world = World::new();
    world.failing = true;
    let client = Client::new(&mut world, "203.0.113.5:40000");
    assert_eq!(client.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 508);
    world.failing = false;
    client.allocate(&mut world);
}

#[test]
fn quotas_hold_per_user_and_in_all_and_over_all_servers() {
    let mut world = World::with(Options {
        user_quota: 2,
        max_allocations: 3,
        ..Options::default()
    });
    let alice: Vec<Client> = (1..=3)
        .map(|port| Client::new(&mut world, &format!("203.0.113.5:{port}")))
        .collect();
    alice[0].allocate(&mut world);
    alice[1].allocate(&mut world);
    assert_eq!(alice[2].ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 486);
    let bob: Vec<Client> = (1..=2)
        .map(|port| Client::named(&mut world, &format!("203.0.113.6:{port}"), "bob", "b"))
        .collect();
    bob[0].allocate(&mut world);
    assert_eq!(bob[1].ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 508);
    assert_eq!(alice[0].refresh(&mut world, 0).code(), 0);
    assert_eq!(
        world.shared.admit("bob"),
        Ok(()),
        "another thread's server takes the place"
    );
    assert_eq!(bob[1].ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 486);
}

#[test]
fn users_with_time_limited_names_share_one_quota() {
    let mut world = World::with(Options {
        user_quota: 1,
        ..Options::default()
    });
    let first = Client::vouched(&mut world, "203.0.113.5:1", "1700009999:carol", SECRET);
    first.allocate(&mut world);
    let second = Client::vouched(&mut world, "203.0.113.5:2", "1700009998:carol", SECRET);
    assert_eq!(second.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 486);
}

#[test]
fn stopping_closes_every_relay() {
    let mut world = World::new();
    for port in 1..=5 {
        let client = Client::new(&mut world, &format!("203.0.113.5:{port}"));
        client.allocate(&mut world);
    }
    assert_eq!(world.server.counters().allocations, 5);
    world.server.close_all();
    world.settle();
    assert!(world.bound.is_empty());
    assert_eq!(world.server.counters().allocations, 0);
}
