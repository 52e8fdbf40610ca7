//! Conversations with the machine over a fake clock and a driver that binds ports on paper.

mod allocate;
mod credentials;
mod robustness;
mod traffic;

use crate::*;
use moim_wire::stun::*;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

const REALM: &str = "example.org";
const USER: &str = "alice";
const PASSWORD: &str = "correct horse";
const SECRET: &[u8] = b"between us";

/// A server with everything around it.
struct World {
    server: Server,
    shared: Arc<Shared>,
    now: Now,
    /// Ports that "another program" holds.
    busy: HashSet<u16>,
    failing: bool,
    bound: HashMap<RelayId, SocketAddr>,
    held: HashMap<Token, SocketAddr>,
    sent: Vec<(SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
    transactions: u64,
}

struct Options {
    v6: bool,
    old_channel_range: bool,
    max_allocations: usize,
    user_quota: u32,
    ports: (u16, u16),
    rate: u32,
    burst: u32,
    allow: &'static [&'static str],
    deny: &'static [&'static str],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            v6: true,
            old_channel_range: false,
            max_allocations: 100,
            user_quota: 10,
            ports: (24000, 24999),
            rate: 1000,
            burst: 1000,
            allow: &[],
            deny: &[],
        }
    }
}

fn policy(users: &[(&str, &str)], allow: &[&str], deny: &[&str]) -> Arc<Policy> {
    let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<Rule>>();
    let rules = PeerRules::new(&parse(allow), &parse(deny), &["198.51.100.1".parse().unwrap()]);
    let users = users
        .iter()
        .map(|(user, password)| ((*user).to_owned(), UserKeys::derive(user, REALM, password)));
    Arc::new(Policy::new(REALM, users, &[b"older".to_vec(), SECRET.to_vec()], rules))
}

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let pool = |ip: &str, external: &str| {
            let (low, high) = options.ports;
            Arc::new(PortPool::new(ip.parse().unwrap(), external.parse().unwrap(), low, high))
        };
        let shared = Arc::new(Shared::new(options.max_allocations, options.user_quota));
        let config = Config {
            realm: REALM.to_owned(),
            software: "Moim".to_owned(),
            old_channel_range: options.old_channel_range,
            v4: Some(pool("10.0.0.2", "198.51.100.1")),
            v6: options.v6.then(|| pool("2001:db8::1", "2001:db8::1")),
            default_lifetime_s: 600,
            max_lifetime_s: 3600,
            nonce_lifetime_s: 3600,
            unauthenticated_rate: options.rate,
            unauthenticated_burst: options.burst,
        };
        let policy = policy(&[(USER, PASSWORD), ("bob", "b")], options.allow, options.deny);
        Self {
            server: Server::new(config, shared.clone(), policy, [1; 32], [2; 32]),
            shared,
            now: Now {
                ms: 1_000_000,
                unix: 1_700_000_000,
            },
            busy: HashSet::new(),
            failing: false,
            bound: HashMap::new(),
            held: HashMap::new(),
            sent: Vec::new(),
            events: Vec::new(),
            transactions: 0,
        }
    }

    /// Lets time pass, ticking whenever the machine asks for it.
    fn pass(&mut self, seconds: u64) {
        let end = self.now.ms + seconds * 1000;
        while let Some(at) = self.server.deadline().filter(|at| *at <= end) {
            self.move_to(at);
            self.server.tick(self.now);
            self.settle();
        }
        self.move_to(end);
    }

    fn move_to(&mut self, ms: u64) {
        let ms = ms.max(self.now.ms);
        self.now = Now {
            ms,
            unix: 1_700_000_000 + (ms - 1_000_000) / 1000,
        };
    }

    fn feed(&mut self, client: SocketAddr, data: &[u8]) -> Option<Forward> {
        let forward = self.server.receive(self.now, Flow::datagram(client), data);
        self.settle();
        forward
    }

    fn settle(&mut self) {
        while let Some(output) = self.server.next_output() {
            match output {
                Output::Send { flow, bytes } => self.sent.push((flow.client, bytes)),
                Output::Open {
                    relay,
                    address,
                    reserve,
                } => {
                    let next = SocketAddr::new(address.ip(), address.port() + 1);
                    let taken = |wanted: &SocketAddr| {
                        self.busy.contains(&wanted.port())
                            || self.bound.values().chain(self.held.values()).any(|used| used == wanted)
                    };
                    let result = if self.failing {
                        Err(OpenError::Failed)
                    } else if taken(&address) || (reserve.is_some() && taken(&next)) {
                        Err(OpenError::Busy)
                    } else {
                        self.bound.insert(relay, address);
                        self.held.extend(reserve.map(|token| (token, next)));
                        Ok(())
                    };
                    self.server.opened(self.now, relay, result);
                }
                Output::Adopt { relay, token } => {
                    let socket = self.held.remove(&token);
                    let result = socket.map(|address| self.bound.insert(relay, address)).map(|_| ());
                    self.server.opened(self.now, relay, result.ok_or(OpenError::Failed));
                }
                Output::Close { relay } => {
                    self.bound.remove(&relay).expect("only what was opened is closed");
                }
                Output::Release { token } => {
                    self.held.remove(&token).expect("only what is held is released");
                }
            }
        }
        while let Some(event) = self.server.next_event() {
            self.events.push(event);
        }
    }

    fn transaction(&mut self) -> TransactionId {
        self.transactions += 1;
        let mut id = [0x5A; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        id
    }

    /// Sends bytes and takes the one answer to them.
    fn ask(&mut self, client: SocketAddr, bytes: &[u8]) -> Reply {
        self.sent.clear();
        assert_eq!(self.feed(client, bytes), None);
        assert_eq!(self.sent.len(), 1, "one answer");
        let (to, bytes) = self.sent.pop().unwrap();
        assert_eq!(to, client);
        Reply { bytes }
    }

    /// Sends bytes that must not be answered.
    fn silence(&mut self, client: SocketAddr, bytes: &[u8]) {
        self.sent.clear();
        self.feed(client, bytes);
        assert!(self.sent.is_empty(), "no answer");
    }

    fn relay_socket(&self) -> SocketAddr {
        assert_eq!(self.bound.len(), 1);
        *self.bound.values().next().unwrap()
    }

    /// What the client gets of a datagram that a peer sends to the only relay.
    fn peer_sends(&mut self, peer: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
        let relay = *self
            .bound
            .keys()
            .find(|relay| self.bound[relay].is_ipv4() == peer.is_ipv4())?;
        let mut buffer = vec![0xEE; HEADROOM];
        buffer.extend_from_slice(payload);
        buffer.extend_from_slice(&[0xEE; TAILROOM]);
        let place = HEADROOM..HEADROOM + payload.len();
        let (_, framed) = self.server.relayed(self.now, relay, peer, &mut buffer, place)?;
        Some(buffer[framed].to_vec())
    }
}

