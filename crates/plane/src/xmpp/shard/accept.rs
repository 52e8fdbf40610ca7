//! New connections: from a listener to the thread that will own them, within the bounds on their number.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::Token;

use super::super::listener::Listener;
use super::super::session::Session;
use super::super::shared::{Accepted, Command};
use super::Shard;

/// Connections accepted before the sessions get their turn.
const ACCEPTS_PER_TURN: usize = 64;
/// How long to wait when descriptors or memory are short.
const SHORTAGE: Duration = Duration::from_millis(100);

impl Shard {
    pub(super) fn listen(&mut self, mut listener: Box<Listener>) {
        let token = Token(self.next_listener);
        self.next_listener -= 1;
        // Registering fails only for want of memory; the listener then stays silent.
        if listener.register(self.poll.registry(), token).is_ok() && self.stopping.is_none() {
            self.listeners.push((token, listener, true));
            self.accept_again = Some(self.context.now);
        }
    }

    pub(super) fn unlisten(&mut self, id: u64) {
        let registry = self.poll.registry();
        self.listeners.retain_mut(|(_, listener, _)| {
            let stays = listener.id != id;
            if !stays {
                listener.deregister(registry);
            }
            stays
        });
    }

    pub(super) fn listener_ready(&mut self, token: Token) {
        if let Some((_, _, ready)) = self.listeners.iter_mut().find(|(found, _, _)| *found == token) {
            *ready = true;
        }
        self.accept_again = Some(self.context.now);
    }

    /// Takes waiting connections; called when a listener is ready or a shortage may be over.
    pub(super) fn accept(&mut self) {
        self.accept_again = None;
        if self.shared.gauge.is_full() {
            // `ResumeAll` comes back here.
            return;
        }
        let mut adopted = Vec::new();
        for (_, listener, ready) in &mut self.listeners {
            for _ in 0..ACCEPTS_PER_TURN {
                if !*ready {
                    break;
                }
                match listener.accept() {
                    Ok((stream, peer)) => {
                        self.context.tally.accepted += 1;
                        let sid = self.shared.new_sid(listener.options.mode.is_server());
                        let options = listener.options.clone();
                        adopted.push(Accepted {
                            sid,
                            stream,
                            peer,
                            listener: listener.id,
                            options,
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => *ready = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {
                    }
                    Err(_) => {
                        self.accept_again = Some(self.context.now + SHORTAGE);
                        break;
                    }
                }
            }
            if *ready && self.accept_again.is_none() {
                self.accept_again = Some(self.context.now);
            }
        }
        for accepted in adopted {
            let owner = self.shared.owner(accepted.sid);
            if owner == self.index {
                self.adopt(accepted);
            } else {
                self.shared.inboxes[owner].extend([Command::Adopt(Box::new(accepted))]);
            }
        }
    }

    /// Makes a session of a connection.
    pub(super) fn adopt(&mut self, accepted: Accepted) {
        let counters = &self.shared.counters;
        let config = &self.shared.config;
        if self.stopping.is_some() || counters.sessions.load(Ordering::Relaxed) >= config.max_sessions {
            self.context.tally.refused += 1;
            return;
        }
        let server = accepted.options.mode.is_server();
        let (strangers, bound) = if server {
            (&counters.unauthenticated_servers, config.max_unauthenticated_servers)
        } else {
            (&counters.unauthenticated, config.max_unauthenticated)
        };
        if strangers.load(Ordering::Relaxed) >= bound && !self.evict_oldest(server) {
            self.context.tally.refused += 1;
            return;
        }
        let sid = accepted.sid;
        let Some(mut session) = Session::new(accepted, &self.context) else {
            self.context.tally.refused += 1;
            return;
        };
        if session
            .transport
            .stream
            .register(self.poll.registry(), Token(sid as usize))
            .is_err()
        {
            self.context.tally.refused += 1;
            return;
        }
        session.count_unauthenticated(&self.context, 1);
        self.shared.counters.sessions.fetch_add(1, Ordering::Relaxed);
        if server {
            self.shared.counters.servers.fetch_add(1, Ordering::Relaxed);
        }
        self.sessions.insert(sid, Box::new(session));
        let due = self.context.now + self.shared.config.handshake_timeout;
        self.strangers(server).push_back((due, sid));
    }

    fn strangers(&mut self, server: bool) -> &mut VecDeque<(Instant, u64)> {
        if server {
            &mut self.server_handshakes
        } else {
            &mut self.handshakes
        }
    }

    /// Makes room by closing the session of this thread that has been signing in for longest.
    fn evict_oldest(&mut self, server: bool) -> bool {
        while let Some((_, sid)) = self.strangers(server).pop_front() {
            if self
                .sessions
                .get(&sid)
                .is_some_and(|session| !session.authenticated && !session.over)
            {
                self.with(sid, Session::evict);
                return true;
            }
        }
        false
    }
}
