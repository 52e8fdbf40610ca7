//! Reading: a view on one datagram whose attribute list has been proven to lie within it.

use super::attribute::{kind, Attribute, Malformed};
use super::integrity::{crc32, Hmac};
use super::{split_message_type, Class, Method, TransactionId, HEADER, MAGIC_COOKIE, MAX_ATTRIBUTES};
use std::fmt;

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Shorter than its header says, or than a header.
    Truncated,
    /// The first two bits are not zero, or the magic cookie is missing.
    NotStun,
    /// The length field is not a multiple of four, or bytes follow the message.
    Length,
    /// An attribute reaches beyond the message.
    AttributeOverrun,
    /// More than [`MAX_ATTRIBUTES`].
    TooManyAttributes,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the message is shorter than its length field says",
            Self::NotStun => "this is not a STUN message",
            Self::Length => "the length field does not fit the datagram",
            Self::AttributeOverrun => "an attribute reaches beyond the message",
            Self::TooManyAttributes => "the message has too many attributes",
        })
    }
}

impl std::error::Error for ParseError {}

/// What became of the FINGERPRINT check (RFC 8489 section 14.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    Absent,
    Valid,
    Wrong,
}

/// One well-formed STUN message in place.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
}

/// One attribute in place; `offset` is where its header starts, counted from the start of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAttribute<'a> {
    pub kind: u16,
    pub value: &'a [u8],
    pub offset: usize,
}

impl<'a> Message<'a> {
    /// Checks the header and walks every attribute once. The datagram must hold exactly one message.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        if datagram.len() < HEADER {
            return Err(ParseError::Truncated);
        }
        if datagram[0] & 0xC0 != 0 || datagram[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(ParseError::NotStun);
        }
        let length = usize::from(be16(datagram, 2));
        if !length.is_multiple_of(4) {
            return Err(ParseError::Length);
        }
        match datagram.len().cmp(&(HEADER + length)) {
            std::cmp::Ordering::Less => return Err(ParseError::Truncated),
            std::cmp::Ordering::Greater => return Err(ParseError::Length),
            std::cmp::Ordering::Equal => {}
        }
        let mut at = HEADER;
        let mut count = 0;
        while at < datagram.len() {
            // Lengths are multiples of four, so a header always fits when any byte is left.
            let end = at + 4 + usize::from(be16(datagram, at + 2)).next_multiple_of(4);
            if end > datagram.len() {
                return Err(ParseError::AttributeOverrun);
            }
            count += 1;
            if count > MAX_ATTRIBUTES {
                return Err(ParseError::TooManyAttributes);
            }
            at = end;
        }
        Ok(Self { bytes: datagram })
    }

    pub fn class(&self) -> Class {
        split_message_type(be16(self.bytes, 0)).0
    }

    pub fn method(&self) -> Method {
        split_message_type(be16(self.bytes, 0)).1
    }

    pub fn transaction(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER]);
        id
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, in order: what follows an integrity attribute is left out, except
    /// MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, and nothing follows FINGERPRINT (RFC 8489 section 9).
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            bytes: self.bytes,
            at: HEADER,
            sealed: Seal::Open,
        }
    }

    /// The first attribute of a type.
    pub fn raw(&self, wanted: u16) -> Option<RawAttribute<'a>> {
        self.attributes().find(|found| found.kind == wanted)
    }

    /// The first attribute of a type, decoded.
    ///
    /// # Errors
    /// [`Malformed`] when the value cannot be one of this type.
    pub fn get(&self, wanted: u16) -> Result<Option<Attribute<'a>>, Malformed> {
        self.raw(wanted)
            .map(|found| Attribute::decode(&found, &self.transaction()))
            .transpose()
    }

    /// Checks FINGERPRINT; it counts only as the last attribute.
    pub fn fingerprint(&self) -> Fingerprint {
        let Some(found) = self.raw(kind::FINGERPRINT) else {
            return Fingerprint::Absent;
        };
        let last = found.offset + 8 == self.bytes.len();
        let expected = crc32(&self.bytes[..found.offset]) ^ 0x5354_554E;
        if last && found.value == expected.to_be_bytes() {
            Fingerprint::Valid
        } else {
            Fingerprint::Wrong
        }
    }

    /// Whether the MESSAGE-INTEGRITY attribute at `offset` fits the key. Constant time in the digest.
    pub fn verify_sha1(&self, attribute: &RawAttribute<'_>, key: &[u8]) -> bool {
        attribute.kind == kind::MESSAGE_INTEGRITY
            && attribute.value.len() == 20
            && self.seal(Hmac::sha1(key), attribute).verify(attribute.value)
    }

    /// The same for MESSAGE-INTEGRITY-SHA256, which may be cut to 16, 20, 24 or 28 bytes (RFC 8489 section 14.6).
    pub fn verify_sha256(&self, attribute: &RawAttribute<'_>, key: &[u8]) -> bool {
        attribute.kind == kind::MESSAGE_INTEGRITY_SHA256
            && (16..=32).contains(&attribute.value.len())
            && attribute.value.len().is_multiple_of(4)
            && self.seal(Hmac::sha256(key), attribute).verify(attribute.value)
    }

    /// Feeds what an integrity attribute covers: everything before it, with the length field ending right after it.
    fn seal(&self, mut mac: Hmac, attribute: &RawAttribute<'_>) -> Hmac {
        let covered = (attribute.offset + 4 + attribute.value.len() - HEADER) as u16;
        mac.update(&self.bytes[..2]);
        mac.update(&covered.to_be_bytes());
        mac.update(&self.bytes[4..attribute.offset]);
        mac
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Seal {
    Open,
    Integrity,
    Integrity256,
    Done,
}

/// Iterator over the attributes of a [`Message`].
#[derive(Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
    sealed: Seal,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = RawAttribute<'a>;

    fn next(&mut self) -> Option<RawAttribute<'a>> {
        while self.at < self.bytes.len() && self.sealed != Seal::Done {
            let offset = self.at;
            let length = usize::from(be16(self.bytes, offset + 2));
            let found = RawAttribute {
                kind: be16(self.bytes, offset),
                value: &self.bytes[offset + 4..offset + 4 + length],
                offset,
            };
            self.at = offset + 4 + length.next_multiple_of(4);
            let counts = match self.sealed {
                Seal::Open => true,
                Seal::Integrity => matches!(found.kind, kind::MESSAGE_INTEGRITY_SHA256 | kind::FINGERPRINT),
                Seal::Integrity256 => found.kind == kind::FINGERPRINT,
                Seal::Done => false,
            };
            if counts {
                match found.kind {
                    kind::MESSAGE_INTEGRITY => self.sealed = Seal::Integrity,
                    kind::MESSAGE_INTEGRITY_SHA256 => self.sealed = Seal::Integrity256,
                    kind::FINGERPRINT => self.sealed = Seal::Done,
                    _ => {}
                }
                return Some(found);
            }
        }
        None
    }
}

pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