/// A client with a user name and a nonce.
struct Client {
    address: SocketAddr,
    username: String,
    keys: UserKeys,
    nonce: Vec<u8>,
    /// Whether it speaks RFC 8489 with SHA-256.
    modern: bool,
}

impl Client {
    fn new(world: &mut World, address: &str) -> Self {
        Self::named(world, address, USER, PASSWORD)
    }

    fn named(world: &mut World, address: &str, username: &str, password: &str) -> Self {
        let mut client = Self {
            address: address.parse().unwrap(),
            username: username.to_owned(),
            keys: UserKeys::derive(username, REALM, password),
            nonce: Vec::new(),
            modern: false,
        };
        client.greet(world);
        client
    }

    fn vouched(world: &mut World, address: &str, username: &str, secret: &[u8]) -> Self {
        let password = base64(&hmac_sha1(secret, username.as_bytes()));
        Self::named(world, address, username, &password)
    }

    /// The first, unauthenticated request: takes the nonce from the challenge.
    fn greet(&mut self, world: &mut World) {
        let bytes = Builder::new(Class::Request, Method::ALLOCATE, &world.transaction()).finish();
        let reply = world.ask(self.address, &bytes);
        assert_eq!(reply.code(), 401);
        assert_eq!(reply.get(kind::REALM), Some(Attribute::Realm(REALM)));
        self.nonce = reply.nonce();
    }

