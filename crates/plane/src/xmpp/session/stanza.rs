//! What a peer may say, and where it goes: to its recipients when a row of the table decides, up to Python otherwise.

use std::sync::Arc;

use moim_wire::xml::{ns, Attr, Condition, Element, Str};

use super::super::domains::Opener;
use super::super::event::Event;
use super::super::managed::Managed;
use super::super::shared::Context;
use super::super::sorting::{clean, split};
use super::super::traits::Traits;
use super::{Hold, Identity, Opening, Session};

/// Events that may wait of a session that has not signed in.
const UNAUTHENTICATED_EVENTS: u32 = 4;
/// Events that may wait of a server that speaks for many people.
const PEER_EVENTS: u32 = 512;
/// The language of the streams that go out, in the headers that Python makes and in those of `ending`.
const OWN_LANGUAGE: &str = "en";
/// Characters of a language tag (RFC 5646 §4.4.1).
const MAX_LANGUAGE: usize = 35;

impl Session {
    /// The peer's stream header, or its `<open/>`.
    pub(super) fn header(&mut self, default_ns: &Str, mut attrs: Vec<Attr>, context: &mut Context) {
        if let Some((condition, text)) = self.check_header(default_ns, &attrs, context) {
            return self.fail(condition, text, context);
        }
        self.header_seen = true;
        self.language = attrs.iter().find_map(other_language);
        self.announce(context);
        if self.server.is_none() {
            let last = self.opening.take().filter(|last| last.attrs == attrs);
            if let Some((open, features)) = last.and_then(|last| last.answer) {
                self.write_header(&open);
                return self.send(&[features], context);
            }
            self.opening = Opening::of(&attrs).map(Box::new);
        }
        attrs.push(Attr {
            key: Str::Static("xmlns"),
            value: default_ns.clone(),
        });
        context.emit(Event::Open { sid: self.sid, attrs });
    }

    /// What is wrong with a header.
    fn check_header(
        &mut self,
        default_ns: &Str,
        attrs: &[Attr],
        context: &Context,
    ) -> Option<(Condition, &'static str)> {
        let value = |key: &str| {
            attrs
                .iter()
                .find(|attr| attr.key == key)
                .map(|attr| attr.value.as_str())
        };
        let (expected, misplaced, opener, known) = match self.server.as_deref_mut() {
            Some(server) => (
                ns::SERVER,
                "the stream is not a server's: its default namespace is not jabber:server",
                Opener::Server,
                std::mem::replace(&mut server.known, true),
            ),
            None => (
                ns::CLIENT,
                "the stream is not a client's: its default namespace is not jabber:client",
                Opener::Client,
                false,
            ),
        };
        if *default_ns != expected {
            return Some((Condition::InvalidNamespace, misplaced));
        }
        if !value("version").is_some_and(supported_version) {
            return Some((Condition::UnsupportedVersion, "the stream's version is not 1.0"));
        }
        match value("to") {
            // Where an answer of ours goes is the other server's own affair.
            _ if self.is_outgoing() => None,
            None | Some("") if known => None,
            None | Some("") => Some((Condition::ImproperAddressing, "the stream is addressed to nobody")),
            Some(name) if !context.shared.domains.serves(name, opener) => Some((
                Condition::HostUnknown,
                "the stream is addressed to a domain that is not served here",
            )),
            Some(_) => None,
        }
    }

