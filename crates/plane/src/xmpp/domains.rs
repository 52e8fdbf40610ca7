//! The names that a stream may be opened to.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};

use super::ways::domain_of;

/// Who may open a stream to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    Client,
    Server,
}

#[derive(Debug, Default)]
struct Names {
    domains: HashSet<String>,
    services: HashSet<String>,
}

/// Hosted domains, which clients and servers may address, and services at them, which only servers may.
#[derive(Debug, Default)]
pub struct Domains(RwLock<Names>);

impl Domains {
    /// Replaces all names.
    pub fn set(&self, domains: impl IntoIterator<Item = String>, services: impl IntoIterator<Item = String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Names {
            domains: domains.into_iter().collect(),
            services: services.into_iter().collect(),
        };
    }

    /// Whether a stream to this name may be opened.
    pub fn serves(&self, name: &str, opener: Opener) -> bool {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found =
            |name: &str| names.domains.contains(name) || (opener == Opener::Server && names.services.contains(name));
        found(name) || found(&name.to_lowercase())
    }

    /// Whether an address is of a hosted domain, or of a service at one.
    pub fn are_home_of(&self, address: &str) -> bool {
        domain_of(address).is_some_and(|domain| self.serves(domain, Opener::Server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_for_servers() {
        let domains = Domains::default();
        domains.set(["a.example".to_owned()], ["rooms.a.example".to_owned()]);
        for (name, opener, expected) in [
            ("A.example", Opener::Client, true),
            ("a.example", Opener::Server, true),
            ("Rooms.A.example", Opener::Server, true),
            ("rooms.a.example", Opener::Client, false),
            ("b.example", Opener::Server, false),
        ] {
            assert_eq!(domains.serves(name, opener), expected, "{name} {opener:?}");
        }
        for home in [
            "a.example",
            "x@a.example",
            "A@A.example/@b",
            "room@rooms.a.example/nick",
        ] {
            assert!(domains.are_home_of(home), "{home}");
        }
        for abroad in [
            "",
            "a.example@b.example",
            "b.example/a.example",
            "@a.example",
            "x@sub.a.example",
        ] {
            assert!(!domains.are_home_of(abroad), "{abroad}");
        }
        domains.set(["b.example".to_owned()], []);
        assert!(domains.serves("b.example", Opener::Client) && !domains.serves("a.example", Opener::Client));
    }
}
