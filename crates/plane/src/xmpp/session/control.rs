//! What Python, or a message's sender, asks of a session. Nothing is done for one that is leaving.

use std::sync::Arc;

use moim_wire::xml::{ns, Condition, Element, Limits, Node, Str};

use super::super::parcel::Parcel;
use super::super::shared::Context;
use super::{Hold, Identity, Phase, Session};

impl Session {
    /// Sends our stream header.
    pub fn open_stream(&mut self, open: &Element) {
        if self.phase == Phase::Stream {
            self.write_header(open);
        }
    }

    /// Sends elements that Python made. A hold ends when they answer what it waits for.
    pub fn send(&mut self, elements: &[Arc<Element>], context: &mut Context) {
        if self.phase != Phase::Stream {
            return self.refuse_all(elements, context);
        }
        for element in elements {
            if let Some(parcel) = self.deliver(Parcel::sole(element.clone()), context) {
                self.refuse(parcel, context);
            }
        }
        let answered = |ns: &str| elements.iter().any(|element| element.ns() == ns);
        match self.hold {
            // What follows a success is a new stream; only `restart` makes the framer expect one.
            Hold::Sasl if elements.iter().any(|element| element.is("success", ns::SASL)) => self.hold = Hold::Restart,
            Hold::Sasl if answered(ns::SASL) || answered(ns::SASL2) => self.release(context),
            Hold::StartTls if answered(ns::TLS) => self.release(context),
            Hold::Management if answered(ns::SM) => self.release(context),
            Hold::Pair => self.release(context), // it goes on negotiating
            _ => {}
        }
    }

    /// Takes one element for the peer, to go out now or, when that can wait, with what is more important; gives it back
    /// when the session is over.
    pub fn deliver(&mut self, parcel: Parcel, context: &mut Context) -> Option<Parcel> {
        if self.phase != Phase::Stream {
            return Some(parcel);
        }
        let parcel = match self.held.as_deref_mut() {
            None => parcel,
            Some(held) => match held.take(parcel) {
                Ok(()) => return None,
                Err(parcel) => {
                    for earlier in held.release() {
                        self.put(&earlier, context);
                    }
                    parcel
                }
            },
        };
        self.put(&parcel, context);
        context.spend(parcel.element);
        None
    }

    /// Queues an element, and counts it.
    pub(super) fn put(&mut self, parcel: &Parcel, context: &mut Context) {
        if self.phase != Phase::Stream {
            return self.refuse(parcel.clone(), context);
        }
        let size = self.write_parcel(parcel, context);
        if parcel.element.is_stanza() {
            if self.server.is_some() {
                self.count_sent_to_peer(parcel, size, context);
            } else if self.managed.is_some() {
                self.count_sent(parcel, size, context);
            }
        }
        self.check_queue(context);
    }

    /// Ends a session whose peer leaves too much waiting.
    pub(super) fn check_queue(&mut self, context: &mut Context) {
        let bound = self.write_bound(context);
        if self.out.len() > bound {
            // Much may have come in one round; only what the kernel does not take tells of a slow reader.
            self.flush(context);
            if self.out.len() > bound {
                self.too_slow(context);
            }
        }
    }

    /// Queues the bytes of an element; how many.
    pub(super) fn write_parcel(&mut self, parcel: &Parcel, context: &mut Context) -> usize {
        let form = self.form();
        match self.identity.as_deref().filter(|_| parcel.own) {
            Some(identity) => {
                context.serialise_for(&parcel.element, form, &identity.full);
                self.write_piece(&context.addressed);
                context.addressed.len()
            }
            None => {
                if parcel.sole {
                    context.serialise_once(&parcel.element, form);
                } else {
                    context.serialise(&parcel.element, form);
                }
                self.write_piece(context.serialised());
                context.serialised().len()
            }
        }
    }

    /// Agrees to TLS and begins it.
    pub fn start_tls(&mut self, context: &mut Context) {
        if self.is_outgoing() {
            return self.start_client_tls(context);
        }
        if self.phase != Phase::Stream || self.transport.tls().is_some() || self.websocket.is_some() {
            return;
        }
        if context.shared.server_tls().is_none() {
            self.write_piece(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.end_stream(None, &context.shared.domain);
            return self.leave("there is no certificate yet".into(), context);
        }
        self.write_piece(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        if !self.begin_tls(context) {
            return self.lose("there is no certificate yet".into(), context);
        }
        self.pending = Vec::new();
        self.restart(context);
    }

    /// Answers the next stream header in this way if it says what the last one said.
    pub fn expect_again(&mut self, answer: Option<Box<(Arc<Element>, Arc<Element>)>>) {
        if let Some(opening) = self.opening.as_deref_mut() {
            opening.answer = answer.map(|answer| *answer);
        }
    }

    /// Expects a new stream.
    pub fn restart(&mut self, context: &mut Context) {
        if self.phase != Phase::Stream {
            return;
        }
        self.framer.restart();
        self.header_seen = false;
        self.opened = false;
        self.release(context);
    }

    /// Lifts the bounds that hold before authentication.
    pub fn authenticated(&mut self, context: &mut Context) {
        if self.phase == Phase::Leaving || self.authenticated {
            return;
        }
        self.authenticated = true;
        self.count_unauthenticated(context, -1);
        context.shared.drop_exporter(self.sid);
        if self.server.is_none() {
            self.framer.set_limits(Limits::bytes(context.shared.config.max_stanza));
        }
        if self.hold == Hold::Pair {
            self.release(context);
        }
    }

    /// Gives the session its address; false when it is over.
    pub fn bind(&mut self, full: Str) -> bool {
        let Some(bare_len) = full.find('/').filter(|_| self.phase == Phase::Stream) else {
            return false;
        };
        self.opening = None;
        self.identity = Some(Box::new(Identity { full, bare_len }));
        true
    }

    /// Takes the address away.
    pub fn unbind(&mut self, context: &Context) {
        self.forget_route(context);
    }

    /// Makes every message from the session a miss, or not; false when it is over.
    pub fn tap(&mut self, on: bool) -> bool {
        self.tapped = on;
        self.phase != Phase::Leaving
    }

    /// Ends the stream as Python wants it ended.
    pub fn close(&mut self, error: Option<&Element>, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        let mut reason = if self.peer_closed {
            "the peer ended the stream"
        } else {
            "the server ended the stream"
        }
        .to_owned();
        let wrapped;
        let error = match error {
            Some(condition) if condition.ns() == ns::STREAM_ERRORS => {
                let child = Node::Element(Arc::new(condition.clone()));
                wrapped = Element::build("error", ns::STREAMS, &[], vec![child]);
                Some(&wrapped)
            }
            other => other,
        };
        if let Some(error) = error {
            context.tally.stream_errors += 1;
            let condition = error.elements().find(|child| child.name() != "text");
            reason = condition.map_or_else(|| error.name().to_string(), |condition| condition.name().to_string());
        }
        self.end_stream(error, &context.shared.domain);
        if reason != Condition::ConnectionTimeout.name() {
            self.trust_the_kernel();
        }
        self.leave(reason, context);
    }

    /// Reads again after Python took events.
    pub fn resume(&mut self, context: &mut Context) {
        self.stalled = false;
        self.go_on(context);
    }

    /// Ends a peer that closed its stream and was not answered in time, or one that does not go away.
    pub fn linger_expired(&mut self, context: &mut Context) {
        if self.phase == Phase::Leaving {
            self.over = true;
        } else if self.peer_closed {
            self.close(None, context);
        }
    }

    pub(super) fn release(&mut self, context: &mut Context) {
        self.hold = Hold::No;
        self.go_on(context);
    }
}
