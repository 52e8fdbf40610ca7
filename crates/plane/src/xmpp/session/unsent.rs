//! What a stream between servers was given and did not carry: it is handed back, so that nothing is lost without a word.
//!
//! What the kernel did not take has not left. What it took may be lost with the connection or the peer, unless the peer
//! acknowledges it: where both know stream management (XEP-0198), without resumption, that counts instead.

use std::collections::VecDeque;
use std::sync::Arc;

use moim_wire::xml::{Element, Str};

use super::super::managed::Managed;
use super::super::parcel::Parcel;
use super::super::shared::Context;
use super::super::transport::Queue;
use super::Session;

/// Stanzas of one stream that may wait for the peer's count. The oldest of more are taken for carried.
const UNACKNOWLEDGED: usize = 1 << 15;
/// Bytes that may wait for a peer that has not signed in.
const MOST_FOR_STRANGERS: usize = 1 << 16;

impl Session {
    /// Offers to count what goes out, behind `<enable/>`; the peer has to agree before it is asked for its count.
    pub(super) fn manage_peer(&mut self, enable: Option<&Arc<Element>>, context: &mut Context) {
        if let (Some(enable), None, true) = (enable, &self.managed, self.is_outgoing()) {
            self.write_element(enable, context);
            self.managed = Some(Box::new(Managed::new(Str::Static(""), false)));
        }
    }

    /// An element about stream management, which another server's Python never sees.
    pub(super) fn peer_management(&mut self, element: &Element, context: &mut Context) {
        let outgoing = self.is_outgoing();
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        match element.name().as_str() {
            "enable" if !outgoing && self.managed.is_none() && !server.pairs.is_empty() => {
                server.counts = true;
                self.managed = Some(Box::new(Managed::new(Str::Static(""), false)));
                self.write_piece(b"<enabled xmlns='urn:xmpp:sm:3'/>");
            }
            "enabled" if outgoing && self.managed.is_some() && !server.counts => {
                server.counts = true;
                self.nudge_later(context);
            }
            "failed" if outgoing && !server.counts => self.managed = None,
            "r" | "a" if server.counts => {
                self.management(element, context);
            }
            "enable" | "resume" | "r" => self.unexpected(context),
            // An answer to something that was not asked is not answered, or two servers would answer each other for ever.
            _ => {}
        }
    }

    /// Whether the peer agreed to count.
    pub(super) fn peer_counts(&self) -> bool {
        self.server.as_ref().is_none_or(|server| server.counts)
    }

    /// The stream ends in good order: the last word about what came (XEP-0198 §4).
    pub(super) fn count_for_the_last_time(&mut self) {
        let counts = self.server.as_ref().is_some_and(|server| server.counts);
        if let Some(managed) = self.managed.as_deref_mut().filter(|_| counts) {
            managed.ask();
            if let Some(count) = managed.answer(false) {
                self.write_piece(format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>").as_bytes());
            }
        }
    }

    /// A working stream ends because this server wants it to: what its kernel took arrives.
    pub(super) fn trust_the_kernel(&mut self) {
        if self.server.is_some() && !self.peer_closed {
            self.managed = None;
        }
    }

    /// Notes a stanza on its way to another server.
    pub(super) fn count_sent_to_peer(&mut self, parcel: &Parcel, size: usize, context: &mut Context) {
        self.note_unsent(&parcel.element);
        if let Some(managed) = self.managed.as_deref_mut() {
            managed.send(parcel, size);
            managed.trim(UNACKNOWLEDGED, context.shared.config.server_write_queue);
            self.nudge_later(context);
        }
    }

    /// Bytes that may wait for the peer. A stranger gets little that it did not ask for, and many may come at once.
    pub(super) fn write_bound(&self, context: &Context) -> usize {
        let config = &context.shared.config;
        if !self.authenticated && !self.is_outgoing() {
            config.write_queue.min(MOST_FOR_STRANGERS)
        } else if self.server.is_some() {
            config.server_write_queue
        } else {
            config.write_queue
        }
    }

    /// Remembers a stanza until it has left.
    fn note_unsent(&mut self, element: &Arc<Element>) {
        let end = self.out.end();
        if let Some(server) = self.server.as_deref_mut() {
            if element.is_stanza() {
                server.unsent.push_back((end, element.clone()));
            }
        }
    }

    /// Forgets the stanzas that have left.
    pub(super) fn forget_written(&mut self) {
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let written = self.out.written();
        while server.unsent.front().is_some_and(|(end, _)| *end <= written) {
            server.unsent.pop_front();
        }
        if server.unsent.is_empty() && server.unsent.capacity() > 64 {
            server.unsent = VecDeque::new();
        }
    }

    /// Gives Python the stanzas that did not leave, or that the peer did not acknowledge. What is left of them will not
    /// leave any more either: none must arrive twice where that can be told.
    pub(super) fn hand_back(&mut self, context: &mut Context) {
        if self.server.is_none() {
            return;
        }
        // What the socket still takes has left; a connection that is broken takes nothing.
        if let Ok(written) = self.transport.flush(&mut self.out, false) {
            context.tally.bytes_out += written;
        }
        self.forget_written();
        let managed = self.managed.take();
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let unsent = std::mem::take(&mut server.unsent);
        if !unsent.is_empty() {
            self.out = Queue::default();
            self.transport.cut();
        }
        let elements: Vec<_> = match managed {
            Some(managed) => managed.unacknowledged().cloned().collect(),
            None => unsent.into_iter().map(|(_, element)| element).collect(),
        };
        context.undelivered(self.sid, &elements);
    }

    /// Elements came for a stream that is ending, or not there yet.
    pub(super) fn refuse_all(&self, elements: &[Arc<Element>], context: &mut Context) {
        if self.server.is_some() {
            return context.undelivered(self.sid, elements);
        }
        for element in elements {
            context.missed(Parcel::sole(element.clone()));
        }
    }

    /// The same for one, which others may get as well.
    pub(super) fn refuse(&self, parcel: Parcel, context: &mut Context) {
        if self.server.is_some() {
            context.undelivered(self.sid, &[parcel.element]);
        } else {
            context.missed(parcel);
        }
    }
}
