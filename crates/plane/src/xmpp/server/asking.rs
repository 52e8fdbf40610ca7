//! What Python asks of sessions and of the tables; each call returns at once.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError};

use moim_wire::xml::{Element, Str};
use rustls::pki_types::ServerName;

use super::super::connect::Outgoing;
use super::super::parcel::{unaddressed, Parcel};
use super::super::session::Detached;
use super::super::shared::{Command, Pair, Resumption};
use super::super::sorting::Sorter;
use super::{ConnectOptions, Server};

impl Server {
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

    /// What is taken of a session from this batch on is not routed when the batch is worked on, but when
    /// [`Server::caught_up`] says so: until then its later messages are for Python as well.
    pub fn postpone(&self, sid: u64) {
        self.unrouted.postpone(sid);
    }

    /// Everything that was taken of a session and postponed is routed.
    pub fn caught_up(&self, sid: u64) {
        self.unrouted.caught_up(sid);
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
}
