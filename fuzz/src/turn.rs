//! The TURN machine between a hostile client and a hostile peer: never panics, never relays outside its rules.

use moim_turn::{Config, Flow, Now, Output, PeerRules, Policy, PortPool, Server, Shared, UserKeys};
use moim_wire::stun::{kind, Attribute, Builder, Class, Message, Method, HEADROOM, TAILROOM};
use std::sync::Arc;

const REALM: &str = "fuzz.test";
const USER: &str = "alice";
const PASSWORD: &str = "wonder";

struct World {
    server: Server,
    now: Now,
    nonce: Vec<u8>,
    relays: Vec<moim_turn::RelayId>,
}

impl World {
    fn new() -> Self {
        let ip = "192.0.2.1".parse().unwrap();
        let config = Config {
            realm: REALM.to_owned(),
            software: String::new(),
            old_channel_range: false,
            v4: Some(Arc::new(PortPool::new(ip, ip, 24000, 24007))),
            v6: None,
            default_lifetime_s: 600,
            max_lifetime_s: 3600,
            nonce_lifetime_s: 3600,
            unauthenticated_rate: 1000,
            unauthenticated_burst: 1000,
        };
        let users = [(USER.to_owned(), UserKeys::derive(USER, REALM, PASSWORD))];
        let policy = Policy::new(REALM, users, &[b"secret".to_vec()], PeerRules::new(&[], &[], &[ip]));
        let shared = Arc::new(Shared::new(4, 4));
        Self {
            server: Server::new(config, shared, Arc::new(policy), [1; 32], [2; 32]),
            now: Now {
                ms: 1000,
                unix: 1_700_000_000,
            },
            nonce: Vec::new(),
            relays: Vec::new(),
        }
    }

    fn feed(&mut self, client: Flow, bytes: &[u8]) {
        if let Some(forward) = self.server.receive(self.now, client, bytes) {
            assert!(bytes.get(forward.payload).is_some());
            assert!(self.relays.contains(&forward.relay), "only open relays send");
            let rules = PeerRules::new(&[], &[], &["192.0.2.1".parse().unwrap()]);
            assert!(
                rules.check(forward.peer.ip(), forward.peer.port()).is_ok(),
                "no denied peer"
            );
        }
        while let Some(output) = self.server.next_output() {
            match output {
                Output::Open { relay, .. } | Output::Adopt { relay, .. } => {
                    self.relays.push(relay);
                    self.server.opened(self.now, relay, Ok(()));
                }
                Output::Close { relay } => self.relays.retain(|open| *open != relay),
                Output::Send { bytes, .. } => {
                    let message = Message::parse(&bytes).expect("answers are well formed");
                    if let Ok(Some(Attribute::Nonce(nonce))) = message.get(kind::NONCE) {
                        self.nonce = nonce.to_vec();
                    }
                }
                Output::Release { .. } => {}
            }
        }
        while self.server.next_event().is_some() {}
    }
}

/// One input.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    let client = Flow::datagram("203.0.113.5:4000".parse().unwrap());
    let keys = UserKeys::derive(USER, REALM, PASSWORD);
    world.feed(
        client,
        &Builder::new(Class::Request, Method::ALLOCATE, &[0; 12]).finish(),
    );
    // Each step: what to do, how many bytes it takes, the bytes.
    let mut rest = data;
    while let [what, length, after @ ..] = rest {
        let (bytes, next) = after.split_at(after.len().min(usize::from(*length)));
        rest = next;
        match what % 4 {
            0 => world.feed(client, bytes),
            1 => {
                // An authenticated request with any method and any attributes.
                let method = [
                    Method::ALLOCATE,
                    Method::REFRESH,
                    Method::CREATE_PERMISSION,
                    Method::CHANNEL_BIND,
                ];
                let method = method[usize::from(what / 4) % 4];
                let mut builder = Builder::new(Class::Request, method, &[*what; 12]);
                let nonce = world.nonce.clone();
                let mut attributes = bytes;
                while let [kind, size, value @ ..] = attributes {
                    let (value, more) = value.split_at(value.len().min(usize::from(size % 32)));
                    builder.add(&Attribute::Other {
                        kind: u16::from(*kind),
                        value,
                    });
                    attributes = more;
                }
                builder
                    .add(&Attribute::Username(USER))
                    .add(&Attribute::Realm(REALM))
                    .add(&Attribute::Nonce(&nonce))
                    .integrity_sha1(&keys.md5);
                world.feed(client, &builder.finish());
            }
            2 => {
                world.now.ms += u64::from(*length) * 4000;
                world.server.tick(world.now);
                world.feed(client, bytes);
            }
            _ => {
                let Some(relay) = world.relays.first().copied() else {
                    continue;
                };
                let mut buffer = vec![0; HEADROOM];
                buffer.extend_from_slice(bytes);
                buffer.extend_from_slice(&[0; TAILROOM]);
                let place = HEADROOM..HEADROOM + bytes.len();
                let peer = "198.51.100.7:9".parse().unwrap();
                if let Some((to, framed)) = world.server.relayed(world.now, relay, peer, &mut buffer, place) {
                    assert_eq!(to, client);
                    assert!(buffer.get(framed).is_some());
                }
            }
        }
    }
}
