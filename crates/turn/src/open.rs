//! Allocate requests (RFC 8656 section 7.2): checks, then one relay after another until all are bound or none can be.

use crate::allocation::{Allocation, Relay};
use crate::auth::Identity;
use crate::request::Request;
use crate::server::{live, side_of, Answer, Exchange, OpenError, Output, Refusal, RelayId, Server, Timer};
use crate::shared::{PortPool, Quota, Reservation, Token, RESERVATION_MS};
use crate::snapshot::{Event, Traffic};
use crate::Now;
use moim_wire::stun::{Attribute, Family};
use std::cmp::Reverse;
use std::sync::Arc;

const UDP: u8 = 17;
/// How many ports are tried before the server calls itself full.
const ATTEMPTS: usize = 64;

/// What is still to be bound for an allocation.
pub struct Opening {
    exchange: Exchange,
    lifetime_s: u32,
    /// Sides yet to do, the current one first.
    wanted: Vec<usize>,
    even: bool,
    pair: Option<Token>,
    /// Whether the port comes from a reservation, so that no other will do.
    adopts: bool,
    /// Ports of the current side that other programs hold; given back to the pool when the side is done.
    busy: Vec<u16>,
}

impl Server {
    pub(crate) fn allocate(
        &mut self,
        now: Now,
        exchange: &Exchange,
        request: &Request<'_>,
        identity: &Identity,
    ) -> Answer {
        if let Some(slot) = self.by_flow.get(&exchange.flow) {
            return match self.slots[*slot as usize].allocation.as_deref() {
                Some(same) if same.transaction == exchange.transaction && same.opening.is_some() => Ok(None),
                Some(same) if same.transaction == exchange.transaction => Ok(Some(success(same, now))),
                _ => Err(Refusal::new(437, "there is an allocation on this 5-tuple already")),
            };
        }
        let sides = self.wanted_sides(request)?;
        let pair = request.even_port == Some(true);
        let reservation = request.token.map(|token| self.redeem(&token, now)).transpose()?;
        let failed_side = sides.iter().copied().find(|side| self.pool(*side).is_none());
        let wanted: Vec<usize> = match &reservation {
            Some(reservation) => vec![usize::from(reservation.pool.address().is_ipv6())],
            None => sides
                .iter()
                .copied()
                .filter(|side| self.pool(*side).is_some())
                .collect(),
        };
        if let Err(quota) = self.shared.admit(identity.user()) {
            // Not used after all: whoever has the token may still come with a free slot.
            if let (Some(reservation), Some(token)) = (reservation, request.token) {
                self.shared.reserve(token, reservation);
            }
            return Err(match quota {
                Quota::User => Refusal::new(
                    486,
                    format!("{} has all the allocations a user may have", identity.user()),
                ),
                Quota::Server => Refusal::new(508, "the server has all the allocations it may have"),
            });
        }
        let random = self.random();
        let token: Token = random[..8].try_into().unwrap_or_default();
        let opening = Opening {
            exchange: exchange.clone(),
            lifetime_s: self.lifetime(request.lifetime),
            wanted,
            even: request.even_port.is_some(),
            pair: pair.then_some(token),
            adopts: reservation.is_some(),
            busy: Vec::new(),
        };
        let slot = self.place(Allocation {
            flow: exchange.flow,
            transaction: exchange.transaction,
            identity: identity.clone(),
            relays: [None, None],
            opening: Some(Box::new(opening)),
            reserved: None,
            partial: failed_side.map(|side| (side, 440)),
            created_ms: now.ms,
            expires_ms: 0,
            timer_ms: 0,
            permissions: Vec::new(),
            channels: Vec::new(),
            to_peers: Traffic::default(),
            from_peers: Traffic::default(),
            requests: 1,
            successes: 1,
            errors: 0,
            dropped: 0,
            data_seed: random[8..20].try_into().unwrap_or_default(),
        });
        match (reservation, request.token) {
            (Some(reservation), Some(token)) => self.adopt(slot, reservation, token),
            _ => self.open_next(now, slot),
        }
        Ok(None)
    }

