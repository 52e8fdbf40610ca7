//! The engine as its owner sees it: calls that return at once and become commands to the thread that owns a session.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};

use super::config::{Config, ListenerOptions};
use super::event::Event;
use super::listener::Listener;
use super::records::Ids;
use super::shard::{Shard, WAKER};
use super::shared::{Command, Inbox, Shared, FIRST_SERVER_SID};
use super::unrouted::Unrouted;
use crate::tls::{certificate_from_pem, Certificates, ServerTls};

mod asking;

/// Threads at most, unless the configuration says a number.
const MAX_THREADS: usize = 4;

/// Why a listener could not be made.
#[derive(Debug)]
pub enum ListenError {
    /// The arguments make no sense.
    Usage(String),
    /// The operating system refused.
    Bind(std::io::Error),
}

/// Where to connect to, as [`Server::connect`] takes it.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    pub address: IpAddr,
    pub port: u16,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    pub timeout: Duration,
    /// Whether TLS begins with the first byte.
    pub tls: bool,
    /// The domain that is asked for in TLS.
    pub server_name: String,
    /// The hosted domain whose certificate is shown.
    pub local: Option<String>,
}

/// A running engine.
pub struct Server {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_listener: AtomicU64,
    gathering: AtomicBool,
    unrouted: Unrouted,
}

impl Server {
    /// Starts the threads; nothing listens yet.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor or a thread.
    pub fn start(domain: &str, domains: &[String], config: Config) -> std::io::Result<Self> {
        let (server, shards) = Self::assemble(domain, domains, config)?;
        for (index, shard) in shards.into_iter().enumerate() {
            let thread = std::thread::Builder::new()
                .name(format!("moim-xmpp-{index}"))
                .spawn(|| {
                    crate::promptness::wake_soon();
                    shard.run();
                })?;
            server
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(thread);
        }
        Ok(server)
    }

