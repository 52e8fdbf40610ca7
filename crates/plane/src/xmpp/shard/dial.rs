//! Connections to other servers: how they begin.

use std::sync::atomic::Ordering;

use mio::Token;

use super::super::connect::Outgoing;
use super::super::event::Event;
use super::super::session::Session;
use super::Shard;

impl Shard {
    /// Begins to connect.
    pub(super) fn dial(&mut self, outgoing: Outgoing) {
        let sid = outgoing.sid;
        let counters = &self.shared.counters;
        if self.stopping.is_some() || counters.sessions.load(Ordering::Relaxed) >= self.shared.config.max_sessions {
            return self.undialled(sid, "this server has too many connections, or is stopping");
        }
        let stream = match outgoing.begin() {
            Ok(stream) => stream,
            Err(error) => return self.undialled(sid, &error.to_string()),
        };
        let due = self.context.now + outgoing.timeout;
        let Some(mut session) = Session::outgoing(outgoing, stream, &self.context) else {
            return self.undialled(sid, "an error inside the server");
        };
        if let Err(error) = session
            .transport
            .stream
            .register(self.poll.registry(), Token(sid as usize))
        {
            return self.undialled(sid, &error.to_string());
        }
        self.shared.counters.sessions.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.servers.fetch_add(1, Ordering::Relaxed);
        self.sessions.insert(sid, Box::new(session));
        self.context.deadlines.push(std::cmp::Reverse((due, sid)));
    }

    fn undialled(&mut self, sid: u64, why: &str) {
        let reason = format!("the connection could not be made: {why}");
        self.context.emit(Event::Closed { sid, reason });
    }
}
