//! Writing: attributes in the order given, integrity and fingerprint computed over what stands so far.

use super::attribute::Attribute;
use super::integrity::{crc32, Hmac};
use super::{message_type, Class, Method, TransactionId, HEADER, MAGIC_COOKIE};

/// Builds one message. Lengths are kept right after every step, so the bytes are a message at any time.
pub struct Builder {
    out: Vec<u8>,
    transaction: TransactionId,
}

impl Builder {
    pub fn new(class: Class, method: Method, transaction: &TransactionId) -> Self {
        let mut out = Vec::with_capacity(192);
        out.extend_from_slice(&message_type(class, method).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        out.extend_from_slice(transaction);
        Self {
            out,
            transaction: *transaction,
        }
    }

    /// Appends one attribute.
    ///
    /// # Panics
    /// When the message would exceed 65,535 bytes.
    pub fn add(&mut self, attribute: &Attribute<'_>) -> &mut Self {
        let header = self.out.len();
        self.out.extend_from_slice(&attribute.kind().to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        attribute.encode(&mut self.out, &self.transaction);
        let length = self.out.len() - header - 4;
        self.out.resize(header + 4 + length.next_multiple_of(4), 0);
        self.out[header + 2..header + 4].copy_from_slice(&(length as u16).to_be_bytes());
        self.set_length(self.out.len());
        self
    }

    /// Appends MESSAGE-INTEGRITY over everything so far.
    pub fn integrity_sha1(&mut self, key: &[u8]) -> &mut Self {
        self.set_length(self.out.len() + 24);
        let mut mac = Hmac::sha1(key);
        mac.update(&self.out);
        let value = mac.finish();
        self.add(&Attribute::MessageIntegrity(&value))
    }

    /// Appends MESSAGE-INTEGRITY-SHA256, full length, over everything so far.
    pub fn integrity_sha256(&mut self, key: &[u8]) -> &mut Self {
        self.set_length(self.out.len() + 36);
        let mut mac = Hmac::sha256(key);
        mac.update(&self.out);
        let value = mac.finish();
        self.add(&Attribute::MessageIntegritySha256(&value))
    }

    /// Appends FINGERPRINT; must be the last step.
    pub fn fingerprint(&mut self) -> &mut Self {
        self.set_length(self.out.len() + 8);
        let value = crc32(&self.out) ^ 0x5354_554E;
        self.add(&Attribute::Fingerprint(value))
    }

    /// The finished message.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn set_length(&mut self, end: usize) {
        let length = u16::try_from(end - HEADER).expect("a STUN message has at most 65,535 bytes");
        self.out[2..4].copy_from_slice(&length.to_be_bytes());
    }
}
