//! The engine as its owner sees it: calls that return at once and become commands to the thread that owns a session.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Waker};
use moim_wire::xml::{ns, Element, Str};
use rustls::pki_types::ServerName;

use super::config::{Config, ListenerOptions};
use super::connect::Outgoing;
use super::event::{Event, Flow};
use super::listener::Listener;
use super::parcel::{unaddressed, Parcel};
use super::records::Ids;
use super::session::Detached;
use super::shard::{Shard, WAKER};
use super::shared::{Command, Inbox, Pair, Resumption, Shared, FIRST_SERVER_SID};
use super::sorting::Sorter;
use crate::tls::{certificate_from_pem, Certificates, ServerTls};

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
    /// Of each message in the batch that was drained last.
    taken: Mutex<Vec<Arc<Flow>>>,
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
            taken: Mutex::default(),
        };
        let shards = polls.into_iter().enumerate();
        let shards = shards.map(|(index, poll)| Shard::new(index, poll, shared.clone()));
        Ok((server, shards.collect()))
    }

    /// Gathers what is asked of sessions from now on, or hands it to their threads, each woken once for all of it.
    pub fn gather(&self, on: bool) {
        self.gathering.store(on, Ordering::Relaxed);
        if !on {
            self.forget_routed();
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

    /// Begins one attempt to connect to another server; the number of its session.
    ///
    /// # Errors
    /// When the server's name cannot be asked for in TLS, or the two addresses are of different families.
    pub fn connect(&self, options: ConnectOptions) -> Result<u64, String> {
        let name = options.server_name;
        let server_name = ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|_| format!("{name:?} is neither a host name in ASCII nor an IP address"))?;
        if options
            .source
            .is_some_and(|source| source.is_ipv4() != options.address.is_ipv4())
        {
            return Err("the address to connect from is of another family than the one to connect to".into());
        }
        let sid = self.shared.new_sid(true);
        let outgoing = Outgoing {
            sid,
            address: SocketAddr::new(options.address, options.port),
            source: options.source,
            timeout: options.timeout,
            tls: options.tls,
            server_name,
            local: options.local,
        };
        self.command(sid, Command::Connect(Box::new(outgoing)));
        Ok(sid)
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

    /// Lets a stream between servers carry stanzas from a remote to a local domain; with `direct`, messages that a row of
    /// the table decides go to their recipients at once.
    pub fn pair(&self, sid: u64, local: &str, remote: &str, direct: bool) {
        self.command(sid, Command::Pair(sid, Pair::new(local, remote), direct));
    }

    /// Undoes [`Server::pair`].
    pub fn unpair(&self, sid: u64, local: &str, remote: &str) {
        self.command(sid, Command::Unpair(sid, Pair::new(local, remote)));
    }

    /// Lets a stream carry messages of local sessions from a local to a remote domain, or no more.
    pub fn route_domain(&self, sid: u64, local: &str, remote: &str, on: bool) {
        self.command(sid, Command::Way(sid, Pair::new(local, remote), on));
    }

    /// The descriptor that is readable while events wait.
    pub fn fileno(&self) -> RawFd {
        self.shared.events.fileno()
    }

    /// Takes up to `limit` events; sessions that waited for it read again.
    pub fn drain(&self, limit: usize) -> Vec<Event> {
        self.forget_routed();
        let batch = self.shared.events.drain(limit);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cost = 0;
        for event in &batch {
            cost += event.cost();
            if let Event::Stanza {
                sid,
                flow,
                weight,
                element,
                ..
            } = event
            {
                if *sid < FIRST_SERVER_SID && flow.has_messages() && element.is("message", ns::CLIENT) {
                    taken.push(flow.clone());
                }
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

    /// The batch that was drained last has been worked on.
    fn forget_routed(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.drain(..).for_each(|flow| flow.take_message());
    }

    /// Sends our stream header with the attributes of `open`.
    pub fn open_stream(&self, sid: u64, open: Arc<Element>) {
        self.command(sid, Command::OpenStream(sid, open));
    }

    /// Sends elements in order.
    pub fn send(&self, sid: u64, elements: Vec<Arc<Element>>) {
        self.command(sid, Command::Send(sid, elements));
    }

    /// Sends elements to many sessions, each thread woken once.
    pub fn send_many(&self, batch: Vec<(u64, Arc<Element>)>) {
        for (owner, part) in self.by_owner(batch, |(sid, _)| *sid) {
            let commands = part.into_iter();
            self.hand_in(owner, commands.map(|(sid, element)| Command::Send(sid, vec![element])));
        }
    }

    /// Agrees to STARTTLS.
    pub fn start_tls(&self, sid: u64) {
        self.command(sid, Command::StartTls(sid));
    }

    /// Expects a new stream header. One that repeats the client's last is answered at once with our header, from the
    /// attributes of the first of these elements, and the features, which are the other; any other comes up.
    pub fn restart(&self, sid: u64, answer: Option<(Arc<Element>, Arc<Element>)>) {
        self.command(sid, Command::Restart(sid, answer.map(Box::new)));
    }

    /// Lifts the bounds before authentication.
    pub fn authenticated(&self, sid: u64) {
        self.command(sid, Command::Authenticated(sid));
    }

    /// Adds a row to the route table; `full` is a prepared full JID.
    pub fn bind(&self, sid: u64, full: &str) {
        let full = Str::value(full);
        if let Some(bare_len) = full.find('/') {
            // Rows change at once, so that whatever Python routes next finds them.
            self.shared.routes.bind(full.clone(), bare_len, sid);
            self.command(sid, Command::Bind(sid, full));
        }
    }

    /// Sets a row's priority; `None` is unavailable.
    pub fn presence(&self, sid: u64, priority: Option<i8>) {
        self.shared.routes.presence(sid, priority);
    }

    /// Removes a row.
    pub fn unbind(&self, sid: u64) {
        self.shared.routes.unbind(sid);
        self.command(sid, Command::Unbind(sid));
    }

    /// Makes messages from and to a session misses, or not.
    pub fn tap(&self, sid: u64, on: bool) {
        self.shared.routes.tap(sid, on);
        self.command(sid, Command::Tap(sid, on));
    }

    /// Makes a session get copies of its account's messages, or not.
    pub fn carbons(&self, sid: u64, on: bool) {
        self.shared.routes.carbons(sid, on);
    }

    /// Holds back what an inactive client need not hear at once, or no more.
    pub fn inactive(&self, sid: u64, on: bool) {
        self.command(sid, Command::Inactive(sid, on));
    }

    /// Begins stream management behind `answer`; with `resumable` the session outlives its connection.
    pub fn manage(&self, sid: u64, answer: Option<Arc<Element>>, resumable: bool) {
        self.command(sid, Command::Manage(sid, answer, resumable));
    }

    /// Makes the connection `sid` that of the session `old`, whose client has `handled` stanzas. An event says whether.
    pub fn resume(&self, sid: u64, old: u64, handled: u32, previd: &str, answer: Vec<Arc<Element>>) {
        let resumption = Box::new(Resumption {
            old,
            handled,
            previd: previd.to_owned(),
            answer,
        });
        self.command(sid, Command::Lend(sid, resumption));
    }

    /// Ends the connection of a session that its client can come back to; the session stays.
    pub fn part(&self, sid: u64, error: Arc<Element>) {
        self.command(sid, Command::Part(sid, error));
    }

    /// Takes a session out that waits for its client, to go on in another engine: an event brings what there is of it.
    /// Its row is gone when the call returns; whether it got copies.
    pub fn move_out(&self, sid: u64) -> bool {
        let carbons = self.shared.routes.gets_carbons(sid);
        self.shared.routes.unbind(sid);
        // What other threads found by its row before that is handed over first.
        let left = Arc::new(AtomicUsize::new(self.shared.inboxes.len()));
        for inbox in &self.shared.inboxes {
            inbox.extend([Command::Fence(sid, left.clone())]);
        }
        carbons
    }

    /// Takes in a session of another engine, with its counts; it waits for its client under the number given back, and
    /// has no row before `bind`. `None` when `full` is no full JID.
    pub fn move_in(&self, full: &str, received: u32, acknowledged: u32) -> Option<u64> {
        let full = Str::value(full);
        let bare_len = full.find('/')?;
        let sid = self.shared.new_sid(false);
        let detached = Detached::moved_in(sid, full, bare_len, received, acknowledged);
        self.command(sid, Command::MoveIn(Box::new(detached)));
        Some(sid)
    }

    /// Adds what the client of a session that was moved in may not have got, each with whether nobody else has it.
    pub fn restore(&self, sid: u64, sent: Vec<(Arc<Element>, bool)>) {
        let parcels = sent.into_iter().map(|(element, sole)| Parcel {
            element,
            own: false,
            sole,
        });
        self.command(sid, Command::Restore(sid, parcels.collect()));
    }

    /// Keeps records of the messages of a bare JID, or no more.
    pub fn archive(&self, bare: &str, on: bool) {
        self.shared.routes.archive(bare, on);
    }

    /// The records of a ticket are on disk, or never will be when they are not `kept`: servers that sent some of them
    /// lose their streams, and Python has ended the sessions of clients that did.
    pub fn committed(&self, ticket: u64, kept: bool) {
        let Some(open) = self.shared.tickets.take_back(ticket) else {
            return;
        };
        if open.awaited {
            let owner = (ticket % self.shared.inboxes.len() as u64) as usize;
            self.hand_in(owner, [Command::Committed(ticket, kept)]);
        }
        if self.shared.gauge.take(open.cost) {
            self.shared.resume_all();
        }
    }

    /// Python is done with these stanzas, each named by its session and the number that came with it.
    pub fn done(&self, done: Vec<(u64, u64)>) {
        for (owner, part) in self.by_owner(done, |(sid, _)| *sid) {
            self.hand_in(owner, [Command::Done(part)]);
        }
    }

    /// The next archive id.
    pub fn next_id(&self) -> u64 {
        self.shared.ids.next()
    }

    /// Delivers messages that Python answers for; those that no row decides come back, and the ticket of the records.
    pub fn deliver(&self, messages: Vec<Arc<Element>>) -> (Vec<Arc<Element>>, Option<u64>) {
        let mut sorter = Sorter::default();
        let missed = messages
            .into_iter()
            .filter(|message| !sorter.sort_judged(message, &self.shared))
            .collect();
        let records = std::mem::take(&mut sorter.records);
        let ticket = (!records.is_empty()).then(|| self.shared.tickets.draw(0, self.shared.inboxes.len()));
        if let Some(ticket) = ticket {
            let event = self.shared.record_event(ticket, records, false);
            self.shared.events.push(event);
        }
        self.hand_out(sorter);
        (missed, ticket)
    }

    /// Sends the carbon copies of messages that are delivered otherwise.
    pub fn copy(&self, messages: &[Arc<Element>]) {
        let mut sorter = Sorter::default();
        for message in messages {
            sorter.copies_of(message, &self.shared);
        }
        self.hand_out(sorter);
    }

    fn hand_out(&self, sorter: Sorter) {
        for (owner, batch) in self.by_owner(sorter.deliveries, |(sid, _): &(u64, Parcel)| *sid) {
            self.shared.hand_to(owner, batch, None);
        }
    }

    /// Sends one element to many sessions, each with its own full JID as `to`.
    pub fn fan_out(&self, element: &Arc<Element>, sids: Vec<u64>) {
        let element = unaddressed(element);
        for (owner, batch) in self.by_owner(sids, |sid| *sid) {
            self.hand_in(owner, [Command::FanOut(element.clone(), batch)]);
        }
    }

    fn by_owner<T>(&self, items: Vec<T>, sid: impl Fn(&T) -> u64) -> impl Iterator<Item = (usize, Vec<T>)> {
        let mut parts: Vec<Vec<T>> = Vec::new();
        parts.resize_with(self.shared.inboxes.len(), Vec::new);
        for item in items {
            parts[self.shared.owner(sid(&item))].push(item);
        }
        parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty())
    }

    /// Ends a stream.
    pub fn close(&self, sid: u64, error: Option<Arc<Element>>) {
        self.command(sid, Command::Close(sid, error));
    }

    /// The tls-exporter channel binding of a session that has not signed in yet.
    pub fn exporter(&self, sid: u64) -> Option<[u8; 32]> {
        self.shared
            .exporters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&sid)
            .copied()
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
