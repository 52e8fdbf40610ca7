//! What a stream between servers was given and could not carry: it is handed back, so that nothing is lost without a word.

use std::collections::VecDeque;
use std::sync::Arc;

use moim_wire::xml::Element;

use super::super::event::Event;
use super::super::parcel::Parcel;
use super::super::shared::Context;
use super::super::transport::Queue;
use super::Session;

impl Session {
    pub(super) fn write_bound(&self, context: &Context) -> usize {
        let config = &context.shared.config;
        if self.server.is_some() {
            config.server_write_queue
        } else {
            config.write_queue
        }
    }

    /// Remembers a stanza until it has left.
    pub(super) fn note_unsent(&mut self, element: &Arc<Element>) {
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

    /// Gives Python the stanzas that did not leave. They will not leave any more either: none must arrive twice.
    pub(super) fn hand_back(&mut self, context: &mut Context) {
        if self.server.as_ref().is_none_or(|server| server.unsent.is_empty()) {
            return;
        }
        // What the socket still takes has left; a connection that is broken takes nothing.
        if let Ok(written) = self.transport.flush(&mut self.out) {
            context.tally.bytes_out += written;
        }
        self.forget_written();
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let elements: Vec<_> = std::mem::take(&mut server.unsent)
            .into_iter()
            .map(|(_, element)| element)
            .collect();
        if elements.is_empty() {
            return;
        }
        let weight = 2 * self.out.len();
        self.out = Queue::default();
        self.transport.cut();
        context.emit(Event::Undelivered {
            sid: self.sid,
            elements,
            weight,
        });
    }

    /// Something came for a stream that is ending, or not there yet.
    pub(super) fn refuse_delivery(&self, elements: &[Arc<Element>], context: &mut Context) {
        if self.server.is_some() {
            return context.undelivered(self.sid, elements);
        }
        for element in elements {
            context.missed(Parcel::sole(element.clone()));
        }
    }
}
