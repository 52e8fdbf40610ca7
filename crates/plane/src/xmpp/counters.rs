//! What happened since the start, and how much there is now.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    (
        at_once { $($(#[$first_doc:meta])* $first:ident),* $(,)? }
        by_round { $($(#[$doc:meta])* $name:ident),* $(,)? }
    ) => {
        /// The counts of an engine.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$first_doc])* pub $first: AtomicU64,)*
            $($(#[$doc])* pub $name: AtomicU64),*
        }

        impl Counters {
            /// Every count by name.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![
                    $((stringify!($first), self.$first.load(Ordering::Relaxed)),)*
                    $((stringify!($name), self.$name.load(Ordering::Relaxed))),*
                ]
            }
        }

        /// What one round of a thread adds, at its end.
        #[derive(Default)]
        pub struct Tally { $(pub $name: u64),* }

        impl Tally {
            /// Adds everything and begins anew.
            pub fn settle(&mut self, counters: &Counters) {
                $(if self.$name != 0 {
                    counters.$name.fetch_add(std::mem::take(&mut self.$name), Ordering::Relaxed);
                })*
            }
        }
    };
}

counters! {
    at_once {
        /// Connections now.
        sessions,
        /// Connections now that have not signed in.
        unauthenticated,
        /// Connections with other servers now, made from here or from there.
        servers,
        /// Connections now from other servers that are not authenticated.
        unauthenticated_servers,
        /// Sessions that wait for their clients.
        detached,
        /// Messages recorded for archives since the start.
        recorded,
    }
    by_round {
        /// Connections accepted.
        accepted,
        /// Connections turned away: too many, or pushed out by newer ones.
        refused,
        /// Stanzas that came in.
        stanzas,
        /// Messages that a row of the table decided.
        routed,
        /// Deliveries those led to.
        delivered,
        /// Messages that no row decided.
        missed,
        /// Sessions whose clients came back.
        resumed,
        /// Sessions that ended because too much waited for an acknowledgement.
        overflows,
        /// Bytes from sockets.
        bytes_in,
        /// Bytes to sockets.
        bytes_out,
        /// Stream errors sent.
        stream_errors,
        /// TLS handshakes completed.
        handshakes,
        /// TLS handshakes and records that failed.
        tls_failures,
        /// Times a session stopped reading because Python was slow.
        pauses,
        /// Times a session was not read because it sent faster than it may.
        throttled,
        /// Sessions closed because their peer read too slowly.
        slow_readers,
        /// Panics caught.
        panics,
    }
}
