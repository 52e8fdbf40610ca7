//! What goes up to Python, and the accounts that keep a slow Python from filling the memory.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::Arc;

use moim_wire::xml::{Attr, Element};

use super::records::Record;
use crate::tls::TlsInfo;

/// One event of an engine.
#[derive(Debug)]
pub enum Event {
    /// A connection that has something to say; `secure` when TLS began with the first byte.
    Connected {
        sid: u64,
        listener: u64,
        ip: String,
        port: u16,
        secure: bool,
    },
    /// The peer's stream header, checked; with the attributes as sent.
    Open { sid: u64, attrs: Vec<Attr> },
    /// A TLS handshake is complete.
    Tls { sid: u64, info: Box<TlsInfo> },
    /// An element that no row of the table decided.
    Stanza {
        sid: u64,
        element: Arc<Element>,
        weight: u32,
        /// Under which its acknowledgement waits for [`Server::done`](super::Server::done); 0 when none does.
        number: u64,
        /// Whether later messages of the session wait until it is routed.
        ordered: bool,
        flow: Arc<Flow>,
    },
    /// Stanzas that were queued for another server and did not leave; with the memory that they take, roughly.
    Undelivered {
        sid: u64,
        elements: Vec<Arc<Element>>,
        weight: usize,
    },
    /// A message whose recipient ended while it was on its way.
    Missed { element: Arc<Element> },
    /// The connection is gone, and the session waits for its client, who did not acknowledge these messages.
    Detached {
        sid: u64,
        reason: String,
        messages: Vec<Arc<Element>>,
    },
    /// The session was taken out, to go on in another engine.
    MovedOut {
        sid: u64,
        received: u32,
        acknowledged: u32,
        /// What its client may not have got, each with whether nobody else has it.
        sent: Vec<(Arc<Element>, bool)>,
        /// What was held back, and not counted.
        held: Vec<Arc<Element>>,
    },
    /// The connection `by` has become that of the session.
    Resumed { sid: u64, by: u64 },
    /// The session that a connection wanted to resume is not there.
    Unresumed { sid: u64, condition: &'static str },
    /// What a managed session leaves, and how many stanzas were taken from its client.
    Unacknowledged {
        sid: u64,
        elements: Vec<Arc<Element>>,
        handled: u32,
    },
    /// Messages for archives. Their cost is given back with the ticket.
    Records { ticket: u64, records: Vec<Record> },
    /// Messages that a stream between servers carried without Python since the last such event: how many came in and
    /// went out.
    Carried { sid: u64, received: u64, sent: u64 },
    /// The peer ended its stream.
    Close { sid: u64 },
    /// The session is over.
    Closed { sid: u64, reason: String },
}

impl Event {
    /// Memory that the event stands for, roughly, in bytes.
    pub fn cost(&self) -> usize {
        match self {
            Self::Stanza { weight, .. } => 256 + *weight as usize,
            Self::Undelivered { weight, .. } => 256 + *weight,
            Self::Tls { info, .. } => 256 + info.chain.iter().map(Vec::len).sum::<usize>(),
            Self::Missed { element } => 256 + element.weight(),
            Self::Unacknowledged { elements, .. } => {
                256 + elements.iter().map(|element| 64 + element.weight()).sum::<usize>()
            }
            Self::MovedOut { sent, held, .. } => {
                let elements = sent.iter().map(|(element, _)| element).chain(held);
                256 + elements.map(|element| 64 + element.weight()).sum::<usize>()
            }
            Self::Records { .. } => 0,
            _ => 256,
        }
    }
}

/// The account of one session: events that wait, and whether it stopped reading because of them.
#[derive(Debug, Default)]
pub struct Flow {
    waiting: AtomicU32,
    paused: AtomicBool,
    unrouted: AtomicU32,
}

impl Flow {
    /// Notes one more event of this weight; true when the session must stop reading.
    pub fn add(&self, weight: u32, limit: u32) -> bool {
        let units = units(weight);
        let waiting = self.waiting.fetch_add(units, Ordering::SeqCst) + units;
        if waiting < limit {
            return false;
        }
        self.paused.store(true, Ordering::SeqCst);
        // The consumer may have taken everything between the two lines above; then nobody would wake the session.
        self.waiting.load(Ordering::SeqCst) > limit / 2 || !self.paused.swap(false, Ordering::SeqCst)
    }

