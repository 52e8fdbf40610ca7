//! `Element` and `XmlStream` for Python: thin handles on the shared tree and the framer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use moim_wire::xml::{self, ns, Attr, Form, Framer, Limits, Node, Str, XmlError, XmlEvent};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyString, PyTuple};

use crate::error::{raise, Fault};

const MAX_STANZA: u32 = 262_144;

/// An immutable XML element.
#[pyclass(name = "Element", module = "moim._native", frozen)]
pub struct PyElement(pub Arc<xml::Element>);

/// A framer without I/O: for clients, tests and server-to-server streams.
#[pyclass(name = "XmlStream", module = "moim._native")]
pub struct PyXmlStream(Framer);

/// The exception for bytes that cannot be accepted; `condition` names the stream error.
pub fn protocol_error(py: Python<'_>, error: XmlError) -> PyErr {
    let exception = raise(Fault::Peer, error.text);
    // An exception that takes no attributes still carries the sentence.
    let _ = exception.value(py).setattr("condition", error.condition.name());
    exception
}

/// Attributes from a mapping of strings.
pub fn attrs_from(mapping: &Bound<'_, PyMapping>) -> PyResult<Vec<Attr>> {
    let mut attrs = Vec::with_capacity(mapping.len()?);
    for item in mapping.items()?.iter() {
        let (key, value): (Bound<'_, PyString>, Bound<'_, PyString>) = item.extract()?;
        attrs.push(Attr {
            key: Str::name(utf8(&key)?),
            value: Str::value(utf8(&value)?),
        });
    }
    Ok(attrs)
}

/// A fresh dict of attributes.
pub fn attrs_to<'py>(py: Python<'py>, attrs: &[Attr]) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for attr in attrs {
        dict.set_item(attr.key.as_str(), attr.value.as_str())?;
    }
    Ok(dict)
}

fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    text.to_str().map_err(|_| {
        raise(
            Fault::Usage,
            "the text has a lone surrogate, which no encoding can carry",
        )
    })
}

fn children_from(children: &Bound<'_, PyAny>) -> PyResult<Vec<Node>> {
    if children.is_instance_of::<PyString>() {
        return Err(raise(
            Fault::Usage,
            "children must be a sequence of Element and str, not one str",
        ));
    }
    let mut nodes = Vec::with_capacity(children.len().unwrap_or(0));
    for child in children.try_iter()? {
        let child = child?;
        if let Ok(element) = child.cast::<PyElement>() {
            nodes.push(Node::Element(element.get().0.clone()));
        } else if let Ok(text) = child.cast::<PyString>() {
            nodes.push(Node::Text(Str::value(utf8(text)?)));
        } else {
            return Err(raise(Fault::Usage, "a child must be an Element or a str"));
        }
    }
    Ok(nodes)
}

fn node_to<'py>(py: Python<'py>, node: &Node) -> PyResult<Bound<'py, PyAny>> {
    Ok(match node {
        Node::Element(child) => Bound::new(py, PyElement(child.clone()))?.into_any(),
        Node::Text(text) => PyString::new(py, text).into_any(),
    })
}

fn usage(message: String) -> PyErr {
    raise(Fault::Usage, message)
}

