//! A TURN server as a machine: datagrams and `now` in, datagrams and events out (RFC 8489, RFC 8656).
//!
//! [`Server`] serves one listening address. A driver feeds it what clients send ([`Server::receive`]) and what peers send
//! to relays ([`Server::relayed`]), carries out every [`Output`], hands [`Event`]s on and calls [`Server::tick`] when
//! [`Server::deadline`] has come. Relayed payloads are never copied: the machine says where they lie and frames
//! them in place. Several servers (one per thread, or per address) share quotas, relay ports and reservations
//! through [`Shared`]; only requests touch it, never relayed packets.
#![forbid(unsafe_code)]

mod allocation;
mod auth;
mod limits;
mod open;
mod policy;
mod refusals;
mod request;
mod rules;
mod server;
mod shared;
mod snapshot;
#[cfg(test)]
mod tests;

pub use auth::UserKeys;
pub use policy::{Policy, MAX_SECRETS};
pub use rules::{PeerRules, Reach, Rule, RuleError};
pub use server::{Config, OpenError, Output, RelayId, Server};
pub use shared::{PortPool, Shared, Token};
pub use snapshot::{AllocationInfo, ChannelInfo, Counters, Event, PermissionInfo, Traffic};

use std::net::SocketAddr;
use std::ops::Range;

/// Both clocks at one moment: `ms` is monotonic and drives every timer, `unix` (seconds) only dates credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub ms: u64,
    pub unix: u64,
}

/// How a client's messages arrive; ChannelData is padded on streams only (RFC 8656 section 12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Datagram,
    Stream,
}

/// The client's half of the 5-tuple; the server's half is the [`Server`] itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    pub client: SocketAddr,
    pub transport: Transport,
}

impl Flow {
    pub fn datagram(client: SocketAddr) -> Self {
        Self {
            client,
            transport: Transport::Datagram,
        }
    }
}

/// A payload that a client sent and a relay is to send on: `payload` is where it lies in what was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub relay: RelayId,
    pub peer: SocketAddr,
    pub payload: Range<usize>,
    /// Whether the IPv4 header is to carry DF (RFC 8656 section 14).
    pub dont_fragment: bool,
}
