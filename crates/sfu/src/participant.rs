//! One participant: a peer connection, what it publishes, and the media sections on which it receives others.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::bwe::{Bitrate, BweKind};
use str0m::change::SdpPendingOffer;
use str0m::format::PayloadParams;
use str0m::media::{KeyframeRequestKind, Mid, Pt};
use str0m::net::{DatagramSend, Protocol, Receive};
use str0m::rtp::RtpPacket;
use str0m::{Event as RtcEvent, Input, Output, Rtc, RtcError};

use crate::config::Config;
use crate::events::Reason;
use crate::keyframe::KeyframeGate;
use crate::rewrite::Rewriter;
use crate::stats::ParticipantStats;
use crate::{Kind, Pid};

/// Immediate timeouts served in one go; a connection that wants more waits for [`BREATH`].
const ROUNDS: usize = 512;
const BREATH: Duration = Duration::from_millis(1);
/// Bandwidth is shared out and reported to publishers this often.
const REVIEW: Duration = Duration::from_secs(1);

/// What a connection produced and others must see.
#[derive(Default)]
pub(crate) struct Sink {
    pub transmits: Vec<(SocketAddr, DatagramSend)>,
    pub packets: Vec<Packet>,
    /// Subscriber and publisher of keyframe requests.
    pub keyframes: Vec<Pid>,
    pub connected: bool,
}

/// A published packet on its way to the subscribers.
pub(crate) struct Packet {
    pub publisher: Pid,
    pub kind: Kind,
    pub params: PayloadParams,
    pub rtp: RtpPacket,
}

