//! The XMPP engine: listeners, sessions and the route table between them.
//!
//! A few threads share the sessions; each polls its own sockets and never waits. A message that a row of the table
//! decides goes from socket to socket here, stamped and serialised anew; everything else goes up as an event.

mod archive_ids;
mod config;
mod connect;
mod counters;
mod domains;
mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod held;
mod late;
mod listener;
mod managed;
mod parcel;
mod proxy;
mod records;
mod routes;
mod server;
mod session;
mod shard;
mod shared;
mod sorting;
mod traits;
mod transport;
mod unrouted;
mod upgrade;
mod ways;
mod websocket;

pub use archive_ids::ArchiveIds;
pub use config::{Config, ListenerOptions, Mode};
pub use event::Event;
pub use records::Record;
pub use server::{ConnectOptions, ListenError, Server};
pub use traits::{archivable, copied};
