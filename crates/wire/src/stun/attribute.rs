//! Attribute values: one enum both ways, one arm per type.

use super::message::{be16, RawAttribute};
use super::{TransactionId, MAGIC_COOKIE};
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Attribute type numbers (IANA "STUN Attributes").
pub mod kind {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const CHANNEL_NUMBER: u16 = 0x000C;
    pub const LIFETIME: u16 = 0x000D;
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub const DATA: u16 = 0x0013;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
    pub const EVEN_PORT: u16 = 0x0018;
    pub const REQUESTED_TRANSPORT: u16 = 0x0019;
    pub const DONT_FRAGMENT: u16 = 0x001A;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub const USERHASH: u16 = 0x001E;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const RESERVATION_TOKEN: u16 = 0x0022;
    pub const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
    pub const ADDRESS_ERROR_CODE: u16 = 0x8001;
    pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
    pub const ALTERNATE_DOMAIN: u16 = 0x8003;
    pub const ICMP: u16 = 0x8004;
    pub const SOFTWARE: u16 = 0x8022;
    pub const ALTERNATE_SERVER: u16 = 0x8023;
    pub const FINGERPRINT: u16 = 0x8028;

    /// Whether a receiver that does not know the type must refuse the message (RFC 8489 section 14).
    pub fn comprehension_required(kind: u16) -> bool {
        kind < 0x8000
    }
}

// RFC 8489 sections 14.3, 14.8–14.10 and 14.14 bound the text values.
const USERNAME_MAX: usize = 508;
const TEXT_MAX: usize = 763;

/// An attribute value that cannot be of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub kind: u16,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attribute 0x{:04x} is malformed", self.kind)
    }
}

impl std::error::Error for Malformed {}

/// Address family of REQUESTED- and ADDITIONAL-ADDRESS-FAMILY and ADDRESS-ERROR-CODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
    Other(u8),
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::V4,
            2 => Self::V6,
            other => Self::Other(other),
        }
    }
}

/// Password algorithms (RFC 8489 section 18.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Md5,
    Sha256,
    Other(u16),
}

impl Algorithm {
    pub fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Md5,
            2 => Self::Sha256,
            other => Self::Other(other),
        }
    }
}

/// An ICMP report in a Data indication (RFC 8656 section 18.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    pub data: u32,
}

