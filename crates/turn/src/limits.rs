//! Token buckets per source address in a table of fixed size, so that no flood can make it grow.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

const SLOTS: usize = 1 << 14;
const MILLI: u64 = 1000;

/// Allows `rate` per second and source after a burst. Sources that fall into one slot share it; who shares with
/// whom is random per process.
pub struct Limiter {
    rate: u64,
    /// In thousandths.
    burst: u64,
    /// Per slot: thousandths of tokens taken and not yet given back, and when that was computed (ms).
    slots: Vec<(u64, u64)>,
    hasher: RandomState,
}

impl Limiter {
    pub fn new(rate: u32, burst: u32) -> Self {
        Self {
            rate: u64::from(rate),
            burst: u64::from(burst.max(1)) * MILLI,
            slots: vec![(0, 0); SLOTS],
            hasher: RandomState::new(),
        }
    }

    /// Whether a token is left, without taking it.
    pub fn ready(&mut self, source: IpAddr, now_ms: u64) -> bool {
        let burst = self.burst;
        self.level(source, now_ms).0 + MILLI <= burst
    }

    /// Takes a token if one is left.
    pub fn take(&mut self, source: IpAddr, now_ms: u64) -> bool {
        let burst = self.burst;
        let slot = self.level(source, now_ms);
        let left = slot.0 + MILLI <= burst;
        if left {
            slot.0 += MILLI;
        }
        left
    }

    fn level(&mut self, source: IpAddr, now_ms: u64) -> &mut (u64, u64) {
        // A client owns at least a /64 of IPv6, so that is one source.
        let source = match source {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64 | 1 << 63,
        };
        let index = self.hasher.hash_one(source) as usize % SLOTS;
        let slot = &mut self.slots[index];
        let back = now_ms.saturating_sub(slot.1).saturating_mul(self.rate);
        *slot = (slot.0.saturating_sub(back), now_ms);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::Limiter;

    #[test]
    fn a_burst_then_the_rate() {
        let mut limiter = Limiter::new(10, 3);
        let source = "192.0.2.1".parse().unwrap();
        let taken = (0..10).filter(|_| limiter.take(source, 1000)).count();
        assert_eq!(taken, 3);
        assert!(!limiter.ready(source, 1099));
        assert!(limiter.take(source, 1100));
        assert!(!limiter.take(source, 1100));
        assert_eq!((0..10).filter(|_| limiter.take(source, 9000)).count(), 3);
    }

    #[test]
    fn sources_are_apart_and_a_v6_network_is_one() {
        let mut limiter = Limiter::new(1, 1);
        assert!(limiter.take("2001:db8::1".parse().unwrap(), 0));
        assert!(!limiter.take("2001:db8::2".parse().unwrap(), 0));
        let others = (0..100u8)
            .filter(|last| limiter.take([198, 51, 100, *last].into(), 0))
            .count();
        assert!(others > 90, "{others}");
    }
}
