//! The sfu engine's sockets and threads.