/// A decoded attribute. Integrity values and fingerprints are checked by [`super::Message`] and written by
/// [`super::Builder`]; here they are only carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    MappedAddress(SocketAddr),
    XorMappedAddress(SocketAddr),
    XorPeerAddress(SocketAddr),
    XorRelayedAddress(SocketAddr),
    AlternateServer(SocketAddr),
    AlternateDomain(&'a str),
    Username(&'a str),
    UserHash([u8; 32]),
    Realm(&'a str),
    Nonce(&'a [u8]),
    Software(&'a str),
    MessageIntegrity(&'a [u8]),
    MessageIntegritySha256(&'a [u8]),
    /// The list as it stands on the wire; see [`Attribute::algorithm_list`].
    PasswordAlgorithms(Cow<'a, [u8]>),
    PasswordAlgorithm(Algorithm),
    Fingerprint(u32),
    ErrorCode {
        code: u16,
        reason: Cow<'a, str>,
    },
    AddressErrorCode {
        family: Family,
        code: u16,
        reason: Cow<'a, str>,
    },
    UnknownAttributes(Cow<'a, [u16]>),
    ChannelNumber(u16),
    /// Seconds.
    Lifetime(u32),
    Data(&'a [u8]),
    RequestedAddressFamily(Family),
    AdditionalAddressFamily(Family),
    /// Whether the next port is to be reserved as well.
    EvenPort(bool),
    /// An IP protocol number: 17 is UDP, 6 is TCP.
    RequestedTransport(u8),
    DontFragment,
    ReservationToken([u8; 8]),
    Icmp(Icmp),
    Other {
        kind: u16,
        value: &'a [u8],
    },
}

impl<'a> Attribute<'a> {
    /// The wire form of a PASSWORD-ALGORITHMS list, none with parameters.
    pub fn algorithm_list(algorithms: &[Algorithm]) -> Vec<u8> {
        algorithms
            .iter()
            .flat_map(|algorithm| {
                let [high, low] = algorithm.number().to_be_bytes();
                [high, low, 0, 0]
            })
            .collect()
    }

    /// Decodes one value; `transaction` undoes the masking of IPv6 addresses.
    ///
    /// # Errors
    /// [`Malformed`] when length or content cannot be of the type.
    pub fn decode(raw: &RawAttribute<'a>, transaction: &TransactionId) -> Result<Self, Malformed> {
        let value = raw.value;
        let decoded = match raw.kind {
            kind::MAPPED_ADDRESS => plain_address(value).map(Self::MappedAddress),
            kind::ALTERNATE_SERVER => plain_address(value).map(Self::AlternateServer),
            kind::XOR_MAPPED_ADDRESS => xor_address(value, transaction).map(Self::XorMappedAddress),
            kind::XOR_PEER_ADDRESS => xor_address(value, transaction).map(Self::XorPeerAddress),
            kind::XOR_RELAYED_ADDRESS => xor_address(value, transaction).map(Self::XorRelayedAddress),
            kind::USERNAME => text(value, USERNAME_MAX).map(Self::Username),
            kind::REALM => text(value, TEXT_MAX).map(Self::Realm),
            kind::SOFTWARE => text(value, TEXT_MAX).map(Self::Software),
            kind::ALTERNATE_DOMAIN => text(value, 255).map(Self::AlternateDomain),
            kind::NONCE => (value.len() <= TEXT_MAX).then_some(Self::Nonce(value)),
            kind::USERHASH => value.try_into().ok().map(Self::UserHash),
            kind::MESSAGE_INTEGRITY => (value.len() == 20).then_some(Self::MessageIntegrity(value)),
            kind::MESSAGE_INTEGRITY_SHA256 => ((16..=32).contains(&value.len()) && value.len().is_multiple_of(4))
                .then_some(Self::MessageIntegritySha256(value)),
            kind::PASSWORD_ALGORITHMS => {
                (!value.is_empty() && value.len() <= 256).then_some(Self::PasswordAlgorithms(Cow::Borrowed(value)))
            }
            kind::PASSWORD_ALGORITHM => {
                (value.len() >= 4).then(|| Self::PasswordAlgorithm(Algorithm::from_number(be16(value, 0))))
            }
            kind::FINGERPRINT => word(value).map(Self::Fingerprint),
            kind::ERROR_CODE => error(value).map(|(_, code, reason)| Self::ErrorCode { code, reason }),
            kind::ADDRESS_ERROR_CODE => error(value).map(|(family, code, reason)| Self::AddressErrorCode {
                family: Family::from_number(family),
                code,
                reason,
            }),
            kind::UNKNOWN_ATTRIBUTES => value.len().is_multiple_of(2).then(|| {
                Self::UnknownAttributes(
                    value
                        .chunks_exact(2)
                        .map(|pair| be16(pair, 0))
                        .collect::<Vec<_>>()
                        .into(),
                )
            }),
            kind::CHANNEL_NUMBER => (value.len() == 4).then(|| Self::ChannelNumber(be16(value, 0))),
            kind::LIFETIME => word(value).map(Self::Lifetime),
            kind::DATA => Some(Self::Data(value)),
            kind::REQUESTED_ADDRESS_FAMILY => family(value).map(Self::RequestedAddressFamily),
            kind::ADDITIONAL_ADDRESS_FAMILY => family(value).map(Self::AdditionalAddressFamily),
            kind::EVEN_PORT => (value.len() == 1).then(|| Self::EvenPort(value[0] & 0x80 != 0)),
            kind::REQUESTED_TRANSPORT => (value.len() == 4).then(|| Self::RequestedTransport(value[0])),
            kind::DONT_FRAGMENT => value.is_empty().then_some(Self::DontFragment),
            kind::RESERVATION_TOKEN => value.try_into().ok().map(Self::ReservationToken),
            kind::ICMP => (value.len() == 8).then(|| {
                Self::Icmp(Icmp {
                    kind: value[2],
                    code: value[3],
                    data: u32::from_be_bytes([value[4], value[5], value[6], value[7]]),
                })
            }),
            other => Some(Self::Other { kind: other, value }),
        };
        decoded.ok_or(Malformed { kind: raw.kind })
    }

    /// The type number.
    pub fn kind(&self) -> u16 {
        match self {
            Self::MappedAddress(_) => kind::MAPPED_ADDRESS,
            Self::XorMappedAddress(_) => kind::XOR_MAPPED_ADDRESS,
            Self::XorPeerAddress(_) => kind::XOR_PEER_ADDRESS,
            Self::XorRelayedAddress(_) => kind::XOR_RELAYED_ADDRESS,
            Self::AlternateServer(_) => kind::ALTERNATE_SERVER,
            Self::AlternateDomain(_) => kind::ALTERNATE_DOMAIN,
            Self::Username(_) => kind::USERNAME,
            Self::UserHash(_) => kind::USERHASH,
            Self::Realm(_) => kind::REALM,
            Self::Nonce(_) => kind::NONCE,
            Self::Software(_) => kind::SOFTWARE,
            Self::MessageIntegrity(_) => kind::MESSAGE_INTEGRITY,
            Self::MessageIntegritySha256(_) => kind::MESSAGE_INTEGRITY_SHA256,
            Self::PasswordAlgorithms(_) => kind::PASSWORD_ALGORITHMS,
            Self::PasswordAlgorithm(_) => kind::PASSWORD_ALGORITHM,
            Self::Fingerprint(_) => kind::FINGERPRINT,
            Self::ErrorCode { .. } => kind::ERROR_CODE,
            Self::AddressErrorCode { .. } => kind::ADDRESS_ERROR_CODE,
            Self::UnknownAttributes(_) => kind::UNKNOWN_ATTRIBUTES,
            Self::ChannelNumber(_) => kind::CHANNEL_NUMBER,
            Self::Lifetime(_) => kind::LIFETIME,
            Self::Data(_) => kind::DATA,
            Self::RequestedAddressFamily(_) => kind::REQUESTED_ADDRESS_FAMILY,
            Self::AdditionalAddressFamily(_) => kind::ADDITIONAL_ADDRESS_FAMILY,
            Self::EvenPort(_) => kind::EVEN_PORT,
            Self::RequestedTransport(_) => kind::REQUESTED_TRANSPORT,
            Self::DontFragment => kind::DONT_FRAGMENT,
            Self::ReservationToken(_) => kind::RESERVATION_TOKEN,
            Self::Icmp(_) => kind::ICMP,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// Appends the value, without header and padding.
    pub(super) fn encode(&self, out: &mut Vec<u8>, transaction: &TransactionId) {
        match self {
            Self::MappedAddress(address) | Self::AlternateServer(address) => put_plain_address(out, *address),
            Self::XorMappedAddress(address) | Self::XorPeerAddress(address) | Self::XorRelayedAddress(address) => {
                put_xor_address(out, *address, transaction);
            }
            Self::Username(text) | Self::Realm(text) | Self::Software(text) | Self::AlternateDomain(text) => {
                out.extend_from_slice(text.as_bytes());
            }
            Self::UserHash(hash) => out.extend_from_slice(hash),
            Self::Nonce(value)
            | Self::MessageIntegrity(value)
            | Self::MessageIntegritySha256(value)
            | Self::Data(value)
            | Self::Other { value, .. } => out.extend_from_slice(value),
            Self::PasswordAlgorithms(list) => out.extend_from_slice(list),
            Self::PasswordAlgorithm(algorithm) => {
                out.extend_from_slice(&algorithm.number().to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            }
            Self::Fingerprint(value) | Self::Lifetime(value) => out.extend_from_slice(&value.to_be_bytes()),
            Self::ErrorCode { code, reason } => put_error(out, 0, *code, reason),
            Self::AddressErrorCode { family, code, reason } => put_error(out, family.number(), *code, reason),
            Self::UnknownAttributes(kinds) => kinds.iter().for_each(|kind| out.extend_from_slice(&kind.to_be_bytes())),
            Self::ChannelNumber(number) => {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            }
            Self::RequestedAddressFamily(family) | Self::AdditionalAddressFamily(family) => {
                out.extend_from_slice(&[family.number(), 0, 0, 0]);
            }
            Self::EvenPort(reserve) => out.push(if *reserve { 0x80 } else { 0 }),
            Self::RequestedTransport(protocol) => out.extend_from_slice(&[*protocol, 0, 0, 0]),
            Self::DontFragment => {}
            Self::ReservationToken(token) => out.extend_from_slice(token),
            Self::Icmp(icmp) => {
                out.extend_from_slice(&[0, 0, icmp.kind, icmp.code]);
                out.extend_from_slice(&icmp.data.to_be_bytes());
            }
        }
    }
}

fn text(value: &[u8], max: usize) -> Option<&str> {
    if value.len() > max {
        return None;
    }
    std::str::from_utf8(value).ok()
}

fn word(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn family(value: &[u8]) -> Option<Family> {
    (value.len() == 4).then(|| Family::from_number(value[0]))
}

fn error(value: &[u8]) -> Option<(u8, u16, Cow<'_, str>)> {
    if value.len() < 4 || value.len() > 4 + TEXT_MAX {
        return None;
    }
    let (class, number) = (u16::from(value[2] & 0x07), u16::from(value[3]));
    if !(3..=6).contains(&class) || number > 99 {
        return None;
    }
    Some((value[0], class * 100 + number, String::from_utf8_lossy(&value[4..])))
}

fn put_error(out: &mut Vec<u8>, first: u8, code: u16, reason: &str) {
    out.extend_from_slice(&[first, 0, (code / 100) as u8, (code % 100) as u8]);
    out.extend_from_slice(reason.as_bytes());
}

fn plain_address(value: &[u8]) -> Option<SocketAddr> {
    let port = if value.len() >= 4 { be16(value, 2) } else { return None };
    match (value[1], value.len()) {
        (1, 8) => Some((<[u8; 4]>::try_from(&value[4..]).ok()?, port).into()),
        (2, 20) => Some((<[u8; 16]>::try_from(&value[4..]).ok()?, port).into()),
        _ => None,
    }
}

fn put_plain_address(out: &mut Vec<u8>, address: SocketAddr) {
    let family = Family::of(address.ip()).number();
    out.extend_from_slice(&[0, family]);
    out.extend_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
    }
}

fn mask(transaction: &TransactionId) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    bytes[4..].copy_from_slice(transaction);
    u128::from_be_bytes(bytes)
}

/// Decodes a XOR-…-ADDRESS value (RFC 8489 section 14.2).
fn xor_address(value: &[u8], transaction: &TransactionId) -> Option<SocketAddr> {
    let address = plain_address(value)?;
    Some(unmask(address, transaction))
}

fn unmask(address: SocketAddr, transaction: &TransactionId) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() ^ MAGIC_COOKIE)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() ^ mask(transaction))),
    };
    SocketAddr::new(ip, address.port() ^ (MAGIC_COOKIE >> 16) as u16)
}

/// Appends a XOR-…-ADDRESS value; masking is its own inverse.
fn put_xor_address(out: &mut Vec<u8>, address: SocketAddr, transaction: &TransactionId) {
    put_plain_address(out, unmask(address, transaction));
}
