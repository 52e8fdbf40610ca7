//! What archives call their messages on the wire: a message's number and whose archive it is, as one block of AES-128
//! under a key of the site, in 22 characters of base64url.
//!
//! So an id tells neither a time nor how much is said, and nobody guesses another (XEP-0359 §7). One that is made up is
//! refused without a look at the disk: the half of the block that stands for the owner is wrong. As it is in the block,
//! the archives of both sides call a message by names that do not tell of each other. Ids get about: clients publish them
//! (XEP-0490) and report them (XEP-0377), and nobody who comes across those of several archives can tell who talked to whom.

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::Aes128;
use aws_lc_rs::rand;

/// Base64url (RFC 4648 section 5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The characters that have six bits of the block each; another one has the two that are left.
const WHOLE: usize = 21;

/// Writes and reads ids under one key.
#[derive(Clone, Debug)]
pub struct ArchiveIds(Aes128);

impl ArchiveIds {
    /// All that is named under one key, is named alike.
    pub fn new(key: [u8; 16]) -> Self {
        Self(Aes128::new(&key.into()))
    }

    /// What the archive of `owner`, a bare JID in canonical form, calls a message.
    pub fn write(&self, owner: &str, number: u64) -> String {
        let block = u128::from(number) << 64 | u128::from(mark(owner));
        let mut block = block.to_be_bytes().into();
        self.0.encrypt_block(&mut block);
        let block = u128::from_be_bytes(block.into());
        let digit = |bits: u128| char::from(ALPHABET[(bits & 63) as usize]);
        let mut text = String::with_capacity(WHOLE + 1);
        text.extend((0..WHOLE).map(|index| digit(block >> (122 - 6 * index))));
        text.push(digit(block << 4));
        text
    }

    /// The number of the message that the archive of `owner` calls so; `None` for what it calls nothing.
    pub fn read(&self, owner: &str, text: &str) -> Option<u64> {
        let (last, whole) = text.as_bytes().split_last()?;
        let last = digit(*last)?;
        if whole.len() != WHOLE || last & 15 != 0 {
            return None;
        }
        let start = whole.iter().try_fold(0, |bits, byte| Some(bits << 6 | digit(*byte)?))?;
        let block: u128 = start << 2 | last >> 4;
        let mut block = block.to_be_bytes().into();
        self.0.decrypt_block(&mut block);
        let block = u128::from_be_bytes(block.into());
        let (number, marked) = ((block >> 64) as u64, block as u64);
        (marked == mark(owner) && number <= i64::MAX as u64).then_some(number)
    }
}

/// Names that nobody else can read.
impl Default for ArchiveIds {
    fn default() -> Self {
        let mut key = [0; 16];
        rand::fill(&mut key).expect("the system has random numbers");
        Self::new(key)
    }
}

/// Six bits.
fn digit(byte: u8) -> Option<u128> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// 64 bits that stand for an owner: FNV-1a. Who finds another address with the same ones gains nothing: archives are
/// looked up by more than that, and only their owners ask.
fn mark(owner: &str) -> u64 {
    owner.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: &str = "a@x";

    #[test]
    fn it_is_the_block_cipher_that_others_have() {
        // FIPS 197, appendix C.1.
        let key: [u8; 16] = std::array::from_fn(|index| index as u8);
        let mut block = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes().into();
        ArchiveIds::new(key).0.encrypt_block(&mut block);
        let block = u128::from_be_bytes(block.into());
        assert_eq!(block, 0x69c4_e0d8_6a7b_0430_d8cd_b780_70b4_c55a);
        assert_eq!((mark(""), mark("a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
    }

    #[test]
    fn what_is_written_is_read_by_the_same_archive_alone() {
        let ids = ArchiveIds::default();
        for number in [0, 1, 77 << 22, i64::MAX as u64] {
            let text = ids.write(OWNER, number);
            assert_eq!(text.len(), 22);
            assert_eq!(ids.read(OWNER, &text), Some(number));
            assert_eq!(ids.read("b@x", &text), None);
            assert_eq!(ArchiveIds::default().read(OWNER, &text), None);
        }
        assert_eq!(
            ids.read(OWNER, &ids.write(OWNER, u64::MAX)),
            None,
            "no number of a message"
        );
    }

    #[test]
    fn nothing_else_is_read() {
        let ids = ArchiveIds::default();
        let text = ids.write(OWNER, 5);
        for index in 0..text.len() {
            for other in ALPHABET.iter().chain(b" +/=\0") {
                let mut bent = text.clone().into_bytes();
                bent[index] = *other;
                let bent = String::from_utf8(bent).unwrap();
                assert_eq!(ids.read(OWNER, &bent).is_some(), bent == text);
            }
        }
        for wrong in [
            "",
            "5",
            "A",
            &text[1..],
            &format!("{text}A"),
            &format!("{text}=="),
            "äöüäöüäöüäö",
        ] {
            assert_eq!(ids.read(OWNER, wrong), None);
        }
    }
}
