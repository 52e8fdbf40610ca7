//! Keys, digests and checksums of STUN (RFC 8489 sections 9.2.2, 14.4–14.7).

use hmac::{KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

/// HMAC with either hash behind one face.
pub(super) enum Hmac {
    Sha1(Box<hmac::Hmac<Sha1>>),
    Sha256(Box<hmac::Hmac<Sha256>>),
}

impl Hmac {
    pub fn sha1(key: &[u8]) -> Self {
        Self::Sha1(Box::new(
            hmac::Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
        ))
    }

    pub fn sha256(key: &[u8]) -> Self {
        Self::Sha256(Box::new(
            hmac::Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
        ))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(mac) => mac.update(bytes),
            Self::Sha256(mac) => mac.update(bytes),
        }
    }

    pub fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha1(mac) => mac.finalize().into_bytes().to_vec(),
            Self::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
        }
    }

    /// Compares in constant time; `expected` may be a shortened digest, whose length the caller has checked.
    pub fn verify(self, expected: &[u8]) -> bool {
        !expected.is_empty()
            && match self {
                Self::Sha1(mac) => mac.verify_truncated_left(expected).is_ok(),
                Self::Sha256(mac) => mac.verify_truncated_left(expected).is_ok(),
            }
    }
}

/// HMAC-SHA1 of `data`: passwords of time-limited credentials.
pub fn hmac_sha1(key: &[u8], data: &[u8]) -> [u8; 20] {
    let mut mac = hmac::Hmac::<Sha1>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// HMAC-SHA256 of `data`: nonces.
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let mut mac = hmac::Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().into()
}

/// The long-term key without PASSWORD-ALGORITHM, or with MD5: `MD5(username ":" realm ":" password)`.
pub fn long_term_key_md5(username: &str, realm: &str, password: &str) -> [u8; 16] {
    Md5::digest(format!("{username}:{realm}:{password}")).into()
}

/// The long-term key of PASSWORD-ALGORITHM SHA-256.
pub fn long_term_key_sha256(username: &str, realm: &str, password: &str) -> [u8; 32] {
    Sha256::digest(format!("{username}:{realm}:{password}")).into()
}

/// USERHASH: `SHA-256(username ":" realm)`.
pub fn user_hash(username: &str, realm: &str) -> [u8; 32] {
    Sha256::digest(format!("{username}:{realm}")).into()
}

/// Whether two byte strings are the same, in time that depends on their lengths only.
pub fn same_bytes(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

/// Standard base64 with padding (RFC 4648 section 4).
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            out.push(if place <= chunk.len() {
                char::from(ALPHABET[(group >> (18 - 6 * place)) as usize & 63])
            } else {
                '='
            });
        }
    }
    out
}

const CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0xEDB8_8320
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// The CRC-32 of ITU V.42, as Ethernet and zlib use it.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        CRC_TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize] ^ (crc >> 8)
    })
}
