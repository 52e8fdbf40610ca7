//! What Python, or a message's sender, asks of a session. Nothing is done for one that is leaving.

use std::sync::Arc;

use moim_wire::xml::{self, ns, Element, Limits, Node, Str};

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
            return self.refuse_delivery(elements, context);
        }
        for element in elements {
            self.deliver(element, context);
        }
        let answered = |ns: &str| elements.iter().any(|element| element.ns() == ns);
        match self.hold {
            // What follows a success is a new stream; only `restart` makes the framer expect one.
            Hold::Sasl if elements.iter().any(|element| element.is("success", ns::SASL)) => self.hold = Hold::Restart,
            Hold::Sasl if answered(ns::SASL) || answered(ns::SASL2) => self.release(context),
            Hold::StartTls if answered(ns::TLS) => self.release(context),
            _ => {}
        }
    }

    /// Queues one element for the peer.
    pub fn deliver(&mut self, element: &Arc<Element>, context: &mut Context) {
        if self.phase != Phase::Stream {
            return self.refuse_delivery(std::slice::from_ref(element), context);
        }
        let form = self.form();
        let cached = context
            .serialised_for
            .as_ref()
            .is_some_and(|(last, known)| Arc::ptr_eq(last, element) && *known == form);
        if !cached {
            context.serialised.clear();
            xml::serialise(&mut context.serialised, element, form);
            context.serialised_for = Some((element.clone(), form));
        }
        self.write_piece(&context.serialised);
        self.note_unsent(element);
        if self.out.len() > self.write_bound(context) {
            self.too_slow(context);
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
        self.write_piece(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        if !self.begin_tls(context) {
            return self.lose("there is no certificate yet".into(), context);
        }
        self.pending = Vec::new();
        self.restart(context);
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
    }

    /// Adds the session's row to the table.
    pub fn bind(&mut self, full: Str, context: &Context) {
        let Some(bare_len) = full.find('/') else { return };
        if self.phase != Phase::Stream || self.server.is_some() {
            return;
        }
        self.unbind(context);
        let identity = Identity { full, bare_len };
        context
            .shared
            .routes
            .bind(identity.bare(), identity.resource(), self.sid, self.tapped);
        self.identity = Some(Box::new(identity));
    }

    /// Sets the row's priority.
    pub fn presence(&mut self, priority: Option<i8>, context: &Context) {
        if let Some(identity) = &self.identity {
            context.shared.routes.presence(identity.bare(), self.sid, priority);
        }
    }

    /// Removes the row.
    pub fn unbind(&mut self, context: &Context) {
        self.forget_route(context);
    }

    /// Makes every message from and to the session a miss, or not.
    pub fn tap(&mut self, on: bool, context: &Context) {
        self.tapped = on;
        if let Some(identity) = &self.identity {
            context.shared.routes.tap(identity.bare(), self.sid, on);
        }
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
        } else {
            self.close(None, context);
        }
    }

    fn release(&mut self, context: &mut Context) {
        self.hold = Hold::No;
        self.go_on(context);
    }
}
