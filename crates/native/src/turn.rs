//! The TURN engine for Python: arguments in, events and tables out; the GIL is released while threads answer.

use crate::error::{raise, Fault};
use moim_plane::turn::{
    AllocationInfo, Counters, Engine, EngineError, Event, Options, RelayAddress, Rule, ServerEvent, Traffic, UserKeys,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<TurnServer>()
}

/// A TURN service: listeners, credentials, peer rules.
#[pyclass(module = "moim._native", frozen)]
struct TurnServer {
    engine: Engine,
}

#[pymethods]
impl TurnServer {
    #[new]
    #[pyo3(signature = (
        realm, *, software="Moim", old_channel_range=false, max_allocations=4096, user_quota=64, default_lifetime_s=600,
        max_lifetime_s=3600, nonce_lifetime_s=3600, unauthenticated_rate=50, unauthenticated_burst=500, threads=0,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        realm: String,
        software: &str,
        old_channel_range: bool,
        max_allocations: usize,
        user_quota: u32,
        default_lifetime_s: u32,
        max_lifetime_s: u32,
        nonce_lifetime_s: u32,
        unauthenticated_rate: u32,
        unauthenticated_burst: u32,
        threads: usize,
    ) -> PyResult<Self> {
        let options = Options {
            realm,
            software: software.to_owned(),
            old_channel_range,
            max_allocations,
            user_quota,
            default_lifetime_s,
            max_lifetime_s,
            nonce_lifetime_s,
            unauthenticated_rate,
            unauthenticated_burst,
            threads,
        };
        let engine = Engine::new(options).map_err(fault)?;
        Ok(Self { engine })
    }

    #[pyo3(signature = (
        address, port, *, relay_address, external_address=None, relay_address_v6=None, external_address_v6=None,
        relay_ports=(24000, 29999),
    ))]
    #[allow(clippy::too_many_arguments)]
    fn listen(
        &self,
        py: Python<'_>,
        address: &str,
        port: u16,
        relay_address: &str,
        external_address: Option<&str>,
        relay_address_v6: Option<&str>,
        external_address_v6: Option<&str>,
        relay_ports: (u16, u16),
    ) -> PyResult<u16> {
        let address = SocketAddr::new(ip(address)?, port);
        let mut relays = vec![relay(relay_address, external_address)?];
        match relay_address_v6 {
            Some(v6) => relays.push(relay(v6, external_address_v6)?),
            None if external_address_v6.is_some() => {
                return Err(raise(Fault::Usage, "external_address_v6 needs relay_address_v6"));
            }
            None => {}
        }
        let bound = py.detach(|| self.engine.listen(address, &relays, relay_ports));
        bound.map(|bound| bound.port()).map_err(fault)
    }

    fn set_users(&self, py: Python<'_>, users: HashMap<String, (Vec<u8>, Vec<u8>)>) -> PyResult<()> {
        let mut keyed = HashMap::with_capacity(users.len());
        for (user, (md5, sha256)) in users {
            match (md5.try_into(), sha256.try_into()) {
                (Ok(md5), Ok(sha256)) => keyed.insert(user, UserKeys { md5, sha256 }),
                _ => {
                    let message = format!("the keys of '{user}' must be 16 bytes (MD5) and 32 bytes (SHA-256)");
                    return Err(raise(Fault::Usage, message));
                }
            };
        }
        py.detach(|| self.engine.set_users(keyed));
        Ok(())
    }

    fn set_secrets(&self, py: Python<'_>, secrets: Vec<Vec<u8>>) -> PyResult<()> {
        if secrets.len() > 8 || secrets.iter().any(Vec::is_empty) {
            return Err(raise(Fault::Usage, "at most 8 shared secrets, none of them empty"));
        }
        py.detach(|| self.engine.set_secrets(secrets));
        Ok(())
    }

    fn set_peer_rules(&self, py: Python<'_>, allow: Vec<String>, deny: Vec<String>) -> PyResult<()> {
        let (allow, deny) = (rules(&allow)?, rules(&deny)?);
        py.detach(|| self.engine.set_peer_rules(allow, deny));
        Ok(())
    }

    fn fileno(&self) -> i32 {
        self.engine.events().fileno()
    }

    fn drain<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let events = self.engine.events().drain(limit);
        events.into_iter().map(|event| event_tuple(py, event)).collect()
    }

    fn allocations<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let (reports, _) = py.detach(|| self.engine.report());
        let rows = reports
            .iter()
            .flat_map(|report| report.allocations.iter().map(|row| (report.address, row)));
        rows.map(|(server, row)| allocation(py, server, row)).collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (reports, lost_events) = py.detach(|| self.engine.report());
        let mut totals = Counters::default();
        reports.iter().for_each(|report| totals.add(&report.counters));
        let stats = PyDict::new(py);
        for (name, value) in totals.entries() {
            stats.set_item(name, value)?;
        }
        stats.set_item("unsent", reports.iter().map(|report| report.unsent).sum::<u64>())?;
        stats.set_item("events_lost", lost_events)?;
        stats.set_item("threads", reports.len())?;
        Ok(stats)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.engine.stop());
    }
}