    /// An engine, and what its threads will run.
    pub(super) fn assemble(domain: &str, domains: &[String], config: Config) -> std::io::Result<(Self, Vec<Shard>)> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = if config.threads == 0 {
            cores.min(MAX_THREADS)
        } else {
            config.threads
        };
        let mut polls = Vec::with_capacity(count);
        let mut inboxes = Vec::with_capacity(count);
        for _ in 0..count {
            let poll = Poll::new()?;
            inboxes.push(Inbox::new(Waker::new(poll.registry(), WAKER)?));
            polls.push(poll);
        }
        let node = config.node;
        let served = super::domains::Domains::default();
        served.set(domains.iter().cloned().chain([domain.to_owned()]), []);
        let shared = Arc::new(Shared {
            config,
            domain: domain.to_owned(),
            domains: served,
            routes: Default::default(),
            ways: Default::default(),
            events: crate::events::EventQueue::new()?,
            gauge: Default::default(),
            counters: Default::default(),
            tls: Default::default(),
            exporters: Default::default(),
            inboxes,
            next_sid: AtomicU64::new(1),
            next_server_sid: AtomicU64::new(FIRST_SERVER_SID),
            ids: Ids::new(node),
            tickets: Default::default(),
        });
        let server = Self {
            shared: shared.clone(),
            threads: Mutex::default(),
            next_listener: AtomicU64::new(1),
            gathering: AtomicBool::new(false),
            unrouted: Unrouted::default(),
        };
        let shards = polls.into_iter().enumerate();
        let shards = shards.map(|(index, poll)| Shard::new(index, poll, shared.clone()));
        Ok((server, shards.collect()))
    }

    /// Gathers what is asked of sessions from now on, or hands it to their threads, each woken once for all of it.
    pub fn gather(&self, on: bool) {
        self.gathering.store(on, Ordering::Relaxed);
        if !on {
            self.unrouted.worked_on();
            self.shared.inboxes.iter().for_each(Inbox::wake);
        }
    }

    /// Binds a listener; its number and port. An address that begins with `/` is a Unix socket.
    ///
    /// # Errors
    /// When the address makes no sense or cannot be bound.
    pub fn listen(&self, address: &str, port: u16, options: ListenerOptions) -> Result<(u64, u16), ListenError> {
        if options.mode.is_tls() && self.shared.server_tls().is_none() {
            return Err(ListenError::Usage("set a certificate before listening with TLS".into()));
        }
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let (listener, port) = if address.starts_with('/') {
            (
                Listener::unix(id, Path::new(address), options).map_err(ListenError::Bind)?,
                0,
            )
        } else {
            let ip: IpAddr = address
                .parse()
                .map_err(|_| ListenError::Usage(format!("{address:?} is neither an IP address nor a socket's path")))?;
            Listener::tcp(id, ip, port, options).map_err(ListenError::Bind)?
        };
        self.shared.inboxes[0].extend([Command::Listen(Box::new(listener))]);
        Ok((id, port))
    }

    /// Stops accepting on a listener.
    pub fn unlisten(&self, listener: u64) {
        self.shared.inboxes[0].extend([Command::Unlisten(listener)]);
    }

    /// Sets the certificate of new handshakes that ask for `domain`, or of all others when that is `None`.
    ///
    /// # Errors
    /// A plain sentence when the chain and the key cannot be used.
    pub fn set_tls(&self, chain: &[u8], key: &[u8], domain: Option<&str>) -> Result<(), String> {
        let certificate = certificate_from_pem(chain, key)?;
        self.change_tls(|known| known.with(domain, certificate))
    }

    /// Removes the certificate of a domain.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn forget_tls(&self, domain: &str) -> Result<(), String> {
        self.change_tls(|known| known.without(domain))
    }

    fn change_tls(&self, change: impl FnOnce(&Certificates) -> Certificates) -> Result<(), String> {
        let mut tls = self.shared.tls.write().unwrap_or_else(PoisonError::into_inner);
        let none = Certificates::default();
        let changed = change(tls.as_ref().map_or(&none, |known| &known.certificates));
        *tls = Some(Arc::new(ServerTls::new(changed)?));
        Ok(())
    }

    /// Replaces the names that streams may be opened to: by clients and servers, and by servers alone.
    pub fn set_domains(&self, domains: Vec<String>, services: Vec<String>) {
        self.shared.domains.set(domains, services);
    }

    /// The descriptor that is readable while events wait.
    pub fn fileno(&self) -> RawFd {
        self.shared.events.fileno()
    }

    /// Takes up to `limit` events; sessions that waited for it read again.
    pub fn drain(&self, limit: usize) -> Vec<Event> {
        self.unrouted.worked_on();
        let batch = self.shared.events.drain(limit);
        self.unrouted.taken(batch.iter().filter_map(|event| match event {
            Event::Stanza { sid, flow, ordered, .. } => ordered.then(|| (*sid, flow.clone())),
            _ => None,
        }));
        let mut cost = 0;
        for event in &batch {
            cost += event.cost();
            if let Event::Stanza { sid, flow, weight, .. } = event {
                if flow.take(*weight, self.shared.config.pending_events) {
                    self.command(*sid, Command::Resume(*sid));
                }
            }
        }
        if self.shared.gauge.take(cost) {
            self.shared.resume_all();
        }
        batch
    }

    /// Every counter and gauge by name.
    pub fn stats(&self) -> Vec<(&'static str, u64)> {
        let mut all = self.shared.counters.snapshot();
        all.push(("events", self.shared.events.len() as u64));
        all.push(("routes", self.shared.routes.len() as u64));
        all
    }

    /// Ends every stream and thread; returns when they are gone, within half a second.
    pub fn stop(&self) {
        self.signal_stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has ended, which is all that is wanted here.
            let _ = thread.join();
        }
    }

    fn signal_stop(&self) {
        for inbox in &self.shared.inboxes {
            inbox.extend([Command::Stop]);
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn command(&self, sid: u64, command: Command) {
        self.hand_in(self.shared.owner(sid), [command]);
    }

    fn hand_in(&self, owner: usize, commands: impl IntoIterator<Item = Command>) {
        let inbox = &self.shared.inboxes[owner];
        if self.gathering.load(Ordering::Relaxed) {
            inbox.add(commands);
        } else {
            inbox.extend(commands);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal_stop();
    }
}
