//! The machine itself: its tables, its timers, and the way of every datagram through it.

use crate::allocation::{side, Allocation, Relay};
use crate::auth::Nonces;
use crate::limits::Limiter;
use crate::policy::Policy;
use crate::refusals::Refusals;
use crate::request::SendIndication;
use crate::shared::{Shared, Token};
use crate::snapshot::{AllocationInfo, Counters, Event};
use crate::{Flow, Forward, Now, Transport};
use moim_wire::stun::{channel_data, put_channel_header, put_data_indication, Class, Message, Method, TransactionId};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

mod exchange;
mod methods;
mod types;

pub(crate) use exchange::{Answer, Exchange, Refusal};
pub(crate) use methods::side_of;
use types::Random;
pub use types::{Config, OpenError, Output, RelayId};

/// How long a release is remembered, so that its retransmission is answered alike: a client's whole retry span.
const RELEASE_MEMORY_MS: u64 = 40_000;
const RELEASES: usize = 1024;

pub(crate) struct Slot {
    pub generation: u32,
    pub allocation: Option<Box<Allocation>>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Allocation { slot: u32, generation: u32 },
    Reservation(Token),
}

/// A TURN server on one address.
pub struct Server {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) nonces: Nonces,
    random: Random,
    pub(crate) slots: Vec<Slot>,
    free: Vec<u32>,
    pub(crate) by_flow: HashMap<Flow, u32>,
    pub(crate) timers: BinaryHeap<Reverse<(u64, Timer)>>,
    pub(crate) released: VecDeque<(u64, Flow, TransactionId)>,
    pub(crate) unauthenticated: Limiter,
    pub(crate) failures: Limiter,
    pub(crate) refusals: Refusals,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
    pub(crate) counters: Counters,
}

