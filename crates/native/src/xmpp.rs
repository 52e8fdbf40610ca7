//! The XMPP engine for Python: arguments become commands, events become tuples.

use std::sync::Arc;
use std::time::Duration;

use std::net::IpAddr;

use moim_plane::xmpp::{ArchiveIds, Config, ConnectOptions, Event, ListenError, ListenerOptions, Mode, Server};
use moim_wire::xml::{ns, Attr, Element, Str};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyMapping, PyTuple};

use crate::element::{attrs_from, attrs_to, PyElement, PyXmlStream};
use crate::error::{raise, Fault};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyElement>()?;
    module.add_class::<PyXmlStream>()?;
    module.add_class::<XmppServer>()?;
    module.add_class::<PyArchiveIds>()?;
    module.add_function(wrap_pyfunction!(archivable, module)?)?;
    module.add_function(wrap_pyfunction!(copied, module)?)?;
    Ok(())
}

/// Whether a message belongs into archives.
#[pyfunction]
fn archivable(message: &Bound<'_, PyElement>) -> bool {
    moim_plane::xmpp::archivable(&message.get().0)
}

/// Whether carbon copies of a message are made.
#[pyfunction]
fn copied(message: &Bound<'_, PyElement>) -> bool {
    moim_plane::xmpp::copied(&message.get().0)
}

/// What archives call their messages.
#[pyclass(module = "moim._native", name = "ArchiveIds", frozen)]
pub struct PyArchiveIds(ArchiveIds);

#[pymethods]
impl PyArchiveIds {
    #[new]
    fn new(key: &[u8]) -> PyResult<Self> {
        let key = key.try_into();
        let key = key.map_err(|_| raise(Fault::Usage, "the key of archive ids has 16 bytes"))?;
        Ok(Self(ArchiveIds::new(key)))
    }

    fn write(&self, owner: &str, number: u64) -> String {
        self.0.write(owner, number)
    }

    fn read(&self, owner: &str, text: &str) -> Option<u64> {
        self.0.read(owner, text)
    }
}

/// Listeners, sessions and routes.
#[pyclass(module = "moim._native", frozen)]
pub struct XmppServer(Server);

/// The longest time that is understood: a hundred years, so that adding one to a clock never fails.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

fn seconds(value: f64, name: &str) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| raise(Fault::Usage, format!("{name} must be a number of seconds, not {value}")))
}

fn ip(address: &str) -> PyResult<IpAddr> {
    address
        .parse()
        .map_err(|_| raise(Fault::Usage, format!("{address:?} is not an IP address")))
}

fn domain(text: &str) -> PyResult<()> {
    if text.is_empty() || text.contains(['@', '/']) {
        return Err(raise(Fault::Usage, format!("{text:?} is not a domain")));
    }
    Ok(())
}

/// A stream header with these attributes.
fn opening(attrs: &Bound<'_, PyMapping>) -> PyResult<Arc<Element>> {
    let mut attrs = attrs_from(attrs)?;
    attrs.retain(|attr| attr.key != "xmlns");
    Element::checked(Str::Static("open"), Str::Static(ns::FRAMING), attrs, Vec::new())
        .map(Arc::new)
        .map_err(|message| raise(Fault::Usage, message))
}

