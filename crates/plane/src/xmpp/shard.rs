//! One thread of the engine: polls its sockets and its inbox, and does everything for its sessions in rounds.
//!
//! A round reads some of what is readable, carries messages to their recipients, then writes each recipient once: what arrives
//! together leaves together, and nothing waits for more than a round's share of the rest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use super::listener::Listener;
use super::parcel::Parcel;
use super::session::{Detached, Session};
use super::shared::{Command, Context, Shared, DELIVERY_COST, FIRST_SERVER_SID};
use turns::Turns;

mod accept;
mod dial;
mod moving;
#[cfg(test)]
mod tests;
mod timers;
mod turns;

pub const WAKER: Token = Token(usize::MAX);
/// Listeners count down from here; sessions use their number.
const FIRST_LISTENER: usize = usize::MAX - 1;
const EVENTS_PER_ROUND: usize = 1024;
/// Bytes to read in a round before what came of them is written, and others get their turn: a fraction of a millisecond.
const READ_PER_ROUND: usize = 65_536;
/// What a turn counts for besides its bytes; that of a session that is signing in, which is mostly arithmetic.
const TURN: usize = 2048;
const TURN_OF_STRANGER: usize = 8192;

/// Session numbers are handed out in order by the engine itself, so nobody can choose them to collide.
#[derive(Default)]
struct SidHasher(u64);

impl Hasher for SidHasher {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, sid: u64) {
        self.0 = sid.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(20)
    }
}

/// A panic in what is done with a session costs that session alone.
fn guarded(session: &mut Session, context: &mut Context, action: impl FnOnce(&mut Session, &mut Context)) {
    if catch_unwind(AssertUnwindSafe(|| action(session, context))).is_err() {
        context.tally.panics += 1;
        session.abandon(context);
    }
}

type Sessions = HashMap<u64, Box<Session>, BuildHasherDefault<SidHasher>>;

/// The thread's own state.
pub struct Shard {
    index: usize,
    poll: Poll,
    shared: Arc<Shared>,
    context: Context,
    sessions: Sessions,
    /// Sessions that wait for their clients.
    detached: HashMap<u64, Box<Detached>, BuildHasherDefault<SidHasher>>,
    /// Sessions that go to another engine when what their clients sent is on disk.
    moving_out: HashSet<u64>,
    /// Who waits for which ticket.
    awaiting: HashMap<u64, Vec<u64>>,
    listeners: Vec<(Token, Box<Listener>, bool)>,
    next_listener: usize,
    /// Sessions to read in this round or the next.
    turns: Turns,
    /// Sessions to flush at the end of the round.
    dirty: Vec<u64>,
    /// Sessions that are over.
    done: Vec<u64>,
    commands: Vec<Command>,
    /// When sessions must have signed in; all have equally long, so the oldest is first.
    handshakes: VecDeque<(Instant, u64)>,
    /// The same for other servers that have connected here.
    server_handshakes: VecDeque<(Instant, u64)>,
    next_sweep: Instant,
    accept_again: Option<Instant>,
    stopping: Option<Instant>,
}

impl Shard {
    /// A thread's state, around its poll.
    pub fn new(index: usize, poll: Poll, shared: Arc<Shared>) -> Self {
        Self {
            index,
            poll,
            context: Context::new(shared.clone(), index),
            shared,
            sessions: Sessions::default(),
            detached: HashMap::default(),
            moving_out: HashSet::new(),
            awaiting: HashMap::new(),
            listeners: Vec::new(),
            next_listener: FIRST_LISTENER,
            turns: Turns::default(),
            dirty: Vec::new(),
            done: Vec::new(),
            commands: Vec::new(),
            handshakes: VecDeque::new(),
            server_handshakes: VecDeque::new(),
            next_sweep: Instant::now(),
            accept_again: None,
            stopping: None,
        }
    }

