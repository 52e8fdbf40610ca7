//! Who gets in: nonces, keys, time-limited credentials, algorithms, limits on those who have none.

use super::*;

#[test]
fn binding_needs_no_credentials() {
    let mut world = World::new();
    for address in ["203.0.113.5:40000", "[2001:db8::5]:40000"] {
        let address = address.parse().unwrap();
        let bytes = Builder::new(Class::Request, Method::BINDING, &[4; 12]).finish();
        let reply = world.ask(address, &bytes);
        assert_eq!(
            reply.get(kind::XOR_MAPPED_ADDRESS),
            Some(Attribute::XorMappedAddress(address))
        );
        assert_eq!(reply.message().transaction(), [4; 12]);
        assert!(
            reply.bytes.len() <= bytes.len() + 24,
            "nothing but the address comes back"
        );
    }
}

#[test]
fn the_challenge_offers_algorithms_and_stays_small() {
    let mut world = World::new();
    let bytes = Builder::new(Class::Request, Method::ALLOCATE, &[4; 12])
        .add(&UDP)
        .finish();
    let reply = world.ask("203.0.113.5:1".parse().unwrap(), &bytes);
    assert_eq!(reply.code(), 401);
    assert!(reply.nonce().starts_with(b"obMatJos2gAAA"));
    let offered = Attribute::algorithm_list(&[Algorithm::Sha256, Algorithm::Md5]);
    assert_eq!(
        reply.get(kind::PASSWORD_ALGORITHMS),
        Some(Attribute::PasswordAlgorithms(offered.into()))
    );
    assert_eq!(reply.get(kind::SOFTWARE), None);
    assert_eq!(reply.get(kind::MESSAGE_INTEGRITY), None);
    assert!(reply.bytes.len() < 128, "{} bytes", reply.bytes.len());
    assert!(world.events.is_empty(), "a first request is no refusal");
}

#[test]
fn sha256_clients_are_answered_in_kind() {
    let mut world = World::new();
    let mut client = Client::new(&mut world, "203.0.113.5:40000");
    client.modern = true;
    client.allocate(&mut world);
    assert_eq!(client.permit(&mut world, "192.0.2.1:1"), 0);
    assert_eq!(client.permit(&mut world, "10.0.0.1:1"), 403);
}

#[test]
fn user_hashes_are_understood() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    for (name, code) in [(USER, 0), ("nobody", 401)] {
        let bytes = Builder::new(Class::Request, Method::ALLOCATE, &world.transaction())
            .add(&UDP)
            .add(&Attribute::UserHash(user_hash(name, REALM)))
            .add(&Attribute::Realm(REALM))
            .add(&Attribute::Nonce(&client.nonce))
            .integrity_sha1(&client.keys.md5)
            .finish();
        assert_eq!(world.ask(client.address, &bytes).code(), code);
        if code == 0 {
            assert_eq!(client.refresh(&mut world, 0).code(), 0);
        }
    }
}

#[test]
fn altered_algorithm_lists_are_a_bad_request() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let md5_only = Attribute::PasswordAlgorithms(Attribute::algorithm_list(&[Algorithm::Md5]).into());
    let chosen = Attribute::PasswordAlgorithm(Algorithm::Md5);
    for attributes in [&[UDP, md5_only, chosen.clone()][..], &[UDP, chosen]] {
        assert_eq!(client.ask(&mut world, Method::ALLOCATE, attributes).code(), 400);
    }
}

#[test]
fn wrong_credentials_are_refused_with_a_reason() {
    let mut world = World::new();
    let now = world.now.unix;
    let wrong = Client::named(&mut world, "203.0.113.5:1", USER, "guess");
    let unknown = Client::named(&mut world, "203.0.113.5:2", "mallory", "x");
    let expired = Client::vouched(&mut world, "203.0.113.5:3", &format!("{}:dave", now - 1), SECRET);
    let forged = Client::vouched(&mut world, "203.0.113.5:4", &format!("{}:dave", now + 100), b"guess");
    for (client, reason) in [
        (&wrong, "the password is wrong"),
        (&unknown, "the user name is not known"),
        (&expired, "the credential has expired"),
        (&forged, "the password is wrong"),
    ] {
        let reply = client.ask(&mut world, Method::ALLOCATE, &[UDP]);
        assert_eq!(reply.code(), 401);
        assert!(!reply.nonce().is_empty());
        assert_eq!(
            world.events.pop(),
            Some(Event::Refused {
                client: client.address,
                code: 401,
                reason: reason.to_owned(),
                count: 1
            })
        );
    }
    assert!(world.bound.is_empty());
    assert_eq!(world.server.counters().unauthorized, 4);
}

#[test]
fn every_secret_in_rotation_vouches() {
    let mut world = World::new();
    for (port, secret) in [(1, SECRET), (2, b"older")] {
        let name = format!("{}:dave", world.now.unix + 60);
        let client = Client::vouched(&mut world, &format!("203.0.113.5:{port}"), &name, secret);
        client.allocate(&mut world);
    }
}

