//! What is due: sign-in and linger times as queues in order of time, slow readers and idle peers by a sweep.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use super::super::session::Session;
use super::Shard;

/// Between two looks at all sessions for those that neither read nor write.
const SWEEP: Duration = Duration::from_secs(5);

impl Shard {
    /// How long the poll may sleep.
    pub(super) fn timeout(&self) -> Option<Duration> {
        if !self.turns.is_empty() || !self.dirty.is_empty() || !self.done.is_empty() {
            return Some(Duration::ZERO);
        }
        let handshake = self.handshakes.front().map(|(due, _)| *due);
        let server = self.server_handshakes.front().map(|(due, _)| *due);
        let outgoing = self.context.deadlines.peek().map(|Reverse((due, _))| *due);
        let linger = self.context.lingering.front().map(|(due, _)| *due);
        let nudge = self.context.nudges.front().map(|(due, _)| *due);
        let throttled = self.context.throttled.peek().map(|Reverse((due, _))| *due);
        let sweep = (!self.sessions.is_empty()).then_some(self.next_sweep);
        let due = [
            handshake,
            server,
            outgoing,
            linger,
            nudge,
            throttled,
            sweep,
            self.accept_again,
            self.stopping,
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some(due.saturating_duration_since(Instant::now()))
    }

    pub(super) fn run_timers(&mut self) {
        let now = self.context.now;
        while let Some((_, sid)) =
            pop_due(&mut self.handshakes, now).or_else(|| pop_due(&mut self.server_handshakes, now))
        {
            if self.sessions.get(&sid).is_some_and(|session| !session.authenticated) {
                self.with(sid, Session::handshake_expired);
            }
        }
        while let Some(sid) = pop_earliest(&mut self.context.deadlines, now) {
            self.with(sid, Session::deadline_reached);
        }
        while let Some((_, sid)) = pop_due(&mut self.context.lingering, now) {
            self.with(sid, Session::linger_expired);
        }
        while let Some((_, sid)) = pop_due(&mut self.context.nudges, now) {
            self.with(sid, Session::nudge);
        }
        while let Some(sid) = pop_earliest(&mut self.context.throttled, now) {
            self.with(sid, Session::unthrottle);
        }
        if self.accept_again.is_some_and(|due| due <= now) {
            self.accept();
        }
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Instant) {
        let config = &self.shared.config;
        let (write_timeout, idle_timeout) = (config.write_timeout, config.idle_timeout);
        let is_slow = |session: &Session| session.blocked_since.is_some_and(|since| now - since > write_timeout);
        // A stream to another server carries stanzas in one direction, so that nothing may come in for hours.
        let is_idle = |session: &Session| {
            let counts = !idle_timeout.is_zero() && session.authenticated && !session.is_server();
            counts && now - session.last_read > idle_timeout
        };
        let slow: Vec<u64> = self
            .sessions
            .values()
            .filter(|found| is_slow(found))
            .map(|found| found.sid)
            .collect();
        let idle: Vec<u64> = self
            .sessions
            .values()
            .filter(|found| is_idle(found))
            .map(|found| found.sid)
            .collect();
        let mute: Vec<u64> = self
            .sessions
            .values()
            .filter(|found| !config.ack_timeout.is_zero() && found.is_mute(now, config.ack_timeout))
            .map(|found| found.sid)
            .collect();
        for sid in mute {
            self.with(sid, Session::mute_expired);
        }
        for session in self.sessions.values_mut() {
            session.report_carried(&mut self.context);
        }
        for sid in slow {
            self.with(sid, Session::too_slow);
        }
        for sid in idle {
            self.with(sid, Session::idle_expired);
        }
    }
}

fn pop_earliest(heap: &mut BinaryHeap<Reverse<(Instant, u64)>>, now: Instant) -> Option<u64> {
    let Reverse((due, _)) = heap.peek()?;
    if *due > now {
        return None;
    }
    heap.pop().map(|Reverse((_, sid))| sid)
}

fn pop_due(queue: &mut VecDeque<(Instant, u64)>, now: Instant) -> Option<(Instant, u64)> {
    let (due, _) = queue.front()?;
    (*due <= now).then(|| queue.pop_front()).flatten()
}