    /// The driver's answer to [`Output::Open`] and [`Output::Adopt`].
    pub fn opened(&mut self, now: Now, relay: RelayId, result: Result<(), OpenError>) {
        let Some(allocation) = live(&mut self.slots, relay.slot(), relay.generation()) else {
            return;
        };
        let Some(opening) = allocation.opening.as_deref_mut() else {
            return;
        };
        let side = relay.side();
        match result {
            Ok(()) => {
                if let (Some(token), Some(bound)) = (opening.pair, &allocation.relays[side]) {
                    let reservation = Reservation {
                        pool: bound.pool.clone(),
                        port: bound.port + 1,
                        expires_ms: now.ms + RESERVATION_MS,
                    };
                    self.timers
                        .push(Reverse((reservation.expires_ms, Timer::Reservation(token))));
                    self.shared.reserve(token, reservation);
                    allocation.reserved = Some(token);
                }
                self.side_done(relay.slot(), None);
            }
            Err(error) => {
                if let Some(failed) = allocation.relays[side].take() {
                    opening.busy.push(failed.port);
                    opening.busy.extend(opening.pair.map(|_| failed.port + 1));
                    let over = opening.adopts || error == OpenError::Failed || opening.busy.len() >= ATTEMPTS;
                    if over {
                        self.side_done(relay.slot(), Some(&failed.pool));
                    }
                }
            }
        }
        self.open_next(now, relay.slot());
    }

    /// Which families are asked for, IPv4 first; every refusal that needs no look at capacity.
    fn wanted_sides(&self, request: &Request<'_>) -> Result<Vec<usize>, Refusal> {
        match request.transport {
            None => return Err(Refusal::new(400, "REQUESTED-TRANSPORT is missing")),
            Some(UDP) => {}
            Some(other) => return Err(Refusal::new(442, format!("transport protocol {other} is not UDP"))),
        }
        let (family, additional) = (request.family, request.additional_family);
        if request.token.is_some() && (request.even_port.is_some() || family.is_some() || additional.is_some()) {
            return Err(Refusal::new(
                400,
                "RESERVATION-TOKEN excludes EVEN-PORT and address families",
            ));
        }
        if family.is_some() && additional.is_some() {
            return Err(Refusal::new(
                400,
                "requested and additional address family exclude each other",
            ));
        }
        let unsupported = || Refusal::new(440, "no relay address of the requested family");
        match additional {
            Some(Family::V4) => return Err(Refusal::new(400, "the additional address family cannot be IPv4")),
            Some(_) if request.even_port == Some(true) => {
                return Err(Refusal::new(
                    400,
                    "a reserved port and an additional address family exclude each other",
                ));
            }
            Some(Family::V6) if self.pool(0).or(self.pool(1)).is_some() => return Ok(vec![0, 1]),
            Some(_) => return Err(unsupported()),
            None => {}
        }
        let side = side_of(family.unwrap_or(Family::V4)).ok_or_else(unsupported)?;
        if request.token.is_none() && self.pool(side).is_none() {
            return Err(unsupported());
        }
        Ok(vec![side])
    }

    fn pool(&self, side: usize) -> Option<&Arc<PortPool>> {
        [&self.config.v4, &self.config.v6][side].as_ref()
    }

    fn redeem(&self, token: &Token, now: Now) -> Result<Reservation, Refusal> {
        match self.shared.claim(token) {
            Some(reservation) if reservation.expires_ms > now.ms => Ok(reservation),
            Some(late) => {
                // Its owner's timer is about to release it.
                self.shared.reserve(*token, late);
                Err(Refusal::new(508, "the reservation has expired"))
            }
            None => Err(Refusal::new(508, "the reservation token is not known")),
        }
    }

    fn adopt(&mut self, slot: u32, reservation: Reservation, token: Token) {
        let side = usize::from(reservation.pool.address().is_ipv6());
        let place = &mut self.slots[slot as usize];
        let relay = RelayId::new(slot, place.generation, side);
        if let Some(allocation) = place.allocation.as_deref_mut() {
            allocation.relays[side] = Some(Relay {
                pool: reservation.pool,
                port: reservation.port,
            });
        }
        self.output(Output::Adopt { relay, token });
    }

