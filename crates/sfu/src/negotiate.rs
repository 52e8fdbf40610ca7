//! Offers and answers: how a participant's subscriptions become media sections.
//!
//! The first offer holds two recvonly sections, audio and video, on which the participant publishes. Every subscribed
//! track adds a sendonly section. A section whose track went becomes inactive and later serves the next publisher,
//! with fresh SSRCs so that the browser starts a fresh decoder. One offer is out at a time.

use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};

use crate::events::SfuError;
use crate::participant::{Line, LineState, Participant};
use crate::rewrite::Rewriter;
use crate::{Kind, Pid};

/// Answers longer than this are refused unread, bytes.
const MAX_SDP: usize = 256 * 1024;

/// One offer and what its media sections are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Counts the participant's offers from 1; the answer repeats it.
    pub seq: u64,
    /// The session description.
    pub sdp: String,
    /// The sections on which the participant publishes.
    pub publish: Vec<(Kind, String)>,
    /// The sections on which it receives others.
    pub tracks: Vec<OfferedTrack>,
}

/// A media section that carries another participant's track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedTrack {
    /// The section's identifier.
    pub mid: String,
    /// Whose track it is.
    pub publisher: Pid,
    /// What it carries.
    pub kind: Kind,
}

impl From<Kind> for MediaKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Audio => MediaKind::Audio,
            Kind::Video => MediaKind::Video,
        }
    }
}

fn clock_rate(kind: Kind) -> u32 {
    match kind {
        Kind::Audio => 48_000,
        Kind::Video => 90_000,
    }
}

impl Participant {
    /// Whether an offer would say something new and none is out.
    pub fn needs_offer(&self) -> bool {
        if self.pending.is_some() {
            return false;
        }
        self.publish[0].is_none() || self.republishes() || self.lines_differ()
    }

    fn republishes(&self) -> bool {
        self.republish && !self.tracks.iter().all(|on| *on)
    }

    fn wants(&self, publisher: Option<Pid>, kind: Kind) -> bool {
        publisher
            .and_then(|pid| self.wanted.get(&pid))
            .is_some_and(|tracks| tracks[kind.index()])
    }

    fn lines_differ(&self) -> bool {
        let stale = self.slots.iter().any(|slot| {
            Kind::ALL.into_iter().any(|kind| {
                let shown = slot.lines[kind.index()]
                    .as_ref()
                    .is_some_and(|line| line.state != LineState::Idle);
                shown != self.wants(slot.publisher, kind)
            })
        });
        stale
            || self
                .wanted
                .iter()
                .any(|(pid, tracks)| tracks.contains(&true) && !self.slot_of.contains_key(pid))
    }

