//! Counters per participant and for the whole machine.

use std::net::SocketAddr;
use std::time::Duration;

use str0m::stats::{MediaEgressStats, MediaIngressStats, PeerStats};

/// What is known of one participant's connection. Counters only rise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParticipantStats {
    /// ICE and DTLS are up.
    pub connected: bool,
    /// Where the participant's packets come from.
    pub remote: Option<SocketAddr>,
    /// Round trip, from RTCP or ICE.
    pub round_trip: Option<Duration>,
    /// Bytes received from and sent to the participant.
    pub bytes_received: u64,
    /// See `bytes_received`.
    pub bytes_sent: u64,
    /// RTP packets the participant published.
    pub packets_received: u64,
    /// RTP packets forwarded to the participant.
    pub packets_forwarded: u64,
    /// RTP packets not forwarded: no common codec, paused, or out of date.
    pub packets_dropped: u64,
    /// Fraction lost on the way from the participant, 0 to 1.
    pub loss_in: Option<f32>,
    /// Fraction lost on the way to the participant, 0 to 1.
    pub loss_out: Option<f32>,
    /// Interarrival jitter of the published audio and video, RTP timestamp units, by kind.
    pub jitter: [u32; 2],
    /// Keyframe requests sent to the participant.
    pub keyframe_requests: u64,
    /// Estimated bandwidth towards the participant, bit/s.
    pub estimate: Option<u64>,
    /// Publishers the participant is subscribed to.
    pub subscriptions: usize,
    /// Video streams paused for lack of bandwidth.
    pub paused: usize,
}

impl ParticipantStats {
    pub(crate) fn peer(&mut self, stats: &PeerStats) {
        self.bytes_received = stats.peer_bytes_rx;
        self.bytes_sent = stats.peer_bytes_tx;
        self.loss_in = stats.ingress_loss_fraction;
        self.loss_out = stats.egress_loss_fraction;
        let pair = stats.selected_candidate_pair.as_ref();
        self.remote = pair.map(|pair| pair.remote.addr).or(self.remote);
        self.round_trip = stats
            .rtt
            .or(pair.and_then(|pair| pair.current_round_trip_time))
            .or(self.round_trip);
    }

    pub(crate) fn ingress(&mut self, kind: usize, stats: &MediaIngressStats) {
        self.jitter[kind] = stats.jitter;
    }

    pub(crate) fn egress(&mut self, stats: &MediaEgressStats) {
        self.round_trip = stats.rtt.or(self.round_trip);
    }
}

/// Counters of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Participants now.
    pub participants: usize,
    /// Datagrams that belonged to a participant.
    pub received: u64,
    /// Datagrams that belonged to nobody, or could not be read.
    pub unknown: u64,
    /// Datagrams to send.
    pub sent: u64,
    /// RTP packets forwarded, counted once per subscriber.
    pub forwarded: u64,
    /// Connections given up because of an internal fault.
    pub faults: u64,
}
