//! What the methods do to an allocation: Refresh, CreatePermission, ChannelBind. Allocate has a file of its own.

use super::{Answer, Exchange, Refusal, RelayId, Server, Timer};
use crate::allocation::{side, Allocation, ChannelError};
use crate::auth::Identity;
use crate::request::Request;
use crate::{Flow, Now};
use moim_wire::stun::{Attribute, Family};
use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

impl Server {
    /// The slot of the requester's allocation (437), made with the same user name (441).
    fn own_allocation(&self, exchange: &Exchange, identity: &Identity) -> Result<u32, Refusal> {
        let slot = self
            .by_flow
            .get(&exchange.flow)
            .copied()
            .filter(|slot| {
                self.slots[*slot as usize]
                    .allocation
                    .as_ref()
                    .is_some_and(|found| found.opening.is_none())
            })
            .ok_or_else(no_allocation)?;
        match &self.slots[slot as usize].allocation {
            Some(allocation) if allocation.identity.username == identity.username => Ok(slot),
            _ => Err(Refusal::new(441, "the allocation was made with another user name")),
        }
    }

    fn allocation_mut(&mut self, slot: u32) -> Result<&mut Allocation, Refusal> {
        let found = self.slots[slot as usize].allocation.as_deref_mut();
        found.ok_or_else(no_allocation)
    }

    /// The lifetime to grant (RFC 8656 section 7.2), for anything but a release.
    pub(crate) fn lifetime(&self, asked: Option<u32>) -> u32 {
        let granted = asked.unwrap_or(0).min(self.config.max_lifetime_s);
        granted.max(self.config.default_lifetime_s)
    }

    /// RFC 8656 section 8.2.
    pub(super) fn refresh(
        &mut self,
        now: Now,
        exchange: &Exchange,
        request: &Request<'_>,
        identity: &Identity,
    ) -> Answer {
        let release = request.lifetime == Some(0);
        let lifetime = |seconds| Ok(Some(vec![Attribute::Lifetime(seconds)]));
        let repeated = |entry: &(u64, Flow, [u8; 12])| {
            entry.0 > now.ms && (entry.1, entry.2) == (exchange.flow, exchange.transaction)
        };
        if release && self.released.iter().any(repeated) {
            return lifetime(0);
        }
        let slot = self.own_allocation(exchange, identity)?;
        let generation = self.slots[slot as usize].generation;
        let allocation = self.allocation_mut(slot)?;
        let which = match request.family {
            None => None,
            Some(family) => match side_of(family).filter(|which| allocation.relays[*which].is_some()) {
                Some(which) => Some(which),
                None => return Err(Refusal::new(443, "the allocation has no relay of this address family")),
            },
        };
        if !release {
            let granted = self.lifetime(request.lifetime);
            let expires_ms = now.ms + u64::from(granted) * 1000;
            let allocation = self.allocation_mut(slot)?;
            allocation.expires_ms = expires_ms;
            // A later deadline is found when the timer fires; only an earlier one needs a timer of its own.
            if expires_ms < allocation.timer_ms {
                allocation.timer_ms = expires_ms;
                self.timers
                    .push(Reverse((expires_ms, Timer::Allocation { slot, generation })));
            }
            return lifetime(granted);
        }
        self.remember_release(now, exchange.flow, exchange.transaction);
        let allocation = self.slots[slot as usize].allocation.as_deref_mut();
        let dual = allocation
            .as_ref()
            .is_some_and(|found| found.relays.iter().all(Option::is_some));
        match (which, allocation) {
            (Some(which), Some(allocation)) if dual => {
                if let Some(relay) = allocation.drop_side(which) {
                    self.close_relay(RelayId::new(slot, generation, which), &relay);
                }
            }
            _ => self.close(slot, "released by the client"),
        }
        lifetime(0)
    }

    /// RFC 8656 section 10.2: all peers or none.
    pub(super) fn create_permission(
        &mut self,
        now: Now,
        exchange: &Exchange,
        request: &Request<'_>,
        identity: &Identity,
    ) -> Answer {
        let slot = self.own_allocation(exchange, identity)?;
        if request.peers.is_empty() {
            return Err(Refusal::new(400, "a permission needs a peer address"));
        }
        let reaches = request
            .peers
            .iter()
            .map(|peer| {
                self.peer_family(slot, peer.ip())?;
                self.policy
                    .rules
                    .reach(peer.ip())
                    .map_err(|why| forbidden(&peer.ip(), why))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let peers: Vec<IpAddr> = request.peers.iter().map(SocketAddr::ip).collect();
        let allocation = self.allocation_mut(slot)?;
        if !allocation.room_for(&peers, now.ms) {
            return Err(Refusal::new(508, "the allocation has all the permissions it may have"));
        }
        for (peer, reach) in peers.into_iter().zip(reaches) {
            allocation.permit(peer, reach, now.ms);
        }
        Ok(Some(Vec::new()))
    }

    /// RFC 8656 section 12.2.
    pub(super) fn channel_bind(
        &mut self,
        now: Now,
        exchange: &Exchange,
        request: &Request<'_>,
        identity: &Identity,
    ) -> Answer {
        let slot = self.own_allocation(exchange, identity)?;
        let (Some(number), [peer]) = (request.channel, request.peers.as_slice()) else {
            return Err(Refusal::new(400, "a channel needs a number and one peer address"));
        };
        let last = if self.config.old_channel_range { 0x7FFF } else { 0x4FFF };
        if !(0x4000..=last).contains(&number) {
            let hint = if number > last && number <= 0x7FFF {
                " (old_channel_range accepts it)"
            } else {
                ""
            };
            return Err(Refusal::new(
                400,
                format!("channel number 0x{number:04x} is out of range{hint}"),
            ));
        }
        self.peer_family(slot, peer.ip())?;
        let rules = &self.policy.rules;
        rules
            .check(peer.ip(), peer.port())
            .map_err(|why| forbidden(peer, why))?;
        let reach = rules.reach(peer.ip()).map_err(|why| forbidden(peer, why))?;
        let allocation = self.allocation_mut(slot)?;
        if !allocation.room_for(&[peer.ip()], now.ms) {
            return Err(Refusal::new(508, "the allocation has all the permissions it may have"));
        }
        allocation.bind(number, *peer, now.ms).map_err(|error| match error {
            ChannelError::Taken => Refusal::new(400, "the channel number or the peer is bound already"),
            ChannelError::Full => Refusal::new(508, "the allocation has all the channels it may have"),
        })?;
        allocation.permit(peer.ip(), reach, now.ms);
        Ok(Some(Vec::new()))
    }

    /// 443 unless the allocation has a relay of the peer's family.
    fn peer_family(&self, slot: u32, peer: IpAddr) -> Result<(), Refusal> {
        let allocation = self.slots[slot as usize].allocation.as_deref();
        if allocation.is_some_and(|found| found.relays[side(peer)].is_some()) {
            Ok(())
        } else {
            Err(Refusal::new(
                443,
                format!("peer {peer} is of another address family than the relay"),
            ))
        }
    }
}

fn no_allocation() -> Refusal {
    Refusal::new(437, "there is no allocation on this 5-tuple")
}

fn forbidden(peer: &dyn std::fmt::Display, why: &str) -> Refusal {
    Refusal::new(403, format!("peer {peer} is {why}"))
}

/// Index of a family in `Allocation::relays`; None for families that TURN does not know.
pub(crate) fn side_of(family: Family) -> Option<usize> {
    match family {
        Family::V4 => Some(0),
        Family::V6 => Some(1),
        Family::Other(_) => None,
    }
}
