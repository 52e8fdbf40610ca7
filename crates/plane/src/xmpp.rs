//! The XMPP engine: listeners, sessions and the route table between them.
//!
//! A few threads share the sessions; each polls its own sockets and never waits. A message that a row of the table
//! decides goes from socket to socket here, stamped and serialised anew; everything else goes up as an event.

mod config;
mod connect;
mod domains;
mod event;
mod listener;
mod proxy;
mod routes;
mod server;
mod session;
mod shard;
mod shared;
mod transport;
mod upgrade;
mod websocket;

pub use config::{Config, ListenerOptions, Mode};
pub use event::Event;
pub use server::{ConnectOptions, ListenError, Server};
