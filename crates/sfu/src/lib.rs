//! Selective forwarding as a machine: datagrams and `now` in, datagrams and events out.
//!
//! Each participant is one WebRTC peer connection (ICE-lite, the server always offers). All of them share one UDP
//! port; [`Sfu::receive`] finds the participant by the ICE username fragment first and by the learnt remote address
//! afterwards. Who receives whom is a table that the owner writes with [`Sfu::subscribe`]; the machine negotiates the
//! media sections that follow from it and moves the packets.
//!
//! The driver's loop: give datagrams to [`Sfu::receive`], call [`Sfu::tick`], take every [`Sfu::next_output`] and
//! [`Sfu::next_event`], then wait until [`Sfu::deadline`] or new input.
#![forbid(unsafe_code)]

mod allocate;
mod config;
mod demux;
mod events;
mod forward;
mod keyframe;
mod machine;
mod negotiate;
mod participant;
mod relay;
mod rewrite;
mod stats;
mod timers;

pub use config::{Config, ConfigError};
pub use events::{Datagram, Event, Reason, SfuError};
pub use machine::Sfu;
pub use negotiate::{Offer, OfferedTrack};
pub use stats::{ParticipantStats, Totals};
pub use str0m::net::DatagramSend as Contents;

/// A participant's number, chosen by the owner and never used again after the participant left.
pub type Pid = u64;

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Opus.
    Audio,
    /// VP8 or H.264.
    Video,
}

impl Kind {
    /// Both kinds, in the order of the media sections.
    pub const ALL: [Kind; 2] = [Kind::Audio, Kind::Video];

    /// Position in tables with one place per kind.
    pub(crate) fn index(self) -> usize {
        match self {
            Kind::Audio => 0,
            Kind::Video => 1,
        }
    }

    /// The name that SDP uses.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
        }
    }
}
