//! What the fuzz targets and the tests of whole rounds reach: the parsers of what comes before XMPP, the counters of stream
//! management, and an engine whose threads are turned by hand, so that the same input does the same each time.

use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use mio::Events;

pub use super::held::Held;
pub use super::managed::{Handled, Managed};
pub use super::parcel::Parcel;
pub use super::proxy::{parse as proxy_header, Proxied};
pub use super::traits::{is_forged, Traits};
pub use super::upgrade::{judge as upgrade_request, Answer};
pub use super::websocket::{Decoder, Piece};

use super::config::{Config, ListenerOptions};
use super::server::Server;
use super::shard::Shard;
use super::shared::{Accepted, Command, Shared};
use super::transport::Stream;

/// An engine without threads.
pub struct ByHand {
    pub server: Server,
    shared: Arc<Shared>,
    pub(super) shards: Vec<Shard>,
    events: Events,
}

impl ByHand {
    /// An engine with so many threads that there are not.
    ///
    /// # Panics
    /// When the kernel refuses a descriptor.
    pub fn new(domain: &str, config: Config) -> Self {
        let (server, shards) = Server::assemble(domain, &[], config).expect("descriptors");
        Self {
            shared: server.shared().clone(),
            server,
            shards,
            events: Events::with_capacity(64),
        }
    }

    /// A connection that a listener with these options has accepted: its number, and the peer's end.
    ///
    /// # Panics
    /// When the kernel refuses a descriptor.
    pub fn connect(&mut self, options: ListenerOptions) -> (u64, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("descriptors");
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).expect("a socket");
        }
        let sid = self.shared.new_sid(options.mode.is_server());
        let accepted = Accepted {
            sid,
            stream: Stream::Unix(mio::net::UnixStream::from_std(ours)),
            peer: None,
            listener: 1,
            options: Arc::new(options),
        };
        self.shared.inboxes[self.shared.owner(sid)].extend([Command::Adopt(Box::new(accepted))]);
        (sid, theirs)
    }

    /// Lets every thread do what there is to do, a few rounds of it.
    pub fn turn(&mut self) {
        for _ in 0..3 {
            self.round();
        }
    }

    /// Lets every thread do one round.
    pub fn round(&mut self) {
        for shard in &mut self.shards {
            shard.turn(&mut self.events, Some(Duration::ZERO));
        }
    }

    /// Bytes for which events, records and deliveries that wait are taken.
    pub fn waiting(&self) -> usize {
        self.shared.gauge.bytes()
    }

    /// One of the counters and gauges of [`Server::stats`].
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn count(&self, name: &str) -> u64 {
        let stats = self.server.stats();
        stats.iter().find(|(known, _)| *known == name).expect("a counter").1
    }

    /// Bindings of channels that are kept for sessions.
    pub fn exporters(&self) -> usize {
        self.shared.exporters.lock().expect("no panic").len()
    }

    /// Connections now.
    pub fn sessions(&self) -> u64 {
        self.shared.counters.sessions.load(Ordering::Relaxed)
    }
}