    /// Notes that an event was taken; true when the session may read again.
    pub fn take(&self, weight: u32, limit: u32) -> bool {
        let units = units(weight);
        let waiting = self.waiting.fetch_sub(units, Ordering::SeqCst) - units;
        waiting <= limit / 2 && self.paused.swap(false, Ordering::SeqCst)
    }

    /// Notes a stanza for somebody else that Python has to route.
    pub fn add_unrouted(&self) {
        self.unrouted.fetch_add(1, Ordering::SeqCst);
    }

    /// Python has routed one.
    pub fn routed(&self) {
        self.unrouted.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether Python has stanzas to route, which later messages must not overtake.
    pub fn has_unrouted(&self) -> bool {
        self.unrouted.load(Ordering::SeqCst) > 0
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// Whether the session has stopped reading.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }
}

/// What an event counts for among those that wait: a large one as several, so that few sessions cannot fill the engine.
fn units(weight: u32) -> u32 {
    1 + weight / 16_384
}

/// The account of the whole engine, in bytes.
#[derive(Debug, Default)]
pub struct Gauge {
    bytes: AtomicUsize,
    full: AtomicBool,
}

/// Bytes of waiting events at which no session is read any more; reading goes on at half of it.
const GAUGE_LIMIT: usize = 64 << 20;

impl Gauge {
    /// Notes an event; true when the engine must stop reading.
    pub fn add(&self, bytes: usize) {
        if self.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes >= GAUGE_LIMIT {
            self.full.store(true, Ordering::SeqCst);
        }
    }

    /// Notes that events were taken; true when reading may go on.
    pub fn take(&self, bytes: usize) -> bool {
        let left = self.bytes.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        left <= GAUGE_LIMIT / 2 && self.full.swap(false, Ordering::SeqCst)
    }

    /// Bytes of what waits.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Whether the engine must not read.
    pub fn is_full(&self) -> bool {
        // Everything may have been taken between the two lines of `add`; then nothing that is taken would clear the flag.
        self.full.load(Ordering::SeqCst) && self.bytes.load(Ordering::SeqCst) > GAUGE_LIMIT / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_pauses_at_the_limit_and_goes_on_at_half() {
        let flow = Flow::default();
        assert_eq!(
            (0..4).map(|_| flow.add(100, 4)).collect::<Vec<_>>(),
            [false, false, false, true]
        );
        assert!(!flow.take(100, 4));
        assert!(flow.is_paused());
        assert!(flow.take(100, 4));
        assert!(!flow.is_paused() && !flow.take(100, 4));
    }

    #[test]
    fn a_large_event_counts_for_many() {
        let flow = Flow::default();
        assert!(flow.add(256 << 10, 17) && flow.is_paused());
        assert!(flow.take(256 << 10, 17) && !flow.is_paused());
    }

    #[test]
    fn what_was_taken_before_the_engine_was_called_full_does_not_keep_it_so() {
        let gauge = Gauge::default();
        gauge.add(GAUGE_LIMIT);
        assert!(gauge.is_full());
        assert!(!gauge.take(GAUGE_LIMIT / 4) && gauge.is_full());
        assert!(gauge.take(GAUGE_LIMIT / 4) && !gauge.is_full());
        gauge.take(GAUGE_LIMIT / 2);
        // As a thread leaves it that is interrupted inside `add` while all is taken.
        gauge.full.store(true, Ordering::SeqCst);
        assert!(!gauge.is_full());
    }
}
