//! The ways a session ends, and what each leaves: a word to the peer where there is a stream, no row, one last event.

use moim_wire::xml::{self, ns, Condition, Element, Form, Node, Str};

use super::super::event::Event;
use super::super::shared::Context;
use super::super::websocket;
use super::{Hold, Phase, Session};

impl Session {
    /// The time until authentication is up.
    pub fn handshake_expired(&mut self, context: &mut Context) {
        if self.phase == Phase::Leaving || self.authenticated {
            return;
        }
        if self.silent {
            self.over = true;
        } else {
            self.fail(Condition::ConnectionTimeout, "signing in took too long", context);
        }
    }

    /// A newer connection needs the room.
    pub fn evict(&mut self, context: &mut Context) {
        context.tally.refused += 1;
        self.lose(
            "too many connections were not signed in, this was the oldest".into(),
            context,
        );
    }

    /// The peer did not take what waited for it.
    pub fn too_slow(&mut self, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        context.tally.slow_readers += 1;
        if self.outlives_connection() {
            return self.lose("the peer reads too slowly".into(), context);
        }
        self.fail(Condition::ResourceConstraint, "the peer reads too slowly", context);
    }

    /// The peer sent nothing for too long.
    pub fn idle_expired(&mut self, context: &mut Context) {
        if self.outlives_connection() {
            return self.lose("nothing was received for too long".into(), context);
        }
        self.fail(
            Condition::ConnectionTimeout,
            "nothing was received for too long",
            context,
        );
    }

    /// The engine stops.
    pub fn shut_down(&mut self, context: &mut Context) {
        if self.silent {
            self.over = true;
        } else {
            self.fail(Condition::SystemShutdown, "the server is stopping", context);
        }
    }

    /// Makes sure that a session which is dropped leaves nothing in the tables, and that Python knows.
    pub fn leave_behind(&mut self, context: &mut Context) {
        self.leave("the connection is closed".into(), context);
    }

    /// Ends a session that panicked, without asking it anything.
    pub fn abandon(&mut self, context: &mut Context) {
        self.leave("an error inside the server; it was logged".into(), context);
        self.over = true;
    }

    /// Ends the stream with an error of ours, and the connection after it.
    pub fn fail(&mut self, condition: Condition, text: &str, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        context.tally.stream_errors += 1;
        let description = Element::build(
            "text",
            ns::STREAM_ERRORS,
            &[("xml:lang", "en")],
            vec![Node::Text(Str::value(text))],
        );
        let children = vec![
            Node::Element(Element::build(condition.name(), ns::STREAM_ERRORS, &[], Vec::new()).into()),
            Node::Element(description.into()),
        ];
        let error = Element::build("error", ns::STREAMS, &[], children);
        self.end_stream(Some(&error), &context.shared.domain);
        self.leave(format!("{}: {text}", condition.name()), context);
    }

    /// Ends a session whose connection is gone, unless it can wait for its client.
    pub(super) fn lose(&mut self, reason: String, context: &mut Context) {
        if self.outlives_connection() {
            return self.detach(reason, context);
        }
        self.leave(reason, context);
        self.over = true;
    }

    /// Says goodbye in the stream's own terms, if there is a stream.
    pub(super) fn end_stream(&mut self, error: Option<&Element>, domain: &str) {
        if self.phase != Phase::Stream || !self.transport.is_established() {
            return;
        }
        if !self.opened && self.is_outgoing() {
            return;
        }
        if !self.opened {
            let mut id = [0u8; 8];
            // Without random numbers the stream has an id of zeroes, and ends at once anyway.
            let _ = aws_lc_rs::rand::fill(&mut id);
            let id = format!("{:016x}", u64::from_be_bytes(id));
            let attrs = [("from", domain), ("id", &id), ("version", "1.0"), ("xml:lang", "en")];
            self.write_header(&Element::build("open", ns::FRAMING, &attrs, Vec::new()));
        }
        self.count_for_the_last_time();
        let mut bytes = Vec::new();
        if let Some(error) = error {
            xml::serialise(&mut bytes, error, self.form());
            self.write_piece(&bytes);
        }
        if self.websocket.is_some() {
            bytes.clear();
            xml::serialise(
                &mut bytes,
                &Element::build("close", ns::FRAMING, &[], Vec::new()),
                Form::MESSAGE,
            );
            self.write_piece(&bytes);
            websocket::close(self.out.buffer(), 1000);
        } else {
            self.out.buffer().extend_from_slice(b"</stream:stream>");
        }
    }

    /// Ends the session for everybody but its own socket. Harmless when repeated.
    pub(super) fn leave(&mut self, reason: String, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        self.forget_route(context);
        if let Some(managed) = self.managed.take_if(|_| self.server.is_none()) {
            let (elements, handled) = managed.end();
            context.emit(Event::Unacknowledged {
                sid: self.sid,
                elements,
                handled,
            });
        }
        self.held = None;
        context.shared.drop_exporter(self.sid);
        if !self.silent && !context.is_busy() {
            self.announce(context);
        }
        self.close_ways(context);
        self.hand_back(context);
        if self.announced {
            context.emit(Event::Closed { sid: self.sid, reason });
        }
        // A connection that is not there yet has nobody to say goodbye to.
        self.over |= self.is_connecting();
        self.phase = Phase::Leaving;
        self.hold = Hold::No;
        self.pending = Vec::new();
        self.head = Vec::new();
        let deadline = context.now + context.shared.config.linger;
        context.lingering.push_back((deadline, self.sid));
    }

    pub(super) fn forget_route(&mut self, context: &Context) {
        if self.identity.take().is_some() || self.tapped {
            context.shared.routes.unbind(self.sid);
        }
    }
}