fn fault(error: EngineError) -> PyErr {
    let fault = match error {
        EngineError::Usage(_) => Fault::Usage,
        EngineError::Resource(_) => Fault::Resource,
    };
    raise(fault, error)
}

fn ip(text: &str) -> PyResult<IpAddr> {
    text.parse()
        .map_err(|_| raise(Fault::Usage, format!("'{text}' is not an IP address")))
}

fn relay(bind: &str, external: Option<&str>) -> PyResult<RelayAddress> {
    let bind = ip(bind)?;
    let external = external.map_or(Ok(bind), ip)?;
    Ok(RelayAddress { bind, external })
}

fn rules(texts: &[String]) -> PyResult<Vec<Rule>> {
    texts
        .iter()
        .map(|text| text.parse().map_err(|error| raise(Fault::Usage, error)))
        .collect()
}

fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn event_tuple<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Failed(text) => ("failed", text).into_pyobject(py),
        Event::Server(ServerEvent::Allocated {
            client,
            user,
            relays,
            lifetime_s,
        }) => ("allocated", client.to_string(), user, texts(&relays), lifetime_s).into_pyobject(py),
        Event::Server(ServerEvent::Closed {
            client,
            user,
            relays,
            reason,
            to_peers,
            from_peers,
        }) => {
            let packets = (to_peers.packets, from_peers.packets);
            let relays = texts(&relays);
            ("closed", client.to_string(), user, relays, reason, packets.0, packets.1).into_pyobject(py)
        }
        Event::Server(ServerEvent::Refused {
            client,
            code,
            reason,
            count,
        }) => ("refused", client.to_string(), code, reason, count).into_pyobject(py),
        Event::Server(ServerEvent::Suppressed { count }) => ("suppressed", count).into_pyobject(py),
    }
}

fn allocation<'py>(py: Python<'py>, server: SocketAddr, row: &AllocationInfo) -> PyResult<Bound<'py, PyDict>> {
    let permissions = row.permissions.iter().map(|permission| {
        let dict = PyDict::new(py);
        dict.set_item("peer", permission.peer.to_string())?;
        dict.set_item("expires_in_s", permission.expires_in_s)?;
        traffic(&dict, &permission.to_peer, &permission.from_peer)?;
        Ok(dict)
    });
    let channels = row.channels.iter().map(|channel| {
        let dict = PyDict::new(py);
        dict.set_item("number", channel.number)?;
        dict.set_item("peer", channel.peer.to_string())?;
        dict.set_item("expires_in_s", channel.expires_in_s)?;
        traffic(&dict, &channel.to_peer, &channel.from_peer)?;
        Ok(dict)
    });
    let dict = PyDict::new(py);
    dict.set_item("client", row.flow.client.to_string())?;
    dict.set_item("transport", "udp")?;
    dict.set_item("server", server.to_string())?;
    dict.set_item("username", &row.username)?;
    dict.set_item("relays", texts(&row.relays))?;
    dict.set_item("age_s", row.age_s)?;
    dict.set_item("expires_in_s", row.expires_in_s)?;
    dict.set_item("permissions", permissions.collect::<PyResult<Vec<_>>>()?)?;
    dict.set_item("channels", channels.collect::<PyResult<Vec<_>>>()?)?;
    traffic(&dict, &row.to_peers, &row.from_peers)?;
    dict.set_item("requests", row.requests)?;
    dict.set_item("successes", row.successes)?;
    dict.set_item("errors", row.errors)?;
    dict.set_item("dropped", row.dropped)?;
    Ok(dict)
}

fn traffic(dict: &Bound<'_, PyDict>, to: &Traffic, from: &Traffic) -> PyResult<()> {
    dict.set_item("packets_to", to.packets)?;
    dict.set_item("bytes_to", to.bytes)?;
    dict.set_item("packets_from", from.packets)?;
    dict.set_item("bytes_from", from.bytes)
}
