//! Whose datagram is it: by ICE username fragment for STUN, by learnt remote address for everything else.
//!
//! An address is learnt only from a connectivity check whose integrity was verified, so nobody can claim another
//! participant's address, or fill the table, without that participant's ICE password.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use str0m::ice::StunMessage;

use crate::Pid;

/// Addresses remembered for one participant: a browser checks from each of its interfaces and relays.
const ADDRESSES: usize = 32;
const STUN_HEADER: usize = 20;

#[derive(Default)]
pub(crate) struct Demux {
    by_ufrag: HashMap<String, Pid>,
    by_address: HashMap<SocketAddr, Pid>,
    ufrags: HashMap<Pid, String>,
    addresses: HashMap<Pid, VecDeque<SocketAddr>>,
}

/// What kind of datagram it is, by its first byte (RFC 7983 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Stun,
    Media,
    Other,
}

impl Class {
    pub fn of(data: &[u8]) -> Self {
        match data.first() {
            Some(0..=3) if data.len() >= STUN_HEADER => Self::Stun,
            Some(20..=63 | 128..=191) => Self::Media,
            _ => Self::Other,
        }
    }
}

impl Demux {
    /// False when the fragment is taken.
    pub fn add(&mut self, pid: Pid, ufrag: String) -> bool {
        if self.by_ufrag.contains_key(&ufrag) {
            return false;
        }
        self.by_ufrag.insert(ufrag.clone(), pid);
        self.ufrags.insert(pid, ufrag);
        true
    }

    pub fn remove(&mut self, pid: Pid) {
        if let Some(ufrag) = self.ufrags.remove(&pid) {
            self.by_ufrag.remove(&ufrag);
        }
        for address in self.addresses.remove(&pid).unwrap_or_default() {
            if self.by_address.get(&address) == Some(&pid) {
                self.by_address.remove(&address);
            }
        }
    }

    /// The participant that a binding request names; the request is not verified yet.
    pub fn by_stun(&self, data: &[u8]) -> Option<Pid> {
        let message = StunMessage::parse(data).ok()?;
        let (local, _) = message.split_username()?;
        self.by_ufrag.get(local).copied()
    }

    pub fn by_address(&self, source: SocketAddr) -> Option<Pid> {
        self.by_address.get(&source).copied()
    }

    /// Remembers the source of a verified check; the oldest address makes room.
    pub fn learn(&mut self, pid: Pid, source: SocketAddr) {
        if self.by_address.insert(source, pid) == Some(pid) {
            return;
        }
        let known = self.addresses.entry(pid).or_default();
        known.push_back(source);
        if known.len() > ADDRESSES {
            if let Some(oldest) = known.pop_front() {
                if oldest != source && self.by_address.get(&oldest) == Some(&pid) {
                    self.by_address.remove(&oldest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Demux, ADDRESSES};
    use std::net::SocketAddr;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn classes_follow_the_first_byte() {
        assert_eq!(Class::of(&[0; 20]), Class::Stun);
        assert_eq!(Class::of(&[0; 19]), Class::Other);
        assert_eq!(Class::of(&[22, 0]), Class::Media);
        assert_eq!(Class::of(&[0x80, 111]), Class::Media);
        assert_eq!(Class::of(&[]), Class::Other);
        assert_eq!(Class::of(&[70; 40]), Class::Other);
    }

    #[test]
    fn a_participant_keeps_a_bounded_number_of_addresses() {
        let mut demux = Demux::default();
        for port in 1..=(ADDRESSES as u16 + 5) {
            demux.learn(7, address(port));
        }
        assert_eq!(demux.by_address(address(1)), None);
        assert_eq!(demux.by_address(address(6)), Some(7));
        assert_eq!(demux.by_address.len(), ADDRESSES);
        demux.remove(7);
        assert!(demux.by_address.is_empty());
    }

    #[test]
    fn an_address_that_moved_stays_with_its_new_owner() {
        let mut demux = Demux::default();
        demux.learn(1, address(1));
        demux.learn(2, address(1));
        demux.remove(1);
        assert_eq!(demux.by_address(address(1)), Some(2));
    }

    #[test]
    fn fragments_are_unique() {
        let mut demux = Demux::default();
        assert!(demux.add(1, "abcd".into()));
        assert!(!demux.add(2, "abcd".into()));
        demux.remove(1);
        assert!(demux.add(2, "abcd".into()));
    }
}
