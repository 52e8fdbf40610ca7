//! Stream management of one session (XEP-0198), without a socket: what was counted, what waits for the client's word,
//! and what keeps ours back. Counters are modulo 2^32.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use moim_wire::xml::{ns, Element, Node, Str};

use super::parcel::Parcel;

/// Stanzas that may go out before the client is asked for its count; a second of silence asks too.
const ASK_EVERY: u32 = 16;
/// So many messages are told of when a connection is lost.
const TOLD: usize = 32;
/// An emptied queue keeps room for this many.
const KEEP: usize = 16;

/// A stanza that the client may not have got.
#[derive(Debug)]
struct Sent {
    element: Arc<Element>,
    size: u32,
    own: bool,
    sole: bool,
}

impl Sent {
    fn parcel(&self) -> Parcel {
        Parcel {
            element: self.element.clone(),
            own: self.own,
            sole: self.sole,
        }
    }
}

/// Stanzas of the peer that it must not be told are handled.
#[derive(Debug)]
struct Wait {
    on: On,
    /// What was taken from the peer before the first of them.
    before: u32,
}

/// What stanzas wait for.
#[derive(Debug, PartialEq, Eq)]
enum On {
    /// Their records are not on disk.
    Ticket(u64),
    /// Python is not done with one, by this number.
    Python(u64),
}

/// What a client's count means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Noted.
    Fine,
    /// More than was ever sent.
    TooHigh { sent: u32 },
}

/// The state that outlives a connection, if the client asked for that.
#[derive(Debug)]
pub struct Managed {
    /// Whose session it is.
    pub full: Str,
    /// Whether the session outlives its connection.
    pub resumable: bool,
    /// Whether it stands in the thread's list of sessions to nudge.
    pub nudged: bool,
    /// Since when the client has not answered.
    pub asked_since: Option<Instant>,
    received: u32,
    acknowledged: u32,
    queue: VecDeque<Sent>,
    bytes: usize,
    /// Stanzas sent since the client was last asked.
    unasked: u32,
    /// What was taken from the client when it asked; until that is answered for.
    owing: Option<u32>,
    /// The same, when it asked for the last time since.
    again: Option<u32>,
    /// The count that it was told because patience ended, and that was not all it had asked for.
    told: Option<u32>,
    waits: VecDeque<Wait>,
    /// Stanzas that Python was given to handle.
    given: u64,
}

impl Managed {
    /// Counts from zero.
    pub fn new(full: Str, resumable: bool) -> Self {
        Self {
            full,
            resumable,
            nudged: false,
            asked_since: None,
            received: 0,
            acknowledged: 0,
            queue: VecDeque::new(),
            bytes: 0,
            unasked: 0,
            owing: None,
            again: None,
            told: None,
            waits: VecDeque::new(),
            given: 0,
        }
    }

    /// Goes on with the counts of another node.
    pub fn moved_in(full: Str, received: u32, acknowledged: u32) -> Self {
        Self {
            received,
            acknowledged,
            ..Self::new(full, true)
        }
    }

    /// Whether the records of something that the client sent are not on disk yet.
    pub fn waits_for_disk(&self) -> bool {
        self.waits.iter().any(|wait| matches!(wait.on, On::Ticket(_)))
    }

    /// The count of what the peer may forget: everything before the first stanza that waits.
    pub fn handled(&self) -> u32 {
        self.waits.front().map_or(self.received, |wait| wait.before)
    }

    /// The counts, and what the client may not have got, each with whether nobody else has it.
    pub fn move_out(self) -> (u32, u32, Vec<(Arc<Element>, bool)>) {
        let handled = self.handled();
        let sent = self.queue.iter().map(Sent::parcel);
        let sent = sent.map(|parcel| (parcel.addressed(&self.full), parcel.sole));
        (handled, self.acknowledged, sent.collect())
    }