#[pymethods]
impl XmppServer {
    #[new]
    #[pyo3(signature = (
        domain, *, domains=Vec::new(), max_stanza=262_144, max_stanza_unauthenticated=10_240, handshake_timeout=30.0,
        linger=3.0, write_queue=4_194_304, write_timeout=60.0, idle_timeout=0.0, pending_events=64, rate=0, burst=1_048_576,
        max_sessions=200_000, max_unauthenticated=4096, server_write_queue=33_554_432,
        max_unauthenticated_servers=1024, unacked_stanzas=2000, unacked_bytes=2_097_152, ack_timeout=90.0, node=0,
        archive_ids=None, threads=0,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        domain: &str,
        domains: Vec<String>,
        max_stanza: u32,
        max_stanza_unauthenticated: u32,
        handshake_timeout: f64,
        linger: f64,
        write_queue: usize,
        write_timeout: f64,
        idle_timeout: f64,
        pending_events: u32,
        rate: u32,
        burst: u32,
        max_sessions: u64,
        max_unauthenticated: u64,
        server_write_queue: usize,
        max_unauthenticated_servers: u64,
        unacked_stanzas: usize,
        unacked_bytes: usize,
        ack_timeout: f64,
        node: u16,
        archive_ids: Option<&Bound<'_, PyArchiveIds>>,
        threads: usize,
    ) -> PyResult<Self> {
        if domain.is_empty() || max_stanza < 1024 || max_stanza_unauthenticated < 1024 || pending_events < 2 {
            let message = "give a domain, stanza sizes of at least 1024 bytes, and at least 2 pending events";
            return Err(raise(Fault::Usage, message));
        }
        if node > 511 {
            return Err(raise(Fault::Usage, "a node's number is from 0 to 511"));
        }
        let config = Config {
            max_stanza,
            max_stanza_unauthenticated,
            handshake_timeout: seconds(handshake_timeout, "handshake_timeout")?,
            linger: seconds(linger, "linger")?,
            write_queue,
            write_timeout: seconds(write_timeout, "write_timeout")?,
            idle_timeout: seconds(idle_timeout, "idle_timeout")?,
            pending_events,
            rate,
            burst,
            max_sessions,
            max_unauthenticated,
            server_write_queue,
            max_unauthenticated_servers,
            unacked_stanzas,
            unacked_bytes,
            ack_timeout: seconds(ack_timeout, "ack_timeout")?,
            node,
            archive_ids: archive_ids.map(|ids| ids.get().0.clone()).unwrap_or_default(),
            threads,
        };
        let server = Server::start(domain, &domains, config)
            .map_err(|error| raise(Fault::Resource, format!("the XMPP engine cannot start: {error}")))?;
        Ok(Self(server))
    }

    #[pyo3(signature = (
        address, port, mode, *, proxy_protocol=false, origins=Vec::new(), path="/xmpp-websocket",
    ))]
    fn listen(
        &self,
        address: &str,
        port: u16,
        mode: &str,
        proxy_protocol: bool,
        origins: Vec<String>,
        path: &str,
    ) -> PyResult<(u64, u16)> {
        let mode = match mode {
            "starttls" => Mode::StartTls,
            "tls" => Mode::Tls,
            "websocket" => Mode::WebSocket,
            "websocket-tls" => Mode::WebSocketTls,
            "server" => Mode::Server,
            "server-tls" => Mode::ServerTls,
            other => {
                let message = format!(
                    "{other:?} is no mode; there are starttls, tls, websocket, websocket-tls, server and server-tls"
                );
                return Err(raise(Fault::Usage, message));
            }
        };
        self.0
            .listen(
                address,
                port,
                ListenerOptions {
                    mode,
                    proxy_protocol,
                    origins,
                    path: path.to_owned(),
                },
            )
            .map_err(|error| match error {
                ListenError::Usage(message) => raise(Fault::Usage, message),
                ListenError::Bind(error) => {
                    let place = if address.starts_with('/') {
                        address.to_owned()
                    } else {
                        format!("{address} port {port}")
                    };
                    raise(Fault::Resource, format!("cannot listen on {place}: {error}"))
                }
            })
    }

    fn unlisten(&self, listener: u64) {
        self.0.unlisten(listener);
    }

    #[pyo3(signature = (address, port, *, tls, server_name, local=None, source=None, timeout=10.0))]
    #[allow(clippy::too_many_arguments)]
    fn connect(
        &self,
        address: &str,
        port: u16,
        tls: bool,
        server_name: String,
        local: Option<String>,
        source: Option<&str>,
        timeout: f64,
    ) -> PyResult<u64> {
        let options = ConnectOptions {
            address: ip(address)?,
            port,
            source: source.map(ip).transpose()?,
            timeout: seconds(timeout, "timeout")?,
            tls,
            server_name,
            local,
        };
        self.0.connect(options).map_err(|message| raise(Fault::Usage, message))
    }

    #[pyo3(signature = (chain_pem, key_pem, domain=None))]
    fn set_tls(&self, chain_pem: &[u8], key_pem: &[u8], domain: Option<&str>) -> PyResult<()> {
        self.0
            .set_tls(chain_pem, key_pem, domain)
            .map_err(|message| raise(Fault::Usage, message))
    }

    fn forget_tls(&self, domain: &str) -> PyResult<()> {
        self.0
            .forget_tls(domain)
            .map_err(|message| raise(Fault::Resource, message))
    }

    #[pyo3(signature = (domains, *, services=Vec::new()))]
    fn set_domains(&self, domains: Vec<String>, services: Vec<String>) {
        self.0.set_domains(domains, services);
    }

    #[pyo3(signature = (sid, local, remote, *, direct=false))]
    fn pair(&self, sid: u64, local: &str, remote: &str, direct: bool) -> PyResult<()> {
        domain(local)?;
        domain(remote)?;
        self.0.pair(sid, local, remote, direct);
        Ok(())
    }

    fn route_domain(&self, sid: u64, local: &str, remote: &str, on: bool) -> PyResult<()> {
        domain(local)?;
        domain(remote)?;
        self.0.route_domain(sid, local, remote, on);
        Ok(())
    }

    fn unpair(&self, sid: u64, local: &str, remote: &str) {
        self.0.unpair(sid, local, remote);
    }

    fn gather(&self, on: bool) {
        self.0.gather(on);
    }

    fn postpone(&self, sid: u64) {
        self.0.postpone(sid);
    }

    fn caught_up(&self, sid: u64) {
        self.0.caught_up(sid);
    }

    fn fileno(&self) -> i32 {
        self.0.fileno()
    }

    fn drain<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let batch = py.detach(|| self.0.drain(limit));
        let list = PyList::empty(py);
        for event in batch {
            list.append(event_to(py, event)?)?;
        }
        Ok(list)
    }

    fn open_stream(&self, sid: u64, attrs: &Bound<'_, PyMapping>) -> PyResult<()> {
        self.0.open_stream(sid, opening(attrs)?);
        Ok(())
    }

    fn send(&self, sid: u64, elements: Vec<Bound<'_, PyElement>>) {
        let elements = elements.iter().map(|element| element.get().0.clone()).collect();
        self.0.send(sid, elements);
    }

    fn send_many(&self, batch: Vec<(u64, Bound<'_, PyElement>)>) {
        let batch = batch
            .iter()
            .map(|(sid, element)| (*sid, element.get().0.clone()))
            .collect();
        self.0.send_many(batch);
    }

    fn starttls(&self, sid: u64) {
        self.0.start_tls(sid);
    }

    #[pyo3(signature = (sid, attrs=None, features=None))]
    fn restart(
        &self,
        sid: u64,
        attrs: Option<&Bound<'_, PyMapping>>,
        features: Option<&Bound<'_, PyElement>>,
    ) -> PyResult<()> {
        let open = attrs.map(opening).transpose()?;
        self.0
            .restart(sid, open.zip(features.map(|features| features.get().0.clone())));
        Ok(())
    }

    fn authenticated(&self, sid: u64, bare: &str) -> PyResult<()> {
        if bare.is_empty() || bare.contains('/') {
            return Err(raise(Fault::Usage, format!("{bare:?} is not a bare JID")));
        }
        self.0.authenticated(sid);
        Ok(())
    }

    fn bind(&self, sid: u64, full: &str) -> PyResult<()> {
        // The address goes into stanzas as it is, so it must be text that XML can carry.
        let probe = Attr {
            key: Str::Static("from"),
            value: Str::value(full),
        };
        let sendable = Element::checked(Str::Static("iq"), Str::Static(ns::CLIENT), vec![probe], Vec::new()).is_ok();
        let whole = full
            .split_once('/')
            .is_some_and(|(bare, resource)| !bare.is_empty() && !resource.is_empty());
        if !sendable || !whole {
            return Err(raise(Fault::Usage, format!("{full:?} is not a full JID")));
        }
        self.0.bind(sid, full);
        Ok(())
    }

    #[pyo3(signature = (sid, priority))]
    fn presence(&self, sid: u64, priority: Option<i8>) {
        self.0.presence(sid, priority);
    }

    fn unbind(&self, sid: u64) {
        self.0.unbind(sid);
    }

    fn tap(&self, sid: u64, on: bool) {
        self.0.tap(sid, on);
    }

    fn carbons(&self, sid: u64, on: bool) {
        self.0.carbons(sid, on);
    }

    fn inactive(&self, sid: u64, on: bool) {
        self.0.inactive(sid, on);
    }

    #[pyo3(signature = (sid, answer, *, resume))]
    fn manage(&self, sid: u64, answer: Option<&Bound<'_, PyElement>>, resume: bool) {
        self.0.manage(sid, answer.map(|answer| answer.get().0.clone()), resume);
    }

    #[pyo3(signature = (sid, old, handled, previd, answer=Vec::new()))]
    fn resume(
        &self,
        sid: u64,
        old: u64,
        handled: u32,
        previd: &str,
        answer: Vec<Bound<'_, PyElement>>,
    ) -> PyResult<()> {
        let probe = Attr {
            key: Str::Static("previd"),
            value: Str::value(previd),
        };
        Element::checked(Str::Static("resumed"), Str::Static(ns::SM), vec![probe], Vec::new())
            .map_err(|message| raise(Fault::Usage, message))?;
        let answer = answer.iter().map(|element| element.get().0.clone()).collect();
        self.0.resume(sid, old, handled, previd, answer);
        Ok(())
    }

    fn part(&self, sid: u64, error: &Bound<'_, PyElement>) {
        self.0.part(sid, error.get().0.clone());
    }

    fn move_out(&self, sid: u64) -> bool {
        self.0.move_out(sid)
    }

    fn move_in(&self, full: &str, received: u32, acknowledged: u32) -> PyResult<u64> {
        let moved = self.0.move_in(full, received, acknowledged);
        moved.ok_or_else(|| raise(Fault::Usage, format!("{full:?} is not a full JID")))
    }

    fn restore(&self, sid: u64, sent: Vec<(Bound<'_, PyElement>, bool)>) {
        let sent = sent.into_iter().map(|(element, sole)| (element.get().0.clone(), sole));
        self.0.restore(sid, sent.collect());
    }

    fn archive(&self, bare: &str, on: bool) -> PyResult<()> {
        if bare.is_empty() || bare.contains('/') {
            return Err(raise(Fault::Usage, format!("{bare:?} is not a bare JID")));
        }
        self.0.archive(bare, on);
        Ok(())
    }

    #[pyo3(signature = (ticket, kept=true))]
    fn committed(&self, ticket: u64, kept: bool) {
        self.0.committed(ticket, kept);
    }

    fn done(&self, done: Vec<(u64, u64)>) {
        self.0.done(done);
    }

    fn next_id(&self) -> u64 {
        self.0.next_id()
    }

    fn deliver(&self, messages: Vec<Bound<'_, PyElement>>) -> (Vec<PyElement>, Option<u64>) {
        let messages = messages.iter().map(|message| message.get().0.clone()).collect();
        let (missed, ticket) = self.0.deliver(messages);
        (missed.into_iter().map(PyElement).collect(), ticket)
    }

    fn copy(&self, messages: Vec<Bound<'_, PyElement>>) {
        let messages: Vec<Arc<Element>> = messages.iter().map(|message| message.get().0.clone()).collect();
        self.0.copy(&messages);
    }

    fn fan_out(&self, element: &Bound<'_, PyElement>, sids: Vec<u64>) {
        self.0.fan_out(&element.get().0, sids);
    }

    #[pyo3(signature = (sid, error=None))]
    fn close(&self, sid: u64, error: Option<&Bound<'_, PyElement>>) {
        self.0.close(sid, error.map(|error| error.get().0.clone()));
    }

    fn exporter<'py>(&self, py: Python<'py>, sid: u64) -> Option<Bound<'py, PyBytes>> {
        self.0.exporter(sid).map(|binding| PyBytes::new(py, &binding))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (name, value) in self.0.stats() {
            dict.set_item(name, value)?;
        }
        Ok(dict)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }
}

