//! The plane: sockets, TLS, threads and timers around the protocol crates.
//!
//! Each engine (XMPP, TURN, SFU) owns its listeners and one [`events::EventQueue`]: a bounded queue with an
//! eventfd that Python's event loop watches. Nothing here knows Python.

pub mod events;
pub mod runtime;

#[cfg(feature = "sfu")]
pub mod sfu;
#[cfg(feature = "xmpp")]
pub mod tls;
#[cfg(feature = "turn")]
pub mod turn;
#[cfg(feature = "xmpp")]
pub mod xmpp;
