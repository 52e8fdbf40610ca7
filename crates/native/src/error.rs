//! Rust errors as exceptions of `moim.errors`: one place decides who is at fault.

use pyo3::prelude::*;
use pyo3::types::PyType;

/// Which class of `moim.errors` an error becomes.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code)]
pub enum Fault {
    /// The caller's arguments: `UsageError`.
    Usage,
    /// The peer's bytes: `ProtocolError`.
    Peer,
    /// A descriptor, port or other resource of this machine: `Unavailable`.
    Resource,
}

/// Makes the exception; falls back to `RuntimeError` only if `moim.errors` cannot be imported.
pub fn raise(fault: Fault, message: impl std::fmt::Display) -> PyErr {
    let class = match fault {
        Fault::Usage => "UsageError",
        Fault::Peer => "ProtocolError",
        Fault::Resource => "Unavailable",
    };
    let text = message.to_string();
    Python::attach(|py| {
        let found = py
            .import("moim.errors")
            .and_then(|module| module.getattr(class))
            .and_then(|found| Ok(found.cast_into::<PyType>()?));
        match found {
            Ok(found) => PyErr::from_type(found, text),
            Err(_) => pyo3::exceptions::PyRuntimeError::new_err(text),
        }
    })
}
