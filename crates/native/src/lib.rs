//! `moim._native`: what Python sees of the plane. Thin: each function converts, releases the GIL and calls a crate.

use pyo3::prelude::*;

#[cfg(feature = "xmpp")]
mod element;
mod error;
#[cfg(feature = "sfu")]
mod sfu;
#[cfg(feature = "turn")]
mod turn;
#[cfg(feature = "xmpp")]
mod xmpp;

/// What Rust takes and gives back; Python has an allocator of its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    #[cfg(feature = "xmpp")]
    xmpp::register(module)?;
    #[cfg(feature = "turn")]
    turn::register(module)?;
    #[cfg(feature = "sfu")]
    sfu::register(module)?;
    Ok(())
}
