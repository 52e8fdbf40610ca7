//! What a driver gives the machine and gets from it, and the machine's source of chance.

use crate::shared::{PortPool, Token};
use crate::Flow;
use moim_wire::stun::hmac_sha256;
use std::net::SocketAddr;
use std::sync::Arc;

/// What does not change while a server runs.
pub struct Config {
    pub realm: String,
    /// Sent in authenticated answers; empty for none.
    pub software: String,
    /// Whether channels 0x5000–0x7FFF are accepted, as RFC 5766 had it.
    pub old_channel_range: bool,
    /// Relay addresses by family; a family without one is answered with 440.
    pub v4: Option<Arc<PortPool>>,
    pub v6: Option<Arc<PortPool>>,
    pub default_lifetime_s: u32,
    pub max_lifetime_s: u32,
    pub nonce_lifetime_s: u32,
    /// Requests without valid credentials that one source may send per second, and at once.
    pub unauthenticated_rate: u32,
    pub unauthenticated_burst: u32,
}

/// Names one relay of one allocation; never used again after it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayId(u64);

impl RelayId {
    pub(crate) fn new(slot: u32, generation: u32, side: usize) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot) << 1 | side as u64)
    }

    /// A small number, at most twice the number of allocations at any one time: the place in a driver's table.
    pub fn index(self) -> usize {
        (self.0 & u64::from(u32::MAX)) as usize
    }

    /// For a poll set.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) fn slot(self) -> u32 {
        self.0 as u32 >> 1
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) fn side(self) -> usize {
        (self.0 & 1) as usize
    }
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Send {
        flow: Flow,
        bytes: Vec<u8>,
    },
    /// Bind `address` for a relay; with `reserve` also the next port, to be held under the token. Answer with
    /// [`Server::opened`]; both sockets or none.
    Open {
        relay: RelayId,
        address: SocketAddr,
        reserve: Option<Token>,
    },
    /// Make the socket held under the token this relay's. Answer with [`Server::opened`].
    Adopt {
        relay: RelayId,
        token: Token,
    },
    Close {
        relay: RelayId,
    },
    /// Close the socket held under the token.
    Release {
        token: Token,
    },
}

/// Why a relay could not be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another program has the port: another one may do.
    Busy,
    /// No descriptors, no such address: trying again is useless.
    Failed,
}

/// Unguessable numbers from a secret seed: HMAC-SHA256 in counter mode.
pub(super) struct Random {
    seed: [u8; 32],
    counter: u64,
}

impl Random {
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0 }
    }

    pub fn next(&mut self) -> [u8; 32] {
        self.counter += 1;
        hmac_sha256(&self.seed, &self.counter.to_be_bytes())
    }
}
