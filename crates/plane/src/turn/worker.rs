//! One thread of the TURN engine: a listening socket, its relays, one machine, one epoll. Relayed packets meet no lock.

use super::batch::{send_one, Batch, Outgoing, BATCH};
use super::socket::{bind, dont_fragment};
use super::{Event, Report, RELAY_BUFFER};
use crate::events::EventQueue;
use moim_turn::{Forward, Now, OpenError, Output, Policy, RelayId, Server, Token};
use std::collections::HashMap;
use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const LISTENER: u64 = u64::MAX;
const MAILBOX: u64 = u64::MAX - 1;
/// Batches taken from the listener before relays get their turn.
const ROUNDS: usize = 4;
/// Datagrams taken from one relay before the others get their turn.
const PER_RELAY: usize = 32;
/// Events that may wait for Python; more are counted and dropped.
const EVENTS: usize = 8192;

/// Sockets of reserved ports: any thread may make the allocation that redeems the token.
pub type Held = Arc<Mutex<HashMap<Token, OwnedFd>>>;

/// What other threads ask of a worker.
pub enum Command {
    Policy(Arc<Policy>, Sender<()>),
    Report(Sender<Report>),
    Stop,
}

/// A monotonic clock that all workers of an engine share, so that they agree about nonces.
#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub fn now(&self) -> Now {
        Now {
            ms: self.start.elapsed().as_millis() as u64,
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

struct Relay {
    id: RelayId,
    socket: OwnedFd,
    v4: bool,
}

pub struct Worker {
    pub server: Server,
    pub listener: OwnedFd,
    pub address: SocketAddr,
    pub clock: Clock,
    pub mailbox: Receiver<Command>,
    pub bell: Arc<OwnedFd>,
    pub events: Arc<EventQueue<Event>>,
    pub lost_events: Arc<AtomicU64>,
    pub held: Held,
    poll: OwnedFd,
    relays: Vec<Option<Relay>>,
    batch: Batch,
    outgoing: Vec<Outgoing>,
    now: Now,
    unsent: u64,
}

impl Worker {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        server: Server,
        listener: OwnedFd,
        address: SocketAddr,
        clock: Clock,
        mailbox: Receiver<Command>,
        bell: Arc<OwnedFd>,
        events: Arc<EventQueue<Event>>,
        lost_events: Arc<AtomicU64>,
        held: Held,
    ) -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it becomes an owned descriptor.
        let poll = unsafe {
            let fd = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        watch(poll.as_raw_fd(), listener.as_raw_fd(), LISTENER)?;
        watch(poll.as_raw_fd(), bell.as_raw_fd(), MAILBOX)?;
        Ok(Self {
            server,
            listener,
            address,
            clock,
            mailbox,
            bell,
            events,
            lost_events,
            held,
            poll,
            relays: Vec::new(),
            batch: Batch::new(),
            outgoing: Vec::with_capacity(BATCH),
            now: clock.now(),
            unsent: 0,
        })
    }

    /// Works until told to stop.
    pub fn run(&mut self) {
        // SAFETY: all-zero is a valid epoll_event.
        let mut ready: [libc::epoll_event; 256] = unsafe { zeroed() };
        loop {
            let timeout = self.timeout();
            // SAFETY: the array is as long as said.
            let count = unsafe { libc::epoll_wait(self.poll.as_raw_fd(), ready.as_mut_ptr(), 256, timeout) };
            self.now = self.clock.now();
            let ready = &ready[..count.max(0) as usize];
            let mut used = 0;
            for event in ready {
                match event.u64 {
                    LISTENER | MAILBOX => {}
                    bits => used = self.take_from_peers(RelayId::from_bits(bits), used),
                }
            }
            self.send_to_clients();
            if ready.iter().any(|event| event.u64 == LISTENER) {
                self.take_from_clients();
            }
            if self.server.deadline().is_some_and(|at| at <= self.now.ms) {
                self.server.tick(self.now);
            }
            self.settle();
            if ready.iter().any(|event| event.u64 == MAILBOX) && !self.read_mail() {
                return;
            }
        }
    }

    fn timeout(&self) -> libc::c_int {
        match self.server.deadline() {
            Some(at) => at.saturating_sub(self.clock.now().ms).min(60_000) as libc::c_int,
            None => -1,
        }
    }

    fn take_from_clients(&mut self) {
        for _ in 0..ROUNDS {
            // Errors of a listening UDP socket concern single datagrams; the next call goes on.
            let count = self.batch.receive(self.listener.as_raw_fd(), 0, BATCH).unwrap_or(0);
            for slot in 0..count {
                let Some(client) = self.batch.sender(slot) else {
                    continue;
                };
                let place = self.batch.place(slot);
                let start = place.start;
                let data = &self.batch.buffer(slot)[place];
                let flow = moim_turn::Flow::datagram(client);
                if let Some(forward) = self.server.receive(self.now, flow, data) {
                    self.outgoing.push(outgoing(forward, slot, start));
                }
            }
            self.send_to_peers();
            self.settle();
            if count < BATCH {
                break;
            }
        }
    }

    /// Sends what clients gave, one call per relay; the order within a relay is kept.
    fn send_to_peers(&mut self) {
        self.outgoing.sort_by_key(|datagram| datagram.socket);
        let outgoing = std::mem::take(&mut self.outgoing);
        for run in outgoing.chunk_by(|a, b| (a.socket, a.dont_fragment) == (b.socket, b.dont_fragment)) {
            let Some(Some(relay)) = self.relays.get(run[0].socket) else {
                self.unsent += run.len() as u64;
                continue;
            };
            let fd = relay.socket.as_raw_fd();
            // DF is a property of the socket, so it is set around the few datagrams that want it.
            let special = run[0].dont_fragment && dont_fragment(fd, relay.v4, true).is_ok();
            self.unsent += self.batch.send(fd, run) as u64;
            if special {
                let _ = dont_fragment(fd, relay.v4, false);
            }
        }
        self.outgoing = outgoing;
        self.outgoing.clear();
    }

    /// Takes datagrams of one relay's peers into the buffers from `used` on; gives the first free one afterwards.
    fn take_from_peers(&mut self, id: RelayId, used: usize) -> usize {
        let Some(Some(relay)) = self.relays.get(id.index()) else {
            return used;
        };
        if relay.id != id {
            return used;
        }
        let fd = relay.socket.as_raw_fd();
        let limit = PER_RELAY.min(BATCH - used);
        let count = self.batch.receive(fd, used, limit).unwrap_or(0);
        for slot in used..used + count {
            let Some(peer) = self.batch.sender(slot) else { continue };
            let place = self.batch.place(slot);
            let buffer = self.batch.buffer(slot);
            if let Some((flow, bytes)) = self.server.relayed(self.now, id, peer, buffer, place) {
                self.outgoing.push(Outgoing {
                    socket: 0,
                    to: flow.client,
                    slot,
                    bytes,
                    dont_fragment: false,
                });
            }
        }
        if used + count < BATCH {
            return used + count;
        }
        self.send_to_clients();
        0
    }

    fn send_to_clients(&mut self) {
        if !self.outgoing.is_empty() {
            self.unsent += self.batch.send(self.listener.as_raw_fd(), &self.outgoing) as u64;
            self.outgoing.clear();
        }
    }

    /// Carries out what the machine asked for.
    fn settle(&mut self) {
        while let Some(output) = self.server.next_output() {
            match output {
                Output::Send { flow, bytes } => {
                    self.unsent += u64::from(!send_one(self.listener.as_raw_fd(), flow.client, &bytes));
                }
                Output::Open {
                    relay,
                    address,
                    reserve,
                } => {
                    let result = self.open(relay, address, reserve);
                    self.server.opened(self.now, relay, result);
                }
                Output::Adopt { relay, token } => {
                    let socket = lock(&self.held).remove(&token);
                    let result = socket.ok_or(OpenError::Failed).and_then(|socket| {
                        let v4 = super::socket::local_address(socket.as_raw_fd()).is_ok_and(|local| local.is_ipv4());
                        self.adopt(relay, socket, v4)
                    });
                    self.server.opened(self.now, relay, result);
                }
                Output::Close { relay } => {
                    if let Some(place) = self.relays.get_mut(relay.index()) {
                        *place = None;
                    }
                }
                Output::Release { token } => {
                    lock(&self.held).remove(&token);
                }
            }
        }
        while let Some(event) = self.server.next_event() {
            self.tell(Event::Server(event));
        }
    }

    fn open(&mut self, relay: RelayId, address: SocketAddr, reserve: Option<Token>) -> Result<(), OpenError> {
        let failed = |error: io::Error| match error.kind() {
            // A port that needs privileges or is held by another program; another port may do.
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => OpenError::Busy,
            _ => OpenError::Failed,
        };
        let socket = bind(address, false, RELAY_BUFFER).map_err(failed)?;
        let next = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
        let second = reserve
            .map(|token| bind(next, false, RELAY_BUFFER).map(|socket| (token, socket)))
            .transpose()
            .map_err(failed)?;
        self.adopt(relay, socket, address.is_ipv4())?;
        lock(&self.held).extend(second);
        Ok(())
    }

    fn adopt(&mut self, id: RelayId, socket: OwnedFd, v4: bool) -> Result<(), OpenError> {
        watch(self.poll.as_raw_fd(), socket.as_raw_fd(), id.to_bits()).map_err(|_| OpenError::Failed)?;
        if self.relays.len() <= id.index() {
            self.relays.resize_with(id.index() + 1, || None);
        }
        self.relays[id.index()] = Some(Relay { id, socket, v4 });
        Ok(())
    }

    /// Whether to go on.
    fn read_mail(&mut self) -> bool {
        let mut counter = [0u8; 8];
        // SAFETY: the buffer has the eight bytes that an eventfd gives. An empty one answers EAGAIN, which is fine.
        unsafe { libc::read(self.bell.as_raw_fd(), counter.as_mut_ptr().cast(), counter.len()) };
        while let Ok(command) = self.mailbox.try_recv() {
            match command {
                Command::Policy(policy, done) => {
                    self.server.set_policy(policy);
                    self.settle();
                    // Whoever no longer waits does not need the answer.
                    let _ = done.send(());
                }
                Command::Report(reply) => {
                    let _ = reply.send(Report {
                        address: self.address,
                        allocations: self.server.allocations(self.now),
                        counters: self.server.counters(),
                        unsent: self.unsent,
                    });
                }
                Command::Stop => {
                    self.server.close_all();
                    self.settle();
                    return false;
                }
            }
        }
        true
    }

    /// Hands an event to Python unless too many wait already.
    pub fn tell(&self, event: Event) {
        if self.events.len() < EVENTS {
            self.events.push(event);
        } else {
            self.lost_events.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn outgoing(forward: Forward, slot: usize, start: usize) -> Outgoing {
    Outgoing {
        socket: forward.relay.index(),
        to: forward.peer,
        slot,
        bytes: start + forward.payload.start..start + forward.payload.end,
        dont_fragment: forward.dont_fragment,
    }
}

fn watch(poll: RawFd, fd: RawFd, bits: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: bits,
    };
    // SAFETY: the event is valid for the call.
    match unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd, &mut event) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
