//! What the engine's threads share, and the small change one thread works with.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use moim_wire::xml::{self, Element, Form, Str};

use super::config::{Config, ListenerOptions};
use super::connect::Outgoing;
use super::counters::{Counters, Tally};
use super::domains::Domains;
use super::event::{Event, Gauge};
use super::listener::{Listener, Peer};
use super::parcel::Parcel;
use super::records::{Ids, Open, Record, Tickets};
use super::routes::Routes;
use super::session::{Detached, Session};
use super::sorting::Sorter;
use super::transport::Stream;
use super::ways::Ways;
use crate::events::EventQueue;
use crate::tls::ServerTls;

/// What a thread is asked to do.
pub enum Command {
    Listen(Box<Listener>),
    Unlisten(u64),
    Adopt(Box<Accepted>),
    Connect(Box<Outgoing>),
    OpenStream(u64, Arc<Element>),
    Send(u64, Vec<Arc<Element>>),
    /// Stanzas from the thread with this number, which takes back what is left of them; or from nobody in particular.
    Deliver(Vec<(u64, Parcel)>, Option<usize>),
    /// One element for many sessions, each of which adds its address.
    FanOut(Arc<Element>, Vec<u64>),
    StartTls(u64),
    /// A new stream comes, whose header is answered with ours and the features, if it is the same as the last.
    Restart(u64, Option<Box<(Arc<Element>, Arc<Element>)>>),
    Authenticated(u64),
    Bind(u64, Str),
    Unbind(u64),
    Tap(u64, bool),
    /// Whether messages go to local sessions at once.
    Pair(u64, Pair, bool),
    Unpair(u64, Pair),
    /// A stream carries messages of local sessions between two domains, or no more.
    Way(u64, Pair, bool),
    Manage(u64, Option<Arc<Element>>, bool),
    Inactive(u64, bool),
    /// A connection is to become that of another session, whose thread takes it over.
    Lend(u64, Box<Resumption>),
    Graft(Box<Session>, Box<Resumption>),
    /// It comes back when it cannot.
    Return(Box<Session>, Box<Resumption>, Refusal),
    /// A session leaves its connection, which ends with an error.
    Part(u64, Arc<Element>),
    /// A thread has handed over what it found by the session's row; the last one has the session taken out.
    Fence(u64, Arc<AtomicUsize>),
    MoveOut(u64),
    /// A session that comes from another engine, without a connection; and what its client may not have got.
    MoveIn(Box<Detached>),
    Restore(u64, Vec<Parcel>),
    /// The records of a ticket are on disk, or never will be.
    Committed(u64, bool),
    /// Python is done with stanzas of sessions.
    Done(Vec<(u64, u64)>),
    Close(u64, Option<Arc<Element>>),
    /// A session whose events were taken may read again.
    Resume(u64),
    /// So may every session that stopped because the engine was full.
    ResumeAll,
    Stop,
}

/// A local and a remote domain, prepared, between which a stream carries stanzas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub local: Str,
    pub remote: Str,
}

impl Pair {
    /// The pair of these two.
    pub fn new(local: &str, remote: &str) -> Self {
        Self {
            local: Str::value(local),
            remote: Str::value(remote),
        }
    }
}

/// What a client said when it came back, and how Python wants it answered.
pub struct Resumption {
    pub old: u64,
    pub handled: u32,
    pub previd: String,
    /// What to send; `<resumed/>` is put into the first, or sent alone.
    pub answer: Vec<Arc<Element>>,
}

/// Why a session is not resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not there, or not managed.
    Gone,
    /// The client counted more than was sent.
    TooHigh { sent: u32 },
}

/// A connection on its way from the listener to the thread that will own it.
pub struct Accepted {
    pub sid: u64,
    pub stream: Stream,
    pub peer: Peer,
    pub listener: u64,
    pub options: Arc<ListenerOptions>,
}

/// Streams between servers are numbered from here, so that what becomes of their stanzas is known without their session.
pub const FIRST_SERVER_SID: u64 = 1 << 48;

/// How the others reach a thread.
pub struct Inbox {
    commands: Mutex<Vec<Command>>,
    signalled: AtomicBool,
    waker: mio::Waker,
    /// Elements that this thread made and others have used up.
    spent: Mutex<Vec<Vec<Arc<Element>>>>,
}

/// Batches of used-up elements for which a thread that sleeps is woken.
const SPENT: usize = 64;

impl Inbox {
    /// An inbox that wakes the poll of this waker.
    pub fn new(waker: mio::Waker) -> Self {
        Self {
            commands: Mutex::default(),
            signalled: AtomicBool::new(false),
            waker,
            spent: Mutex::default(),
        }
    }

    /// Gives elements back to the thread that made them. Freed where it was allocated, memory is used again at once; freed
    /// elsewhere, two threads may contend for one arena.
    pub fn give_back(&self, spent: Vec<Arc<Element>>) {
        let mut all = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(spent);
        let many = all.len() >= SPENT;
        drop(all);
        if many {
            self.signal();
        }
    }