    fn build(&self, world: &mut World, method: Method, attributes: &[Attribute<'_>]) -> Vec<u8> {
        let mut builder = Builder::new(Class::Request, method, &world.transaction());
        attributes.iter().for_each(|attribute| {
            builder.add(attribute);
        });
        builder
            .add(&Attribute::Username(&self.username))
            .add(&Attribute::Realm(REALM))
            .add(&Attribute::Nonce(&self.nonce));
        if self.modern {
            let offered = Attribute::algorithm_list(&[Algorithm::Sha256, Algorithm::Md5]);
            builder
                .add(&Attribute::PasswordAlgorithms(offered.into()))
                .add(&Attribute::PasswordAlgorithm(Algorithm::Sha256))
                .integrity_sha256(&self.keys.sha256);
        } else {
            builder.integrity_sha1(&self.keys.md5);
        }
        builder.fingerprint().finish()
    }

    /// One authenticated request; the answer's seal is checked unless it is a challenge.
    fn ask(&self, world: &mut World, method: Method, attributes: &[Attribute<'_>]) -> Reply {
        let bytes = self.build(world, method, attributes);
        let reply = world.ask(self.address, &bytes);
        if ![400, 401, 438].contains(&reply.code()) {
            reply.assert_sealed(self);
        }
        reply
    }

    fn allocate(&self, world: &mut World) -> SocketAddr {
        let reply = self.ask(world, Method::ALLOCATE, &[UDP]);
        assert_eq!(reply.code(), 0, "{:?}", world.events);
        reply.relays()[0]
    }

    fn permit(&self, world: &mut World, peer: &str) -> u16 {
        self.ask(
            world,
            Method::CREATE_PERMISSION,
            &[Attribute::XorPeerAddress(peer.parse().unwrap())],
        )
        .code()
    }

    fn bind(&self, world: &mut World, number: u16, peer: &str) -> u16 {
        let peer = Attribute::XorPeerAddress(peer.parse().unwrap());
        self.ask(world, Method::CHANNEL_BIND, &[Attribute::ChannelNumber(number), peer])
            .code()
    }

    fn refresh(&self, world: &mut World, seconds: u32) -> Reply {
        self.ask(world, Method::REFRESH, &[Attribute::Lifetime(seconds)])
    }

    fn send(&self, world: &mut World, peer: &str, data: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let bytes = Builder::new(Class::Indication, Method::SEND, &[9; 12])
            .add(&Attribute::XorPeerAddress(peer.parse().unwrap()))
            .add(&Attribute::Data(data))
            .finish();
        let forward = world.feed(self.address, &bytes)?;
        Some((forward.peer, bytes[forward.payload].to_vec()))
    }

    fn send_over(&self, world: &mut World, channel: u16, data: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let mut bytes = channel.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
        bytes.extend_from_slice(data);
        let forward = world.feed(self.address, &bytes)?;
        Some((forward.peer, bytes[forward.payload].to_vec()))
    }
}

const UDP: Attribute<'static> = Attribute::RequestedTransport(17);

/// One answer of the server.
struct Reply {
    bytes: Vec<u8>,
}

impl Reply {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn get(&self, wanted: u16) -> Option<Attribute<'_>> {
        self.message().get(wanted).unwrap()
    }

    /// The error code, 0 for success.
    fn code(&self) -> u16 {
        match self.get(kind::ERROR_CODE) {
            Some(Attribute::ErrorCode { code, .. }) => code,
            _ => {
                assert_eq!(self.message().class(), Class::Success);
                0
            }
        }
    }

    fn nonce(&self) -> Vec<u8> {
        match self.get(kind::NONCE) {
            Some(Attribute::Nonce(nonce)) => nonce.to_vec(),
            other => panic!("no nonce but {other:?}"),
        }
    }

    fn lifetime(&self) -> u32 {
        match self.get(kind::LIFETIME) {
            Some(Attribute::Lifetime(seconds)) => seconds,
            other => panic!("no lifetime but {other:?}"),
        }
    }

    fn relays(&self) -> Vec<SocketAddr> {
        let message = self.message();
        let transaction = message.transaction();
        message
            .attributes()
            .filter_map(|raw| match Attribute::decode(&raw, &transaction) {
                Ok(Attribute::XorRelayedAddress(address)) => Some(address),
                _ => None,
            })
            .collect()
    }

    fn assert_sealed(&self, client: &Client) {
        let message = self.message();
        assert_eq!(message.fingerprint(), Fingerprint::Valid);
        let sealed = if client.modern {
            let raw = message
                .raw(kind::MESSAGE_INTEGRITY_SHA256)
                .expect("sealed with SHA-256");
            message.verify_sha256(&raw, &client.keys.sha256)
        } else {
            let raw = message.raw(kind::MESSAGE_INTEGRITY).expect("sealed");
            message.verify_sha1(&raw, &client.keys.md5)
        };
        assert!(sealed, "the answer's integrity fits");
    }
}
