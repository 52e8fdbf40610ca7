//! The long-term credential mechanism (RFC 8489 section 9.2): stateless nonces, stored keys, time-limited credentials.

use crate::policy::Policy;
use crate::request::Request;
use crate::Now;
use moim_wire::stun::{
    base64, hmac_sha1, hmac_sha256, long_term_key_md5, long_term_key_sha256, same_bytes, Algorithm, Attribute, Message,
};
use std::net::{IpAddr, SocketAddr};

/// Says in a nonce that PASSWORD-ALGORITHMS belongs to it: bit 0 of the security features (RFC 8489 section 18.1).
const COOKIE: &str = "obMatJos2gAAA";
const STAMP: usize = 8;
const MAC_BYTES: usize = 12;

/// A user's long-term keys: MD5 and SHA-256 of `user:realm:password`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserKeys {
    pub md5: [u8; 16],
    pub sha256: [u8; 32],
}

impl UserKeys {
    /// Both keys of a password.
    pub fn derive(user: &str, realm: &str, password: &str) -> Self {
        Self {
            md5: long_term_key_md5(user, realm, password),
            sha256: long_term_key_sha256(user, realm, password),
        }
    }

    fn of(&self, algorithm: Algorithm) -> &[u8] {
        match algorithm {
            Algorithm::Sha256 => &self.sha256,
            _ => &self.md5,
        }
    }
}

/// The password algorithms we offer, as sent and as expected back.
pub fn offered_algorithms() -> Vec<u8> {
    Attribute::algorithm_list(&[Algorithm::Sha256, Algorithm::Md5])
}

/// Makes and checks nonces without remembering them: an HMAC over the time and the client's address.
pub struct Nonces {
    key: [u8; 32],
    lifetime_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// Ours and too old, or never ours: both are cured by a new one.
    Stale,
}

impl Nonces {
    pub fn new(key: [u8; 32], lifetime_s: u32) -> Self {
        Self { key, lifetime_s }
    }

    pub fn issue(&self, client: SocketAddr, now: Now) -> String {
        self.at(client, seconds(now))
    }

    pub fn check(&self, nonce: &[u8], client: SocketAddr, now: Now) -> Freshness {
        let stamp = nonce
            .get(COOKIE.len()..COOKIE.len() + STAMP)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(stamp) = stamp else {
            return Freshness::Stale;
        };
        let young = seconds(now).wrapping_sub(stamp) <= self.lifetime_s;
        if young && same_bytes(self.at(client, stamp).as_bytes(), nonce) {
            Freshness::Fresh
        } else {
            Freshness::Stale
        }
    }

    fn at(&self, client: SocketAddr, stamp: u32) -> String {
        let mut covered = [0; 22];
        covered[..4].copy_from_slice(&stamp.to_be_bytes());
        let ip = match client.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        covered[4..20].copy_from_slice(&ip.octets());
        covered[20..].copy_from_slice(&client.port().to_be_bytes());
        let mac = hmac_sha256(&self.key, &covered);
        format!("{COOKIE}{stamp:08x}{}", base64(&mac[..MAC_BYTES]))
    }
}

fn seconds(now: Now) -> u32 {
    (now.ms / 1000) as u32
}

/// Seals answers the way the request was sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct Signer {
    pub key: Vec<u8>,
    pub sha256: bool,
}

/// Who made an authenticated request.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The whole user name, as it must be repeated in every request of an allocation.
    pub username: String,
    pub keys: UserKeys,
    pub signer: Signer,
    /// Whether the user is in the table, rather than vouched for by a shared secret.
    pub listed: bool,
}

impl Identity {
    /// What quotas count by: the user name without the expiry of a time-limited credential.
    pub fn user(&self) -> &str {
        account(&self.username, self.listed)
    }
}

/// The user part of a user name.
pub fn account(username: &str, listed: bool) -> &str {
    match username.split_once(':') {
        Some((_, user)) if !listed => user,
        _ => username,
    }
}

/// Why credentials were not accepted; all but the first two are 401 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// 400: attributes that must come together did not.
    Incomplete(&'static str),
    /// 438.
    StaleNonce,
    UnknownUser,
    Expired,
    WrongPassword,
}

impl Denied {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Incomplete(what) => what,
            Self::StaleNonce => "the nonce is stale",
            Self::UnknownUser => "the user name is not known",
            Self::Expired => "the credential has expired",
            Self::WrongPassword => "the password is wrong",
        }
    }
}