    /// What was given back.
    pub fn take_back(&self) -> Vec<Vec<Arc<Element>>> {
        std::mem::take(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds commands and wakes the thread if it may be asleep.
    pub fn extend(&self, commands: impl IntoIterator<Item = Command>) {
        self.add(commands);
        self.signal();
    }

    /// Adds commands without waking the thread; [`Inbox::wake`] has to follow.
    pub fn add(&self, commands: impl IntoIterator<Item = Command>) {
        self.lock().extend(commands);
    }

    /// Wakes the thread if commands wait and it may be asleep.
    pub fn wake(&self) {
        if !self.lock().is_empty() {
            self.signal();
        }
    }

    /// Whether stanzas wait that Python sends to sessions of the thread, or that stand behind such.
    pub fn has_sent(&self) -> bool {
        self.lock().iter().any(|command| {
            matches!(
                command,
                Command::Send(..) | Command::FanOut(..) | Command::Deliver(_, None)
            )
        })
    }

    /// Swaps the waiting commands into an empty `batch`.
    pub fn take(&self, batch: &mut Vec<Command>) {
        self.signalled.store(false, Ordering::Release);
        std::mem::swap(&mut *self.lock(), batch);
    }

    fn signal(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            // The only failure is a full counter, and then the thread is awake.
            let _ = self.waker.wake();
        }
    }

    /// What waits; nobody adds to it meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Command>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One engine.
pub struct Shared {
    pub config: Config,
    /// The name the server answers with when a stream fails before Python has spoken.
    pub domain: String,
    pub domains: Domains,
    pub routes: Routes,
    pub ways: Ways,
    pub events: EventQueue<Event>,
    pub gauge: Gauge,
    pub counters: Counters,
    pub tls: RwLock<Option<Arc<ServerTls>>>,
    pub exporters: Mutex<HashMap<u64, [u8; 32]>>,
    pub inboxes: Vec<Inbox>,
    pub next_sid: AtomicU64,
    pub next_server_sid: AtomicU64,
    pub ids: Ids,
    pub tickets: Tickets,
}

impl Shared {
    /// Passes records on to Python under a ticket; `awaited` when a sender waits for it.
    pub fn record_event(&self, ticket: u64, records: Vec<Record>, awaited: bool) -> Event {
        let cost = records.iter().map(Record::cost).sum();
        self.gauge.add(cost);
        self.counters
            .recorded
            .fetch_add(records.len() as u64, Ordering::Relaxed);
        self.tickets.give_out(ticket, Open { cost, awaited });
        Event::Records { ticket, records }
    }

    /// Gives stanzas to another thread. One that cannot keep up stops all reading, as a slow Python would.
    pub fn hand_to(&self, owner: usize, batch: Vec<(u64, Parcel)>, maker: Option<usize>) {
        self.gauge.add(batch.len() * DELIVERY_COST);
        self.inboxes[owner].extend([Command::Deliver(batch, maker)]);
    }

    /// The thread that owns a session.
    pub fn owner(&self, sid: u64) -> usize {
        (sid % self.inboxes.len() as u64) as usize
    }

    /// The number of a new session.
    pub fn new_sid(&self, server: bool) -> u64 {
        let next = if server { &self.next_server_sid } else { &self.next_sid };
        next.fetch_add(1, Ordering::Relaxed)
    }

    /// The certificate for new handshakes.
    pub fn server_tls(&self) -> Option<Arc<ServerTls>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every session read again that stopped because the engine was full.
    pub fn resume_all(&self) {
        for inbox in &self.inboxes {
            inbox.extend([Command::ResumeAll]);
        }
    }

    /// Forgets the channel binding of a session.
    pub fn drop_exporter(&self, sid: u64) {
        self.exporters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&sid);
    }
}

/// Bytes that a message on its way to another thread is taken for.
pub const DELIVERY_COST: usize = 1024;
/// Bytes read from a socket at once.
pub const READ_SIZE: usize = 16_384;

/// One thread's working state outside its sessions.
pub struct Context {
    pub shared: Arc<Shared>,
    pub now: Instant,
    /// Where sockets are read into.
    pub raw: Vec<u8>,
    /// Where TLS records are decrypted to.
    pub plain: Vec<u8>,
    /// Where WebSocket payloads are unmasked.
    pub frame: Vec<u8>,
    /// The last element that was serialised, and what it became: one for many recipients is serialised once.
    serialised: Vec<u8>,
    serialised_for: Option<(Arc<Element>, Form<'static>)>,
    /// Where the same one for one recipient is put together.
    pub addressed: Vec<u8>,
    /// Elements of another thread that are used up, while its batch is worked through.
    pub spent: Option<Vec<Arc<Element>>>,
    pub sorter: Sorter,
    pub events: Vec<Event>,
    pub tally: Tally,
    /// Sessions that are leaving, and when they must be gone; all wait equally long, so the oldest is first.
    pub lingering: VecDeque<(Instant, u64)>,
    /// Sessions that sent faster than they may, and when they are read again.
    pub throttled: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Outgoing connections, and when they must have come further.
    pub deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
    /// Sessions that did not read because the engine was full.
    pub stalled: Vec<u64>,
    /// Sessions that owe an acknowledgement or want one, and when patience ends; all are equally patient.
    pub nudges: VecDeque<(Instant, u64)>,
    /// Sessions that lost their connections just now.
    pub detached: Vec<Detached>,
    /// This thread's number.
    thread: usize,
    /// The ticket of this round's records, and the senders that wait for it.
    ticket: Option<u64>,
    pub awaiting: Vec<u64>,
}

impl Context {
    /// The state of a fresh thread.
    pub fn new(shared: Arc<Shared>, thread: usize) -> Self {
        Self {
            shared,
            thread,
            now: Instant::now(),
            raw: vec![0; READ_SIZE],
            plain: Vec::new(),
            frame: Vec::new(),
            serialised: Vec::new(),
            serialised_for: None,
            addressed: Vec::new(),
            spent: None,
            sorter: Sorter::default(),
            events: Vec::new(),
            tally: Tally::default(),
            lingering: VecDeque::new(),
            throttled: BinaryHeap::new(),
            deadlines: BinaryHeap::new(),
            stalled: Vec::new(),
            nudges: VecDeque::new(),
            detached: Vec::new(),
            ticket: None,
            awaiting: Vec::new(),
        }
    }

