//! One allocation: its relays, permissions, channels and counters, and the decision for each relayed payload.

use crate::auth::Identity;
use crate::open::Opening;
use crate::rules::{PeerRules, Reach};
use crate::shared::{PortPool, Token};
use crate::snapshot::{AllocationInfo, ChannelInfo, PermissionInfo, Traffic};
use crate::Flow;
use moim_wire::stun::TransactionId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// RFC 8656 section 9: exactly five minutes.
pub const PERMISSION_MS: u64 = 300_000;
/// RFC 8656 section 12: ten minutes.
pub const CHANNEL_MS: u64 = 600_000;
/// Bounds per allocation; lists this short are fastest searched from end to end.
pub const MAX_PERMISSIONS: usize = 128;
pub const MAX_CHANNELS: usize = 128;

/// A relayed transport address.
pub struct Relay {
    pub pool: Arc<PortPool>,
    pub port: u16,
}

impl Relay {
    pub fn external(&self) -> SocketAddr {
        self.pool.external(self.port)
    }
}

pub struct Permission {
    peer: IpAddr,
    reach: Reach,
    expires_ms: u64,
    to_peer: Traffic,
    from_peer: Traffic,
}

pub struct Channel {
    number: u16,
    peer: SocketAddr,
    expires_ms: u64,
    to_peer: Traffic,
    from_peer: Traffic,
}

/// Index of an address family in `Allocation::relays`.
pub fn side(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}

pub struct Allocation {
    pub flow: Flow,
    /// Of the Allocate request, to know its retransmissions.
    pub transaction: TransactionId,
    pub identity: Identity,
    /// IPv4, IPv6.
    pub relays: [Option<Relay>; 2],
    /// Set until the relays are bound; nothing is relayed before.
    pub opening: Option<Box<Opening>>,
    pub reserved: Option<Token>,
    /// The family that could not be had, and why (ADDRESS-ERROR-CODE).
    pub partial: Option<(usize, u16)>,
    pub created_ms: u64,
    pub expires_ms: u64,
    /// When the earliest timer of this allocation fires.
    pub timer_ms: u64,
    pub permissions: Vec<Permission>,
    pub channels: Vec<Channel>,
    pub to_peers: Traffic,
    pub from_peers: Traffic,
    pub requests: u64,
    pub successes: u64,
    pub errors: u64,
    pub dropped: u64,
    /// Unguessable start of the transaction IDs of Data indications.
    pub data_seed: TransactionId,
}

/// Why a channel cannot be bound.
#[derive(Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// 400: the number belongs to another peer, or the peer to another number.
    Taken,
    /// 508.
    Full,
}

impl Allocation {
    /// Where a payload on a channel goes. None when the channel, or the permission under it, is not there.
    pub fn over_channel(&mut self, number: u16, bytes: usize, now_ms: u64) -> Option<SocketAddr> {
        let found = self.channels.iter().position(|channel| channel.number == number);
        let channel = found.filter(|at| self.channels[*at].expires_ms > now_ms);
        let peer = channel.map(|at| self.channels[at].peer);
        match (channel, peer) {
            (Some(at), Some(peer)) if self.outbound(peer, bytes, now_ms) => {
                self.channels[at].to_peer.count(bytes);
                Some(peer)
            }
            _ => None,
        }
    }

    /// Whether a payload may go to this peer; counts it.
    pub fn outbound(&mut self, peer: SocketAddr, bytes: usize, now_ms: u64) -> bool {
        let allowed = match self.permission(peer, now_ms) {
            Some(permission) => {
                permission.to_peer.count(bytes);
                true
            }
            None => false,
        };
        if allowed {
            self.to_peers.count(bytes);
        } else {
            self.dropped += 1;
        }
        allowed
    }

    /// Whether a payload may come from this peer, and over which channel; counts it.
    pub fn inbound(&mut self, peer: SocketAddr, bytes: usize, now_ms: u64) -> Option<Option<u16>> {
        let Some(permission) = self.permission(peer, now_ms) else {
            self.dropped += 1;
            return None;
        };
        permission.from_peer.count(bytes);
        self.from_peers.count(bytes);
        let channel = self
            .channels
            .iter_mut()
            .find(|channel| channel.peer == peer && channel.expires_ms > now_ms);
        Some(channel.map(|channel| {
            channel.from_peer.count(bytes);
            channel.number
        }))
    }

    fn permission(&mut self, peer: SocketAddr, now_ms: u64) -> Option<&mut Permission> {
        self.permissions.iter_mut().find(|permission| {
            permission.peer == peer.ip() && permission.expires_ms > now_ms && permission.reach.port(peer.port())
        })
    }