#[test]
fn a_running_call_outlives_its_credential() {
    let mut world = World::new();
    let name = format!("{}:dave", world.now.unix + 60);
    let client = Client::vouched(&mut world, "203.0.113.5:1", &name, SECRET);
    client.allocate(&mut world);
    world.pass(300);
    assert_eq!(client.refresh(&mut world, 600).code(), 0);
    assert_eq!(client.permit(&mut world, "192.0.2.1:1"), 0);
    let late = Client::vouched(&mut world, "203.0.113.5:2", &name, SECRET);
    assert_eq!(late.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 401);
}

#[test]
fn stale_nonces_are_replaced() {
    let mut world = World::new();
    let mut client = Client::new(&mut world, "203.0.113.5:40000");
    client.allocate(&mut world);
    client.refresh(&mut world, 3600);
    world.pass(3599);
    assert_eq!(client.refresh(&mut world, 3600).code(), 0);
    world.pass(2);
    let reply = client.refresh(&mut world, 3600);
    assert_eq!(reply.code(), 438);
    client.nonce = reply.nonce();
    assert_eq!(client.refresh(&mut world, 3600).code(), 0);
}

#[test]
fn a_nonce_of_another_address_is_stale() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let mut thief = Client::new(&mut world, "203.0.113.6:40000");
    thief.nonce = client.nonce;
    assert_eq!(thief.ask(&mut world, Method::ALLOCATE, &[UDP]).code(), 438);
}

#[test]
fn sealed_requests_need_all_their_parts() {
    let mut world = World::new();
    let client = Client::new(&mut world, "203.0.113.5:40000");
    let parts = [
        Attribute::Username(USER),
        Attribute::Realm(REALM),
        Attribute::Nonce(&client.nonce),
    ];
    for missing in 0..parts.len() {
        let mut builder = Builder::new(Class::Request, Method::ALLOCATE, &world.transaction());
        builder.add(&UDP);
        for (index, part) in parts.iter().enumerate() {
            if index != missing {
                builder.add(part);
            }
        }
        let reply = world.ask(client.address, &builder.integrity_sha1(&client.keys.md5).finish());
        assert_eq!(reply.code(), 400);
        assert_eq!(reply.get(kind::NONCE), None);
    }
}

#[test]
fn withdrawn_users_lose_their_allocations() {
    let mut world = World::new();
    let alice = Client::new(&mut world, "203.0.113.5:1");
    alice.allocate(&mut world);
    let bob = Client::named(&mut world, "203.0.113.5:2", "bob", "b");
    bob.allocate(&mut world);
    let carol = Client::vouched(&mut world, "203.0.113.5:3", "1700009999:carol", SECRET);
    carol.allocate(&mut world);
    world
        .server
        .set_policy(policy(&[(USER, PASSWORD), ("bob", "changed")], &[], &[]));
    world.settle();
    assert_eq!(world.bound.len(), 2);
    assert_eq!(alice.refresh(&mut world, 600).code(), 0);
    assert_eq!(carol.refresh(&mut world, 600).code(), 0);
    assert_eq!(bob.refresh(&mut world, 600).code(), 401);
}

#[test]
fn floods_without_credentials_are_not_answered() {
    let mut world = World::with(Options {
        rate: 10,
        burst: 20,
        ..Options::default()
    });
    let source = "203.0.113.5:40000".parse().unwrap();
    let requests = [
        Builder::new(Class::Request, Method::BINDING, &[4; 12]).finish(),
        Builder::new(Class::Request, Method::ALLOCATE, &[4; 12]).finish(),
        Builder::new(Class::Request, Method::ALLOCATE, &[4; 12])
            .add(&Attribute::Username(USER))
            .add(&Attribute::Realm(REALM))
            .add(&Attribute::Nonce(b"made up"))
            .integrity_sha1(b"made up")
            .finish(),
        Builder::new(Class::Request, Method::ALLOCATE, &[4; 12])
            .add(&UDP)
            .integrity_sha1(b"made up")
            .finish(),
    ];
    for turn in 0..400 {
        world.feed(source, &requests[turn % requests.len()]);
    }
    assert_eq!(world.sent.len(), 20);
    assert_eq!(world.server.counters().rate_limited, 380);
    world.pass(1);
    world.sent.clear();
    for _ in 0..100 {
        world.feed(source, &requests[0]);
    }
    assert_eq!(world.sent.len(), 10);
}

#[test]
fn guessing_is_slowed_but_not_for_those_who_are_in() {
    let mut world = World::with(Options {
        rate: 10,
        burst: 100,
        ..Options::default()
    });
    let inside = Client::new(&mut world, "203.0.113.5:1");
    inside.allocate(&mut world);
    let guesser = Client::named(&mut world, "203.0.113.5:2", USER, "guess");
    let bytes = guesser.build(&mut world, Method::ALLOCATE, &[UDP]);
    world.sent.clear();
    for _ in 0..50 {
        world.feed(guesser.address, &bytes);
    }
    assert_eq!(world.sent.len(), 10);
    assert_eq!(inside.refresh(&mut world, 600).code(), 0);
}
