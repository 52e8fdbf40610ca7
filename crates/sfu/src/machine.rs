//! All participants of a node behind one UDP port.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Instant;

use crate::config::{Config, ConfigError};
use crate::demux::{Class, Demux};
use crate::events::{Datagram, Event, Reason, SfuError};
use crate::negotiate::Offer;
use crate::participant::{Participant, Sink};
use crate::stats::{ParticipantStats, Totals};
use crate::timers::Timers;
use crate::{Kind, Pid};

/// Rounds of timers within one tick; more means that something keeps asking for now, and waits for the next tick.
const ROUNDS: usize = 16;
/// Larger datagrams are no media of ours, bytes.
const MAX_DATAGRAM: usize = 1500;
/// Attempts to draw an ICE username fragment nobody else has.
const DRAWS: usize = 8;

/// The machine.
pub struct Sfu {
    pub(crate) config: Config,
    pub(crate) participants: HashMap<Pid, Participant>,
    pub(crate) demux: Demux,
    pub(crate) timers: Timers,
    pub(crate) sink: Sink,
    pub(crate) output: VecDeque<Datagram>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) totals: Totals,
    pub(crate) due: Vec<Pid>,
}

impl Sfu {
    /// A machine without participants.
    ///
    /// # Errors
    /// When a candidate cannot be announced.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            participants: HashMap::new(),
            demux: Demux::default(),
            timers: Timers::default(),
            sink: Sink::default(),
            output: VecDeque::new(),
            events: VecDeque::new(),
            totals: Totals::default(),
            due: Vec::new(),
        })
    }

    /// Adds a participant; an event asks for its first offer.
    ///
    /// # Errors
    /// `Usage` when the number is taken, `Limit` when the node is full.
    pub fn add(&mut self, pid: Pid, now: Instant) -> Result<(), SfuError> {
        if self.participants.contains_key(&pid) {
            return Err(SfuError::Usage(format!("participant {pid} exists already")));
        }
        if self.participants.len() >= self.config.max_participants {
            return Err(SfuError::Limit(format!(
                "{} participants are the limit",
                self.config.max_participants
            )));
        }
        for _ in 0..DRAWS {
            let mut participant = Participant::new(pid, &self.config, now);
            if self.demux.add(pid, participant.ufrag()) {
                self.participants.insert(pid, participant);
                self.guard(pid, now, |participant, config, sink| {
                    participant.drain(now, config, sink)
                });
                self.notice(pid);
                return Ok(());
            }
        }
        Err(SfuError::Limit("no free ICE username fragment was found".into()))
    }

    /// Removes a participant and ends its connection; unknown numbers are ignored.
    pub fn remove(&mut self, pid: Pid, now: Instant) {
        if let Some(participant) = self.participants.get_mut(&pid) {
            let (config, sink) = (&self.config, &mut self.sink);
            // The participant goes either way.
            let _ = catch_unwind(AssertUnwindSafe(|| participant.close(now, config, sink)));
        }
        self.forget(pid);
        self.collect();
    }

    /// From now on `subscriber` receives whatever `publisher` publishes.
    ///
    /// # Errors
    /// `Usage` when one is not there or they are the same, `Limit` at too many subscriptions.
    pub fn subscribe(&mut self, subscriber: Pid, publisher: Pid) -> Result<(), SfuError> {
        if subscriber == publisher {
            return Err(SfuError::Usage(format!(
                "participant {subscriber} cannot subscribe to itself"
            )));
        }
        let limit = self.config.max_subscriptions;
        let tracks = self.participant(publisher)?.tracks;
        let own = self.participant(subscriber)?;
        if own.wanted.contains_key(&publisher) {
            return Ok(());
        }
        if own.wanted.len() >= limit {
            return Err(SfuError::Limit(format!("{limit} subscriptions are the limit")));
        }
        own.wanted.insert(publisher, tracks);
        self.participant(publisher)?.watchers.push(subscriber);
        self.notice(subscriber);
        Ok(())
    }

    /// Ends a subscription; one that does not exist is ignored.
    pub fn unsubscribe(&mut self, subscriber: Pid, publisher: Pid) {
        if let Some(own) = self.participants.get_mut(&subscriber) {
            own.wanted.remove(&publisher);
        }
        if let Some(other) = self.participants.get_mut(&publisher) {
            other.watchers.retain(|pid| *pid != subscriber);
        }
        self.notice(subscriber);
    }

    /// The participant wants to publish a kind it declined before: the next offer invites it again.
    ///
    /// # Errors
    /// `Usage` when it is not there.
    pub fn republish(&mut self, pid: Pid) -> Result<(), SfuError> {
        self.participant(pid)?.republish = true;
        self.notice(pid);
        Ok(())
    }

    /// The next offer for a participant; None when there is nothing to say or an answer is outstanding.
    ///
    /// # Errors
    /// `Usage` when it is not there.
    pub fn offer(&mut self, pid: Pid, now: Instant) -> Result<Option<Offer>, SfuError> {
        self.participant(pid)?;
        let mut offer = None;
        self.guard(pid, now, |participant, config, sink| {
            offer = participant.offer();
            participant.drain(now, config, sink)
        });
        self.pump(now);
        Ok(offer)
    }

    /// Takes a participant's answer to the offer numbered `seq`.
    ///
    /// # Errors
    /// `Usage` when it is not there; `Protocol` when the answer cannot be used: remove the participant then.
    pub fn answer(&mut self, pid: Pid, seq: u64, sdp: &str, now: Instant) -> Result<(), SfuError> {
        let before = self.participant(pid)?.tracks;
        let mut outcome = Err(SfuError::Protocol("the answer could not be processed".into()));
        let mut resume = Vec::new();
        self.guard(pid, now, |participant, config, sink| {
            let audio_only = participant.videos() == 0;
            outcome = participant.answer(seq, sdp);
            if audio_only && participant.videos() > 0 {
                participant.restart_estimate(config.initial_bitrate);
            }
            if outcome.is_ok() && participant.connected {
                resume.extend(participant.slot_of.keys().copied());
            }
            participant.drain(now, config, sink)
        });
        outcome?;
        self.sink.keyframes.append(&mut resume);
        let after = self
            .participants
            .get(&pid)
            .map_or([false; 2], |participant| participant.tracks);
        self.tracks_changed(pid, before, after);
        self.notice(pid);
        self.pump(now);
        Ok(())
    }

    /// Takes one datagram.
    pub fn receive(&mut self, data: &[u8], source: SocketAddr, now: Instant) {
        if !self.route(data, source, now) {
            self.totals.unknown += 1;
        }
        self.pump(now);
    }

    fn route(&mut self, data: &[u8], source: SocketAddr, now: Instant) -> bool {
        let Some(destination) = self.config.local_for(source).filter(|_| data.len() <= MAX_DATAGRAM) else {
            return false;
        };
        let found = match Class::of(data) {
            Class::Stun => self.demux.by_stun(data),
            Class::Media => self.demux.by_address(source),
            Class::Other => None,
        };
        let Some(pid) = found else {
            return false;
        };
        if Class::of(data) == Class::Stun {
            let known = self
                .participants
                .get(&pid)
                .is_some_and(|p| p.accepts(data, source, destination, now));
            if !known {
                return false;
            }
            self.demux.learn(pid, source);
        }
        let mut read = false;
        self.guard(pid, now, |participant, config, sink| {
            read = participant.datagram(data, (source, destination), (now, config), sink)?;
            Ok(())
        });
        self.totals.received += u64::from(read);
        read
    }

    /// Runs whatever is due at `now`.
    pub fn tick(&mut self, now: Instant) {
        for _ in 0..ROUNDS {
            let mut due = std::mem::take(&mut self.due);
            self.timers.due(now, &mut due);
            let idle = due.is_empty();
            for pid in due.drain(..) {
                self.guard(pid, now, |participant, config, sink| {
                    participant.tick(now, config, sink)
                });
                if self
                    .participants
                    .get_mut(&pid)
                    .is_some_and(|participant| participant.review_due(now))
                {
                    self.review(pid, now);
                }
            }
            self.due = due;
            if idle {
                return;
            }
            self.pump(now);
        }
    }

    /// When [`Sfu::tick`] wants to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// The oldest datagram to send.
    pub fn next_output(&mut self) -> Option<Datagram> {
        self.output.pop_front()
    }

    /// The oldest event not taken yet.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Counters of everybody.
    pub fn stats(&self) -> (Totals, HashMap<Pid, ParticipantStats>) {
        let totals = Totals {
            participants: self.participants.len(),
            ..self.totals
        };
        let each = self.participants.values().map(|participant| {
            let subscriptions = participant.wanted.len();
            (
                participant.pid,
                ParticipantStats {
                    subscriptions,
                    ..participant.stats.clone()
                },
            )
        });
        (totals, each.collect())
    }

    fn participant(&mut self, pid: Pid) -> Result<&mut Participant, SfuError> {
        self.participants
            .get_mut(&pid)
            .ok_or_else(|| SfuError::Usage(format!("there is no participant {pid}")))
    }

    /// Runs `work` on a participant, whose failure ends that participant alone, and books what came of it.
    pub(crate) fn guard(
        &mut self,
        pid: Pid,
        now: Instant,
        work: impl FnOnce(&mut Participant, &Config, &mut Sink) -> Result<(), Reason>,
    ) {
        let Some(participant) = self.participants.get_mut(&pid) else {
            return;
        };
        let (config, sink) = (&self.config, &mut self.sink);
        match catch_unwind(AssertUnwindSafe(|| work(participant, config, sink))) {
            Ok(Ok(())) => self.timers.set(pid, participant.deadline(&self.config).max(now)),
            Ok(Err(reason)) => self.give_up(pid, reason),
            Err(_) => {
                self.totals.faults += 1;
                self.give_up(pid, Reason::Fault);
            }
        }
        if std::mem::take(&mut self.sink.connected) {
            self.events.push_back(Event::Connected(pid));
        }
        self.collect();
    }

    fn give_up(&mut self, pid: Pid, reason: Reason) {
        self.forget(pid);
        self.events.push_back(Event::Disconnected(pid, reason));
    }

    fn forget(&mut self, pid: Pid) {
        let Some(gone) = self.participants.remove(&pid) else {
            return;
        };
        self.demux.remove(pid);
        self.timers.remove(pid);
        for publisher in gone.wanted.keys() {
            if let Some(other) = self.participants.get_mut(publisher) {
                other.watchers.retain(|watcher| *watcher != pid);
            }
        }
        for watcher in gone.watchers {
            if let Some(other) = self.participants.get_mut(&watcher) {
                other.wanted.remove(&pid);
            }
            self.notice(watcher);
        }
    }

    fn collect(&mut self) {
        for (destination, contents) in self.sink.transmits.drain(..) {
            self.totals.sent += 1;
            self.output.push_back(Datagram { destination, contents });
        }
    }

    fn tracks_changed(&mut self, pid: Pid, before: [bool; 2], after: [bool; 2]) {
        if before == after {
            return;
        }
        for kind in Kind::ALL
            .into_iter()
            .filter(|kind| before[kind.index()] != after[kind.index()])
        {
            self.events.push_back(Event::Track(pid, kind, after[kind.index()]));
        }
        let watchers = self
            .participants
            .get(&pid)
            .map(|participant| participant.watchers.clone());
        for watcher in watchers.unwrap_or_default() {
            if let Some(other) = self.participants.get_mut(&watcher) {
                other.wanted.insert(pid, after);
            }
            self.notice(watcher);
        }
    }

    /// Tells the owner, once, that an offer is due.
    fn notice(&mut self, pid: Pid) {
        if let Some(participant) = self.participants.get_mut(&pid) {
            if !participant.notified && participant.needs_offer() {
                participant.notified = true;
                self.events.push_back(Event::Negotiate(pid));
            }
        }
    }
}