    /// The ticket that this round's records will have.
    pub fn ticket(&mut self) -> u64 {
        let (tickets, threads) = (&self.shared.tickets, self.shared.inboxes.len());
        *self.ticket.get_or_insert_with(|| tickets.draw(self.thread, threads))
    }

    /// Ends the round's ticket: its records go up, and whoever waits for it is given back.
    pub fn close_ticket(&mut self) -> Option<(u64, Vec<u64>)> {
        if self.sorter.records.is_empty() {
            return None;
        }
        let ticket = self.ticket();
        self.ticket = None;
        let records = std::mem::take(&mut self.sorter.records);
        let awaiting = std::mem::take(&mut self.awaiting);
        let event = self.shared.record_event(ticket, records, !awaiting.is_empty());
        self.shared.events.push(event);
        (!awaiting.is_empty()).then_some((ticket, awaiting))
    }

    /// Serialises an element that goes to nobody else into `serialised`.
    pub fn serialise_once(&mut self, element: &Element, form: Form<'static>) {
        self.serialised_for = None;
        self.serialised.clear();
        xml::serialise(&mut self.serialised, element, form);
    }

    /// Serialises an element into `serialised`, if it is not the last one again.
    pub fn serialise(&mut self, element: &Arc<Element>, form: Form<'static>) {
        let cached = self
            .serialised_for
            .as_ref()
            .is_some_and(|(last, known)| Arc::ptr_eq(last, element) && *known == form);
        if !cached {
            self.serialised.clear();
            xml::serialise(&mut self.serialised, element, form);
            self.serialised_for = Some((element.clone(), form));
        }
    }

    /// Serialises a stanza without `to`, and puts the address in, into `addressed`.
    pub fn serialise_for(&mut self, element: &Arc<Element>, form: Form<'static>, full: &str) {
        self.serialise(element, form);
        // Behind `<` and the stanza's name, which has no prefix.
        let (head, tail) = self.serialised.split_at(1 + element.name().len());
        self.addressed.clear();
        self.addressed.extend_from_slice(head);
        self.addressed.extend_from_slice(b" to='");
        xml::escape_attribute(&mut self.addressed, full);
        self.addressed.push(b'\'');
        self.addressed.extend_from_slice(tail);
    }

    /// What was serialised last.
    pub fn serialised(&self) -> &[u8] {
        &self.serialised
    }

    /// Forgets what was serialised in this round.
    pub fn forget_serialised(&mut self) {
        self.serialised_for = None;
        for buffer in [&mut self.serialised, &mut self.addressed] {
            if buffer.capacity() > 65_536 {
                *buffer = Vec::new();
            }
        }
    }

    /// Ends an element that was written; one of another thread goes back there, unless somebody keeps it.
    pub fn spend(&mut self, element: Arc<Element>) {
        if let Some(spent) = self.spent.as_mut().filter(|_| Arc::strong_count(&element) == 1) {
            spent.push(element);
        }
    }

    /// Queues an event for Python; it goes up at the end of the round.
    pub fn emit(&mut self, event: Event) {
        self.shared.gauge.add(event.cost());
        self.events.push(event);
    }

    /// Tells Python which of these are stanzas that another server did not get, because they came too late.
    pub fn undelivered(&mut self, sid: u64, elements: &[Arc<Element>]) {
        let elements: Vec<_> = elements.iter().filter(|element| element.is_stanza()).cloned().collect();
        if !elements.is_empty() {
            let weight = 1024 * elements.len();
            self.emit(Event::Undelivered { sid, elements, weight });
        }
    }

    /// Tells Python of a message whose recipient is gone, if nobody else got it.
    pub fn missed(&mut self, parcel: Parcel) {
        if parcel.is_missed() && parcel.element.name() == "message" {
            self.emit(Event::Missed {
                element: parcel.element,
            });
        }
    }

    /// Whether Python has so much to do that news of hopeless connections is not worth telling.
    pub fn is_busy(&self) -> bool {
        self.events.len() + self.shared.events.len() > 1000
    }
}
