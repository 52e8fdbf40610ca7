//! Which peers a relay may talk to.
//!
//! Every rule is a network, an address or an address with a port. The most specific rule that matches decides; of two
//! alike, a denial by the administrator beats an allowance, and an allowance beats what is built in. So a built-in
//! denial gives way only to a rule that names that network or a part of it: `0.0.0.0/0` opens no loopback.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Built-in denials of IPv4 networks (IANA special-purpose registry) and what to call them.
const DENIED_V4: &[(&str, &str)] = &[
    ("0.0.0.0/8", "an unspecified address"),
    ("10.0.0.0/8", "in a private network"),
    ("100.64.0.0/10", "in a carrier's NAT network"),
    ("127.0.0.0/8", "a loopback address"),
    ("169.254.0.0/16", "a link-local address"),
    ("172.16.0.0/12", "in a private network"),
    ("192.0.0.0/24", "in a protocol assignments network"),
    ("192.168.0.0/16", "in a private network"),
    ("198.18.0.0/15", "in a benchmarking network"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "in a reserved network"),
    ("255.255.255.255/32", "the broadcast address"),
];

/// The same for IPv6. Mapped, compatible and translated forms of IPv4 are refused whole: nobody needs them on a wire.
const DENIED_V6: &[(&str, &str)] = &[
    ("::/96", "an IPv4-compatible address"),
    ("::/128", "an unspecified address"),
    ("::1/128", "a loopback address"),
    ("::ffff:0:0/96", "an IPv4-mapped address"),
    ("::ffff:0:0:0/96", "an IPv4-translated address"),
    ("64:ff9b:1::/48", "in a local-use translation network"),
    ("100::/64", "in a discard-only network"),
    ("fc00::/7", "in a private network"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
];

const OWN: &str = "an address of this server";
const BY_RULE: &str = "denied by a rule of the administrator";

/// Text that is not a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError(String);

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not a network, an address or an address with a port", self.0)
    }
}

impl std::error::Error for RuleError {}

/// A network, and one port of it when it is a single address: `10.0.0.0/8`, `192.0.2.1`, `192.0.2.1:5000`, `[::1]:5000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    network: u128,
    /// Leading bits that count, of 32 or 128.
    bits: u8,
    v4: bool,
    port: Option<u16>,
}

impl Rule {
    /// One address, every port.
    pub fn address(ip: IpAddr) -> Self {
        Self {
            network: number(ip),
            bits: width(ip),
            v4: ip.is_ipv4(),
            port: None,
        }
    }

    fn matches(&self, ip: IpAddr) -> bool {
        let shift = u32::from(width(ip) - self.bits.min(width(ip)));
        self.v4 == ip.is_ipv4()
            && (number(ip) ^ self.network)
                .checked_shr(shift)
                .is_none_or(|rest| rest == 0)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let bad = || RuleError(text.to_owned());
        let text = text.trim();
        if let Ok(ip) = text.parse() {
            return Ok(Self::address(ip));
        }
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return match socket.port() {
                0 => Err(bad()),
                port => Ok(Self {
                    port: Some(port),
                    ..Self::address(socket.ip())
                }),
            };
        }
        let (ip, bits) = text.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        if bits > width(ip) {
            return Err(bad());
        }
        let shift = u32::from(width(ip) - bits);
        let network = number(ip)
            .checked_shr(shift)
            .unwrap_or(0)
            .checked_shl(shift)
            .unwrap_or(0);
        Ok(Self {
            network,
            bits,
            v4: ip.is_ipv4(),
            port: None,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    BuiltIn,
    Allow,
    Deny,
}

#[derive(Clone, Debug)]
struct Entry {
    rule: Rule,
    source: Source,
    why: &'static str,
}

/// What a permission for one IP address covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    allowed: bool,
    /// Ports for which the opposite holds; sorted.
    except: Box<[u16]>,
}

impl Reach {
    /// Whether packets may pass to and from this port.
    pub fn port(&self, port: u16) -> bool {
        self.allowed ^ (!self.except.is_empty() && self.except.binary_search(&port).is_ok())
    }
}

/// The table of rules.
#[derive(Clone, Debug)]
pub struct PeerRules {
    entries: Vec<Entry>,
}

impl PeerRules {
    /// `own` are this server's own addresses; those on loopback are covered by the denial of loopback.
    pub fn new(allow: &[Rule], deny: &[Rule], own: &[IpAddr]) -> Self {
        let built_in = DENIED_V4.iter().chain(DENIED_V6).map(|(network, why)| Entry {
            rule: network.parse().expect("the built-in rules are well formed"),
            source: Source::BuiltIn,
            why,
        });
        let own = own.iter().filter(|ip| !ip.is_loopback()).map(|ip| Entry {
            rule: Rule::address(*ip),
            source: Source::BuiltIn,
            why: OWN,
        });
        let named = |source, why| {
            move |rule: &Rule| Entry {
                rule: *rule,
                source,
                why,
            }
        };
        let entries = built_in
            .chain(own)
            .chain(allow.iter().map(named(Source::Allow, "")))
            .chain(deny.iter().map(named(Source::Deny, BY_RULE)))
            .collect();
        Self { entries }
    }