/// A key that an allocation was made with stays good for that allocation, so that a credential which expires
/// meanwhile does not cut a running call.
pub struct Known<'a> {
    pub username: &'a str,
    pub keys: UserKeys,
    pub listed: bool,
}

/// Checks a request that carries an integrity attribute; its nonce has been found fresh.
pub fn authenticate(
    message: &Message<'_>,
    request: &Request<'_>,
    policy: &Policy,
    realm: &str,
    known: Option<Known<'_>>,
    now: Now,
) -> Result<Identity, Denied> {
    let algorithm = algorithm(request)?;
    let username = match (request.username, request.user_hash) {
        (Some(name), _) => name,
        (None, Some(hash)) => policy.hashes.get(&hash).ok_or(Denied::UnknownUser)?,
        (None, None) => return Err(Denied::Incomplete("there is no user name")),
    };
    let fits = |keys: &UserKeys| verify(message, request, keys.of(algorithm));
    let identity = |keys: UserKeys, listed| Identity {
        username: username.to_owned(),
        keys,
        signer: Signer {
            key: keys.of(algorithm).to_vec(),
            sha256: request.integrity_sha256.is_some() || request.password_algorithm.is_some(),
        },
        listed,
    };
    if let Some(known) = known.filter(|known| known.username == username && fits(&known.keys)) {
        return Ok(identity(known.keys, known.listed));
    }
    if let Some(keys) = policy.users.get(username) {
        return if fits(keys) {
            Ok(identity(*keys, true))
        } else {
            Err(Denied::WrongPassword)
        };
    }
    let expiry = username.split_once(':').map_or(username, |(expiry, _)| expiry);
    let expiry: u64 = match expiry.parse() {
        Ok(expiry) if !policy.secrets.is_empty() => expiry,
        _ => return Err(Denied::UnknownUser),
    };
    let vouched = policy
        .secrets
        .iter()
        .map(|secret| UserKeys::derive(username, realm, &base64(&hmac_sha1(secret, username.as_bytes()))))
        .find(fits)
        .ok_or(Denied::WrongPassword)?;
    if expiry < now.unix {
        return Err(Denied::Expired);
    }
    Ok(identity(vouched, false))
}

fn algorithm(request: &Request<'_>) -> Result<Algorithm, Denied> {
    match (request.password_algorithm, &request.password_algorithms) {
        (None, None) => Ok(Algorithm::Md5),
        (Some(chosen @ (Algorithm::Md5 | Algorithm::Sha256)), Some(list)) if **list == offered_algorithms() => {
            Ok(chosen)
        }
        _ => Err(Denied::Incomplete("the password algorithms are not those offered")),
    }
}

fn verify(message: &Message<'_>, request: &Request<'_>, key: &[u8]) -> bool {
    match (&request.integrity_sha256, &request.integrity) {
        (Some(attribute), _) => message.verify_sha256(attribute, key),
        (None, Some(attribute)) => message.verify_sha1(attribute, key),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now {
            ms: seconds * 1000,
            unix: 0,
        }
    }

    #[test]
    fn a_nonce_is_good_for_one_address_and_one_while() {
        let nonces = Nonces::new([7; 32], 600);
        let client = "192.0.2.1:5000".parse().unwrap();
        let nonce = nonces.issue(client, at(1000));
        assert_eq!(nonces.check(nonce.as_bytes(), client, at(1600)), Freshness::Fresh);
        assert_eq!(nonces.check(nonce.as_bytes(), client, at(1601)), Freshness::Stale);
        assert_eq!(nonces.check(nonce.as_bytes(), client, at(999)), Freshness::Stale);
        let other = "192.0.2.1:5001".parse().unwrap();
        assert_eq!(nonces.check(nonce.as_bytes(), other, at(1000)), Freshness::Stale);
        assert_eq!(
            Nonces::new([8; 32], 600).check(nonce.as_bytes(), client, at(1000)),
            Freshness::Stale
        );
        for rubbish in ["", "x", COOKIE, "obMatJos2gAAAzzzzzzzz"] {
            assert_eq!(nonces.check(rubbish.as_bytes(), client, at(1000)), Freshness::Stale);
        }
    }

    #[test]
    fn the_cookie_sets_the_password_algorithms_bit_only() {
        assert_eq!(COOKIE, format!("obMatJos2{}", base64(&[0x80, 0, 0])));
    }

    #[test]
    fn accounts_leave_the_expiry_out() {
        assert_eq!(account("1700000000:alice", false), "alice");
        assert_eq!(account("a:b", true), "a:b");
        assert_eq!(account("1700000000", false), "1700000000");
    }
}