#[pymethods]
impl PyElement {
    #[new]
    #[pyo3(signature = (name, ns, attrs=None, children=None))]
    fn new(
        name: &Bound<'_, PyString>,
        ns: &Bound<'_, PyString>,
        attrs: Option<&Bound<'_, PyMapping>>,
        children: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let attrs = attrs.map_or_else(|| Ok(Vec::new()), attrs_from)?;
        let children = children.map_or_else(|| Ok(Vec::new()), children_from)?;
        let (name, ns) = (Str::name(utf8(name)?), Str::name(utf8(ns)?));
        Ok(Self(Arc::new(
            xml::Element::checked(name, ns, attrs, children).map_err(usage)?,
        )))
    }

    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        string(py, self.0.name())
    }

    #[getter]
    fn ns<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        string(py, self.0.ns())
    }

    #[getter]
    fn attrs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        attrs_to(py, self.0.attrs())
    }

    #[pyo3(signature = (attr, default=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        attr: &str,
        default: Option<Bound<'py, PyString>>,
    ) -> Option<Bound<'py, PyString>> {
        self.0.attr(attr).map(|value| PyString::new(py, value)).or(default)
    }

    #[getter]
    fn text(&self) -> String {
        self.0.text()
    }

    #[getter]
    fn children<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let nodes = self
            .0
            .children()
            .iter()
            .map(|node| node_to(py, node))
            .collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, nodes)
    }

    fn elements(&self) -> Vec<Self> {
        self.0.elements().map(|child| Self(child.clone())).collect()
    }

    #[pyo3(signature = (name, ns=None))]
    fn find(&self, name: &str, ns: Option<&str>) -> Option<Self> {
        let ns = ns.unwrap_or(self.0.ns());
        self.0
            .elements()
            .find(|child| child.is(name, ns))
            .map(|child| Self(child.clone()))
    }

    fn with_attrs(&self, attrs: &Bound<'_, PyMapping>) -> PyResult<Self> {
        let mut changes = Vec::with_capacity(attrs.len()?);
        for item in attrs.items()?.iter() {
            let (key, value): (Bound<'_, PyString>, Option<Bound<'_, PyString>>) = item.extract()?;
            let value = value.as_ref().map(utf8).transpose()?.map(Str::value);
            changes.push((Str::name(utf8(&key)?), value));
        }
        Ok(Self(Arc::new(self.0.with_attrs(changes).map_err(usage)?)))
    }

    fn with_children(&self, children: &Bound<'_, PyAny>) -> PyResult<Self> {
        let children = children_from(children)?;
        let copy = xml::Element::checked(
            self.0.name().clone(),
            self.0.ns().clone(),
            self.0.attrs().to_vec(),
            children,
        );
        Ok(Self(Arc::new(copy.map_err(usage)?)))
    }

    #[pyo3(signature = (default_ns="jabber:client"))]
    fn to_xml(&self, default_ns: &str) -> String {
        let mut out = Vec::with_capacity(128);
        xml::serialise(
            &mut out,
            &self.0,
            Form {
                default_ns,
                stream_prefix: false,
                server: false,
            },
        );
        String::from_utf8_lossy(&out).into_owned()
    }

    #[staticmethod]
    fn parse(py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let bytes = if let Ok(bytes) = data.cast::<PyBytes>() {
            bytes.as_bytes()
        } else if let Ok(text) = data.cast::<PyString>() {
            utf8(text)?.as_bytes()
        } else {
            return Err(raise(Fault::Usage, "give the document as bytes or str"));
        };
        let element = parse_document(bytes).map_err(|error| protocol_error(py, error))?;
        Ok(Self(Arc::new(element)))
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<PyElement>().is_ok_and(|other| self.0 == other.get().0)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        if self.0.ns() == ns::SASL || self.0.ns() == ns::SASL2 {
            // Credentials: a log line is no place for them.
            return format!("<Element <{} xmlns='{}'>…>", self.0.name(), self.0.ns());
        }
        let whole = self.to_xml("");
        let cut = whole.char_indices().nth(200).map_or(whole.len(), |(index, _)| index);
        let more = if cut < whole.len() { "…" } else { "" };
        format!("<Element {}{more}>", &whole[..cut])
    }
}

fn string<'py>(py: Python<'py>, text: &Str) -> Bound<'py, PyString> {
    match text {
        // Well-known names recur without end: one Python string each.
        Str::Static(known) => PyString::intern(py, known),
        Str::Shared(text) => PyString::new(py, text),
    }
}

fn parse_document(bytes: &[u8]) -> Result<xml::Element, XmlError> {
    let mut framer = Framer::document(Limits::bytes(MAX_STANZA));
    let mut rest = bytes;
    let mut found = None;
    while let Some(event) = framer.next(&mut rest)? {
        if let XmlEvent::Element(element, _) = event {
            found = Some(element);
        }
    }
    framer.end_document()?;
    found.ok_or(XmlError {
        condition: xml::Condition::NotWellFormed,
        text: "the document has no element",
    })
}

#[pymethods]
impl PyXmlStream {
    #[new]
    #[pyo3(signature = (max_stanza=262_144))]
    fn new(max_stanza: u32) -> Self {
        Self(Framer::stream(Limits::bytes(max_stanza)))
    }

    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let mut rest = data;
        let mut events = Vec::new();
        while let Some(event) = self.0.next(&mut rest).map_err(|error| protocol_error(py, error))? {
            events.push(match event {
                XmlEvent::Open(header) => {
                    let attrs = attrs_to(py, &header.attrs)?;
                    attrs.set_item("xmlns", header.default_ns.as_str())?;
                    ("open", attrs).into_pyobject(py)?
                }
                XmlEvent::Element(element, _) => {
                    ("element", Bound::new(py, PyElement(Arc::new(element)))?).into_pyobject(py)?
                }
                XmlEvent::Close => ("close",).into_pyobject(py)?,
            });
        }
        Ok(events)
    }
}
