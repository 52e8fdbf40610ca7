//! Sessions that outlive their connections (XEP-0198 §5): kept here while they wait, and given to the connection on which
//! their client comes back, in whichever thread that began. A session never changes its thread, its connections do; so
//! whatever is on its way to it stays in order.

use std::sync::atomic::{AtomicUsize, Ordering};

use mio::Token;
use moim_wire::xml::Element;

use super::super::event::Event;
use super::super::managed::Handled;
use super::super::parcel::Parcel;
use super::super::session::{newer_connection, Detached, Session};
use super::super::shared::{Command, Refusal, Resumption, FIRST_SERVER_SID};
use super::Shard;

impl Shard {
    /// Hands a stanza to its session, connected or not.
    pub(super) fn hand_over(&mut self, sid: u64, parcel: Parcel) {
        let mut left = Some(parcel);
        self.with(sid, |session, context| {
            // Who has a row but does not know its address yet must not hear of others before it does.
            if session.is_addressed() {
                left = left.take().and_then(|parcel| session.deliver(parcel, context));
                if left.is_none() {
                    session.note_carried();
                }
            }
        });
        if left.is_none() {
            return;
        }
        if let Some(detached) = self.detached.get_mut(&sid) {
            let fits = left
                .take()
                .is_none_or(|parcel| detached.deliver(parcel, &mut self.context));
            if !fits {
                self.context.tally.overflows += 1;
                self.end_detached(sid, "too much waited for the client to come back");
            }
        }
        match left {
            Some(parcel) if sid >= FIRST_SERVER_SID => self.context.undelivered(sid, &[parcel.element]),
            Some(parcel) => self.context.missed(parcel),
            None => {}
        }
    }

    /// Keeps sessions that just lost their connections.
    pub(super) fn keep_detached(&mut self) {
        for detached in std::mem::take(&mut self.context.detached) {
            let sid = detached.sid;
            if let Some(session) = self.sessions.remove(&sid) {
                self.drop_session(session);
            }
            self.keep(detached);
        }
    }

    /// Takes in a session without a connection.
    pub(super) fn keep(&mut self, detached: Detached) {
        self.shared.counters.detached.fetch_add(1, Ordering::Relaxed);
        self.detached.insert(detached.sid, Box::new(detached));
    }

    fn take_detached(&mut self, sid: u64) -> Option<Detached> {
        let found = self.detached.remove(&sid)?;
        self.moving_out.remove(&sid);
        self.shared.counters.detached.fetch_sub(1, Ordering::Relaxed);
        Some(*found)
    }

    /// Ends a session without a connection; false when there is none.
    pub(super) fn end_detached(&mut self, sid: u64, reason: &str) -> bool {
        let found = self.take_detached(sid);
        let ended = found.is_some();
        if let Some(detached) = found {
            detached.end(reason.into(), &mut self.context);
        }
        ended
    }

    /// Gives a connection to the thread of the session that it is to become.
    pub(super) fn lend(&mut self, sid: u64, resumption: Box<Resumption>) {
        let Some(session) = self.sessions.get(&sid) else { return };
        if !session.can_be_lent() {
            return self.with(sid, |session, context| {
                session.refuse_resumption(&resumption, Refusal::Gone, context);
            });
        }
        if let Some(mut session) = self.sessions.remove(&sid) {
            // The registration ends with the descriptor at the latest, which lives on: a failure would only wake us up.
            let _ = session.transport.stream.deregister(self.poll.registry());
            session.leave_thread();
            let owner = self.shared.owner(resumption.old);
            self.shared.inboxes[owner].extend([Command::Graft(session, resumption)]);
        }
    }

    /// Makes a connection that of an older session.
    pub(super) fn graft(&mut self, session: Box<Session>, resumption: Box<Resumption>) {
        let old = resumption.old;
        let live = self.sessions.get(&old).filter(|session| session.can_be_taken_over());
        let state = match live {
            Some(live) => live.resumable_state(),
            None => self.detached.get(&old).map(|detached| &*detached.managed),
        };
        let refusal = match state.map(|managed| managed.check(resumption.handled)) {
            Some(Handled::Fine) => None,
            Some(Handled::TooHigh { sent }) => Some(Refusal::TooHigh { sent }),
            None => Some(Refusal::Gone),
        };
        if let Some(refusal) = refusal {
            let owner = self.shared.owner(session.sid);
            return self.shared.inboxes[owner].extend([Command::Return(session, resumption, refusal)]);
        }
        let detached = if live.is_some() {
            self.displace(old, &newer_connection())
        } else {
            self.take_detached(old)
        };
        if let Some(detached) = detached {
            self.settle_in(session, old);
            self.with(old, |session, context| {
                session.take_over(detached, &resumption, context)
            });
        }
    }

