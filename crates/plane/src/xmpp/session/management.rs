//! What a client and the server say about counts, breaks and attention: stream management (XEP-0198) and client state
//! (XEP-0352). Python decides who may resume what; counting, asking and answering happen here.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moim_wire::xml::{self, ns, Condition, Element, Form, Node, Str};

use super::super::event::Event;
use super::super::held::Held;
use super::super::late;
use super::super::managed::{resumed, too_high, Handled, Managed, UNEXPECTED};
use super::super::parcel::Parcel;
use super::super::shared::{Context, Refusal, Resumption};
use super::{Hold, Identity, Phase, Session};

/// How long an acknowledgement may be put off, ours for the disk and theirs for company.
const PATIENCE: Duration = Duration::from_secs(1);

/// A session without a connection.
pub struct Detached {
    pub sid: u64,
    pub identity: Box<Identity>,
    pub managed: Box<Managed>,
    pub held: Box<Held>,
    pub tapped: bool,
}

impl Session {
    /// Refuses what is asked at the wrong moment. Nothing is said before our header.
    pub(super) fn unexpected(&mut self, context: &mut Context) {
        if self.opened {
            self.write_piece(UNEXPECTED);
        } else {
            let text = "stream management before the stream is open";
            self.fail(Condition::PolicyViolation, text, context);
        }
    }

    /// An element about stream management; true when Python has to answer it.
    pub(super) fn management(&mut self, element: &Element, context: &mut Context) -> bool {
        match (element.name().as_str(), self.managed.as_deref_mut()) {
            ("r", Some(managed)) => {
                managed.ask();
                self.nudge_later(context);
            }
            ("a", Some(managed)) => match element.attr("h").and_then(|text| text.parse().ok()) {
                Some(handled) => {
                    if let Handled::TooHigh { sent } = managed.acknowledge(handled) {
                        self.refuse_count(handled, sent, context);
                    } else if managed.is_pending() {
                        self.nudge_later(context);
                    }
                }
                None => self.fail(Condition::BadFormat, "an acknowledgement without a number", context),
            },
            ("enable", None) | ("resume", None) if (element.name() == "enable") == self.identity.is_some() => {
                self.hold = Hold::Management;
                return true;
            }
            ("enable" | "resume" | "r", _) => self.unexpected(context),
            ("a", None) => {}
            _ => self.fail(
                Condition::UnsupportedStanzaType,
                "there is no such element in stream management",
                context,
            ),
        }
        false
    }

    /// `<active/>` and `<inactive/>`.
    pub(super) fn client_state(&mut self, element: &Element, context: &mut Context) {
        match element.name().as_str() {
            "inactive" => self.set_inactive(true, context),
            "active" => self.set_inactive(false, context),
            _ => {}
        }
    }

    /// Holds back what can wait, or no more.
    pub fn set_inactive(&mut self, on: bool, context: &mut Context) {
        if !on {
            self.release_held(context);
        } else if self.held.is_none() {
            self.held = Some(Box::default());
        }
    }

    fn release_held(&mut self, context: &mut Context) {
        if let Some(mut held) = self.held.take() {
            for parcel in held.release() {
                self.put(&parcel, context);
            }
        }
    }

    /// Begins to count, behind the answer.
    pub fn manage(&mut self, answer: Option<&Arc<Element>>, resumable: bool, context: &mut Context) {
        if self.phase != Phase::Stream {
            return;
        }
        if self.is_server() {
            return self.manage_peer(answer, context);
        }
        if let Some(answer) = answer {
            self.write_element(answer, context);
        }
        if let (Some(identity), None) = (&self.identity, &self.managed) {
            self.managed = Some(Box::new(Managed::new(identity.full.clone(), resumable)));
        }
        // Without an answer the client still waits for the one to its sign-in.
        if self.hold == Hold::Management || (self.hold == Hold::Sasl && answer.is_some()) {
            self.release(context);
        }
    }

    /// The records of a ticket are on disk.
    pub fn committed(&mut self, ticket: u64) {
        if let Some(managed) = &mut self.managed {
            managed.committed(ticket);
        }
    }

    /// Python is done with a stanza.
    pub fn done(&mut self, number: u64) {
        if let Some(managed) = &mut self.managed {
            managed.done(number);
        }
    }

    /// The records of a ticket never come to disk: a server that sent one of them hears so by the end of its stream. A
    /// client's session is Python's to end.
    pub fn refused(&mut self, context: &mut Context) {
        if self.is_server() {
            self.fail(
                Condition::ResourceConstraint,
                "the server cannot store messages at the moment",
                context,
            );
        }
    }

    /// Patience has ended for what the session owes or wants.
    pub fn nudge(&mut self, context: &mut Context) {
        if let Some(managed) = &mut self.managed {
            managed.nudged = false;
        }
        self.speak(false, context);
        if self.managed.as_deref().is_some_and(Managed::owes) {
            self.nudge_later(context);
        }
    }

