//! STUN and TURN messages (RFC 8489, RFC 8656): a bounds-checked view for reading, a builder for writing.
//!
//! Reading never allocates and never looks beyond the datagram: [`Message::parse`] proves the whole attribute list to be
//! well formed, after that every accessor is infallible or reports one malformed value.

mod attribute;
mod builder;
mod indication;
mod integrity;
mod message;
#[cfg(test)]
mod tests;

pub use attribute::{kind, Algorithm, Attribute, Family, Icmp, Malformed};
pub use builder::Builder;
pub use indication::{channel_data, put_channel_header, put_data_indication, CHANNEL_HEADER, HEADROOM, TAILROOM};
pub use integrity::{base64, hmac_sha1, hmac_sha256, long_term_key_md5, long_term_key_sha256, same_bytes, user_hash};
pub use message::{Attributes, Fingerprint, Message, ParseError, RawAttribute};

/// The fixed second word of every message (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Bytes of the fixed header.
pub const HEADER: usize = 20;
/// How many attributes a message may carry; real ones have fewer than twenty.
pub const MAX_ATTRIBUTES: usize = 64;

/// Chosen by the client; ties an answer to its request.
pub type TransactionId = [u8; 12];

/// The two class bits of a message type (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// The twelve method bits of a message type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub u16);

impl Method {
    pub const BINDING: Self = Self(0x001);
    pub const ALLOCATE: Self = Self(0x003);
    pub const REFRESH: Self = Self(0x004);
    pub const SEND: Self = Self(0x006);
    pub const DATA: Self = Self(0x007);
    pub const CREATE_PERMISSION: Self = Self(0x008);
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// RFC 6062.
    pub const CONNECT: Self = Self(0x00A);
    /// RFC 6062.
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// RFC 6062.
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);
}

/// The message type field: method bits interleaved with the class bits C1 (0x0100) and C0 (0x0010).
pub fn message_type(class: Class, method: Method) -> u16 {
    let bits = method.0 & 0x0FFF;
    let spread = (bits & 0x000F) | ((bits & 0x0070) << 1) | ((bits & 0x0F80) << 2);
    spread
        | match class {
            Class::Request => 0x0000,
            Class::Indication => 0x0010,
            Class::Success => 0x0100,
            Class::Error => 0x0110,
        }
}

/// The reverse of [`message_type`]; the two top bits of the field must be zero.
pub fn split_message_type(field: u16) -> (Class, Method) {
    let class = match field & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (
        class,
        Method((field & 0x000F) | ((field & 0x00E0) >> 1) | ((field & 0x3E00) >> 2)),
    )
}

/// Error codes that STUN and TURN define, with their standard phrases (RFC 8489, 8656, 6062).
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        300 => "Try Alternate",
        400 => "Bad Request",
        401 => "Unauthenticated",
        403 => "Forbidden",
        420 => "Unknown Attribute",
        437 => "Allocation Mismatch",
        438 => "Stale Nonce",
        440 => "Address Family not Supported",
        441 => "Wrong Credentials",
        442 => "Unsupported Transport Protocol",
        443 => "Peer Address Family Mismatch",
        446 => "Connection Already Exists",
        447 => "Connection Timeout or Failure",
        486 => "Allocation Quota Reached",
        500 => "Server Error",
        508 => "Insufficient Capacity",
        _ => "Error",
    }
}
