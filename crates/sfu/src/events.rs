//! What comes out of the machine: datagrams, news, refusals.

use std::net::SocketAddr;

use str0m::net::DatagramSend;

use crate::{Kind, Pid};

/// A datagram to send.
pub struct Datagram {
    /// Where it goes.
    pub destination: SocketAddr,
    /// What it holds.
    pub contents: DatagramSend,
}

/// News for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// [`Sfu::offer`] has something for this participant.
    Negotiate(Pid),
    /// ICE and DTLS are up.
    Connected(Pid),
    /// The participant was given up and is removed.
    Disconnected(Pid, Reason),
    /// The participant began or ceased to publish.
    Track(Pid, Kind, bool),
}

/// Why a participant was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No connectivity check or no handshake succeeded in time.
    NeverConnected,
    /// The peer's checks ceased.
    Lost,
    /// The peer closed the connection.
    Closed,
    /// The peer broke DTLS or RTP.
    Protocol(String),
    /// A fault in this program.
    Fault,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeverConnected => write!(f, "never-connected"),
            Self::Lost => write!(f, "lost"),
            Self::Closed => write!(f, "closed"),
            Self::Protocol(detail) => write!(f, "protocol: {detail}"),
            Self::Fault => write!(f, "fault"),
        }
    }
}

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SfuError {
    /// The caller named a participant that is not there, or is there already.
    Usage(String),
    /// The peer's session description cannot be used.
    Protocol(String),
    /// A bound was reached.
    Limit(String),
}

impl std::fmt::Display for SfuError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text) | Self::Protocol(text) | Self::Limit(text) => write!(f, "{text}"),
        }
    }
}

impl std::error::Error for SfuError {}
