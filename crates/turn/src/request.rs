//! A request's attributes, read once: the first of each type counts (RFC 8489 section 14), peers may come in numbers.

use moim_wire::stun::{kind, Algorithm, Attribute, Family, Malformed, Message, RawAttribute};
use std::borrow::Cow;
use std::net::SocketAddr;

/// What TURN requests may carry. Nothing here has been authenticated.
#[derive(Default)]
pub struct Request<'a> {
    pub username: Option<&'a str>,
    pub user_hash: Option<[u8; 32]>,
    pub realm: Option<&'a str>,
    pub nonce: Option<&'a [u8]>,
    pub integrity: Option<RawAttribute<'a>>,
    pub integrity_sha256: Option<RawAttribute<'a>>,
    pub password_algorithm: Option<Algorithm>,
    pub password_algorithms: Option<Cow<'a, [u8]>>,
    pub fingerprint: bool,
    pub lifetime: Option<u32>,
    pub peers: Vec<SocketAddr>,
    pub channel: Option<u16>,
    pub transport: Option<u8>,
    pub even_port: Option<bool>,
    pub token: Option<[u8; 8]>,
    pub family: Option<Family>,
    pub additional_family: Option<Family>,
    /// Types that must be understood and are not.
    pub unknown: Vec<u16>,
}

impl<'a> Request<'a> {
    /// Reads all attributes.
    ///
    /// # Errors
    /// [`Malformed`] for the first value that cannot be of its type.
    pub fn read(message: &Message<'a>) -> Result<Self, Malformed> {
        let transaction = message.transaction();
        let mut request = Self::default();
        for raw in message.attributes() {
            match Attribute::decode(&raw, &transaction)? {
                Attribute::Username(value) => set(&mut request.username, value),
                Attribute::UserHash(value) => set(&mut request.user_hash, value),
                Attribute::Realm(value) => set(&mut request.realm, value),
                Attribute::Nonce(value) => set(&mut request.nonce, value),
                Attribute::MessageIntegrity(_) => set(&mut request.integrity, raw),
                Attribute::MessageIntegritySha256(_) => set(&mut request.integrity_sha256, raw),
                Attribute::PasswordAlgorithm(value) => set(&mut request.password_algorithm, value),
                Attribute::PasswordAlgorithms(value) => set(&mut request.password_algorithms, value),
                Attribute::Fingerprint(_) => request.fingerprint = true,
                Attribute::Lifetime(value) => set(&mut request.lifetime, value),
                Attribute::XorPeerAddress(value) => request.peers.push(value),
                Attribute::ChannelNumber(value) => set(&mut request.channel, value),
                Attribute::RequestedTransport(value) => set(&mut request.transport, value),
                Attribute::EvenPort(value) => set(&mut request.even_port, value),
                Attribute::ReservationToken(value) => set(&mut request.token, value),
                Attribute::RequestedAddressFamily(value) => set(&mut request.family, value),
                Attribute::AdditionalAddressFamily(value) => set(&mut request.additional_family, value),
                Attribute::Other { kind, .. } => request.unknown(kind),
                _ => {}
            }
        }
        Ok(request)
    }

    fn unknown(&mut self, kind: u16) {
        if kind::comprehension_required(kind) && !self.unknown.contains(&kind) {
            self.unknown.push(kind);
        }
    }
}

fn set<T>(place: &mut Option<T>, value: T) {
    if place.is_none() {
        *place = Some(value);
    }
}

/// The attributes of a Send indication (RFC 8656 section 11.2).
pub struct SendIndication<'a> {
    pub peer: SocketAddr,
    pub data: RawAttribute<'a>,
    pub dont_fragment: bool,
}

impl<'a> SendIndication<'a> {
    /// None when something is missing, malformed or must be understood and is not: such indications are dropped.
    pub fn read(message: &Message<'a>) -> Option<Self> {
        let (mut peer, mut data, mut dont_fragment) = (None, None, false);
        for raw in message.attributes() {
            match raw.kind {
                kind::XOR_PEER_ADDRESS if peer.is_none() => match Attribute::decode(&raw, &message.transaction()) {
                    Ok(Attribute::XorPeerAddress(address)) => peer = Some(address),
                    _ => return None,
                },
                kind::DATA if data.is_none() => data = Some(raw),
                kind::DONT_FRAGMENT => dont_fragment = true,
                kind::XOR_PEER_ADDRESS | kind::DATA | kind::MESSAGE_INTEGRITY | kind::MESSAGE_INTEGRITY_SHA256 => {}
                kind::USERNAME | kind::REALM | kind::NONCE => {}
                other if kind::comprehension_required(other) => return None,
                _ => {}
            }
        }
        Some(Self {
            peer: peer?,
            data: data?,
            dont_fragment,
        })
    }
}
