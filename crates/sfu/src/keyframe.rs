//! Keyframe requests towards one publisher: as often as needed, never more often than the interval.

use std::time::{Duration, Instant};

/// A request that comes too early is kept and sent when the interval is over, so no subscriber waits in vain.
#[derive(Default)]
pub(crate) struct KeyframeGate {
    wanted: bool,
    last: Option<Instant>,
}

impl KeyframeGate {
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// True when a request is to be sent now; counts as sent.
    pub fn take(&mut self, now: Instant, interval: Duration) -> bool {
        let open = self.last.is_none_or(|last| now >= last + interval);
        if !self.wanted || !open {
            return false;
        }
        self.wanted = false;
        self.last = Some(now);
        true
    }

    pub fn deadline(&self, interval: Duration) -> Option<Instant> {
        self.last.filter(|_| self.wanted).map(|last| last + interval)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::KeyframeGate;
    use std::time::{Duration, Instant};

    #[test]
    fn a_burst_becomes_two_requests() {
        let interval = Duration::from_millis(500);
        let start = Instant::now();
        let mut gate = KeyframeGate::default();
        assert!(!gate.take(start, interval));
        gate.want();
        assert!(gate.take(start, interval));
        for step in 1..10 {
            gate.want();
            assert!(!gate.take(start + Duration::from_millis(step), interval));
        }
        assert_eq!(gate.deadline(interval), Some(start + interval));
        assert!(gate.take(start + interval, interval));
        assert!(!gate.take(start + interval * 2, interval));
        assert_eq!(gate.deadline(interval), None);
    }
}