/// A sendonly media section.
pub(crate) struct Line {
    pub mid: Mid,
    pub state: LineState,
    pub rewriter: Rewriter,
    /// Paused for lack of bandwidth.
    pub paused: bool,
    /// The publisher's payload type and ours, as matched last.
    pub codec: Option<(Pt, Option<Pt>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineState {
    /// Negotiated as inactive; may serve another publisher.
    Idle,
    /// Stands in an offer that is not answered yet.
    Offered,
    /// The participant receives it.
    Active,
    /// The participant declined it; it is not offered again while the track lasts.
    Declined,
}

/// The media sections of one publisher: audio and video share a stream identifier, which browsers use to keep lips
/// and voice together.
#[derive(Default)]
pub(crate) struct Slot {
    pub publisher: Option<Pid>,
    pub lines: [Option<Line>; 2],
}

pub(crate) struct Participant {
    pub pid: Pid,
    pub rtc: Rtc,
    pub connected: bool,
    pub publish: [Option<Mid>; 2],
    /// Which kinds the participant publishes, by its last answer.
    pub tracks: [bool; 2],
    /// The participant wants to publish what it declined before.
    pub republish: bool,
    /// Subscribed publishers and which of their tracks exist.
    pub wanted: BTreeMap<Pid, [bool; 2]>,
    pub watchers: Vec<Pid>,
    pub slots: Vec<Slot>,
    pub slot_of: HashMap<Pid, usize>,
    pub seq: u64,
    pub pending: Option<SdpPendingOffer>,
    /// The owner was told that an offer is due.
    pub notified: bool,
    pub gate: KeyframeGate,
    pub stats: ParticipantStats,
    pub estimate: Option<u64>,
    /// Share of each forwarded video stream, bit/s.
    pub video_rate: Option<u64>,
    /// Reviews in a row that found too little bandwidth for what is forwarded.
    pub scarce: u32,
    desired: u64,
    deadline: Instant,
    review_at: Instant,
    give_up: Option<(Instant, Reason)>,
}

impl Participant {
    pub fn new(pid: Pid, config: &Config, now: Instant) -> Self {
        Self {
            pid,
            rtc: config.connection(now),
            connected: false,
            publish: [None; 2],
            tracks: [false; 2],
            republish: false,
            wanted: BTreeMap::new(),
            watchers: Vec::new(),
            slots: Vec::new(),
            slot_of: HashMap::new(),
            seq: 0,
            pending: None,
            notified: false,
            gate: KeyframeGate::default(),
            stats: ParticipantStats::default(),
            estimate: None,
            video_rate: None,
            scarce: 0,
            desired: 0,
            deadline: now,
            review_at: now + REVIEW,
            give_up: Some((now + config.connect_timeout, Reason::NeverConnected)),
        }
    }

    pub fn ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// When [`Participant::tick`] wants to run.
    pub fn deadline(&self, config: &Config) -> Instant {
        let gate = self.gate.deadline(config.keyframe_interval);
        let give_up = self.give_up.as_ref().map(|(at, _)| *at);
        [gate, give_up]
            .into_iter()
            .flatten()
            .fold(self.deadline.min(self.review_at), Instant::min)
    }

    /// Whether the datagram belongs here; for STUN that includes its integrity.
    pub fn accepts(&self, data: &[u8], source: SocketAddr, destination: SocketAddr, now: Instant) -> bool {
        receive(data, source, destination).is_some_and(|r| self.rtc.accepts(&Input::Receive(now, r)))
    }

    /// False when the datagram could not be read.
    pub fn datagram(
        &mut self,
        data: &[u8],
        (source, destination): (SocketAddr, SocketAddr),
        (now, config): (Instant, &Config),
        sink: &mut Sink,
    ) -> Result<bool, Reason> {
        let Some(input) = receive(data, source, destination) else {
            return Ok(false);
        };
        self.rtc
            .handle_input(Input::Receive(now, input))
            .map_err(|error| self.reason(&error))?;
        self.drain(now, config, sink)?;
        Ok(true)
    }

    /// Runs whatever is due.
    pub fn tick(&mut self, now: Instant, config: &Config, sink: &mut Sink) -> Result<(), Reason> {
        if let Some((_, reason)) = self.give_up.take_if(|(at, _)| now >= *at) {
            return Err(reason);
        }
        if self.gate.take(now, config.keyframe_interval) {
            self.request_keyframe();
        }
        for _ in 0..ROUNDS {
            self.rtc
                .handle_input(Input::Timeout(now))
                .map_err(|error| self.reason(&error))?;
            self.drain(now, config, sink)?;
            if self.deadline > now {
                return Ok(());
            }
        }
        self.deadline = now + BREATH;
        Ok(())
    }

    /// True once per review interval.
    pub fn review_due(&mut self, now: Instant) -> bool {
        let due = now >= self.review_at;
        if due {
            self.review_at = now + REVIEW;
        }
        due
    }

    /// Takes everything the connection has to say.
    pub fn drain(&mut self, now: Instant, config: &Config, sink: &mut Sink) -> Result<(), Reason> {
        loop {
            match self.rtc.poll_output().map_err(|error| self.reason(&error))? {
                Output::Timeout(deadline) => {
                    self.deadline = deadline.max(now);
                    return Ok(());
                }
                Output::Transmit(transmit) => sink.transmits.push((transmit.destination, transmit.contents)),
                Output::Event(event) => self.event(event, now, config, sink)?,
            }
        }
    }

    fn event(&mut self, event: RtcEvent, now: Instant, config: &Config, sink: &mut Sink) -> Result<(), Reason> {
        match event {
            RtcEvent::RtpPacket(rtp) => self.published(rtp, sink),
            RtcEvent::KeyframeRequest(request) => sink.keyframes.extend(self.publisher_of(request.mid)),
            RtcEvent::Connected => {
                self.connected = true;
                self.stats.connected = true;
                self.give_up = None;
                sink.connected = true;
                sink.keyframes.extend(self.slot_of.keys());
            }
            RtcEvent::IceConnectionStateChange(state) if self.connected => {
                if state.is_connected() {
                    self.give_up = None;
                } else if self.give_up.is_none() {
                    self.give_up = Some((now + config.lost_timeout, Reason::Lost));
                }
            }
            RtcEvent::Closed => return Err(Reason::Closed),
            RtcEvent::EgressBitrateEstimate(BweKind::Twcc { estimate, .. }) => {
                self.estimate = Some(estimate.as_u64());
                self.stats.estimate = self.estimate;
            }
            RtcEvent::PeerStats(stats) => self.stats.peer(&stats),
            RtcEvent::MediaIngressStats(stats) => {
                if let Some(kind) = self.published_kind(stats.mid) {
                    self.stats.ingress(kind.index(), &stats);
                }
            }
            RtcEvent::MediaEgressStats(stats) => self.stats.egress(&stats),
            _ => {}
        }
        Ok(())
    }

    fn reason(&self, error: &RtcError) -> Reason {
        let text = error.to_string();
        // str0m tells the end of the handshake's patience only in words; which of the two timers is the shorter is
        // chance.
        if !self.connected && matches!(error, RtcError::Dtls(_)) && text.contains("timeout") {
            return Reason::NeverConnected;
        }
        Reason::Protocol(text)
    }

    fn published(&mut self, rtp: RtpPacket, sink: &mut Sink) {
        let mid = rtp.header.ext_vals.mid.or_else(|| self.mid_of(&rtp));
        let Some(kind) = mid.and_then(|mid| self.published_kind(mid)) else {
            return;
        };
        self.stats.packets_received += 1;
        let pt = rtp.header.payload_type;
        let Some(params) = self.rtc.codec_config().find(|params| params.pt() == pt).copied() else {
            self.stats.packets_dropped += 1;
            return;
        };
        sink.packets.push(Packet {
            publisher: self.pid,
            kind,
            params,
            rtp,
        });
    }

    fn mid_of(&mut self, rtp: &RtpPacket) -> Option<Mid> {
        self.rtc
            .direct_api()
            .stream_rx(&rtp.header.ssrc)
            .map(|stream| stream.mid())
    }

    pub fn published_kind(&self, mid: Mid) -> Option<Kind> {
        Kind::ALL
            .into_iter()
            .find(|kind| self.publish[kind.index()] == Some(mid))
    }

    fn publisher_of(&self, mid: Mid) -> Option<Pid> {
        let has = |slot: &&Slot| slot.lines.iter().flatten().any(|line| line.mid == mid);
        self.slots.iter().find(has).and_then(|slot| slot.publisher)
    }

    fn request_keyframe(&mut self) {
        let Some(mid) = self.publish[Kind::Video.index()] else {
            return;
        };
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
            self.stats.keyframe_requests += 1;
        }
    }

    /// Tells the estimator how much the subscriber could use, bit/s.
    pub fn set_desired(&mut self, desired: u64) {
        if self.desired != desired {
            self.desired = desired;
            self.rtc.bwe().set_bitrate(Bitrate::ZERO, Bitrate::bps(desired));
        }
    }

    /// Estimates anew, from `initial` bit/s.
    ///
    /// What was learnt while only audio flowed says little: probes are lost on peers that take no padding without a
    /// retransmission stream, and the estimate sinks with them.
    pub fn restart_estimate(&mut self, initial: u64) {
        self.rtc.bwe().reset(Bitrate::bps(initial));
        self.estimate = None;
    }

    /// Asks the publisher to send no more video than this, bit/s.
    pub fn limit_video(&mut self, rate: u64) {
        let Some(mid) = self.publish[Kind::Video.index()] else {
            return;
        };
        if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
            stream.request_remb(Bitrate::bps(rate));
        }
    }

    /// Says goodbye to the peer, as far as one flight goes.
    pub fn close(&mut self, now: Instant, config: &Config, sink: &mut Sink) {
        if self.rtc.close().is_ok() {
            // An error changes nothing any more: the connection is dropped either way.
            let _ = self.drain(now, config, sink);
        }
    }
}

fn receive(data: &[u8], source: SocketAddr, destination: SocketAddr) -> Option<Receive<'_>> {
    let contents = data.try_into().ok()?;
    Some(Receive {
        proto: Protocol::Udp,
        source,
        destination,
        contents,
    })
}