impl Server {
    /// `nonce_key` is common to servers that share one address (their clients may be dealt to any of them); `seed`
    /// is secret and different for each.
    pub fn new(config: Config, shared: Arc<Shared>, policy: Arc<Policy>, nonce_key: [u8; 32], seed: [u8; 32]) -> Self {
        Self {
            nonces: Nonces::new(nonce_key, config.nonce_lifetime_s),
            unauthenticated: Limiter::new(config.unauthenticated_rate, config.unauthenticated_burst),
            // Guessing passwords is to be slower than asking for a nonce.
            failures: Limiter::new(
                config.unauthenticated_rate.div_ceil(10),
                config.unauthenticated_burst.div_ceil(10),
            ),
            config,
            shared,
            policy,
            random: Random::new(seed),
            slots: Vec::new(),
            free: Vec::new(),
            by_flow: HashMap::new(),
            timers: BinaryHeap::new(),
            released: VecDeque::new(),
            refusals: Refusals::default(),
            outputs: VecDeque::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes one datagram of a client (or one message of a stream). The result is a payload to send to a peer.
    pub fn receive(&mut self, now: Now, flow: Flow, data: &[u8]) -> Option<Forward> {
        match data.first().map(|first| first >> 6) {
            Some(1) => self.on_channel_data(now, flow, data),
            Some(0) => self.on_message(now, flow, data),
            _ => {
                self.counters.malformed += 1;
                None
            }
        }
    }

    /// Takes one datagram of a peer, `payload` of `buffer`, and frames it in place for the client: the result says for
    /// whom and where the message lies. The payload needs `HEADROOM` bytes before it and `TAILROOM` behind.
    pub fn relayed(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: SocketAddr,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Option<(Flow, Range<usize>)> {
        let allocation = live(&mut self.slots, relay.slot(), relay.generation())?;
        let Some(channel) = allocation.inbound(peer, payload.len(), now.ms) else {
            self.counters.dropped += 1;
            return None;
        };
        self.counters.packets_from_peers += 1;
        self.counters.bytes_from_peers += payload.len() as u64;
        let framed = match channel {
            Some(number) => {
                let pad = allocation.flow.transport == Transport::Stream;
                put_channel_header(buffer, payload, number, pad)
            }
            None => {
                let mut transaction = allocation.data_seed;
                for (byte, count) in transaction[4..]
                    .iter_mut()
                    .zip(allocation.from_peers.packets.to_be_bytes())
                {
                    *byte ^= count;
                }
                put_data_indication(buffer, payload, peer, &transaction)?
            }
        };
        Some((allocation.flow, framed))
    }

    fn on_channel_data(&mut self, now: Now, flow: Flow, data: &[u8]) -> Option<Forward> {
        let Some((number, payload)) = channel_data(data) else {
            self.counters.malformed += 1;
            return None;
        };
        let peer = self
            .allocation(&flow)
            .and_then(|allocation| allocation.over_channel(number, payload.len(), now.ms));
        self.forward(flow, peer, payload, false)
    }

    fn on_message(&mut self, now: Now, flow: Flow, data: &[u8]) -> Option<Forward> {
        let Ok(message) = Message::parse(data) else {
            self.counters.malformed += 1;
            return None;
        };
        match (message.class(), message.method()) {
            (Class::Request, _) => {
                self.on_request(now, flow, &message);
                None
            }
            (Class::Indication, Method::SEND) => {
                let Some(send) = SendIndication::read(&message) else {
                    self.counters.malformed += 1;
                    return None;
                };
                let start = send.data.offset + 4;
                let payload = start..start + send.data.value.len();
                let sent = self
                    .allocation(&flow)
                    .is_some_and(|allocation| allocation.outbound(send.peer, payload.len(), now.ms));
                self.forward(flow, sent.then_some(send.peer), payload, send.dont_fragment)
            }
            // Keep-alive indications and stray answers need nothing.
            _ => None,
        }
    }

    fn forward(
        &mut self,
        flow: Flow,
        peer: Option<SocketAddr>,
        payload: Range<usize>,
        dont_fragment: bool,
    ) -> Option<Forward> {
        let Some(peer) = peer else {
            self.counters.dropped += 1;
            return None;
        };
        self.counters.packets_to_peers += 1;
        self.counters.bytes_to_peers += payload.len() as u64;
        let slot = self.by_flow[&flow];
        let relay = RelayId::new(slot, self.slots[slot as usize].generation, side(peer.ip()));
        Some(Forward {
            relay,
            peer,
            payload,
            dont_fragment,
        })
    }

    fn allocation(&mut self, flow: &Flow) -> Option<&mut Allocation> {
        let slot = *self.by_flow.get(flow)?;
        self.slots[slot as usize]
            .allocation
            .as_deref_mut()
            .filter(|allocation| allocation.opening.is_none())
    }

    /// Runs what is due; a call too early does nothing.
    pub fn tick(&mut self, now: Now) {
        while let Some(Reverse((at, _))) = self.timers.peek() {
            if *at > now.ms {
                break;
            }
            let Some(Reverse((_, timer))) = self.timers.pop() else {
                break;
            };
            match timer {
                Timer::Reservation(token) => {
                    if let Some(reservation) = self.shared.claim(&token) {
                        reservation.pool.give(reservation.port);
                        self.outputs.push_back(Output::Release { token });
                    }
                }
                Timer::Allocation { slot, generation } => {
                    match live(&mut self.slots, slot, generation) {
                        Some(found) if found.expires_ms <= now.ms => self.close(slot, "it was not refreshed in time"),
                        // Refreshed meanwhile.
                        Some(found) => {
                            found.timer_ms = found.expires_ms;
                            self.timers
                                .push(Reverse((found.timer_ms, Timer::Allocation { slot, generation })));
                        }
                        None => {}
                    }
                }
            }
        }
        let (refusals, events) = (&mut self.refusals, &mut self.events);
        refusals.flush(now.ms, |event| events.push_back(event));
    }

    /// When [`Self::tick`] wants to be called next (ms), or None for never.
    pub fn deadline(&self) -> Option<u64> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        timer.into_iter().chain(self.refusals.deadline()).min()
    }

    /// The oldest output not yet taken.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The oldest event not yet taken.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Replaces credentials and rules. Permissions that the rules no longer allow end, and so do allocations of
    /// listed users who are gone or have another password.
    pub fn set_policy(&mut self, policy: Arc<Policy>) {
        self.policy = policy;
        let mut withdrawn = Vec::new();
        for (slot, place) in (0..).zip(&mut self.slots) {
            let Some(allocation) = place.allocation.as_deref_mut() else {
                continue;
            };
            let identity = &allocation.identity;
            if identity.listed && self.policy.users.get(&identity.username) != Some(&identity.keys) {
                withdrawn.push(slot);
            } else {
                allocation.apply_rules(&self.policy.rules);
            }
        }
        for slot in withdrawn {
            self.close(slot, "its credential was withdrawn");
        }
    }

    /// Ends every allocation.
    pub fn close_all(&mut self) {
        let slots: Vec<u32> = self.by_flow.values().copied().collect();
        for slot in slots {
            self.close(slot, "the server stops");
        }
    }

    /// Ends the allocation of a stream that was closed.
    pub fn flow_closed(&mut self, flow: &Flow) {
        if let Some(slot) = self.by_flow.get(flow).copied() {
            self.close(slot, "the client closed its connection");
        }
    }

    /// The allocation table.
    pub fn allocations(&self, now: Now) -> Vec<AllocationInfo> {
        self.slots
            .iter()
            .filter_map(|slot| slot.allocation.as_deref())
            .filter(|allocation| allocation.opening.is_none())
            .map(|allocation| allocation.info(now.ms))
            .collect()
    }

    /// Totals.
    pub fn counters(&self) -> Counters {
        Counters {
            allocations: self.by_flow.len() as u64,
            ..self.counters
        }
    }

    pub(crate) fn place(&mut self, allocation: Allocation) -> u32 {
        let flow = allocation.flow;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                allocation: None,
            });
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize].allocation = Some(Box::new(allocation));
        self.by_flow.insert(flow, slot);
        slot
    }

    /// Takes an allocation out of every table, without a word to anybody.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Box<Allocation>> {
        let place = &mut self.slots[slot as usize];
        let allocation = place.allocation.take()?;
        let generation = place.generation;
        place.generation = generation.wrapping_add(1);
        self.free.push(slot);
        self.by_flow.remove(&allocation.flow);
        self.shared.leave(allocation.identity.user());
        for (side, relay) in allocation.relays.iter().enumerate() {
            if let Some(relay) = relay {
                self.close_relay(RelayId::new(slot, generation, side), relay);
            }
        }
        Some(allocation)
    }

    pub(crate) fn close_relay(&mut self, id: RelayId, relay: &Relay) {
        relay.pool.give(relay.port);
        self.outputs.push_back(Output::Close { relay: id });
    }

    pub(crate) fn close(&mut self, slot: u32, reason: &'static str) {
        if let Some(allocation) = self.remove(slot) {
            self.events.push_back(Event::Closed {
                client: allocation.flow.client,
                user: allocation.identity.user().to_owned(),
                relays: allocation.relay_addresses(),
                reason,
                to_peers: allocation.to_peers,
                from_peers: allocation.from_peers,
            });
        }
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn random(&mut self) -> [u8; 32] {
        self.random.next()
    }

    pub(crate) fn remember_release(&mut self, now: Now, flow: Flow, transaction: TransactionId) {
        while self.released.front().is_some_and(|(until, ..)| *until <= now.ms) || self.released.len() >= RELEASES {
            self.released.pop_front();
        }
        self.released.push_back((now.ms + RELEASE_MEMORY_MS, flow, transaction));
    }
}

pub(crate) fn live(slots: &mut [Slot], slot: u32, generation: u32) -> Option<&mut Allocation> {
    slots
        .get_mut(slot as usize)
        .filter(|place| place.generation == generation)?
        .allocation
        .as_deref_mut()
}