    /// The current side is bound, or given up (`failed` is its pool).
    fn side_done(&mut self, slot: u32, failed: Option<&Arc<PortPool>>) {
        let Some(allocation) = self.slots[slot as usize].allocation.as_deref_mut() else {
            return;
        };
        let Some(opening) = allocation.opening.as_deref_mut() else {
            return;
        };
        let side = opening.wanted.remove(0);
        let pool = failed.or(allocation.relays[side].as_ref().map(|relay| &relay.pool));
        if let Some(pool) = pool {
            opening.busy.drain(..).for_each(|port| pool.give(port));
        }
        if failed.is_some() {
            allocation.partial = Some((side, 508));
        }
    }

    /// Asks for the next port, or finishes.
    fn open_next(&mut self, now: Now, slot: u32) {
        let random = self.random();
        let random = u64::from_be_bytes(random[..8].try_into().unwrap_or_default());
        let pools = [self.config.v4.clone(), self.config.v6.clone()];
        let place = &mut self.slots[slot as usize];
        let generation = place.generation;
        let Some(allocation) = place.allocation.as_deref_mut() else {
            return;
        };
        let Some(opening) = allocation.opening.as_deref_mut() else {
            return;
        };
        let Some(&side) = opening.wanted.first() else {
            return self.finish_opening(now, slot);
        };
        let Some(pool) = &pools[side] else {
            return self.finish_opening(now, slot);
        };
        match pool.take(random, opening.even, opening.pair.is_some()) {
            Some(port) => {
                let reserve = opening.pair;
                allocation.relays[side] = Some(Relay {
                    pool: pool.clone(),
                    port,
                });
                self.output(Output::Open {
                    relay: RelayId::new(slot, generation, side),
                    address: (pool.address(), port).into(),
                    reserve,
                });
            }
            None => {
                self.side_done(slot, Some(pool));
                self.open_next(now, slot);
            }
        }
    }

    fn finish_opening(&mut self, now: Now, slot: u32) {
        let place = &mut self.slots[slot as usize];
        let generation = place.generation;
        let Some(allocation) = place.allocation.as_deref_mut() else {
            return;
        };
        let Some(opening) = allocation.opening.take() else {
            return;
        };
        if allocation.relays.iter().all(Option::is_none) {
            self.remove(slot);
            let refusal = Refusal::new(508, "no relay port is free");
            return self.refuse(now, &opening.exchange, refusal);
        }
        allocation.expires_ms = now.ms + u64::from(opening.lifetime_s) * 1000;
        allocation.timer_ms = allocation.expires_ms;
        let timer = Timer::Allocation { slot, generation };
        self.timers.push(Reverse((allocation.expires_ms, timer)));
        let attributes = success(allocation, now);
        let event = Event::Allocated {
            client: allocation.flow.client,
            user: allocation.identity.user().to_owned(),
            relays: allocation.relay_addresses(),
            lifetime_s: opening.lifetime_s,
        };
        self.counters.allocations_made += 1;
        self.event(event);
        self.succeed(&opening.exchange, &attributes);
    }
}

/// The attributes of a success answer; the same for a retransmitted request.
fn success(allocation: &Allocation, now: Now) -> Vec<Attribute<'static>> {
    let left = allocation.expires_ms.saturating_sub(now.ms).div_ceil(1000);
    let mut attributes: Vec<Attribute<'static>> = allocation
        .relay_addresses()
        .into_iter()
        .map(Attribute::XorRelayedAddress)
        .collect();
    attributes.push(Attribute::Lifetime(left as u32));
    attributes.extend(allocation.reserved.map(Attribute::ReservationToken));
    attributes.push(Attribute::XorMappedAddress(allocation.flow.client));
    if let Some((side, code)) = allocation.partial {
        attributes.push(Attribute::AddressErrorCode {
            family: [Family::V4, Family::V6][side],
            code,
            reason: moim_wire::stun::reason_phrase(code).into(),
        });
    }
    attributes
}
