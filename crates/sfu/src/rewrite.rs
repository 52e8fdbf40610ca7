//! Sequence numbers and timestamps of one forwarded stream, continuous whatever happens at the source.
//!
//! A receiver learns the SRTP rollover counter from nothing but the first packets (RFC 3711 section 3.3.1), so the
//! outgoing numbers start below 2^16 even when the source has sent for hours.

use std::time::{Duration, Instant};

/// Where in the lower half of the number space a stream starts: no rollover within its first packets.
const START_MASK: u64 = 0x3fff;

struct Source {
    ssrc: u32,
    in_seq: u64,
    out_seq: u64,
    time_offset: u32,
}

/// Maps the packets of one source (or of several, one after another) to one outgoing stream.
pub(crate) struct Rewriter {
    clock_rate: u32,
    source: Option<Source>,
    last_seq: u64,
    last_time: u32,
    last_at: Option<Instant>,
}

impl Rewriter {
    /// `clock_rate` in Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            source: None,
            last_seq: 0,
            last_time: 0,
            last_at: None,
        }
    }

    /// The outgoing extended sequence number and timestamp; None for a packet older than the stream's start.
    pub fn map(&mut self, ssrc: u32, seq: u64, time: u32, now: Instant) -> Option<(u64, u32)> {
        if self.source.as_ref().is_none_or(|source| source.ssrc != ssrc) {
            self.switch(ssrc, seq, time, now);
        }
        let source = self.source.as_ref()?;
        let ahead = seq.checked_sub(source.in_seq)?;
        let out_seq = source.out_seq + ahead;
        let out_time = time.wrapping_add(source.time_offset);
        if out_seq >= self.last_seq {
            self.last_seq = out_seq;
            self.last_time = out_time;
            self.last_at = Some(now);
        }
        Some((out_seq, out_time))
    }

    fn switch(&mut self, ssrc: u32, seq: u64, time: u32, now: Instant) {
        let (out_seq, out_time) = match self.last_at {
            None => (seq & START_MASK, time),
            Some(at) => {
                let passed = now.saturating_duration_since(at).max(Duration::from_millis(1));
                let ticks = (passed.as_micros() as u64).saturating_mul(u64::from(self.clock_rate)) / 1_000_000;
                (self.last_seq + 1, self.last_time.wrapping_add(ticks as u32))
            }
        };
        self.source = Some(Source {
            ssrc,
            in_seq: seq,
            out_seq,
            time_offset: out_time.wrapping_sub(time),
        });
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::Rewriter;
    use std::time::{Duration, Instant};

    #[test]
    fn a_late_subscription_starts_below_the_first_rollover() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000);
        let (first, time) = rewriter.map(1, 5_000_000, 77, now).unwrap();
        assert!(first < 0x4000);
        assert_eq!(time, 77);
        assert_eq!(rewriter.map(1, 5_000_007, 3077, now), Some((first + 7, 3077)));
    }

    #[test]
    fn packets_from_before_the_start_are_dropped() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000);
        rewriter.map(1, 100, 0, now).unwrap();
        assert_eq!(rewriter.map(1, 99, 0, now), None);
    }

    #[test]
    fn a_new_source_continues_the_numbers_and_the_time() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(90_000);
        let (first, _) = rewriter.map(1, 100, 9_000, now).unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(rewriter.map(2, 40_000, 4_000_000_000, later), Some((first + 1, 99_000)));
        assert_eq!(rewriter.map(2, 40_001, 4_000_000_500, later), Some((first + 2, 99_500)));
    }

    #[test]
    fn reordered_packets_keep_their_distance() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(48_000);
        let (first, _) = rewriter.map(1, 10, 0, now).unwrap();
        assert_eq!(rewriter.map(1, 12, 1920, now), Some((first + 2, 1920)));
        assert_eq!(rewriter.map(1, 11, 960, now), Some((first + 1, 960)));
    }
}