    /// Counts a stanza of the client.
    pub fn receive(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// The stanza just counted must not be acknowledged before a ticket comes back; true for the first of a ticket.
    pub fn wait_for(&mut self, ticket: u64) -> bool {
        let first = self.waits.back().is_none_or(|last| last.on != On::Ticket(ticket));
        if first {
            self.wait(On::Ticket(ticket));
        }
        first
    }

    /// The stanza just counted must not be acknowledged before Python is done with it; by this number, never 0.
    pub fn wait_for_python(&mut self) -> u64 {
        self.given += 1;
        self.wait(On::Python(self.given));
        self.given
    }

    fn wait(&mut self, on: On) {
        let before = self.received.wrapping_sub(1);
        self.waits.push_back(Wait { on, before });
    }

    /// A ticket came back.
    pub fn committed(&mut self, ticket: u64) {
        self.waits.retain(|wait| wait.on != On::Ticket(ticket));
    }

    /// Python is done with a stanza.
    pub fn done(&mut self, number: u64) {
        // Most are done in the order in which they came.
        if let Some(place) = self.waits.iter().position(|wait| wait.on == On::Python(number)) {
            self.waits.remove(place);
        }
        if self.waits.is_empty() && self.waits.capacity() > KEEP {
            self.waits = VecDeque::new();
        }
    }

    /// The client comes back, and is told of so many stanzas; those behind them it sends once more, so they count anew.
    pub fn begin_again(&mut self) -> u32 {
        self.received = self.handled();
        self.waits.clear();
        self.received
    }

    /// The client wants to know our count.
    pub fn ask(&mut self) {
        self.told = None;
        match self.owing {
            None => self.owing = Some(self.received),
            Some(_) => self.again = Some(self.received),
        }
    }

    /// The count to tell the client now; `None` when it did not ask, or when a little patience makes it one of everything
    /// that it had sent when it asked. What it sent since may wait for ever. Without patience it is told what there is, and
    /// again when that has become more.
    pub fn answer(&mut self, patient: bool) -> Option<u32> {
        let asked = self.owing?;
        let count = self.handled();
        if is_behind(count, asked) {
            let news = !patient && self.told != Some(count);
            self.told = if news { Some(count) } else { self.told };
            return news.then_some(count);
        }
        self.owing = self.again.take().filter(|again| is_behind(count, *again));
        self.told = None;
        Some(count)
    }

    /// Whether the client waits for an answer.
    pub fn owes(&self) -> bool {
        self.owing.is_some()
    }

    /// Whether the client is to be asked for its count now, which is then noted.
    pub fn request(&mut self, patient: bool, now: Instant) -> bool {
        let due = self.asked_since.is_none() && (self.unasked >= ASK_EVERY || (!patient && self.unasked > 0));
        if due {
            self.asked_since = Some(now);
            self.unasked = 0;
        }
        due
    }

    /// Whether time alone will make something due.
    pub fn is_pending(&self) -> bool {
        self.owes() || self.unasked > 0
    }

    /// Notes a stanza that was sent, or would have been had there been a connection.
    pub fn send(&mut self, parcel: &Parcel, size: usize) {
        self.queue.push_back(Sent {
            element: parcel.element.clone(),
            size: size as u32,
            own: parcel.own,
            sole: parcel.sole,
        });
        self.bytes += size;
        self.unasked = self.unasked.saturating_add(1);
    }

    /// Whether what waits is within bounds.
    pub fn fits(&self, stanzas: usize, bytes: usize) -> bool {
        self.queue.len() <= stanzas && self.bytes <= bytes
    }

    /// Checks a client's count without believing it.
    pub fn check(&self, handled: u32) -> Handled {
        let count = handled.wrapping_sub(self.acknowledged);
        // A count behind the last one is late news, and no harm.
        if count as usize <= self.queue.len() || count > u32::MAX / 2 {
            return Handled::Fine;
        }
        let sent = self.acknowledged.wrapping_add(self.queue.len() as u32);
        Handled::TooHigh { sent }
    }

    /// Forgets what the client has.
    pub fn acknowledge(&mut self, handled: u32) -> Handled {
        let checked = self.check(handled);
        let count = handled.wrapping_sub(self.acknowledged) as usize;
        if checked == Handled::Fine {
            self.asked_since = None;
        }
        if checked == Handled::Fine && count <= self.queue.len() {
            self.bytes -= self.queue.drain(..count).map(|sent| sent.size as usize).sum::<usize>();
            self.acknowledged = handled;
            if self.queue.is_empty() && self.queue.capacity() > KEEP {
                self.queue = VecDeque::new();
            }
        }
        checked
    }

    /// The newest messages that the client has not acknowledged, oldest first.
    pub fn messages(&self) -> Vec<Arc<Element>> {
        let newest = self.queue.iter().rev().filter(|sent| sent.element.name() == "message");
        let mut found: Vec<_> = newest.take(TOLD).map(|sent| sent.element.clone()).collect();
        found.reverse();
        found
    }

    /// The connection is gone: nobody owes anybody an answer.
    pub fn disconnected(&mut self) {
        self.asked_since = None;
        self.owing = None;
        self.again = None;
        self.told = None;
        self.unasked = 0;
        self.nudged = false;
    }

    /// A new connection gets everything that waits once more.
    pub fn reconnected(&mut self) -> impl Iterator<Item = Parcel> + '_ {
        self.unasked = self.queue.len() as u32;
        self.queue.iter().map(Sent::parcel)
    }

    /// Everything that was not acknowledged, in order.
    pub fn unacknowledged(&self) -> impl Iterator<Item = &Arc<Element>> {
        self.queue.iter().map(|sent| &sent.element)
    }

    /// Takes the oldest for acknowledged, as far as what waits is beyond the bounds.
    pub fn trim(&mut self, stanzas: usize, bytes: usize) {
        while !self.fits(stanzas, bytes) {
            let Some(oldest) = self.queue.pop_front() else { return };
            self.bytes -= oldest.size as usize;
            self.acknowledged = self.acknowledged.wrapping_add(1);
        }
    }

    /// What somebody has to hear of when the session is over, and our count.
    pub fn end(self) -> (Vec<Arc<Element>>, u32) {
        let handled = self.handled();
        let parcels = self.queue.iter().map(Sent::parcel).filter(Parcel::is_missed);
        let missed = parcels.map(|parcel| parcel.addressed(&self.full));
        (missed.collect(), handled)
    }
}

/// Whether a count comes before another; they are modulo 2^32.
fn is_behind(count: u32, other: u32) -> bool {
    other.wrapping_sub(count).wrapping_sub(1) < u32::MAX / 2
}

/// `<resumed/>`.
pub fn resumed(previd: &str, handled: u32) -> Element {
    Element::build(
        "resumed",
        ns::SM,
        &[("h", &handled.to_string()), ("previd", previd)],
        Vec::new(),
    )
}

/// The children of the stream error that ends a client which counts wrongly (XEP-0198 §4).
pub fn too_high(handled: u32, sent: u32) -> Vec<Node> {
    let counts = [("h", &*handled.to_string()), ("send-count", &*sent.to_string())];
    vec![
        Node::Element(Element::build("undefined-condition", ns::STREAM_ERRORS, &[], Vec::new()).into()),
        Node::Element(Element::build("handled-count-too-high", ns::SM, &counts, Vec::new()).into()),
    ]
}

/// `<failed/>` for what is asked at the wrong moment.
pub const UNEXPECTED: &[u8] = b"<failed xmlns='urn:xmpp:sm:3'>\
    <unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";

#[cfg(test)]
mod tests;
