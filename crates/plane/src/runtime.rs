//! The threads of the plane: one tokio runtime for the whole process.

use std::sync::OnceLock;
use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The handle of the process's runtime; the first call starts its threads.
///
/// # Panics
/// When the operating system refuses to start a thread.
pub fn handle() -> &'static Handle {
    RUNTIME
        .get_or_init(|| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("moim-plane")
                .enable_all()
                .build()
                .expect("the plane's threads could not be started")
        })
        .handle()
}