    /// Takes a session from its connection, which says goodbye under a number of its own.
    fn displace(&mut self, sid: u64, error: &Element) -> Option<Detached> {
        let mut session = self.sessions.remove(&sid)?;
        let detached = session.give_up()?;
        let fresh = self.shared.next_sid.fetch_add(1, Ordering::Relaxed);
        session.displace(fresh, error, &mut self.context);
        // A failure leaves the goodbye to the linger time.
        let _ = session
            .transport
            .stream
            .reregister(self.poll.registry(), Token(fresh as usize));
        self.sessions.insert(fresh, session);
        self.with(fresh, |_, _| {});
        Some(detached)
    }

    /// Takes in a connection that began in another thread, or comes back from one.
    fn settle_in(&mut self, mut session: Box<Session>, sid: u64) {
        // Without a registration the session hears nothing more, and ends by its own timers.
        let _ = session
            .transport
            .stream
            .register(self.poll.registry(), Token(sid as usize));
        self.sessions.insert(sid, session);
    }

    /// A connection that did not become a session comes back.
    pub(super) fn take_back(&mut self, session: Box<Session>, resumption: &Resumption, refusal: Refusal) {
        let sid = session.sid;
        self.settle_in(session, sid);
        self.with(sid, |session, context| {
            session.refuse_resumption(resumption, refusal, context);
        });
    }

    /// Takes a session from its connection, to wait for its client without one.
    pub(super) fn part(&mut self, sid: u64, error: &Element) {
        let live = self.sessions.get(&sid);
        if !live.is_some_and(|session| session.can_be_taken_over()) {
            return;
        }
        if let Some(mut detached) = self.displace(sid, error) {
            detached.managed.disconnected();
            self.context.emit(Event::Detached {
                sid,
                reason: "the session goes elsewhere".into(),
                messages: Vec::new(), // its client knows, and comes back for them
            });
            self.keep(detached);
        }
    }

    /// This thread has handed over what it found before the session's row was removed.
    pub(super) fn fence(&mut self, sid: u64, left: &AtomicUsize) {
        if left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let owner = self.shared.owner(sid);
            self.shared.inboxes[owner].extend([Command::MoveOut(sid)]);
        }
    }

    /// Gives a session without a connection away, once what its client sent is on disk.
    pub(super) fn move_out(&mut self, sid: u64) {
        if self
            .detached
            .get(&sid)
            .is_some_and(|detached| detached.managed.waits_for_disk())
        {
            self.moving_out.insert(sid);
        } else if let Some(detached) = self.take_detached(sid) {
            detached.move_out(&mut self.context);
        }
    }

    /// What the client of a session of another engine may not have got.
    pub(super) fn restore(&mut self, sid: u64, parcels: &[Parcel]) {
        if let Some(detached) = self.detached.get_mut(&sid) {
            detached.restore(parcels, &mut self.context);
        }
    }

    /// Python is done with stanzas: whoever sent them may be acknowledged.
    pub(super) fn done(&mut self, done: &[(u64, u64)]) {
        for &(sid, number) in done {
            match self.detached.get_mut(&sid) {
                Some(detached) => detached.managed.done(number),
                None => self.with(sid, |session, _| session.done(number)),
            }
        }
    }

    /// Records are on disk: whoever sent them may be acknowledged.
    pub(super) fn committed(&mut self, ticket: u64, kept: bool) {
        for sid in self.awaiting.remove(&ticket).unwrap_or_default() {
            if let Some(detached) = self.detached.get_mut(&sid) {
                detached.managed.committed(ticket);
                if self.moving_out.remove(&sid) {
                    self.move_out(sid);
                }
            } else {
                self.with(sid, |session, context| {
                    if !kept {
                        session.refused(context);
                    }
                    session.committed(ticket);
                });
            }
        }
    }
}
