//! What a peer may say, and where it goes: to its recipients when a row of the table decides, up to Python otherwise.

use std::sync::Arc;

use moim_wire::xml::{ns, Attr, Condition, Element, Str};

use super::super::domains::Opener;
use super::super::event::Event;
use super::super::shared::Context;
use super::super::sorting::{clean, split};
use super::{Hold, Session};

/// Events that may wait of a session that has not signed in.
pub(super) const UNAUTHENTICATED_EVENTS: u32 = 4;

impl Session {
    /// The peer's stream header, or its `<open/>`.
    pub(super) fn header(&mut self, default_ns: &Str, mut attrs: Vec<Attr>, context: &mut Context) {
        if self.server.is_some() {
            return self.peer_header(default_ns, attrs, context);
        }
        let value = |key: &str| {
            attrs
                .iter()
                .find(|attr| attr.key == key)
                .map(|attr| attr.value.as_str())
        };
        let refused = if *default_ns != ns::CLIENT {
            Some((
                Condition::InvalidNamespace,
                "the stream is not a client's: its default namespace is not jabber:client",
            ))
        } else if !value("version").is_some_and(supported_version) {
            Some((Condition::UnsupportedVersion, "the stream's version is not 1.0"))
        } else {
            match value("to") {
                None | Some("") => Some((Condition::ImproperAddressing, "the stream is addressed to nobody")),
                Some(name) if !context.shared.domains.serves(name, Opener::Client) => Some((
                    Condition::HostUnknown,
                    "the stream is addressed to a domain that is not served here",
                )),
                Some(_) => None,
            }
        };
        if let Some((condition, text)) = refused {
            return self.fail(condition, text, context);
        }
        self.header_seen = true;
        self.announce(context);
        attrs.push(Attr {
            key: Str::Static("xmlns"),
            value: default_ns.clone(),
        });
        context.emit(Event::Open { sid: self.sid, attrs });
    }

    /// One element at the stream's top level.
    pub(super) fn element(&mut self, mut element: Element, weight: u32, context: &mut Context) {
        context.tally.stanzas += 1;
        if self.server.is_some() {
            return self.peer_element(element, weight, context);
        }
        match element.ns().as_str() {
            ns::CLIENT => match self.check_stanza(&mut element) {
                Ok(()) => {}
                Err((condition, text)) => return self.fail(condition, text, context),
            },
            ns::STREAMS if element.name() == "error" => {
                let condition = element.elements().find(|child| child.name() != "text");
                let name = condition.map_or("undefined-condition", |condition| condition.name());
                let reason = format!("the peer reported the stream error {name}");
                self.end_stream(None, &context.shared.domain);
                return self.leave(reason, context);
            }
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
        if self.identity.is_some() && element.ns() == ns::CLIENT {
            if let Some(managed) = &mut self.managed {
                managed.receive();
            }
            if element.name() == "message" {
                match self.message_goes(element, context) {
                    None => return,
                    Some(miss) => element = miss,
                }
            }
        }
        self.report(element, weight, context);
    }

    /// Sorts a message; gives it back when no row of the table decides.
    fn message_goes(&mut self, mut message: Element, context: &mut Context) -> Option<Element> {
        let traits = clean(&mut message, &context.shared);
        let sorted = if self.tapped {
            Err(message)
        } else {
            let records = context.sorter.records.len();
            let sorted = context.sorter.sort(message, traits, true, &context.shared);
            if context.sorter.records.len() > records {
                let ticket = context.ticket();
                if self
                    .managed
                    .as_deref_mut()
                    .is_some_and(|managed| managed.wait_for(ticket))
                {
                    context.awaiting.push(self.sid);
                }
            }
            sorted
        };
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

    /// Passes an element to Python.
    fn report(&mut self, element: Element, weight: u32, context: &mut Context) {
        let event = Event::Stanza {
            sid: self.sid,
            element: Arc::new(element),
            weight,
            flow: self.flow.clone(),
        };
        context.emit(event);
        let configured = context.shared.config.pending_events;
        let limit = if self.authenticated {
            configured
        } else {
            configured.min(UNAUTHENTICATED_EVENTS)
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
        Ok(())
    }
}

/// Whether a peer's version is 1.0 or a later one, which falls back to it (RFC 6120 §4.7.5).
pub(super) fn supported_version(version: &str) -> bool {
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
    fn versions() {
        for good in ["1.0", "1.1", "2.0", "01.0"] {
            assert!(supported_version(good), "{good}");
        }
        for bad in ["", "1", "0.9", "1.", ".0", "1.x", "-1.0", "+1.0", "99999999999.0"] {
            assert!(!supported_version(bad), "{bad}");
        }
    }
}
