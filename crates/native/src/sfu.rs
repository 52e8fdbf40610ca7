//! The SFU engine for Python: coarse commands, batches of events as tuples.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moim_plane::events::EventQueue;
use moim_plane::sfu::{Config, Engine, Event, Kind, Offer, ParticipantStats, Pid, SfuError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::error::{raise, Fault};

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Sfu>()
}

/// A selective forwarding unit on one UDP port.
#[pyclass(module = "moim._native", frozen)]
struct Sfu {
    config: Config,
    events: Arc<EventQueue<Event>>,
    engine: Mutex<Option<Engine>>,
}

#[pymethods]
impl Sfu {
    #[new]
    #[pyo3(signature = (
        *,
        max_participants = 2000,
        max_subscriptions = 64,
        connect_timeout = 30.0,
        lost_timeout = 10.0,
        keyframe_interval = 0.5,
        initial_bitrate = 1_500_000,
        max_video_bitrate = 2_500_000,
        min_video_bitrate = 200_000,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        max_participants: usize,
        max_subscriptions: usize,
        connect_timeout: f64,
        lost_timeout: f64,
        keyframe_interval: f64,
        initial_bitrate: u64,
        max_video_bitrate: u64,
        min_video_bitrate: u64,
    ) -> PyResult<Self> {
        let config = Config {
            max_participants,
            max_subscriptions,
            connect_timeout: seconds(connect_timeout)?,
            lost_timeout: seconds(lost_timeout)?,
            keyframe_interval: seconds(keyframe_interval)?,
            initial_bitrate,
            max_video_bitrate,
            min_video_bitrate,
            ..Config::new(Vec::new())
        };
        let events = EventQueue::new().map_err(|error| raise(Fault::Resource, error))?;
        Ok(Self {
            config,
            events: Arc::new(events),
            engine: Mutex::new(None),
        })
    }

    #[pyo3(signature = (address, port, *, candidates = Vec::new()))]
    fn listen(&self, py: Python<'_>, address: &str, port: u16, candidates: Vec<String>) -> PyResult<u16> {
        let ip: IpAddr = address
            .parse()
            .map_err(|_| raise(Fault::Usage, format!("'{address}' is not an IP address")))?;
        let mut config = self.config.clone();
        for text in &candidates {
            let parsed: Result<SocketAddr, _> = text.parse();
            config
                .candidates
                .push(parsed.map_err(|_| raise(Fault::Usage, format!("'{text}' is not ip:port")))?);
        }
        let events = Arc::clone(&self.events);
        // The lock is only ever waited for with the interpreter released: whoever holds it may be about to return.
        let outcome = py.detach(|| {
            let mut slot = self.lock();
            if slot.is_some() {
                return Err(std::io::Error::new(
                    std::io::ErrorKind::InvalidInput,
                    "the engine listens already",
                ));
            }
            let engine = Engine::listen(ip, port, config, events)?;
            let bound = engine.local().port();
            *slot = Some(engine);
            Ok(bound)
        });
        outcome.map_err(|error| {
            let fault = match error.kind() {
                std::io::ErrorKind::InvalidInput => Fault::Usage,
                _ => Fault::Resource,
            };
            raise(fault, format!("cannot listen on {address}:{port}/udp: {error}"))
        })
    }

    fn add_participant(&self, py: Python<'_>, pid: Pid) -> PyResult<()> {
        self.command(py, |engine| engine.command(|machine, now| machine.add(pid, now)))?
            .map_err(refusal)
    }

    fn remove_participant(&self, py: Python<'_>, pid: Pid) -> PyResult<()> {
        self.command(py, |engine| engine.command(|machine, now| machine.remove(pid, now)))
    }

    fn subscribe(&self, py: Python<'_>, pid: Pid, publisher: Pid) -> PyResult<()> {
        self.command(py, |engine| {
            engine.command(|machine, _| machine.subscribe(pid, publisher))
        })?
        .map_err(refusal)
    }

    fn unsubscribe(&self, py: Python<'_>, pid: Pid, publisher: Pid) -> PyResult<()> {
        self.command(py, |engine| {
            engine.command(|machine, _| machine.unsubscribe(pid, publisher))
        })
    }

    fn republish(&self, py: Python<'_>, pid: Pid) -> PyResult<()> {
        self.command(py, |engine| engine.command(|machine, _| machine.republish(pid)))?
            .map_err(refusal)
    }

    fn offer<'py>(&self, py: Python<'py>, pid: Pid) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let offer = self
            .command(py, |engine| engine.command(|machine, now| machine.offer(pid, now)))?
            .map_err(refusal)?;
        offer.map(|offer| offer_tuple(py, offer)).transpose()
    }

    fn answer(&self, py: Python<'_>, pid: Pid, seq: u64, sdp: &str) -> PyResult<()> {
        self.command(py, |engine| {
            engine.command(|machine, now| machine.answer(pid, seq, sdp, now))
        })?
        .map_err(refusal)
    }

    fn fileno(&self) -> i32 {
        self.events.fileno()
    }

    fn drain<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.events
            .drain(limit)
            .into_iter()
            .map(|event| event_tuple(py, event))
            .collect()
    }

    fn running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.lock().as_ref().is_some_and(Engine::running))
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (totals, each, unsent) = self.command(py, Engine::stats)?;
        let participants = PyDict::new(py);
        for (pid, stats) in &each {
            participants.set_item(pid, stats_dict(py, stats)?)?;
        }
        let result = PyDict::new(py);
        result.set_item("received", totals.received)?;
        result.set_item("unknown", totals.unknown)?;
        result.set_item("sent", totals.sent)?;
        result.set_item("unsent", unsent)?;
        result.set_item("forwarded", totals.forwarded)?;
        result.set_item("faults", totals.faults)?;
        result.set_item("participants", participants)?;
        Ok(result)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| drop(self.lock().take()));
    }
}