    /// One element at the stream's top level.
    pub(super) fn element(&mut self, mut element: Element, weight: u32, context: &mut Context) {
        context.tally.stanzas += 1;
        if element.is("error", ns::STREAMS) {
            return self.stream_error(&element, context);
        }
        if self.server.is_some() {
            return self.peer_element(element, weight, context);
        }
        match element.ns().as_str() {
            ns::CLIENT => match self.check_stanza(&mut element) {
                Ok(()) => {}
                Err((condition, text)) => return self.fail(condition, text, context),
            },
            "" | ns::SERVER | ns::STREAMS => {
                return self.fail(
                    Condition::InvalidNamespace,
                    "a stanza is not in the namespace jabber:client",
                    context,
                );
            }
            ns::TLS if element.name() == "starttls" && self.transport.tls().is_none() && self.websocket.is_none() => {
                self.hold = Hold::StartTls;
            }
            ns::SASL | ns::SASL2 if !self.authenticated => self.hold = Hold::Sasl,
            ns::SM if self.authenticated && !self.management(&element, context) => return,
            ns::CSI if self.authenticated => return self.client_state(&element, context),
            _ => {}
        }
        let (mut number, mut ordered) = (0, false);
        if self.identity.is_some() && element.ns() == ns::CLIENT {
            if let Some(managed) = &mut self.managed {
                managed.receive();
            }
            if element.name() == "message" {
                match self.message_goes(element, context) {
                    None => return,
                    Some(miss) => element = miss,
                }
                number = self.managed.as_deref_mut().map_or(0, Managed::wait_for_python);
            }
            ordered = is_for_others(&element);
        }
        self.report(element, weight, number, ordered, context);
    }

    /// Sorts a message; gives it back when no row of the table decides.
    fn message_goes(&mut self, mut message: Element, context: &mut Context) -> Option<Element> {
        let sender = self.identity.as_deref().map_or("", Identity::bare);
        let traits = clean(&mut message, sender, &context.shared);
        let sorted = if self.tapped || self.flow.has_unrouted() {
            Err(message)
        } else {
            self.sort(message, traits, context)
        };
        missed(sorted, context)
    }

    /// Gives a message to its recipients, how many; or back. One that is archived is acknowledged when that is on disk.
    pub(super) fn sort(&mut self, message: Element, traits: Traits, context: &mut Context) -> Result<usize, Element> {
        let records = context.sorter.records.len();
        let sorted = context.sorter.sort(message, traits, true, &context.shared);
        if context.sorter.records.len() > records {
            let ticket = context.ticket();
            let counts = self.peer_counts();
            let managed = self.managed.as_deref_mut().filter(|_| counts);
            if managed.is_some_and(|managed| managed.wait_for(ticket)) {
                context.awaiting.push(self.sid);
            }
        }
        sorted
    }

    /// The peer ends its stream with an error, whose words are for the log.
    fn stream_error(&mut self, error: &Element, context: &mut Context) {
        let condition = error.elements().find(|child| child.name() != "text");
        let name = condition.map_or("undefined-condition", |condition| condition.name());
        let text: Option<String> = error
            .elements()
            .find(|child| child.is("text", ns::STREAM_ERRORS))
            .map(|text| {
                text.text()
                    .chars()
                    .filter(|found| !found.is_control())
                    .take(200)
                    .collect()
            });
        let mut reason = format!("the peer reported the stream error {name}");
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            reason = format!("{reason}: {text}");
        }
        self.end_stream(None, &context.shared.domain);
        self.leave(reason, context);
    }

    /// Passes an element to Python; its acknowledgement waits under a number, if that is not 0, and later messages wait
    /// until it is routed, if it is `ordered`.
    pub(super) fn report(&mut self, element: Element, weight: u32, number: u64, ordered: bool, context: &mut Context) {
        if ordered {
            self.flow.add_unrouted();
        }
        let event = Event::Stanza {
            sid: self.sid,
            element: Arc::new(element),
            weight,
            number,
            ordered,
            flow: self.flow.clone(),
        };
        context.emit(event);
        let configured = context.shared.config.pending_events;
        let limit = match self.server.as_deref() {
            Some(server) if !server.pairs.is_empty() => PEER_EVENTS,
            None if self.authenticated => configured,
            _ => configured.min(UNAUTHENTICATED_EVENTS),
        };
        if self.flow.add(weight, limit) {
            context.tally.pauses += 1;
        }
    }

    /// Checks a stanza against the state of the stream, and stamps it with the sender's address.
    fn check_stanza(&self, stanza: &mut Element) -> Result<(), (Condition, &'static str)> {
        let is_iq = match stanza.name().as_str() {
            "iq" => true,
            "message" | "presence" => false,
            _ => return Err((Condition::UnsupportedStanzaType, "there is no such kind of stanza")),
        };
        let Some(identity) = &self.identity else {
            if !is_iq {
                return Err((Condition::NotAuthorized, "a stanza came before a resource was bound"));
            }
            // Nobody is anybody yet: a claim would only mislead.
            stanza.strip("from");
            return Ok(());
        };
        if let Some(claimed) = stanza.attr("from") {
            let own = identity.full == claimed || claimed == identity.bare() || {
                let (bare, resource) = split(claimed);
                bare.eq_ignore_ascii_case(identity.bare()) && resource.is_none_or(|found| found == identity.resource())
            };
            if !own {
                return Err((Condition::InvalidFrom, "a stanza is from somebody else"));
            }
        }
        stanza.stamp("from", identity.full.clone());
        self.stamp_language(stanza);
        Ok(())
    }

    /// Writes the language of the peer's stream into a stanza that has none. It goes on in streams of ours, which would
    /// make it that of ours (RFC 6120 §4.7.4, §8.1.5).
    pub(super) fn stamp_language(&self, stanza: &mut Element) {
        if let Some(language) = self.language.as_ref().filter(|_| stanza.attr("xml:lang").is_none()) {
            stanza.stamp("xml:lang", language.clone());
        }
    }
}

