//! A stream between servers: how what it says differs from a client's. It may have been opened from here (`dialling`), it
//! carries stanzas of many people for the domains that Python allows (`pairs`), and what it could not carry is handed back
//! (`unsent`).

use std::collections::VecDeque;
use std::sync::Arc;

use moim_wire::xml::{ns, Condition, Element};

use super::super::shared::{Context, Pair};
use super::super::traits::Traits;
use super::dialling::Dialled;
use super::stanza::missed;
use super::{Hold, Session};

/// What a stream between servers has besides what every session has.
#[derive(Default)]
pub(super) struct PeerServer {
    pub(super) outgoing: Option<Dialled>,
    /// Pairs whose stanzas may come in; and whether messages of them go to local sessions at once.
    pub(super) pairs: Vec<(Pair, bool)>,
    /// Pairs whose messages go out without Python.
    pub(super) ways: Vec<Pair>,
    /// Messages that were carried without Python since it heard of them, in and out.
    pub(super) carried: (u64, u64),
    /// Stanzas queued, and where the last byte of each stands in the queue.
    pub(super) unsent: VecDeque<(u64, Arc<Element>)>,
    /// Whether both sides agreed to count stanzas.
    pub(super) counts: bool,
    /// Whether a header has come before: a later one need not say again to whom it goes.
    pub(super) known: bool,
}

impl Session {
    /// One element at the top level of a stream between servers.
    pub(super) fn peer_element(&mut self, mut element: Element, weight: u32, context: &mut Context) {
        let (outgoing, counts) = (self.is_outgoing(), self.peer_counts());
        let mut number = 0;
        match element.ns().as_str() {
            ns::SERVER => {
                let direct = match self.check_peer_stanza(&element) {
                    Ok(direct) => direct,
                    Err((condition, text)) => return self.fail(condition, text, context),
                };
                element.swap_content();
                self.stamp_language(&mut element);
                if let Some(managed) = self.managed.as_deref_mut().filter(|_| counts) {
                    managed.receive();
                }
                if direct && element.name() == "message" {
                    match self.goes_in(element, context) {
                        None => return,
                        Some(miss) => element = miss,
                    }
                }
                if let Some(managed) = self
                    .managed
                    .as_deref_mut()
                    .filter(|_| counts && element.name() == "message")
                {
                    number = managed.wait_for_python();
                }
            }
            // A peer that sends on our stream, too (XEP-0288), does so right after these.
            ns::STREAMS if outgoing && element.name() == "features" => self.hold_for_pair(),
            ns::DIALBACK if outgoing && element.name() == "result" => self.hold_for_pair(),
            "" | ns::CLIENT | ns::STREAMS => {
                return self.fail(
                    Condition::InvalidNamespace,
                    "a stanza is not in the namespace jabber:server",
                    context,
                );
            }
            ns::TLS if self.transport.tls().is_none() => match element.name().as_str() {
                "starttls" if !outgoing => self.hold = Hold::StartTls,
                "proceed" if outgoing => self.hold = Hold::StartTls,
                _ => {}
            },
            ns::SM => return self.peer_management(&element, context),
            ns::SASL if outgoing && element.name() == "success" => self.hold = Hold::Restart,
            ns::SASL | ns::SASL2 if !outgoing && !self.authenticated => self.hold = Hold::Sasl,
            _ => {}
        }
        self.report(element, weight, number, false, context);
    }

    fn hold_for_pair(&mut self) {
        if !self.authenticated {
            self.hold = Hold::Pair;
        }
    }

    /// Sorts a message of another server's; gives it back when no row decides, and when it has something that only Python
    /// can judge; what no archive keeps would be counted by nobody. So it does while Python has yet to take what came
    /// before: it must not be overtaken.
    fn goes_in(&mut self, message: Element, context: &mut Context) -> Option<Element> {
        let domains = &context.shared.domains;
        let traits = Traits::of(&message, |address| domains.are_home_of(address));
        let sorted = if traits.forged || !traits.archived || !self.flow.is_idle() {
            Err(message)
        } else {
            self.sort(message, traits, context)
        };
        let miss = missed(sorted, context);
        if miss.is_none() {
            if let Some(server) = self.server.as_deref_mut() {
                server.carried.0 += 1;
            }
        }
        miss
    }
}
