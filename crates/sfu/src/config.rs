//! The limits of a machine and the addresses it announces.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::bwe::Bitrate;
use str0m::{Candidate, Rtc};

/// Limits and timers; [`Config::new`] gives defaults for a node with some hundred participants.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses announced as host candidates; the first of a family stands for the socket itself.
    pub candidates: Vec<SocketAddr>,
    /// Participants at the same time.
    pub max_participants: usize,
    /// Publishers that one participant may be subscribed to.
    pub max_subscriptions: usize,
    /// How long a participant may take from being added to being connected.
    pub connect_timeout: Duration,
    /// How long a connection may stay lost before the participant is given up.
    pub lost_timeout: Duration,
    /// The shortest time between two keyframe requests to the same publisher.
    pub keyframe_interval: Duration,
    /// Where bandwidth estimation starts, bit/s.
    pub initial_bitrate: u64,
    /// What one video stream is allowed at the most, bit/s.
    pub max_video_bitrate: u64,
    /// Below this share, bit/s, a subscriber gets fewer streams rather than worse ones.
    pub min_video_bitrate: u64,
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// No candidate address at all.
    NoCandidate,
    /// An address that no peer could send to.
    BadCandidate(SocketAddr),
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCandidate => write!(f, "a media candidate address is needed"),
            Self::BadCandidate(address) => write!(f, "{address} cannot be a media candidate"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Defaults with the given candidate addresses.
    pub fn new(candidates: Vec<SocketAddr>) -> Self {
        Self {
            candidates,
            max_participants: 2000,
            max_subscriptions: 64,
            connect_timeout: Duration::from_secs(30),
            lost_timeout: Duration::from_secs(10),
            keyframe_interval: Duration::from_millis(500),
            initial_bitrate: 1_500_000,
            max_video_bitrate: 2_500_000,
            min_video_bitrate: 200_000,
        }
    }

    /// Checks that every address can be announced.
    ///
    /// # Errors
    /// Names the first address that cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.candidates.is_empty() {
            return Err(ConfigError::NoCandidate);
        }
        for address in &self.candidates {
            if address.port() == 0 || Candidate::host(*address, "udp").is_err() {
                return Err(ConfigError::BadCandidate(*address));
            }
        }
        Ok(())
    }

    /// A connection with this configuration's codecs, in order of preference, and candidates.
    pub(crate) fn connection(&self, now: Instant) -> Rtc {
        let mut builder = Rtc::builder()
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .enable_bwe(Some(Bitrate::bps(self.initial_bitrate)))
            .set_stats_interval(Some(Duration::from_secs(2)))
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true);
        // RFC 7742 section 5 makes VP8 and H.264 constrained baseline the two that every browser has.
        builder
            .codec_config()
            .add_h264(108.into(), Some(109.into()), true, 0x42e01f);
        builder
            .codec_config()
            .add_h264(127.into(), Some(121.into()), true, 0x42001f);
        let mut rtc = builder.build(now);
        for address in &self.candidates {
            if let Ok(candidate) = Candidate::host(*address, "udp") {
                rtc.add_local_candidate(candidate);
            }
        }
        rtc
    }

    /// The candidate that stands for the socket on which a datagram from `source` arrived.
    pub(crate) fn local_for(&self, source: SocketAddr) -> Option<SocketAddr> {
        self.candidates
            .iter()
            .copied()
            .find(|local| local.is_ipv4() == source.is_ipv4())
    }
}
