//! The xmpp engine for Python.

use pyo3::prelude::*;

use crate::element::{PyElement, PyXmlStream};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyElement>()?;
    module.add_class::<PyXmlStream>()?;
    Ok(())
}
