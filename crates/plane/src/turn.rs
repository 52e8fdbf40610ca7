//! The turn engine's sockets and threads.