    /// Whether all these permissions can be held at once.
    pub fn room_for(&mut self, peers: &[IpAddr], now_ms: u64) -> bool {
        self.forget_expired(now_ms);
        let mut new: Vec<&IpAddr> = peers
            .iter()
            .filter(|peer| self.permissions.iter().all(|permission| permission.peer != **peer))
            .collect();
        new.sort_unstable();
        new.dedup();
        self.permissions.len() + new.len() <= MAX_PERMISSIONS
    }

    /// Installs or refreshes a permission; [`Self::room_for`] has said yes.
    pub fn permit(&mut self, peer: IpAddr, reach: Reach, now_ms: u64) {
        let expires_ms = now_ms + PERMISSION_MS;
        match self.permissions.iter_mut().find(|permission| permission.peer == peer) {
            Some(permission) => {
                permission.expires_ms = expires_ms;
                permission.reach = reach;
            }
            None => self.permissions.push(Permission {
                peer,
                reach,
                expires_ms,
                to_peer: Traffic::default(),
                from_peer: Traffic::default(),
            }),
        }
    }

    /// Binds or refreshes a channel.
    ///
    /// # Errors
    /// See [`ChannelError`]; nothing has changed then.
    pub fn bind(&mut self, number: u16, peer: SocketAddr, now_ms: u64) -> Result<(), ChannelError> {
        self.forget_expired(now_ms);
        let expires_ms = now_ms + CHANNEL_MS;
        let clash = |channel: &&mut Channel| channel.number == number || channel.peer == peer;
        if let Some(channel) = self.channels.iter_mut().find(clash) {
            if (channel.number, channel.peer) != (number, peer) {
                return Err(ChannelError::Taken);
            }
            channel.expires_ms = expires_ms;
            return Ok(());
        }
        if self.channels.len() >= MAX_CHANNELS {
            return Err(ChannelError::Full);
        }
        self.channels.push(Channel {
            number,
            peer,
            expires_ms,
            to_peer: Traffic::default(),
            from_peer: Traffic::default(),
        });
        Ok(())
    }

    fn forget_expired(&mut self, now_ms: u64) {
        self.permissions.retain(|permission| permission.expires_ms > now_ms);
        self.channels.retain(|channel| channel.expires_ms > now_ms);
    }

    /// Takes back what new rules no longer allow.
    pub fn apply_rules(&mut self, rules: &PeerRules) {
        self.permissions
            .retain_mut(|permission| match rules.reach(permission.peer) {
                Ok(reach) => {
                    permission.reach = reach;
                    true
                }
                Err(_) => false,
            });
        self.channels
            .retain(|channel| rules.check(channel.peer.ip(), channel.peer.port()).is_ok());
    }

    /// Drops one family of a dual allocation with everything that used it.
    pub fn drop_side(&mut self, which: usize) -> Option<Relay> {
        self.permissions.retain(|permission| side(permission.peer) != which);
        self.channels.retain(|channel| side(channel.peer.ip()) != which);
        self.relays[which].take()
    }

    pub fn relay_addresses(&self) -> Vec<SocketAddr> {
        self.relays.iter().flatten().map(Relay::external).collect()
    }

    /// A row of the allocation table.
    pub fn info(&self, now_ms: u64) -> AllocationInfo {
        let left = |expires_ms: u64| (expires_ms.saturating_sub(now_ms) / 1000) as u32;
        AllocationInfo {
            flow: self.flow,
            username: self.identity.username.clone(),
            relays: self.relay_addresses(),
            age_s: (now_ms.saturating_sub(self.created_ms) / 1000) as u32,
            expires_in_s: left(self.expires_ms),
            permissions: self
                .permissions
                .iter()
                .filter(|permission| permission.expires_ms > now_ms)
                .map(|permission| PermissionInfo {
                    peer: permission.peer,
                    expires_in_s: left(permission.expires_ms),
                    to_peer: permission.to_peer,
                    from_peer: permission.from_peer,
                })
                .collect(),
            channels: self
                .channels
                .iter()
                .filter(|channel| channel.expires_ms > now_ms)
                .map(|channel| ChannelInfo {
                    number: channel.number,
                    peer: channel.peer,
                    expires_in_s: left(channel.expires_ms),
                    to_peer: channel.to_peer,
                    from_peer: channel.from_peer,
                })
                .collect(),
            to_peers: self.to_peers,
            from_peers: self.from_peers,
            requests: self.requests,
            successes: self.successes,
            errors: self.errors,
            dropped: self.dropped,
        }
    }
}