/// Whether a client's stanza may go to somebody whom its next message is for, so that the two have to stay in order
/// (RFC 6120 §10.1). What accounts and the server itself are asked goes no further.
fn is_for_others(stanza: &Element) -> bool {
    match stanza.name().as_str() {
        "message" => true,
        "presence" => stanza.attr("to").is_some(),
        _ => stanza.attr("to").is_some_and(|to| to.contains('/')),
    }
}

/// The language that an attribute of a header names, unless that is ours.
fn other_language(attr: &Attr) -> Option<Str> {
    let value = attr.value.as_str();
    let tag = (1..=MAX_LANGUAGE).contains(&value.len())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (attr.key == "xml:lang" && tag && !value.eq_ignore_ascii_case(OWN_LANGUAGE)).then(|| attr.value.clone())
}

/// Counts what became of a message; gives it back when no row of the table decided.
pub(super) fn missed(sorted: Result<usize, Element>, context: &mut Context) -> Option<Element> {
    match sorted {
        Ok(recipients) => {
            context.tally.routed += 1;
            context.tally.delivered += recipients as u64;
            None
        }
        Err(message) => {
            context.tally.missed += 1;
            Some(message)
        }
    }
}

/// Whether a peer's version is 1.0 or a later one, which falls back to it (RFC 6120 §4.7.5).
fn supported_version(version: &str) -> bool {
    let Some((major, minor)) = version.split_once('.') else {
        return false;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    number(minor).is_some() && number(major).is_some_and(|major| major >= 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages() {
        let of = |key, value| {
            other_language(&Attr {
                key: Str::Static(key),
                value: Str::value(value),
            })
        };
        for other in ["ko", "ko-KR", "en-GB", "x-klingon"] {
            assert_eq!(of("xml:lang", other).as_deref(), Some(other));
        }
        let long = "a".repeat(36);
        for none in ["", "en", "EN", "k o", "한국어", &long] {
            assert_eq!(of("xml:lang", none), None, "{none}");
        }
        assert_eq!(of("lang", "ko"), None);
    }

    #[test]
    fn versions() {
        for good in ["1.0", "1.1", "2.0", "01.0"] {
            assert!(supported_version(good), "{good}");
        }
        for bad in ["", "1", "0.9", "1.", ".0", "1.x", "-1.0", "+1.0", "99999999999.0"] {
            assert!(!supported_version(bad), "{bad}");
        }
    }
}
