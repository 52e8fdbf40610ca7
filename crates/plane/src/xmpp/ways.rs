//! Ways to other domains: which stream carries what the people of a local domain write to a remote one.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::sorting::split;

/// The longest part of an address (RFC 7622 §3.1).
const MAX_PART: usize = 1023;

/// Streams by the local domain that each is for.
type Streams = Vec<(Box<str>, u64)>;

/// Streams by remote domain.
#[derive(Debug, Default)]
pub struct Ways(RwLock<HashMap<Box<str>, Streams>>);

impl Ways {
    /// Lets a stream carry messages from one domain to the other; it takes the place of another one.
    pub fn open(&self, local: &str, remote: &str, sid: u64) {
        let mut ways = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let streams = ways.entry(remote.into()).or_default();
        streams.retain(|(from, _)| **from != *local);
        streams.push((local.into(), sid));
    }

    /// Undoes [`Ways::open`], if the stream still has that place.
    pub fn close(&self, local: &str, remote: &str, sid: u64) {
        let mut ways = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = ways.get_mut(remote) {
            streams.retain(|(from, found)| **from != *local || *found != sid);
            if streams.is_empty() {
                ways.remove(remote);
            }
        }
    }

    /// The stream for a message of a local domain's to this address; `None` also for an address that somebody has to
    /// prepare first (RFC 7622 §3): only plain ASCII is looked at.
    pub fn find(&self, local: &str, to: &str) -> Option<u64> {
        let domain = domain_of(to)?;
        let ways = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (_, sid) = ways.get(domain)?.iter().find(|(from, _)| **from == *local)?;
        is_plain(to).then_some(*sid)
    }
}

/// The domain of an address whose parts are all there (RFC 7622 §3.2): what stands between the first `@`, if there is one
/// before the first `/`, and that slash.
pub fn domain_of(jid: &str) -> Option<&str> {
    let (bare, resource) = split(jid);
    let (local, domain) = bare
        .split_once('@')
        .map_or((None, bare), |(local, domain)| (Some(local), domain));
    let whole = !domain.is_empty() && local != Some("") && resource != Some("");
    whole.then_some(domain)
}

/// Whether an address is its own prepared form.
fn is_plain(jid: &str) -> bool {
    let (bare, resource) = split(jid);
    let (local, domain) = bare.split_once('@').unwrap_or(("", bare));
    let plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
    [local, domain, resource.unwrap_or_default()]
        .iter()
        .all(|part| part.len() <= MAX_PART)
        && local.bytes().all(|byte| plain(byte) && !b"\"&':<>@".contains(&byte))
        && domain.bytes().all(plain)
        && resource.is_none_or(|resource| resource.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_of_addresses() {
        for (jid, domain) in [
            ("example.org", Some("example.org")),
            ("a@example.org", Some("example.org")),
            ("a@example.org/r@other/x", Some("example.org")),
            ("example.org/a@other", Some("example.org")),
            ("a@b@example.org", Some("b@example.org")),
            ("@example.org", None),
            ("a@", None),
            ("a@example.org/", None),
            ("", None),
            ("/r", None),
        ] {
            assert_eq!(domain_of(jid), domain, "{jid}");
        }
    }

    #[test]
    fn a_way_is_for_two_domains_and_plain_addresses() {
        let ways = Ways::default();
        ways.open("a.test", "b.test", 1);
        ways.open("c.test", "b.test", 2);
        for to in ["b.test", "u@b.test", "u@b.test/Desk.1", "u.v-1@b.test/a/b@c"] {
            assert_eq!(ways.find("a.test", to), Some(1), "{to}");
        }
        let long = format!("{}@b.test", "u".repeat(1024));
        for to in [
            "U@b.test",
            "u@B.test",
            "u'@b.test",
            "u@b.test/ü",
            "u@b.test/a b",
            "u@x.b.test",
            "u@b.test/",
            "",
            &long,
        ] {
            assert_eq!(ways.find("a.test", to), None, "{to}");
        }
        assert_eq!(ways.find("c.test", "u@b.test"), Some(2));
        assert_eq!(ways.find("d.test", "u@b.test"), None);
        ways.open("a.test", "b.test", 3);
        ways.close("a.test", "b.test", 1);
        assert_eq!(ways.find("a.test", "u@b.test"), Some(3), "the newer one stays");
        ways.close("a.test", "b.test", 3);
        ways.close("c.test", "b.test", 2);
        assert_eq!(ways.find("a.test", "u@b.test"), None);
        assert!(ways.0.read().unwrap().is_empty());
    }
}