    /// Whether packets may pass to and from this address and port; the error says what the address is.
    ///
    /// # Errors
    /// A phrase that completes "the peer is …".
    pub fn check(&self, ip: IpAddr, port: u16) -> Result<(), &'static str> {
        self.decide(ip, Some(port))?;
        // An address that carries another inside is as good as both of them.
        embedded(ip).try_for_each(|inner| self.decide(IpAddr::V4(inner), Some(port)))
    }

    /// What a permission for this IP address covers.
    ///
    /// # Errors
    /// As [`Self::check`], when no port is allowed.
    pub fn reach(&self, ip: IpAddr) -> Result<Reach, &'static str> {
        let whole = self
            .decide(ip, None)
            .and_then(|()| embedded(ip).try_for_each(|inner| self.decide(IpAddr::V4(inner), None)));
        let mut except: Vec<u16> = self
            .entries
            .iter()
            .filter(|entry| entry.rule.matches(ip) || embedded(ip).any(|inner| entry.rule.matches(IpAddr::V4(inner))))
            .filter_map(|entry| entry.rule.port)
            .filter(|port| self.check(ip, *port).is_ok() != whole.is_ok())
            .collect();
        except.sort_unstable();
        except.dedup();
        match whole {
            Err(why) if except.is_empty() => Err(why),
            _ => Ok(Reach {
                allowed: whole.is_ok(),
                except: except.into(),
            }),
        }
    }

    fn decide(&self, ip: IpAddr, port: Option<u16>) -> Result<(), &'static str> {
        let decisive = self
            .entries
            .iter()
            .filter(|entry| entry.rule.matches(ip) && (entry.rule.port.is_none() || entry.rule.port == port))
            .max_by_key(|entry| (entry.rule.bits, entry.rule.port.is_some(), entry.source));
        match decisive {
            Some(entry) if entry.source != Source::Allow => Err(entry.why),
            _ => Ok(()),
        }
    }
}

