//! What is told to the outside: events, the allocation table, counters. Plain values.

use crate::Flow;
use std::net::{IpAddr, SocketAddr};

/// Packets and bytes of payload in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// Something an administrator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Allocated {
        client: SocketAddr,
        user: String,
        relays: Vec<SocketAddr>,
        lifetime_s: u32,
    },
    Closed {
        client: SocketAddr,
        user: String,
        relays: Vec<SocketAddr>,
        reason: &'static str,
        to_peers: Traffic,
        from_peers: Traffic,
    },
    /// `count` like requests of one client within a second; the first is told at once, with count 1.
    Refused {
        client: SocketAddr,
        code: u16,
        reason: String,
        count: u32,
    },
    /// More refusals within one second than are told one by one.
    Suppressed { count: u32 },
}

/// One permission of an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionInfo {
    pub peer: IpAddr,
    pub expires_in_s: u32,
    pub to_peer: Traffic,
    pub from_peer: Traffic,
}

/// One channel of an allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    pub number: u16,
    pub peer: SocketAddr,
    pub expires_in_s: u32,
    pub to_peer: Traffic,
    pub from_peer: Traffic,
}

/// One row of the allocation table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationInfo {
    pub flow: Flow,
    pub username: String,
    /// What the client and its peers see; differs from the socket's address behind a static NAT.
    pub relays: Vec<SocketAddr>,
    pub age_s: u32,
    pub expires_in_s: u32,
    pub permissions: Vec<PermissionInfo>,
    pub channels: Vec<ChannelInfo>,
    pub to_peers: Traffic,
    pub from_peers: Traffic,
    /// Authenticated requests on this allocation, and how they were answered.
    pub requests: u64,
    pub successes: u64,
    pub errors: u64,
    /// Payloads not relayed because no permission or channel covered them.
    pub dropped: u64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Totals since the server started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),+ }

        impl Counters {
            /// Names and values, in a fixed order.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }

            /// Adds another server's totals.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

counters! {
    /// Allocations alive now.
    allocations,
    /// Allocations ever made.
    allocations_made,
    binding_requests,
    requests,
    successes,
    /// Answers with an error, challenges included.
    errors,
    /// 401 to requests without credentials: the first step of every client.
    challenges,
    stale_nonces,
    /// Wrong, unknown or expired credentials.
    unauthorized,
    /// 403.
    forbidden,
    /// 486 and 508.
    over_quota,
    /// Unauthenticated requests that got no answer because their source sent too many.
    rate_limited,
    /// Datagrams that are neither STUN nor ChannelData, or break their format.
    malformed,
    packets_to_peers,
    bytes_to_peers,
    packets_from_peers,
    bytes_from_peers,
    /// Payloads not relayed for want of an allocation, permission or channel.
    dropped,
}