    pub(super) fn nudge_later(&mut self, context: &mut Context) {
        if let Some(managed) = self.managed.as_deref_mut().filter(|managed| !managed.nudged) {
            managed.nudged = true;
            context.nudges.push_back((context.now + PATIENCE, self.sid));
        }
    }

    /// Writes the count we owe and the question for theirs, when it is time.
    pub(super) fn speak(&mut self, patient: bool, context: &mut Context) {
        let speaks = self.phase == Phase::Stream && self.peer_counts();
        // A server is asked as soon as it has answered: what it has must not go to it twice should it vanish.
        let sparing = patient && !self.is_server();
        let Some(managed) = self.managed.as_deref_mut().filter(|_| speaks) else {
            return;
        };
        let answer = managed.answer(patient);
        let question = managed.request(sparing, context.now);
        if let Some(count) = answer {
            self.write_piece(format!("<a xmlns='urn:xmpp:sm:3' h='{count}'/>").as_bytes());
        }
        if question {
            self.write_piece(b"<r xmlns='urn:xmpp:sm:3'/>");
        }
    }

    /// Whether the peer left a question unanswered for too long, and could come back, or be called again.
    pub fn is_mute(&self, now: std::time::Instant, limit: Duration) -> bool {
        let since = self
            .managed
            .as_deref()
            .filter(|managed| managed.resumable || self.is_server());
        since
            .and_then(|managed| managed.asked_since)
            .is_some_and(|since| now - since > limit)
    }

    /// The peer does not answer: its connection is as good as gone.
    pub fn mute_expired(&mut self, context: &mut Context) {
        self.lose("the peer acknowledged nothing for too long".into(), context);
    }

    /// Whether the session goes on without its connection.
    pub(super) fn outlives_connection(&self) -> bool {
        let resumable = self.managed.as_deref().is_some_and(|managed| managed.resumable);
        self.phase == Phase::Stream && resumable && self.identity.is_some() && !self.peer_closed
    }

    /// Leaves everything but the connection to the thread, until the client comes back.
    pub(super) fn detach(&mut self, reason: String, context: &mut Context) {
        self.phase = Phase::Leaving;
        self.over = true;
        let messages = self.managed.as_deref().map(Managed::messages).unwrap_or_default();
        context.emit(Event::Detached {
            sid: self.sid,
            reason,
            messages,
        });
        if let Some(mut detached) = self.give_up() {
            detached.managed.disconnected();
            context.detached.push(detached);
        }
    }

    /// Takes out what makes the session more than a connection.
    pub fn give_up(&mut self) -> Option<Detached> {
        let (identity, managed) = (self.identity.take()?, self.managed.take()?);
        Some(Detached {
            sid: self.sid,
            identity,
            managed,
            held: self.held.take().unwrap_or_default(),
            tapped: self.tapped,
        })
    }

    /// Whether the session could be given to another connection.
    pub fn can_be_taken_over(&self) -> bool {
        self.phase == Phase::Stream && self.identity.is_some() && self.resumable_state().is_some()
    }

    /// The counts of a session that a client may come back to.
    pub fn resumable_state(&self) -> Option<&Managed> {
        self.managed.as_deref().filter(|managed| managed.resumable)
    }

    /// Whether the connection can become that of another session: it is signed in, has no address, and waits.
    pub fn can_be_lent(&self) -> bool {
        let waits = matches!(self.hold, Hold::Management | Hold::Sasl);
        self.phase == Phase::Stream && self.authenticated && self.identity.is_none() && waits && !self.over
    }

    /// The session goes on without this connection, which ends without an event, under a number of its own.
    pub fn displace(&mut self, sid: u64, error: &Element, context: &mut Context) {
        self.sid = sid;
        self.announced = false;
        self.silent = true;
        self.in_turns = false;
        self.in_dirty = false;
        self.end_stream(Some(error), &context.shared.domain);
        self.leave("the session goes on without this connection".into(), context);
    }

    /// Becomes the connection of a session, and gives its client what it missed.
    pub fn take_over(&mut self, detached: Detached, resumption: &Resumption, context: &mut Context) {
        let by = std::mem::replace(&mut self.sid, detached.sid);
        context.emit(Event::Resumed { sid: self.sid, by });
        context.tally.resumed += 1;
        let Detached {
            identity,
            mut managed,
            held,
            tapped,
            ..
        } = detached;
        self.identity = Some(identity);
        self.tapped = tapped;
        // It was checked before.
        managed.acknowledge(resumption.handled);
        let answer = resumed(&resumption.previd, managed.begin_again());
        managed.disconnected();
        let missed: Vec<_> = managed.reconnected().collect();
        // From here on a connection that breaks leaves them behind again.
        self.managed = Some(managed);
        self.held = Some(held);
        match resumption.answer.split_first() {
            Some((around, more)) => {
                let mut whole = Element::clone(around);
                whole.push(answer.into());
                self.write_element(&whole.into(), context);
                more.iter().for_each(|element| self.write_element(element, context));
            }
            None => self.write_element(&answer.into(), context),
        }
        for parcel in &missed {
            self.write_parcel(parcel, context);
        }
        // A client that comes back is active until it says otherwise (XEP-0352 §5).
        self.release_held(context);
        self.nudge_later(context);
        self.release(context);
    }

