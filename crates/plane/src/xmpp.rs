//! The xmpp engine's sockets and threads.
