//! One deadline per participant, the earliest first.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use crate::Pid;

#[derive(Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, Pid)>,
    deadlines: HashMap<Pid, Instant>,
}

impl Timers {
    /// Replaces the participant's deadline.
    pub fn set(&mut self, pid: Pid, deadline: Instant) {
        if let Some(old) = self.deadlines.insert(pid, deadline) {
            if old == deadline {
                return;
            }
            self.order.remove(&(old, pid));
        }
        self.order.insert((deadline, pid));
    }

    pub fn remove(&mut self, pid: Pid) {
        if let Some(old) = self.deadlines.remove(&pid) {
            self.order.remove(&(old, pid));
        }
    }

    pub fn first(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Everybody whose deadline has come.
    pub fn due(&self, now: Instant, into: &mut Vec<Pid>) {
        into.extend(
            self.order
                .iter()
                .take_while(|(deadline, _)| *deadline <= now)
                .map(|(_, pid)| *pid),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Timers;
    use std::time::{Duration, Instant};

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_latest_deadline_of_a_participant_counts() {
        let now = Instant::now();
        let mut timers = Timers::default();
        timers.set(1, now);
        timers.set(2, now + Duration::from_secs(1));
        timers.set(1, now + Duration::from_secs(2));
        assert_eq!(timers.first(), Some(now + Duration::from_secs(1)));
        let mut due = Vec::new();
        timers.due(now + Duration::from_secs(2), &mut due);
        assert_eq!(due, vec![2, 1]);
        timers.remove(2);
        timers.remove(1);
        assert_eq!(timers.first(), None);
    }
}