fn event_to<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Stanza {
            sid, element, number, ..
        } => (intern!(py, "stanza"), sid, Bound::new(py, PyElement(element))?, number).into_pyobject(py),
        Event::Connected {
            sid,
            listener,
            ip,
            port,
            secure,
        } => (intern!(py, "connected"), sid, listener, ip, port, secure).into_pyobject(py),
        Event::Open { sid, attrs } => (intern!(py, "open"), sid, attrs_to(py, &attrs)?).into_pyobject(py),
        Event::Tls { sid, info } => {
            let dict = PyDict::new(py);
            dict.set_item("version", info.version)?;
            dict.set_item("cipher", info.cipher)?;
            dict.set_item("sni", info.sni)?;
            dict.set_item("alpn", info.alpn)?;
            let chain = info.chain.iter().map(|certificate| PyBytes::new(py, certificate));
            dict.set_item("chain", PyList::new(py, chain)?)?;
            (intern!(py, "tls"), sid, dict).into_pyobject(py)
        }
        Event::Undelivered { sid, elements, .. } => {
            let elements = elements.into_iter().map(PyElement).collect::<Vec<_>>();
            (intern!(py, "undelivered"), sid, elements).into_pyobject(py)
        }
        Event::Missed { element } => (intern!(py, "missed"), 0, Bound::new(py, PyElement(element))?).into_pyobject(py),
        Event::Detached { sid, reason, messages } => {
            let messages = messages.into_iter().map(PyElement).collect::<Vec<_>>();
            (intern!(py, "detached"), sid, reason, messages).into_pyobject(py)
        }
        Event::MovedOut {
            sid,
            received,
            acknowledged,
            sent,
            held,
        } => {
            let sent: Vec<(PyElement, bool)> = sent
                .into_iter()
                .map(|(element, sole)| (PyElement(element), sole))
                .collect();
            let held: Vec<PyElement> = held.into_iter().map(PyElement).collect();
            (intern!(py, "moved"), sid, received, acknowledged, sent, held).into_pyobject(py)
        }
        Event::Resumed { sid, by } => (intern!(py, "resumed"), sid, by).into_pyobject(py),
        Event::Unresumed { sid, condition } => (intern!(py, "unresumed"), sid, condition).into_pyobject(py),
        Event::Unacknowledged { sid, elements, handled } => {
            let elements: Vec<PyElement> = elements.into_iter().map(PyElement).collect();
            (intern!(py, "unacknowledged"), sid, elements, handled).into_pyobject(py)
        }
        Event::Records { ticket, records } => {
            let list = PyList::empty(py);
            for record in records {
                let owners: Vec<&str> = record.owners.iter().map(|owner| owner.as_str()).collect();
                let message = Bound::new(py, PyElement(record.message))?;
                list.append((record.id, record.from.as_str(), record.to.as_str(), owners, message))?;
            }
            (intern!(py, "records"), ticket, list).into_pyobject(py)
        }
        Event::Carried { sid, received, sent } => (intern!(py, "carried"), sid, received, sent).into_pyobject(py),
        Event::Close { sid } => (intern!(py, "close"), sid).into_pyobject(py),
        Event::Closed { sid, reason } => (intern!(py, "closed"), sid, reason).into_pyobject(py),
    }
}
