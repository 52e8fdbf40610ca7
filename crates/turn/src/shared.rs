//! What servers on several threads and addresses share: quotas, relay ports, reservations. Touched by requests only.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

/// RESERVATION-TOKEN.
pub type Token = [u8; 8];

/// How long a reserved port is held (RFC 8656 section 7.2 asks for at least 30 s).
pub const RESERVATION_MS: u64 = 30_000;

/// The relay ports of one address.
#[derive(Debug)]
pub struct PortPool {
    address: IpAddr,
    external: IpAddr,
    low: u16,
    /// One bit a port, set while it is in use or known to be taken by another program.
    used: Mutex<Vec<u64>>,
    size: u32,
}

impl PortPool {
    /// Ports `low..=high` of `address`; clients are told `external`, which differs behind a static NAT.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn new(address: IpAddr, external: IpAddr, low: u16, high: u16) -> Self {
        assert!(low <= high, "a port range needs at least one port");
        let size = u32::from(high - low) + 1;
        Self {
            address,
            external,
            low,
            used: Mutex::new(vec![0; size.div_ceil(64) as usize]),
            size,
        }
    }

    /// Where relay sockets are bound.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// What clients and peers see of a relay.
    pub fn external(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.external, port)
    }

    /// Takes a free port, the first at or after a random place; an even one if asked, with the next one if `pair`.
    pub(crate) fn take(&self, random: u64, even: bool, pair: bool) -> Option<u16> {
        let mut used = lock(&self.used);
        let size = self.size;
        let start = (random % u64::from(size)) as u32;
        let free = |used: &[u64], index: u32| used[(index / 64) as usize] >> (index % 64) & 1 == 0;
        let index = (0..size).map(|step| (start + step) % size).find(|&index| {
            let port = u32::from(self.low) + index;
            free(&used, index)
                && (!(even || pair) || port.is_multiple_of(2))
                && (!pair || (index + 1 < size && free(&used, index + 1)))
        })?;
        for taken in index..=index + u32::from(pair) {
            used[(taken / 64) as usize] |= 1 << (taken % 64);
        }
        Some(self.low + index as u16)
    }

    pub(crate) fn give(&self, port: u16) {
        let index = usize::from(port - self.low);
        lock(&self.used)[index / 64] &= !(1 << (index % 64));
    }
}

/// A port that waits for the client that holds its token.
pub(crate) struct Reservation {
    pub pool: Arc<PortPool>,
    pub port: u16,
    pub expires_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    /// 486.
    User,
    /// 508.
    Server,
}

/// Quotas and reservations of one TURN service.
pub struct Shared {
    max_allocations: usize,
    user_quota: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: usize,
    users: HashMap<String, u32>,
    reservations: HashMap<Token, Reservation>,
}

impl Shared {
    pub fn new(max_allocations: usize, user_quota: u32) -> Self {
        Self {
            max_allocations,
            user_quota,
            state: Mutex::default(),
        }
    }

    /// Counts one more allocation of `user`, or says which quota is used up.
    pub(crate) fn admit(&self, user: &str) -> Result<(), Quota> {
        let mut state = lock(&self.state);
        if state.users.get(user).copied().unwrap_or(0) >= self.user_quota {
            return Err(Quota::User);
        }
        if state.total >= self.max_allocations {
            return Err(Quota::Server);
        }
        state.total += 1;
        match state.users.get_mut(user) {
            Some(count) => *count += 1,
            None => {
                state.users.insert(user.to_owned(), 1);
            }
        }
        Ok(())
    }

    pub(crate) fn leave(&self, user: &str) {
        let mut state = lock(&self.state);
        state.total = state.total.saturating_sub(1);
        if let Some(count) = state.users.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                state.users.remove(user);
            }
        }
    }

    pub(crate) fn reserve(&self, token: Token, reservation: Reservation) {
        lock(&self.state).reservations.insert(token, reservation);
    }

    /// Takes a reservation out, for use or because it has expired; the caller owns its port from then on.
    pub(crate) fn claim(&self, token: &Token) -> Option<Reservation> {
        lock(&self.state).reservations.remove(token)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves its value consistent, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(low: u16, high: u16) -> PortPool {
        let ip = "192.0.2.1".parse().unwrap();
        PortPool::new(ip, ip, low, high)
    }

    #[test]
    fn every_port_of_the_range_is_used_once() {
        let pool = pool(24000, 24099);
        let mut seen: Vec<u16> = (0..100)
            .map(|turn| pool.take(turn * 7919, false, false).unwrap())
            .collect();
        assert_eq!(pool.take(0, false, false), None);
        seen.sort_unstable();
        assert_eq!(seen, (24000..=24099).collect::<Vec<_>>());
        pool.give(24050);
        assert_eq!(pool.take(3, false, false), Some(24050));
    }

    #[test]
    fn even_ports_and_pairs() {
        let pool = pool(24001, 24004);
        assert_eq!(pool.take(0, true, false), Some(24002));
        assert_eq!(pool.take(0, false, true), None, "24004 has no neighbour in the range");
        pool.give(24002);
        assert_eq!(pool.take(2, false, true), Some(24002));
        assert_eq!(pool.take(0, false, false), Some(24001));
        assert_eq!(pool.take(0, false, false), Some(24004));
    }

    #[test]
    fn the_whole_port_space_fits() {
        let pool = pool(0, u16::MAX);
        assert_eq!(pool.take(u64::from(u16::MAX), false, false), Some(u16::MAX));
        pool.give(u16::MAX);
    }

    #[test]
    fn quotas_count_per_user_and_in_all() {
        let shared = Shared::new(3, 2);
        assert_eq!(shared.admit("a"), Ok(()));
        assert_eq!(shared.admit("a"), Ok(()));
        assert_eq!(shared.admit("a"), Err(Quota::User));
        assert_eq!(shared.admit("b"), Ok(()));
        assert_eq!(shared.admit("c"), Err(Quota::Server));
        shared.leave("a");
        assert_eq!(shared.admit("c"), Ok(()));
    }
}
