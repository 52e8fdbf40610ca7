//! Refusals, told once and then counted, so that a flood of them costs a bounded number of events.

use crate::snapshot::Event;
use std::collections::HashMap;
use std::net::SocketAddr;

const WINDOW_MS: u64 = 1000;
const KINDS: usize = 64;

/// The refusals of the current second.
#[derive(Default)]
pub struct Refusals {
    /// How often each came again after it was told.
    again: HashMap<(SocketAddr, u16, String), u32>,
    suppressed: u32,
    ends_ms: Option<u64>,
}

impl Refusals {
    /// Notes one; the event, if it is to be told at once.
    pub fn note(&mut self, client: SocketAddr, code: u16, reason: String, now_ms: u64) -> Option<Event> {
        self.ends_ms.get_or_insert(now_ms + WINDOW_MS);
        let full = self.again.len() >= KINDS;
        match self.again.entry((client, code, reason)) {
            std::collections::hash_map::Entry::Occupied(mut count) => {
                *count.get_mut() = count.get().saturating_add(1);
                None
            }
            std::collections::hash_map::Entry::Vacant(_) if full => {
                self.suppressed = self.suppressed.saturating_add(1);
                None
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                let reason = place.key().2.clone();
                place.insert(0);
                Some(Event::Refused {
                    client,
                    code,
                    reason,
                    count: 1,
                })
            }
        }
    }

    /// When [`Self::flush`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        self.ends_ms
    }

    /// Ends the window if its time has come: what was counted becomes events.
    pub fn flush(&mut self, now_ms: u64, mut tell: impl FnMut(Event)) {
        if self.ends_ms.is_none_or(|ends| now_ms < ends) {
            return;
        }
        self.ends_ms = None;
        for ((client, code, reason), count) in self.again.drain().filter(|(_, count)| *count > 0) {
            tell(Event::Refused {
                client,
                code,
                reason,
                count,
            });
        }
        if self.suppressed > 0 {
            tell(Event::Suppressed { count: self.suppressed });
            self.suppressed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_costs_a_bounded_number_of_events() {
        let mut refusals = Refusals::default();
        let mut events = Vec::new();
        for turn in 0..10_000u16 {
            let client = ([192, 0, 2, 1], turn % 1000).into();
            events.extend(refusals.note(client, 401, "no".to_owned(), 5));
        }
        assert_eq!(events.len(), KINDS);
        assert_eq!(refusals.deadline(), Some(1005));
        refusals.flush(1004, |event| events.push(event));
        assert_eq!(events.len(), KINDS);
        refusals.flush(1005, |event| events.push(event));
        assert_eq!(events.len(), KINDS * 2 + 1);
        assert_eq!(events.last(), Some(&Event::Suppressed { count: 10_000 - 640 }));
        assert_eq!(refusals.deadline(), None);
    }
}