    /// The session that was to be resumed is not for this connection.
    pub fn refuse_resumption(&mut self, resumption: &Resumption, refusal: Refusal, context: &mut Context) {
        match refusal {
            // Python answers, and what the client said next still waits.
            Refusal::Gone => context.emit(Event::Unresumed {
                sid: self.sid,
                condition: "item-not-found",
            }),
            Refusal::TooHigh { sent } => self.refuse_count(resumption.handled, sent, context),
        }
    }

    fn refuse_count(&mut self, handled: u32, sent: u32, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        context.tally.stream_errors += 1;
        let error = Element::build("error", ns::STREAMS, &[], too_high(handled, sent));
        self.end_stream(Some(&error), &context.shared.domain);
        self.leave(
            format!("undefined-condition: the client acknowledged {handled} stanzas of {sent}"),
            context,
        );
    }

    /// Notes a stanza that goes out, and ends a session whose client acknowledges too little.
    pub(super) fn count_sent(&mut self, parcel: &Parcel, size: usize, context: &mut Context) {
        let Some(managed) = self.managed.as_deref_mut() else {
            return;
        };
        managed.send(parcel, size);
        let config = &context.shared.config;
        if !managed.fits(config.unacked_stanzas, config.unacked_bytes) {
            context.tally.overflows += 1;
            return self.fail(
                Condition::ResourceConstraint,
                "too many stanzas were not acknowledged",
                context,
            );
        }
        self.nudge_later(context);
    }

    /// Writes one element as it is.
    pub(super) fn write_element(&mut self, element: &Arc<Element>, context: &mut Context) {
        let mut bytes = Vec::new();
        xml::serialise(&mut bytes, element, self.form());
        self.write_piece(&bytes);
        self.check_queue(context);
    }
}

/// The stream error of a connection whose client came back on another one.
pub fn newer_connection() -> Element {
    let text = Element::build(
        "text",
        ns::STREAM_ERRORS,
        &[("xml:lang", "en")],
        vec![Node::Text(Str::value("the session goes on in a newer connection"))],
    );
    let conflict = Element::build("conflict", ns::STREAM_ERRORS, &[], Vec::new());
    let children = vec![Node::Element(conflict.into()), Node::Element(text.into())];
    Element::build("error", ns::STREAMS, &[], children)
}

impl Detached {
    /// A session of another engine; `full` has a bare JID of `bare_len` bytes.
    pub fn moved_in(sid: u64, full: Str, bare_len: usize, received: u32, acknowledged: u32) -> Self {
        let managed = Managed::moved_in(full.clone(), received, acknowledged);
        Self {
            sid,
            identity: Box::new(Identity { full, bare_len }),
            managed: Box::new(managed),
            held: Box::default(),
            tapped: false,
        }
    }

    /// Stanzas that the client may not have got, as they were counted in another engine.
    pub fn restore(&mut self, parcels: &[Parcel], context: &mut Context) {
        for parcel in parcels {
            self.queue(parcel, context);
        }
    }

    /// The session as it goes to another engine.
    pub fn move_out(mut self, context: &mut Context) {
        let held = self.held.release();
        let full = &self.managed.full;
        let held = held.iter().map(|parcel| parcel.addressed(full)).collect();
        let (received, acknowledged, sent) = self.managed.move_out();
        context.emit(Event::MovedOut {
            sid: self.sid,
            received,
            acknowledged,
            sent,
            held,
        });
    }

    /// A stanza for the session; false when too much waits already.
    pub fn deliver(&mut self, parcel: Parcel, context: &mut Context) -> bool {
        match self.held.take(parcel) {
            Ok(()) => true,
            Err(parcel) => {
                for earlier in self.held.release() {
                    self.queue(&earlier, context);
                }
                self.queue(&late::stamped(parcel, &self.managed.full, SystemTime::now()), context);
                let config = &context.shared.config;
                self.managed.fits(config.unacked_stanzas, config.unacked_bytes)
            }
        }
    }

    fn queue(&mut self, parcel: &Parcel, context: &mut Context) {
        if parcel.element.is_stanza() {
            context.serialise(&parcel.element, Form::STREAM);
            self.managed.send(parcel, context.serialised().len());
        }
    }

    /// Ends the session for everybody.
    pub fn end(self, reason: String, context: &mut Context) {
        let Self { sid, managed, .. } = self;
        context.shared.routes.unbind(sid);
        let (elements, handled) = managed.end();
        context.emit(Event::Unacknowledged { sid, elements, handled });
        context.emit(Event::Closed { sid, reason });
    }
}
