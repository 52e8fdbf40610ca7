//! The bounds of an engine, and what a listener is told.

use std::time::Duration;

use super::archive_ids::ArchiveIds;

/// Bounds and times; sizes in bytes.
#[derive(Clone, Debug)]
pub struct Config {
    pub max_stanza: u32,
    pub max_stanza_unauthenticated: u32,
    /// From accepting a connection to its authentication.
    pub handshake_timeout: Duration,
    /// How long a closed stream may take to say goodbye.
    pub linger: Duration,
    /// What may wait for a slow reader.
    pub write_queue: usize,
    /// How long a reader may take nothing while something waits.
    pub write_timeout: Duration,
    /// How long a client may send nothing; zero is for ever.
    pub idle_timeout: Duration,
    /// Events of one session that may wait for Python before its socket is not read any more.
    pub pending_events: u32,
    /// Bytes per second that one client may send in the long run; 0 is any number.
    pub rate: u32,
    /// Bytes that it may send at once before the rate holds.
    pub burst: u32,
    pub max_sessions: u64,
    pub max_unauthenticated: u64,
    /// What may wait for another server that reads slowly.
    pub server_write_queue: usize,
    /// Servers that have connected here and are not authenticated.
    pub max_unauthenticated_servers: u64,
    /// Stanzas and bytes that may wait for one client's acknowledgement.
    pub unacked_stanzas: usize,
    pub unacked_bytes: usize,
    /// How long a client that can resume may leave a request for one unanswered; zero is for ever.
    pub ack_timeout: Duration,
    /// This node's number in those of archived messages.
    pub node: u16,
    /// What archives call them: alike on all nodes that share a database.
    pub archive_ids: ArchiveIds,
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_stanza: 262_144,
            max_stanza_unauthenticated: 10_240,
            handshake_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(3),
            write_queue: 4 << 20,
            write_timeout: Duration::from_secs(60),
            idle_timeout: Duration::ZERO,
            pending_events: 64,
            rate: 0,
            burst: 1 << 20,
            max_sessions: 200_000,
            max_unauthenticated: 4096,
            server_write_queue: 32 << 20,
            max_unauthenticated_servers: 1024,
            unacked_stanzas: 2000,
            unacked_bytes: 2 << 20,
            ack_timeout: Duration::from_secs(90),
            node: 0,
            archive_ids: ArchiveIds::default(),
            threads: 0,
        }
    }
}

/// How a listener's connections begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XML at once, TLS when the client asks for it.
    StartTls,
    /// TLS at once (XEP-0368).
    Tls,
    /// HTTP upgrade to WebSocket (RFC 7395).
    WebSocket,
    /// The same under TLS.
    WebSocketTls,
    /// Another server: XML at once, TLS when it asks for it.
    Server,
    /// Another server, TLS at once (XEP-0368).
    ServerTls,
}

impl Mode {
    /// Whether TLS begins with the first byte.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::WebSocketTls | Self::ServerTls)
    }

    /// Whether other servers connect.
    pub fn is_server(self) -> bool {
        matches!(self, Self::Server | Self::ServerTls)
    }

    /// Whether streams are framed by WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::WebSocketTls)
    }
}

/// What a listener accepts.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    pub mode: Mode,
    /// Whether every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Web origins that may connect; `*` is any; none is the request's own host only.
    pub origins: Vec<String>,
    /// The WebSocket resource.
    pub path: String,
}
