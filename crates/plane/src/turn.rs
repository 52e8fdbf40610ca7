//! The TURN engine: threads with sockets around the machines of `moim-turn`.
//!
//! Each listener has one or more threads; the kernel deals clients to them by their address, so a client always meets
//! the same machine. Python's calls reach the threads as messages; what they report comes back the same way, or over
//! the event queue.

mod batch;
mod socket;
mod worker;

use crate::events::EventQueue;
pub use moim_turn::{
    AllocationInfo, ChannelInfo, Counters, Event as ServerEvent, PermissionInfo, Rule, Traffic, UserKeys,
};
use moim_turn::{Config, PeerRules, Policy, PortPool, Server, Shared};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::{fmt, io};
use worker::{Clock, Command, Held, Worker};

/// Kernel buffers: a relay's holds a key frame, a listener's the bursts of many clients.
const RELAY_BUFFER: libc::c_int = 1 << 20;
const LISTENER_BUFFER: libc::c_int = 8 << 20;
const MAX_THREADS: usize = 64;

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Options {
    pub realm: String,
    pub software: String,
    pub old_channel_range: bool,
    pub max_allocations: usize,
    pub user_quota: u32,
    pub default_lifetime_s: u32,
    pub max_lifetime_s: u32,
    pub nonce_lifetime_s: u32,
    pub unauthenticated_rate: u32,
    pub unauthenticated_burst: u32,
    /// Threads per listener; 0 for half the processors.
    pub threads: usize,
}

/// Where a listener's relays live.
#[derive(Clone, Copy, Debug)]
pub struct RelayAddress {
    pub bind: IpAddr,
    /// What clients and peers see; differs behind a static NAT.
    pub external: IpAddr,
}

/// What an engine tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Server(ServerEvent),
    /// A thread ended on an error of ours; its allocations are gone.
    Failed(String),
}

