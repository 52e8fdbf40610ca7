//! What archives are told (XEP-0313): numbered messages in batches, each with a ticket that Python gives back once the
//! batch is on disk. Until then the senders are not acknowledged, and what waits counts against what may wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use moim_wire::xml::{Element, Str};

/// 2020-01-01T00:00:00Z in milliseconds since 1970.
const EPOCH: u64 = 1_577_836_800_000;
/// Bits of an id below its milliseconds: the node's number, then a sequence.
const SEQUENCE_BITS: u32 = 13;
const NODE_BITS: u32 = 9;

/// One message for archives.
#[derive(Debug)]
pub struct Record {
    /// Its number.
    pub id: u64,
    /// The sender's full JID.
    pub from: Str,
    /// As the sender wrote it.
    pub to: Str,
    /// Bare JIDs of the accounts whose archives it belongs to.
    pub owners: Vec<Str>,
    /// As it was sent, without archive ids.
    pub message: Arc<Element>,
}

impl Record {
    /// Memory it stands for, roughly, in bytes.
    pub fn cost(&self) -> usize {
        512 + self.message.weight()
    }
}

/// Numbers that rise for ever: milliseconds, the node, and a sequence.
#[derive(Debug)]
pub struct Ids {
    /// Milliseconds and sequence of the last one.
    last: AtomicU64,
    node: u64,
}

impl Ids {
    /// The source of a node; `node` is below 512.
    pub fn new(node: u16) -> Self {
        Self {
            last: AtomicU64::new(0),
            node: u64::from(node) & ((1 << NODE_BITS) - 1),
        }
    }

    /// The next id. A clock that goes back, or more than 8192 ids in a millisecond, make it run ahead for a while.
    pub fn next(&self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis() as u64;
        self.after(now.saturating_sub(EPOCH))
    }

    fn after(&self, milliseconds: u64) -> u64 {
        let floor = milliseconds << SEQUENCE_BITS;
        let step = |last: u64| Some(floor.max(last + 1));
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step)
            .unwrap_or_default();
        let number = floor.max(last + 1);
        let (time, sequence) = (number >> SEQUENCE_BITS, number & ((1 << SEQUENCE_BITS) - 1));
        time << (SEQUENCE_BITS + NODE_BITS) | self.node << SEQUENCE_BITS | sequence
    }
}

/// What an open ticket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Bytes that wait.
    pub cost: usize,
    /// Whether a sender waits for its acknowledgement.
    pub awaited: bool,
}

/// Tickets that are out.
#[derive(Debug, Default)]
pub struct Tickets {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

impl Tickets {
    /// A fresh ticket that says which thread it belongs to.
    pub fn draw(&self, thread: usize, threads: usize) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) * threads as u64 + thread as u64
    }

    /// Notes what a ticket holds; before Python sees it.
    pub fn give_out(&self, ticket: u64, open: Open) {
        self.lock().insert(ticket, open);
    }

    /// Takes a ticket back; `None` when it is not out.
    pub fn take_back(&self, ticket: u64) -> Option<Open> {
        self.lock().remove(&ticket)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_whatever_the_clock_does() {
        let ids = Ids::new(5);
        let mut last = 0;
        for milliseconds in [1000, 1000, 1001, 999, 999, 2000] {
            let id = ids.after(milliseconds);
            assert!(id > last);
            assert_eq!(id >> 13 & 511, 5);
            last = id;
        }
        assert_eq!(last >> 22, 2000);
        for _ in 0..20_000 {
            let id = ids.after(2000);
            assert!(id > last);
            last = id;
        }
        assert!(last >> 22 <= 2003, "20,000 ids fill the milliseconds that follow");
        assert!(ids.next() > last);
    }

    #[test]
    fn tickets_come_back_once_and_name_their_thread() {
        let tickets = Tickets::default();
        let ticket = tickets.draw(1, 2);
        assert_eq!(ticket % 2, 1);
        assert_ne!(ticket, tickets.draw(1, 2));
        let open = Open { cost: 9, awaited: true };
        tickets.give_out(ticket, open);
        assert_eq!(
            (tickets.take_back(ticket), tickets.take_back(ticket)),
            (Some(open), None)
        );
    }
}
