//! The plane: sockets, TLS, threads and timers around the protocol crates.
//!
//! Each engine (XMPP, TURN, SFU) owns its listeners, its threads and one [`events::EventQueue`], a queue with an
//! eventfd that Python's event loop watches; the engine bounds what waits in it. Nothing here knows Python.

pub mod events;

#[cfg(feature = "xmpp")]
mod promptness;
#[cfg(feature = "sfu")]
pub mod sfu;
#[cfg(feature = "xmpp")]
pub mod tls;
#[cfg(feature = "turn")]
pub mod turn;
#[cfg(feature = "xmpp")]
pub mod xmpp;