    /// Runs until the engine stops.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_ROUND);
        loop {
            // Sessions catch their own panics; one in between costs the rest of a round.
            match catch_unwind(AssertUnwindSafe(|| self.round(&mut events))) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => self.context.tally.panics += 1,
            }
        }
    }

    /// Waits for something to do and does it; false when the engine has stopped.
    fn round(&mut self, events: &mut Events) -> bool {
        let timeout = self.timeout();
        self.turn(events, timeout)
    }

    /// The same, with another time to wait.
    pub fn turn(&mut self, events: &mut Events, timeout: Option<Duration>) -> bool {
        if let Err(error) = self.hear(events, timeout) {
            // A poll that fails for good cannot be repaired; the sessions close with the thread.
            return error.kind() == std::io::ErrorKind::Interrupted;
        }
        self.work();
        let expired = |deadline| self.sessions.is_empty() || self.context.now >= deadline;
        !self.stopping.is_some_and(expired)
    }

    /// Waits for news, and does what the others ask for.
    fn hear(&mut self, events: &mut Events, timeout: Option<Duration>) -> std::io::Result<()> {
        self.poll.poll(events, timeout)?;
        self.context.now = Instant::now();
        for event in &*events {
            match event.token() {
                WAKER => {}
                Token(number) if number > self.next_listener => self.listener_ready(event.token()),
                Token(number) => self.socket_ready(number as u64, event),
            }
        }
        self.run_commands();
        Ok(())
    }

    /// Reads, and does what comes of it and of the commands.
    fn work(&mut self) {
        self.read_ready();
        self.run_timers();
        self.carry();
        self.flush_dirty();
        self.bury();
        self.settle();
    }

    fn socket_ready(&mut self, sid: u64, event: &mio::event::Event) {
        let Some(session) = self.sessions.get_mut(&sid) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            session.readable = true;
            session.hangup |= event.is_read_closed() || event.is_error();
            if !session.in_turns {
                session.in_turns = true;
                self.turns.add(sid, session.last_turn);
            }
        }
        if session.is_connecting() {
            return self.with(sid, Session::connection_ready);
        }
        if event.is_writable() && session.wants_flush() && !session.in_dirty {
            session.in_dirty = true;
            self.dirty.push(sid);
        }
    }

    /// Does something with a session, if it is there.
    fn with(&mut self, sid: u64, action: impl FnOnce(&mut Session, &mut Context)) {
        let Some(session) = self.sessions.get_mut(&sid) else {
            return;
        };
        guarded(session, &mut self.context, action);
        if session.over {
            self.done.push(sid);
            if !self.context.detached.is_empty() {
                self.keep_detached();
            }
            return;
        }
        if session.readable && !session.in_turns {
            session.in_turns = true;
            self.turns.add(sid, session.last_turn);
        }
        if !session.in_dirty {
            session.in_dirty = true;
            self.dirty.push(sid);
        }
    }

    fn read_ready(&mut self) {
        let mut left = READ_PER_ROUND;
        while left > 0 {
            let Some((sid, pass)) = self.turns.next() else { return };
            let Some(session) = self.sessions.get_mut(&sid) else {
                continue;
            };
            session.last_turn = pass;
            let cost = if session.authenticated { TURN } else { TURN_OF_STRANGER };
            let before = self.context.tally.bytes_in;
            let mut more = false;
            self.with(sid, |session, context| more = session.read(context));
            // One that may not read now stands nowhere: it waits to be resumed.
            if let Some(session) = self.sessions.get_mut(&sid) {
                session.in_turns = more;
                if more {
                    self.turns.add(sid, pass);
                }
            }
            left = left.saturating_sub(cost + (self.context.tally.bytes_in - before) as usize);
        }
    }

    fn run_commands(&mut self) {
        drop(self.shared.inboxes[self.index].take_back());
        let mut commands = std::mem::take(&mut self.commands);
        self.shared.inboxes[self.index].take(&mut commands);
        for command in commands.drain(..) {
            self.run_command(command);
        }
        self.commands = commands;
        if self.commands.capacity() > 4096 {
            self.commands = Vec::new();
        }
    }

    fn run_command(&mut self, command: Command) {
        match command {
            Command::Listen(listener) => self.listen(listener),
            Command::Unlisten(id) => self.unlisten(id),
            Command::Adopt(accepted) => self.adopt(*accepted),
            Command::Connect(outgoing) => self.dial(*outgoing),
            Command::OpenStream(sid, open) => self.with(sid, |session, _| session.open_stream(&open)),
            Command::Send(sid, elements) if !self.sessions.contains_key(&sid) => {
                if sid >= FIRST_SERVER_SID {
                    return self.context.undelivered(sid, &elements);
                }
                for element in elements {
                    self.hand_over(sid, Parcel::sole(element));
                }
            }
            Command::Send(sid, elements) => self.with(sid, |session, context| session.send(&elements, context)),
            Command::Deliver(batch, maker) => {
                if self.shared.gauge.take(batch.len() * DELIVERY_COST) {
                    self.shared.resume_all();
                }
                self.context.spent = maker.map(|_| Vec::with_capacity(batch.len()));
                for (sid, parcel) in batch {
                    self.hand_over(sid, parcel);
                }
                let spent = self.context.spent.take().unwrap_or_default();
                if let Some(maker) = maker.filter(|_| !spent.is_empty()) {
                    self.shared.inboxes[maker].give_back(spent);
                }
            }
            Command::FanOut(element, sids) => {
                for sid in sids {
                    self.hand_over(sid, Parcel::own(element.clone()));
                }
            }
            Command::StartTls(sid) => self.with(sid, Session::start_tls),
            Command::Restart(sid, answer) => self.with(sid, |session, context| {
                session.expect_again(answer);
                session.restart(context);
            }),
            Command::Authenticated(sid) => self.with(sid, Session::authenticated),
            Command::Bind(sid, full) => {
                let mut bound = false;
                self.with(sid, |session, _| bound = session.bind(full));
                if !bound && !self.detached.contains_key(&sid) {
                    // It ended before it was bound.
                    self.shared.routes.unbind(sid);
                }
            }
            Command::Unbind(sid) => self.with(sid, |session, context| session.unbind(context)),
            Command::Tap(sid, on) => {
                let mut there = false;
                if let Some(detached) = self.detached.get_mut(&sid) {
                    (detached.tapped, there) = (on, true);
                }
                self.with(sid, |session, _| there |= session.tap(on));
                if !there {
                    self.shared.routes.unbind(sid);
                }
            }
            Command::Pair(sid, pair, direct) => self.with(sid, |session, context| session.pair(pair, direct, context)),
            Command::Way(sid, pair, on) => self.with(sid, |session, context| session.way(pair, on, context)),
            Command::Unpair(sid, pair) => self.with(sid, |session, _| session.unpair(&pair)),
            Command::Manage(sid, answer, resume) => {
                self.with(sid, |session, context| session.manage(answer.as_ref(), resume, context));
            }
            Command::Inactive(sid, on) => self.with(sid, |session, context| session.set_inactive(on, context)),
            Command::Lend(sid, resumption) => self.lend(sid, resumption),
            Command::Graft(session, resumption) => self.graft(session, resumption),
            Command::Return(session, resumption, refusal) => self.take_back(session, &resumption, refusal),
            Command::Part(sid, error) => self.part(sid, &error),
            Command::Fence(sid, left) => self.fence(sid, &left),
            Command::MoveOut(sid) => self.move_out(sid),
            Command::MoveIn(detached) => self.keep(*detached),
            Command::Restore(sid, parcels) => self.restore(sid, &parcels),
            Command::Committed(ticket, kept) => self.committed(ticket, kept),
            Command::Done(done) => self.done(&done),
            Command::Close(sid, _) if self.end_detached(sid, "the server ended the session") => {}
            Command::Close(sid, error) => self.with(sid, |session, context| session.close(error.as_deref(), context)),
            Command::Resume(sid) => self.with(sid, Session::resume),
            Command::ResumeAll => {
                for sid in std::mem::take(&mut self.context.stalled) {
                    self.with(sid, Session::resume);
                }
                self.accept_again = Some(self.context.now);
            }
            Command::Stop => self.stop(),
        }
    }

    /// Carries routed messages to their recipients, here or in other threads.
    fn carry(&mut self) {
        if self.context.sorter.deliveries.is_empty() {
            return;
        }
        // Whoever gets one of these may ask for the archive at once: its record goes up before the message goes out.
        // Stanzas go up after that: what Python sends because of them must not overtake these.
        self.report_records();
        let mut handed: Vec<Vec<(u64, Parcel)>> = Vec::new();
        // What Python has sent since this round began may be an answer to what came before these, on the same session.
        let waits = self.shared.inboxes[self.index].has_sent();
        let deliveries = std::mem::take(&mut self.context.sorter.deliveries);
        for (sid, parcel) in deliveries {
            let owner = self.shared.owner(sid);
            if owner == self.index && !waits {
                self.hand_over(sid, parcel);
            } else {
                handed.resize_with(self.shared.inboxes.len(), Vec::new);
                handed[owner].push((sid, parcel));
            }
        }
        for (owner, batch) in handed.into_iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            self.shared
                .hand_to(owner, batch, Some(self.index).filter(|maker| *maker != owner));
        }
    }

    fn flush_dirty(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for sid in dirty {
            if let Some(session) = self.sessions.get_mut(&sid) {
                session.in_dirty = false;
                guarded(session, &mut self.context, Session::flush);
                if session.over {
                    self.done.push(sid);
                }
                if !self.context.detached.is_empty() {
                    self.keep_detached();
                }
            }
        }
    }

    fn bury(&mut self) {
        for sid in std::mem::take(&mut self.done) {
            // Another connection may have become the session's meanwhile.
            if self.sessions.get(&sid).is_some_and(|session| session.over) {
                if let Some(session) = self.sessions.remove(&sid) {
                    self.drop_session(session);
                }
            }
        }
    }

    fn drop_session(&mut self, mut session: Box<Session>) {
        session.leave_behind(&mut self.context);
        if !session.authenticated {
            session.count_unauthenticated(&self.context, -1);
        }
        self.shared.counters.sessions.fetch_sub(1, Ordering::Relaxed);
        if session.sid >= FIRST_SERVER_SID {
            self.shared.counters.servers.fetch_sub(1, Ordering::Relaxed);
        }
        // Closing the socket ends its registration too.
    }

    fn settle(&mut self) {
        self.context.tally.settle(&self.shared.counters);
        self.context.forget_serialised();
        self.report_records();
        if !self.context.events.is_empty() {
            self.shared.events.extend(self.context.events.drain(..));
        }
    }

    fn report_records(&mut self) {
        if let Some((ticket, awaiting)) = self.context.close_ticket() {
            self.awaiting.insert(ticket, awaiting);
        }
    }

    fn stop(&mut self) {
        for (_, listener, _) in &mut self.listeners {
            listener.deregister(self.poll.registry());
        }
        self.listeners.clear();
        let waiting: Vec<u64> = self.detached.keys().copied().collect();
        for sid in waiting {
            self.end_detached(sid, "the server is stopping");
        }
        let sids: Vec<u64> = self.sessions.keys().copied().collect();
        for sid in sids {
            self.with(sid, Session::shut_down);
        }
        self.stopping = Some(self.context.now + Duration::from_millis(400));
    }
}