    /// The next offer, or None when there is nothing to say or an answer is outstanding.
    pub fn offer(&mut self) -> Option<Offer> {
        if !self.needs_offer() {
            return None;
        }
        self.notified = false;
        let retired = self.retire();
        let started = self.start();
        let mut api = self.rtc.sdp_api();
        for mid in retired {
            api.set_direction(mid, Direction::Inactive);
        }
        for mid in started {
            api.set_direction(mid, Direction::SendOnly);
        }
        for kind in Kind::ALL {
            match self.publish[kind.index()] {
                None => {
                    let mid = api.add_media(kind.into(), Direction::RecvOnly, None, None, None);
                    self.publish[kind.index()] = Some(mid);
                }
                Some(mid) if self.republish => api.set_direction(mid, Direction::RecvOnly),
                Some(_) => {}
            }
        }
        self.republish = false;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let wanted = slot
                .publisher
                .and_then(|pid| self.wanted.get(&pid))
                .copied()
                .unwrap_or_default();
            for kind in Kind::ALL {
                if !wanted[kind.index()] || slot.lines[kind.index()].is_some() {
                    continue;
                }
                let mid = api.add_media(
                    kind.into(),
                    Direction::SendOnly,
                    Some(format!("slot{index}")),
                    None,
                    None,
                );
                slot.lines[kind.index()] = Some(Line {
                    mid,
                    state: LineState::Offered,
                    rewriter: Rewriter::new(clock_rate(kind)),
                    paused: false,
                    codec: None,
                });
            }
        }
        let (sdp, pending) = api.apply()?;
        self.pending = Some(pending);
        self.seq += 1;
        Some(Offer {
            seq: self.seq,
            sdp: sdp.to_sdp_string(),
            publish: self.publish_mids(),
            tracks: self.layout(),
        })
    }

    /// Takes sections out of service whose track is gone; their slots are free from the next offer on.
    fn retire(&mut self) -> Vec<Mid> {
        let mut retired = Vec::new();
        for index in 0..self.slots.len() {
            let publisher = self.slots[index].publisher;
            for kind in Kind::ALL {
                let wanted = self.wants(publisher, kind);
                if let Some(line) = self.slots[index].lines[kind.index()].as_mut() {
                    if !wanted && line.state != LineState::Idle {
                        line.state = LineState::Idle;
                        retired.push(line.mid);
                    }
                }
            }
            if let Some(gone) = publisher.filter(|pid| !self.wanted.contains_key(pid)) {
                self.slots[index].publisher = None;
                self.slot_of.remove(&gone);
            }
        }
        retired
    }

    /// Gives every publisher a slot and wakes the idle sections that are wanted.
    fn start(&mut self) -> Vec<Mid> {
        let newcomers: Vec<Pid> = self
            .wanted
            .iter()
            .filter(|(pid, tracks)| tracks.contains(&true) && !self.slot_of.contains_key(pid))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in newcomers {
            let index = self.free_slot();
            self.slots[index].publisher = Some(pid);
            self.slot_of.insert(pid, index);
        }
        let mut started = Vec::new();
        for slot in &mut self.slots {
            let wanted = slot
                .publisher
                .and_then(|pid| self.wanted.get(&pid))
                .copied()
                .unwrap_or_default();
            for kind in Kind::ALL {
                let Some(line) = slot.lines[kind.index()].as_mut() else {
                    continue;
                };
                if wanted[kind.index()] && line.state == LineState::Idle {
                    line.state = LineState::Offered;
                    line.rewriter = Rewriter::new(clock_rate(kind));
                    line.paused = false;
                    started.push(line.mid);
                }
            }
        }
        for mid in &started {
            self.renew_stream(*mid);
        }
        started
    }

    /// A slot that no publisher holds and whose sections the peer knows to be inactive, or a new one.
    fn free_slot(&mut self) -> usize {
        let inactive = |rtc: &str0m::Rtc, line: &Line| {
            rtc.media(line.mid)
                .is_some_and(|media| media.direction() == Direction::Inactive)
        };
        let free = self.slots.iter().position(|slot| {
            slot.publisher.is_none() && slot.lines.iter().flatten().all(|line| inactive(&self.rtc, line))
        });
        free.unwrap_or_else(|| {
            self.slots.push(Default::default());
            self.slots.len() - 1
        })
    }

    fn renew_stream(&mut self, mid: Mid) {
        let mut api = self.rtc.direct_api();
        let Some((old, with_rtx)) = api.stream_tx_by_mid(mid, None).map(|s| (s.ssrc(), s.rtx().is_some())) else {
            return;
        };
        api.remove_stream_tx(old);
        let ssrc = api.new_ssrc();
        let rtx = with_rtx.then(|| api.new_ssrc());
        api.declare_stream_tx(ssrc, rtx, mid, None);
    }

    fn publish_mids(&self) -> Vec<(Kind, String)> {
        Kind::ALL
            .into_iter()
            .filter_map(|kind| Some((kind, self.publish[kind.index()]?.to_string())))
            .collect()
    }

    fn layout(&self) -> Vec<OfferedTrack> {
        let mut tracks = Vec::new();
        for slot in &self.slots {
            let Some(publisher) = slot.publisher else {
                continue;
            };
            for kind in Kind::ALL {
                if let Some(line) = slot.lines[kind.index()]
                    .as_ref()
                    .filter(|line| line.state != LineState::Idle)
                {
                    tracks.push(OfferedTrack {
                        mid: line.mid.to_string(),
                        publisher,
                        kind,
                    });
                }
            }
        }
        tracks
    }

    /// Takes the answer to the offer numbered `seq`.
    ///
    /// # Errors
    /// `Protocol` when it cannot be the answer; the connection's state is then undefined.
    pub fn answer(&mut self, seq: u64, sdp: &str) -> Result<(), SfuError> {
        if seq != self.seq || self.pending.is_none() {
            return Err(SfuError::Protocol(format!("answer {seq} belongs to no open offer")));
        }
        if sdp.len() > MAX_SDP {
            return Err(SfuError::Protocol(format!("the answer has {} bytes", sdp.len())));
        }
        let answer = SdpAnswer::from_sdp_string(sdp)
            .map_err(|error| SfuError::Protocol(format!("the answer cannot be read: {error}")))?;
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        self.rtc
            .sdp_api()
            .accept_answer(pending, answer)
            .map_err(|error| SfuError::Protocol(format!("the answer does not fit: {error}")))?;
        for kind in Kind::ALL {
            let media = self.publish[kind.index()].and_then(|mid| self.rtc.media(mid));
            self.tracks[kind.index()] = media.is_some_and(|media| media.direction().is_receiving());
        }
        for line in self.slots.iter_mut().flat_map(|slot| slot.lines.iter_mut().flatten()) {
            line.codec = None;
            if line.state == LineState::Offered {
                let sending = self
                    .rtc
                    .media(line.mid)
                    .is_some_and(|media| media.direction().is_sending());
                line.state = if sending {
                    LineState::Active
                } else {
                    LineState::Declined
                };
            }
        }
        Ok(())
    }
}