/// Why an engine could not do something.
#[derive(Debug)]
pub enum EngineError {
    /// The arguments make no sense.
    Usage(String),
    /// The system did not give what was asked for.
    Resource(String),
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Resource(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for EngineError {}

/// One thread's table and totals.
#[derive(Debug)]
pub struct Report {
    pub address: SocketAddr,
    pub allocations: Vec<AllocationInfo>,
    pub counters: Counters,
    /// Datagrams that the system did not take.
    pub unsent: u64,
}

struct Thread {
    mailbox: Sender<Command>,
    bell: Arc<OwnedFd>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Whether the thread will read it.
    fn tell(&self, command: Command) -> bool {
        let taken = self.mailbox.send(command).is_ok();
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes, as an eventfd takes them. A full counter still wakes the thread.
        unsafe { libc::write(self.bell.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        taken
    }
}

#[derive(Default)]
struct State {
    threads: Vec<Thread>,
    users: HashMap<String, UserKeys>,
    secrets: Vec<Vec<u8>>,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
    own: Vec<IpAddr>,
    stopped: bool,
}

/// A TURN service; dropping it stops its threads.
pub struct Engine {
    options: Options,
    shared: Arc<Shared>,
    events: Arc<EventQueue<Event>>,
    lost_events: Arc<AtomicU64>,
    held: Held,
    clock: Clock,
    nonce_key: [u8; 32],
    state: Mutex<State>,
}

impl Engine {
    /// Makes a service without listeners, users or secrets.
    ///
    /// # Errors
    /// [`EngineError::Usage`] for options out of range, [`EngineError::Resource`] when the system is out of descriptors.
    pub fn new(options: Options) -> Result<Self, EngineError> {
        let usage = |text: &str| Err(EngineError::Usage(text.to_owned()));
        if options.realm.is_empty() || options.realm.len() > 763 || options.realm.contains(['"', '\0']) {
            return usage("the realm must have 1 to 763 bytes and no quotation mark");
        }
        if options.software.len() > 763 {
            return usage("the software name is longer than 763 bytes");
        }
        if options.default_lifetime_s == 0 || options.default_lifetime_s > options.max_lifetime_s {
            return usage("the default lifetime must lie between 1 and the maximum lifetime");
        }
        if options.unauthenticated_rate == 0 || options.max_allocations == 0 || options.user_quota == 0 {
            return usage("rates and quotas must be at least 1");
        }
        socket::raise_descriptor_limit();
        let resource = |error: io::Error| EngineError::Resource(format!("TURN cannot start: {error}"));
        Ok(Self {
            shared: Arc::new(Shared::new(options.max_allocations, options.user_quota)),
            events: Arc::new(EventQueue::new().map_err(resource)?),
            lost_events: Arc::default(),
            held: Held::default(),
            clock: Clock::new(),
            nonce_key: socket::random().map_err(resource)?,
            state: Mutex::default(),
            options,
        })
    }

    /// The queue of events.
    pub fn events(&self) -> &EventQueue<Event> {
        &self.events
    }

    /// Binds `address` (port 0 takes a free one) and serves it; gives the address bound.
    ///
    /// # Errors
    /// [`EngineError::Usage`] for arguments that make no sense, [`EngineError::Resource`] when the address or a
    /// descriptor cannot be had.
    pub fn listen(
        &self,
        address: SocketAddr,
        relays: &[RelayAddress],
        ports: (u16, u16),
    ) -> Result<SocketAddr, EngineError> {
        check_addresses(address, relays, ports)?;
        let mut state = lock(&self.state);
        if state.stopped {
            return Err(EngineError::Usage("the TURN server has been stopped".to_owned()));
        }
        let threads = match self.options.threads {
            0 => (std::thread::available_parallelism().map_or(1, usize::from) / 2).clamp(1, 8),
            count => count.min(MAX_THREADS),
        };
        let sockets = bind_group(address, threads)
            .map_err(|error| EngineError::Resource(format!("TURN cannot listen on {address}: {error}")))?;
        let resource = |error: io::Error| EngineError::Resource(format!("TURN cannot start: {error}"));
        let bound = socket::local_address(sockets[0].as_raw_fd()).map_err(resource)?;
        state.own.push(bound.ip());
        state
            .own
            .extend(relays.iter().flat_map(|relay| [relay.bind, relay.external]));
        state.own.extend(socket::interface_addresses());
        state.own.sort_unstable();
        state.own.dedup();
        let policy = self.policy(&state);
        self.publish(&state, &policy);
        let pools: Vec<Arc<PortPool>> = relays
            .iter()
            .map(|relay| Arc::new(PortPool::new(relay.bind, relay.external, ports.0, ports.1)))
            .collect();
        for listener in sockets {
            let thread = self.start(listener, bound, &pools, &policy).map_err(resource)?;
            state.threads.push(thread);
        }
        Ok(bound)
    }

    fn start(
        &self,
        listener: OwnedFd,
        address: SocketAddr,
        pools: &[Arc<PortPool>],
        policy: &Arc<Policy>,
    ) -> io::Result<Thread> {
        let pool = |v4: bool| pools.iter().find(|pool| pool.address().is_ipv4() == v4).cloned();
        let options = &self.options;
        let config = Config {
            realm: options.realm.clone(),
            software: options.software.clone(),
            old_channel_range: options.old_channel_range,
            v4: pool(true),
            v6: pool(false),
            default_lifetime_s: options.default_lifetime_s,
            max_lifetime_s: options.max_lifetime_s,
            nonce_lifetime_s: options.nonce_lifetime_s,
            unauthenticated_rate: options.unauthenticated_rate,
            unauthenticated_burst: options.unauthenticated_burst,
        };
        let server = Server::new(
            config,
            self.shared.clone(),
            policy.clone(),
            self.nonce_key,
            socket::random()?,
        );
        let bell = Arc::new(eventfd()?);
        let (sender, receiver) = channel();
        let mut worker = Worker::new(
            server,
            listener,
            address,
            self.clock,
            receiver,
            bell.clone(),
            self.events.clone(),
            self.lost_events.clone(),
            self.held.clone(),
        )?;
        let handle = std::thread::Builder::new()
            .name("moim-turn".to_owned())
            .spawn(move || {
                let work = std::panic::AssertUnwindSafe(|| worker.run());
                if let Err(panic) = std::panic::catch_unwind(work) {
                    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                    worker.tell(Event::Failed(text.unwrap_or_else(|| "unknown error".to_owned())));
                }
            })?;
        Ok(Thread {
            mailbox: sender,
            bell,
            handle: Some(handle),
        })
    }

    /// Replaces the users with long-term credentials.
    pub fn set_users(&self, users: HashMap<String, UserKeys>) {
        self.change(|state| state.users = users);
    }

    /// Replaces the shared secrets of time-limited credentials.
    pub fn set_secrets(&self, secrets: Vec<Vec<u8>>) {
        self.change(|state| state.secrets = secrets);
    }

    /// Replaces the administrator's rules about peers.
    pub fn set_peer_rules(&self, allow: Vec<Rule>, deny: Vec<Rule>) {
        self.change(|state| (state.allow, state.deny) = (allow, deny));
    }

    /// Returns when every thread works by the new policy.
    fn change(&self, edit: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        edit(&mut state);
        let policy = self.policy(&state);
        self.publish(&state, &policy);
    }

    fn policy(&self, state: &State) -> Arc<Policy> {
        let rules = PeerRules::new(&state.allow, &state.deny, &state.own);
        let users = state.users.iter().map(|(user, keys)| (user.clone(), *keys));
        Arc::new(Policy::new(&self.options.realm, users, &state.secrets, rules))
    }

    fn publish(&self, state: &State, policy: &Arc<Policy>) {
        let (done, all_done) = channel();
        for thread in &state.threads {
            thread.tell(Command::Policy(policy.clone(), done.clone()));
        }
        drop(done);
        // Ends when each thread has answered or is gone.
        while all_done.recv().is_ok() {}
    }

    /// Tables and totals of every thread, and how many events were lost because too many waited.
    pub fn report(&self) -> (Vec<Report>, u64) {
        let state = lock(&self.state);
        let (reply, replies): (_, Receiver<Report>) = channel();
        for thread in &state.threads {
            thread.tell(Command::Report(reply.clone()));
        }
        drop(reply);
        (replies.iter().collect(), self.lost_events.load(Ordering::Relaxed))
    }

    /// Ends every allocation and thread. Calling it again does nothing.
    pub fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        for thread in &state.threads {
            thread.tell(Command::Stop);
        }
        for mut thread in state.threads.drain(..) {
            if let Some(handle) = thread.handle.take() {
                // A panic of the thread was told as an event already.
                let _ = handle.join();
            }
        }
        lock(&self.held).clear();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check_addresses(address: SocketAddr, relays: &[RelayAddress], ports: (u16, u16)) -> Result<(), EngineError> {
    let usage = |text: String| Err(EngineError::Usage(text));
    // Answers must leave from the address that was asked, which a wildcard socket cannot promise.
    let wild = std::iter::once(address.ip()).chain(relays.iter().flat_map(|relay| [relay.bind, relay.external]));
    if let Some(ip) = wild.into_iter().find(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return usage(format!("{ip} is not one address of this machine: name it"));
    }
    let v4 = relays.iter().filter(|relay| relay.bind.is_ipv4()).count();
    if relays.is_empty() || v4 > 1 || relays.len() - v4 > 1 {
        return usage("one relay address per family, at least one".to_owned());
    }
    if relays
        .iter()
        .any(|relay| relay.bind.is_ipv4() != relay.external.is_ipv4())
    {
        return usage("a relay's external address must be of the same family".to_owned());
    }
    if ports.0 < 1024 || ports.0 > ports.1 {
        return usage(format!(
            "{}–{} is not a range of relay ports: 1024 is the lowest",
            ports.0, ports.1
        ));
    }
    Ok(())
}

/// Sockets that share one address. The first is bound alone, so that a port in use is noticed.
fn bind_group(address: SocketAddr, count: usize) -> io::Result<Vec<OwnedFd>> {
    let first = socket::bind(address, false, LISTENER_BUFFER)?;
    if count == 1 {
        return Ok(vec![first]);
    }
    let address = socket::local_address(first.as_raw_fd())?;
    socket::join_group(first.as_raw_fd())?;
    let others = (1..count).map(|_| socket::bind(address, true, LISTENER_BUFFER));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it becomes an owned descriptor.
    unsafe {
        let fd: RawFd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