impl Sfu {
    fn lock(&self) -> MutexGuard<'_, Option<Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&Engine) -> R + Send) -> PyResult<R> {
        py.detach(|| self.lock().as_ref().map(work))
            .ok_or_else(|| raise(Fault::Usage, "the engine does not listen"))
    }
}

fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| raise(Fault::Usage, format!("{value} is not a duration")))
}

fn refusal(error: SfuError) -> PyErr {
    let fault = match &error {
        SfuError::Usage(_) => Fault::Usage,
        SfuError::Protocol(_) => Fault::Peer,
        SfuError::Limit(_) => Fault::Resource,
    };
    raise(fault, error)
}

fn offer_tuple(py: Python<'_>, offer: Offer) -> PyResult<Bound<'_, PyTuple>> {
    let publish = PyDict::new(py);
    for (kind, mid) in offer.publish {
        publish.set_item(kind.name(), mid)?;
    }
    let tracks: Vec<(String, Pid, &str)> = offer
        .tracks
        .into_iter()
        .map(|track| (track.mid, track.publisher, track.kind.name()))
        .collect();
    let layout = PyDict::new(py);
    layout.set_item("publish", publish)?;
    layout.set_item("tracks", tracks)?;
    (offer.seq, offer.sdp, layout).into_pyobject(py)
}

fn event_tuple(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    match event {
        Event::Negotiate(pid) => ("negotiate", pid).into_pyobject(py),
        Event::Connected(pid) => ("connected", pid).into_pyobject(py),
        Event::Disconnected(pid, reason) => ("disconnected", pid, reason.to_string()).into_pyobject(py),
        Event::Track(pid, kind, on) => ("track", pid, kind.name(), on).into_pyobject(py),
    }
}

fn stats_dict<'py>(py: Python<'py>, stats: &ParticipantStats) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("connected", stats.connected)?;
    result.set_item("remote", stats.remote.map(|address| address.to_string()))?;
    result.set_item("round_trip", stats.round_trip.map(|time| time.as_secs_f64()))?;
    result.set_item("bytes_received", stats.bytes_received)?;
    result.set_item("bytes_sent", stats.bytes_sent)?;
    result.set_item("packets_received", stats.packets_received)?;
    result.set_item("packets_forwarded", stats.packets_forwarded)?;
    result.set_item("packets_dropped", stats.packets_dropped)?;
    result.set_item("loss_in", stats.loss_in)?;
    result.set_item("loss_out", stats.loss_out)?;
    let jitter = PyDict::new(py);
    for (kind, value) in Kind::ALL.iter().zip(stats.jitter) {
        jitter.set_item(kind.name(), value)?;
    }
    result.set_item("jitter", jitter)?;
    result.set_item("keyframe_requests", stats.keyframe_requests)?;
    result.set_item("estimate", stats.estimate)?;
    result.set_item("subscriptions", stats.subscriptions)?;
    result.set_item("paused", stats.paused)?;
    Ok(result)
}
