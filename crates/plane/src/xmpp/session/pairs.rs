//! Between which domains a stream may carry stanzas: inward by the pairs that Python allows, outward without Python by
//! ways of its making; and how many messages Python has not seen.

use moim_wire::xml::{Condition, Element, Limits};

use super::super::event::Event;
use super::super::shared::{Context, Pair};
use super::super::ways::domain_of;
use super::{Phase, Session};

/// Pairs of domains that one stream may have (XEP-0220 §2.2.3 lets a stream serve many).
const MAX_PAIRS: usize = 256;

impl Session {
    /// Lets stanzas between two domains come in.
    pub fn pair(&mut self, pair: Pair, direct: bool, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        if let Some((_, known)) = server.pairs.iter_mut().find(|(found, _)| *found == pair) {
            *known = direct;
            return;
        }
        if server.pairs.len() >= MAX_PAIRS {
            return self.fail(
                Condition::PolicyViolation,
                "a stream carries stanzas between too many domains",
                context,
            );
        }
        server.pairs.push((pair, direct));
        self.framer.set_limits(Limits::bytes(context.shared.config.max_stanza));
        self.authenticated(context);
    }

    /// Undoes [`Session::pair`].
    pub fn unpair(&mut self, pair: &Pair) {
        if let Some(server) = self.server.as_deref_mut() {
            server.pairs.retain(|(found, _)| found != pair);
        }
    }

    /// Lets the stream carry messages of local sessions between two domains, or no more.
    pub fn way(&mut self, pair: Pair, on: bool, context: &Context) {
        if self.phase != Phase::Stream {
            return;
        }
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        server.ways.retain(|found| *found != pair);
        if !on {
            context.shared.ways.close(&pair.local, &pair.remote, self.sid);
        } else if server.ways.len() < MAX_PAIRS {
            context.shared.ways.open(&pair.local, &pair.remote, self.sid);
            server.ways.push(pair);
        }
    }

    pub(super) fn close_ways(&mut self, context: &Context) {
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        for pair in server.ways.drain(..) {
            context.shared.ways.close(&pair.local, &pair.remote, self.sid);
        }
    }

    /// Counts a message that went out without Python.
    pub fn note_carried(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            server.carried.1 += 1;
        }
    }

    /// Tells Python what was carried without it.
    pub fn report_carried(&mut self, context: &mut Context) {
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let (received, sent) = std::mem::take(&mut server.carried);
        if received + sent > 0 {
            let sid = self.sid;
            context.emit(Event::Carried { sid, received, sent });
        }
    }

    /// Whether a stanza may come in on this stream, by its kind and the two domains it goes between; if so, whether a
    /// message goes to local sessions at once.
    pub(super) fn check_peer_stanza(&self, stanza: &Element) -> Result<bool, (Condition, &'static str)> {
        if !matches!(stanza.name().as_str(), "message" | "presence" | "iq") {
            return Err((Condition::UnsupportedStanzaType, "there is no such kind of stanza"));
        }
        let pairs = self.server.as_ref().map_or(&[][..], |server| &server.pairs);
        if pairs.is_empty() {
            return Err((
                Condition::NotAuthorized,
                "a stanza came before its domain was authenticated",
            ));
        }
        let domains = (
            stanza.attr("from").and_then(domain_of),
            stanza.attr("to").and_then(domain_of),
        );
        let (Some(from), Some(to)) = domains else {
            return Err((
                Condition::ImproperAddressing,
                "a stanza between servers needs the addresses of its sender and its recipient",
            ));
        };
        let of_sender = |(pair, _): &&(Pair, bool)| same_domain(from, &pair.remote);
        let found = pairs
            .iter()
            .filter(of_sender)
            .find(|(pair, _)| same_domain(to, &pair.local));
        if let Some((_, direct)) = found {
            Ok(*direct)
        } else if pairs.iter().any(|pair| of_sender(&pair)) {
            Err((
                Condition::ImproperAddressing,
                "a stanza is for a domain that its sender's was not authenticated to",
            ))
        } else {
            Err((
                Condition::InvalidFrom,
                "a stanza is from a domain that this stream was not authenticated for",
            ))
        }
    }
}

/// Whether a domain as a peer wrote it is a prepared one.
fn same_domain(written: &str, prepared: &str) -> bool {
    written.eq_ignore_ascii_case(prepared) || (!written.is_ascii() && written.to_lowercase() == prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_as_peers_write_them() {
        assert!(same_domain("EXAMPLE.org", "example.org") && same_domain("BÜCHER.example", "bücher.example"));
        assert!(!same_domain("example.org.", "example.org") && !same_domain("sub.example.org", "example.org"));
    }
}