/// IPv4 addresses that a router or translator would take out of an IPv6 address: 6to4 (RFC 3056), NAT64 (RFC 6052),
/// Teredo's server and client (RFC 4380), ISATAP (RFC 5214), mapped, compatible and translated forms.
fn embedded(ip: IpAddr) -> impl Iterator<Item = Ipv4Addr> {
    let mut found = [None, None];
    if let IpAddr::V6(ip) = ip {
        let octets = ip.octets();
        let at =
            |start: usize| Ipv4Addr::from([octets[start], octets[start + 1], octets[start + 2], octets[start + 3]]);
        let segments = ip.segments();
        found = match segments {
            [0x2002, ..] => [Some(at(2)), None],
            [0x2001, 0, ..] => [Some(at(4)), Some(Ipv4Addr::from_bits(!at(12).to_bits()))],
            [0x64, 0xFF9B, 0, 0, 0, 0, ..] => [Some(at(12)), None],
            [0, 0, 0, 0, 0, 0 | 0xFFFF, ..] | [0, 0, 0, 0, 0xFFFF, 0, ..] => [Some(at(12)), None],
            [_, _, _, _, 0 | 0x0200, 0x5EFE, ..] => [Some(at(12)), None],
            _ => [None, None],
        };
        if ip == Ipv6Addr::UNSPECIFIED || ip == Ipv6Addr::LOCALHOST {
            found = [None, None];
        }
    }
    found.into_iter().flatten()
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() {
        32
    } else {
        128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str], own: &[&str]) -> PeerRules {
        let parse = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<Rule>>();
        let own: Vec<IpAddr> = own.iter().map(|text| text.parse().unwrap()).collect();
        PeerRules::new(&parse(allow), &parse(deny), &own)
    }

    fn allowed(rules: &PeerRules, peer: &str) -> bool {
        let peer: std::net::SocketAddr = peer.parse().unwrap();
        let answer = rules.check(peer.ip(), peer.port()).is_ok();
        let reached = rules.reach(peer.ip()).is_ok_and(|reach| reach.port(peer.port()));
        assert_eq!(answer, reached, "{peer}: check and reach agree");
        answer
    }

    #[test]
    fn built_in_denials_hold_in_every_notation() {
        let rules = rules(&[], &[], &["203.0.113.9", "2001:db8::9"]);
        for peer in [
            "127.0.0.1:1",
            "127.255.0.9:1",
            "0.0.0.0:1",
            "0.1.2.3:1",
            "10.1.2.3:1",
            "172.31.0.1:1",
            "192.168.1.1:1",
            "100.64.0.1:1",
            "100.127.255.255:1",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "239.1.1.1:1",
            "255.255.255.255:1",
            "203.0.113.9:1",
            "[::]:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[fd00::1]:1",
            "[ff02::1]:1",
            "[2001:db8::9]:1",
            "[::ffff:127.0.0.1]:1",
            "[::ffff:8.8.8.8]:1",
            "[::127.0.0.1]:1",
            "[::ffff:0:127.0.0.1]:1",
            "[2002:7f00:1::]:1",
            "[2002:a00:1::5]:1",
            "[64:ff9b::10.0.0.1]:1",
            "[64:ff9b::203.0.113.9]:1",
            "[64:ff9b:1::1]:1",
            "[2001:0:a00:1::]:1",
            "[2001:0:808:808::80ff:fffe]:1", // client part is 127.0.0.1 inverted
            "[2001:db8:1::5efe:10.0.0.1]:1",
        ] {
            assert!(!allowed(&rules, peer), "{peer}");
        }
        for peer in [
            "8.8.8.8:53",
            "172.32.0.1:1",
            "100.128.0.1:1",
            "203.0.113.8:1",
            "[2001:db8::8]:1",
            "[2002:808:808::1]:1",
            "[64:ff9b::8.8.8.8]:1",
        ] {
            assert!(allowed(&rules, peer), "{peer}");
        }
    }

    #[test]
    fn an_allowance_must_name_what_it_opens() {
        let everything = rules(&["0.0.0.0/0", "::/0"], &[], &[]);
        assert!(!allowed(&everything, "127.0.0.1:1"));
        assert!(!allowed(&everything, "[::1]:1"));
        assert!(allowed(&rules(&["127.0.0.0/8"], &[], &["127.0.0.1"]), "127.0.0.1:1"));
        assert!(allowed(&rules(&["10.1.0.0/16"], &[], &[]), "10.1.2.3:1"));
        assert!(!allowed(&rules(&["10.1.0.0/16"], &[], &[]), "10.2.2.3:1"));
        let own = ["10.0.0.5"];
        assert!(!allowed(&rules(&["10.0.0.0/8"], &[], &own), "10.0.0.5:22"));
        assert!(allowed(&rules(&["10.0.0.5"], &[], &own), "10.0.0.5:22"));
        assert!(allowed(&rules(&["10.0.0.0/8"], &[], &[]), "[64:ff9b::10.0.0.1]:1"));
    }

    #[test]
    fn the_most_specific_rule_decides_and_denial_wins_a_draw() {
        let rules = rules(
            &["192.0.2.0/24", "198.51.100.7", "203.0.113.0/24"],
            &["192.0.2.128/25", "198.51.100.0/24", "203.0.113.0/24"],
            &[],
        );
        assert!(allowed(&rules, "192.0.2.1:1"));
        assert!(!allowed(&rules, "192.0.2.200:1"));
        assert!(allowed(&rules, "198.51.100.7:1"));
        assert!(!allowed(&rules, "198.51.100.8:1"));
        assert!(!allowed(&rules, "203.0.113.1:1"));
    }

    #[test]
    fn one_port_can_be_opened_or_closed() {
        let rules = rules(&["127.0.0.1:5000", "[::1]:5000"], &["8.8.8.8:53"], &[]);
        assert!(allowed(&rules, "127.0.0.1:5000"));
        assert!(!allowed(&rules, "127.0.0.1:5001"));
        assert!(!allowed(&rules, "127.0.0.2:5000"));
        assert!(allowed(&rules, "[::1]:5000"));
        assert!(!allowed(&rules, "8.8.8.8:53"));
        assert!(allowed(&rules, "8.8.8.8:54"));
        assert!(rules.reach("127.0.0.2".parse().unwrap()).is_err());
    }

    #[test]
    fn only_rules_are_rules() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "x",
            "10.0.0.1:0",
            "10.0.0.0/8:5",
            "::/129",
            "10.0.0.1:99999",
        ] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        assert_eq!("10.9.8.7/8".parse::<Rule>(), "10.0.0.0/8".parse());
    }
}
