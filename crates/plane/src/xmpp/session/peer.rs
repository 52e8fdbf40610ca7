//! A stream between servers: how it differs from a client's. It may have been opened from here, it carries stanzas of
//! many people for the pairs of domains that Python allows, and what it could not carry is handed back.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use moim_wire::xml::{ns, Attr, Condition, Element, Limits, Str};

use super::super::config::{ListenerOptions, Mode};
use super::super::connect::Outgoing;
use super::super::domains::Opener;
use super::super::event::Event;
use super::super::parcel::Parcel;
use super::super::shared::{Accepted, Context, Pair};
use super::super::traits::Traits;
use super::super::transport::{Queue, Stream};
use super::super::ways::domain_of;
use super::stanza::{supported_version, UNAUTHENTICATED_EVENTS};
use super::{Hold, Phase, Session};
use crate::tls::{client_config, TlsInfo};

/// Events that may wait of a server that speaks for many people.
const PEER_EVENTS: u32 = 512;
/// Pairs of domains that one stream may have (XEP-0220 §2.2.3 lets a stream serve many).
const MAX_PAIRS: usize = 256;

/// What a stream between servers has besides what every session has.
#[derive(Default)]
pub(super) struct PeerServer {
    outgoing: Option<Dialled>,
    /// Pairs whose stanzas may come in; and whether messages of them go to local sessions at once.
    pairs: Vec<(Pair, bool)>,
    /// Pairs whose messages go out without Python.
    ways: Vec<Pair>,
    /// Messages that were carried without Python since it heard of them, in and out.
    carried: (u64, u64),
    /// Stanzas queued, and where the last byte of each stands in the queue.
    unsent: VecDeque<(u64, Arc<Element>)>,
    /// Whether a header has come before: a later one need not say again to whom it goes.
    known: bool,
}

/// What an outgoing stream remembers of how it was asked for.
struct Dialled {
    outgoing: Outgoing,
    /// Whether Python has been told that the connection is there.
    connected: bool,
    deadline: Instant,
}

impl PeerServer {
    pub(super) fn is_outgoing(&self) -> bool {
        self.outgoing.is_some()
    }
}

impl Session {
    /// A connection that was just begun.
    pub fn outgoing(outgoing: Outgoing, stream: Stream, context: &Context) -> Option<Self> {
        let options = ListenerOptions {
            mode: Mode::Server,
            proxy_protocol: false,
            origins: Vec::new(),
            path: String::new(),
        };
        let accepted = Accepted {
            sid: outgoing.sid,
            stream,
            peer: Some(outgoing.address),
            listener: 0,
            options: options.into(),
        };
        let mut session = Self::new(accepted, context)?;
        session.phase = Phase::Connecting;
        // Python knows of it: it asked for it.
        session.announced = true;
        session.silent = false;
        session.server = Some(Box::new(PeerServer {
            outgoing: Some(Dialled {
                deadline: context.now + outgoing.timeout,
                outgoing,
                connected: false,
            }),
            ..PeerServer::default()
        }));
        Some(session)
    }

    /// Whether the connection was begun from here and is not there yet.
    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    pub(super) fn is_outgoing(&self) -> bool {
        self.server.as_ref().is_some_and(|server| server.is_outgoing())
    }

    fn dialled(&mut self) -> Option<&mut Dialled> {
        self.server.as_deref_mut().and_then(|server| server.outgoing.as_mut())
    }

    /// The socket of a connection that was begun has news.
    pub fn connection_ready(&mut self, context: &mut Context) {
        if self.phase != Phase::Connecting {
            return;
        }
        match self.transport.stream.is_connected() {
            Ok(false) => {}
            Ok(true) => {
                self.phase = Phase::Stream;
                self.last_read = context.now;
                let direct = self.dialled().is_some_and(|dialled| dialled.outgoing.tls);
                if !direct {
                    self.connected(context);
                } else if let Err(error) = self.begin_client_tls(context, true) {
                    self.lose(error, context);
                }
            }
            Err(error) => self.lose(format!("the connection could not be made: {error}"), context),
        }
    }

    /// Tells Python that it may speak, and begins to count its time.
    fn connected(&mut self, context: &mut Context) {
        let (sid, due) = (self.sid, context.now + context.shared.config.handshake_timeout);
        let Some(dialled) = self.dialled() else { return };
        dialled.connected = true;
        dialled.deadline = due;
        let event = Event::Connected {
            sid,
            listener: 0,
            ip: dialled.outgoing.address.ip().to_canonical().to_string(),
            port: dialled.outgoing.address.port(),
            secure: dialled.outgoing.tls,
        };
        context.deadlines.push(Reverse((due, sid)));
        context.emit(event);
    }

    /// A time that was set for an outgoing connection is up.
    pub fn deadline_reached(&mut self, context: &mut Context) {
        let (authenticated, now) = (self.authenticated, context.now);
        match self.dialled() {
            Some(dialled) if dialled.deadline > now => {}
            Some(dialled) if !dialled.connected => {
                let seconds = dialled.outgoing.timeout.as_secs_f64();
                self.lose(
                    format!("the connection could not be made: no answer within {seconds} s"),
                    context,
                );
            }
            Some(_) if !authenticated => self.handshake_expired(context),
            _ => {}
        }
    }

    /// Begins TLS after the peer's `<proceed/>`.
    pub(super) fn start_client_tls(&mut self, context: &mut Context) {
        if self.phase != Phase::Stream || self.hold != Hold::StartTls || self.transport.tls().is_some() {
            return;
        }
        if let Err(error) = self.begin_client_tls(context, false) {
            return self.lose(error, context);
        }
        self.pending = Vec::new();
        self.restart(context);
    }

    fn begin_client_tls(&mut self, context: &Context, direct: bool) -> Result<(), String> {
        let Some(dialled) = self.dialled() else {
            return Err("an error inside the server".into());
        };
        let (name, local) = (dialled.outgoing.server_name.clone(), dialled.outgoing.local.clone());
        let own = context
            .shared
            .server_tls()
            .and_then(|tls| tls.certificates.of(local.as_deref()));
        let config = client_config(own, direct)?;
        self.transport
            .start_client_tls(config, name, &mut self.out)
            .map_err(|error| format!("TLS cannot begin: {error}"))
    }

    /// The TLS handshake with another server is complete.
    pub(super) fn peer_secured(&mut self, info: &mut TlsInfo, context: &mut Context) {
        let Some(dialled) = self.dialled() else { return };
        info.sni = Some(dialled.outgoing.server_name.to_str().into_owned());
        if !dialled.connected {
            self.connected(context);
        }
    }

    /// The peer's stream header.
    pub(super) fn peer_header(&mut self, default_ns: &Str, mut attrs: Vec<Attr>, context: &mut Context) {
        let outgoing = self.is_outgoing();
        let known = self
            .server
            .as_mut()
            .is_some_and(|server| std::mem::replace(&mut server.known, true));
        let value = |key: &str| {
            attrs
                .iter()
                .find(|attr| attr.key == key)
                .map(|attr| attr.value.as_str())
        };
        let refused = if *default_ns != ns::SERVER {
            Some((
                Condition::InvalidNamespace,
                "the stream is not a server's: its default namespace is not jabber:server",
            ))
        } else if !value("version").is_some_and(supported_version) {
            Some((Condition::UnsupportedVersion, "the stream's version is not 1.0"))
        } else {
            match value("to") {
                _ if outgoing => None,
                None | Some("") if known => None,
                None | Some("") => Some((Condition::ImproperAddressing, "the stream is addressed to nobody")),
                Some(name) if !context.shared.domains.serves(name, Opener::Server) => Some((
                    Condition::HostUnknown,
                    "the stream is addressed to a domain that is not served here",
                )),
                Some(_) => None,
            }
        };
        if let Some((condition, text)) = refused {
            return self.fail(condition, text, context);
        }
        self.header_seen = true;
        self.announce(context);
        attrs.push(Attr {
            key: Str::Static("xmlns"),
            value: default_ns.clone(),
        });
        context.emit(Event::Open { sid: self.sid, attrs });
    }

    /// One element at the top level of a stream between servers.
    pub(super) fn peer_element(&mut self, mut element: Element, weight: u32, context: &mut Context) {
        let outgoing = self.is_outgoing();
        match element.ns().as_str() {
            ns::SERVER => {
                let direct = match self.check_peer_stanza(&element) {
                    Ok(direct) => direct,
                    Err((condition, text)) => return self.fail(condition, text, context),
                };
                element.swap_content();
                if direct && element.name() == "message" {
                    match self.goes_in(element, context) {
                        None => return,
                        Some(miss) => element = miss,
                    }
                }
            }
            ns::STREAMS if element.name() == "error" => return self.peer_error(&element, context),
            ns::STREAMS if outgoing && element.name() == "features" => {}
            "" | ns::CLIENT | ns::STREAMS => {
                return self.fail(
                    Condition::InvalidNamespace,
                    "a stanza is not in the namespace jabber:server",
                    context,
                );
            }
            ns::TLS if self.transport.tls().is_none() => match element.name().as_str() {
                "starttls" if !outgoing => self.hold = Hold::StartTls,
                "proceed" if outgoing => self.hold = Hold::StartTls,
                _ => {}
            },
            ns::SASL if outgoing && element.name() == "success" => self.hold = Hold::Restart,
            ns::SASL | ns::SASL2 if !outgoing && !self.authenticated => self.hold = Hold::Sasl,
            _ => {}
        }
        context.emit(Event::Stanza {
            sid: self.sid,
            element: Arc::new(element),
            weight,
            flow: self.flow.clone(),
        });
        let limit = if self.is_paired() {
            PEER_EVENTS
        } else {
            UNAUTHENTICATED_EVENTS.min(context.shared.config.pending_events)
        };
        if self.flow.add(weight, limit) {
            context.tally.pauses += 1;
        }
    }

    fn is_paired(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.pairs.is_empty())
    }

    /// Sorts a message of another server's; gives it back when no row decides, and when it has something that only Python
    /// can judge. So it does while Python has yet to take what came before: it must not be overtaken.
    fn goes_in(&mut self, message: Element, context: &mut Context) -> Option<Element> {
        let domains = &context.shared.domains;
        let traits = Traits::of(&message, |name| domains.serves(name, Opener::Client));
        let sorted = if traits.forged || !self.flow.is_idle() {
            Err(message)
        } else {
            context.sorter.sort(message, traits, true, &context.shared)
        };
        match sorted {
            Ok(recipients) => {
                context.tally.routed += 1;
                context.tally.delivered += recipients as u64;
                if let Some(server) = self.server.as_deref_mut() {
                    server.carried.0 += 1;
                }
                None
            }
            Err(message) => {
                context.tally.missed += 1;
                Some(message)
            }
        }
    }

    /// Whether a stanza may come in on this stream, by its kind and the two domains it goes between; if so, whether a
    /// message goes to local sessions at once.
    fn check_peer_stanza(&self, stanza: &Element) -> Result<bool, (Condition, &'static str)> {
        if !matches!(stanza.name().as_str(), "message" | "presence" | "iq") {
            return Err((Condition::UnsupportedStanzaType, "there is no such kind of stanza"));
        }
        let pairs = self.server.as_ref().map_or(&[][..], |server| &server.pairs);
        if pairs.is_empty() {
            return Err((
                Condition::NotAuthorized,
                "a stanza came before its domain was authenticated",
            ));
        }
        let domains = (
            stanza.attr("from").and_then(domain_of),
            stanza.attr("to").and_then(domain_of),
        );
        let (Some(from), Some(to)) = domains else {
            return Err((
                Condition::ImproperAddressing,
                "a stanza between servers needs the addresses of its sender and its recipient",
            ));
        };
        let of_sender = |(pair, _): &&(Pair, bool)| same_domain(from, &pair.remote);
        let found = pairs
            .iter()
            .filter(of_sender)
            .find(|(pair, _)| same_domain(to, &pair.local));
        if let Some((_, direct)) = found {
            Ok(*direct)
        } else if pairs.iter().any(|pair| of_sender(&pair)) {
            Err((
                Condition::ImproperAddressing,
                "a stanza is for a domain that its sender's was not authenticated to",
            ))
        } else {
            Err((
                Condition::InvalidFrom,
                "a stanza is from a domain that this stream was not authenticated for",
            ))
        }
    }

    fn peer_error(&mut self, error: &Element, context: &mut Context) {
        let condition = error.elements().find(|child| child.name() != "text");
        let name = condition.map_or("undefined-condition", |condition| condition.name());
        let text = error
            .elements()
            .find(|child| child.is("text", ns::STREAM_ERRORS))
            .map(|text| {
                text.text()
                    .chars()
                    .filter(|found| !found.is_control())
                    .take(200)
                    .collect::<String>()
            })
            .filter(|text| !text.is_empty());
        let mut reason = format!("the peer reported the stream error {name}");
        if let Some(text) = text {
            reason = format!("{reason}: {text}");
        }
        self.end_stream(None, &context.shared.domain);
        self.leave(reason, context);
    }

    /// Lets stanzas between two domains come in.
    pub fn pair(&mut self, pair: Pair, direct: bool, context: &mut Context) {
        if self.phase == Phase::Leaving {
            return;
        }
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        if let Some((_, known)) = server.pairs.iter_mut().find(|(found, _)| *found == pair) {
            *known = direct;
            return;
        }
        if server.pairs.len() >= MAX_PAIRS {
            return self.fail(
                Condition::PolicyViolation,
                "a stream carries stanzas between too many domains",
                context,
            );
        }
        server.pairs.push((pair, direct));
        self.authenticated(context);
        self.framer.set_limits(Limits::bytes(context.shared.config.max_stanza));
    }

    /// Undoes [`Session::pair`].
    pub fn unpair(&mut self, pair: &Pair) {
        if let Some(server) = self.server.as_deref_mut() {
            server.pairs.retain(|(found, _)| found != pair);
        }
    }

    /// Lets the stream carry messages of local sessions between two domains, or no more.
    pub fn way(&mut self, pair: Pair, on: bool, context: &Context) {
        if self.phase != Phase::Stream {
            return;
        }
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        server.ways.retain(|found| *found != pair);
        if !on {
            context.shared.ways.close(&pair.local, &pair.remote, self.sid);
        } else if server.ways.len() < MAX_PAIRS {
            context.shared.ways.open(&pair.local, &pair.remote, self.sid);
            server.ways.push(pair);
        }
    }

    pub(super) fn close_ways(&mut self, context: &Context) {
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        for pair in server.ways.drain(..) {
            context.shared.ways.close(&pair.local, &pair.remote, self.sid);
        }
    }

    /// Counts a message that went out without Python.
    pub fn note_carried(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            server.carried.1 += 1;
        }
    }

    /// Tells Python what was carried without it.
    pub fn report_carried(&mut self, context: &mut Context) {
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let (received, sent) = std::mem::take(&mut server.carried);
        if received + sent > 0 {
            let sid = self.sid;
            context.emit(Event::Carried { sid, received, sent });
        }
    }

    pub(super) fn write_bound(&self, context: &Context) -> usize {
        let config = &context.shared.config;
        if self.server.is_some() {
            config.server_write_queue
        } else {
            config.write_queue
        }
    }

    /// Remembers a stanza until it has left.
    pub(super) fn note_unsent(&mut self, element: &Arc<Element>) {
        let end = self.out.end();
        if let Some(server) = self.server.as_deref_mut() {
            if element.is_stanza() {
                server.unsent.push_back((end, element.clone()));
            }
        }
    }

    /// Forgets the stanzas that have left.
    pub(super) fn forget_written(&mut self) {
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let written = self.out.written();
        while server.unsent.front().is_some_and(|(end, _)| *end <= written) {
            server.unsent.pop_front();
        }
        if server.unsent.is_empty() && server.unsent.capacity() > 64 {
            server.unsent = VecDeque::new();
        }
    }

    /// Gives Python the stanzas that did not leave. They will not leave any more either: none must arrive twice.
    pub(super) fn hand_back(&mut self, context: &mut Context) {
        if self.server.as_ref().is_none_or(|server| server.unsent.is_empty()) {
            return;
        }
        // What the socket still takes has left; a connection that is broken takes nothing.
        if let Ok(written) = self.transport.flush(&mut self.out) {
            context.tally.bytes_out += written;
        }
        self.forget_written();
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let elements: Vec<_> = std::mem::take(&mut server.unsent)
            .into_iter()
            .map(|(_, element)| element)
            .collect();
        if elements.is_empty() {
            return;
        }
        let weight = 2 * self.out.len();
        self.out = Queue::default();
        self.transport.cut();
        context.emit(Event::Undelivered {
            sid: self.sid,
            elements,
            weight,
        });
    }

    /// Something came for a stream that is ending, or not there yet.
    pub(super) fn refuse_delivery(&self, elements: &[Arc<Element>], context: &mut Context) {
        if self.server.is_some() {
            return context.undelivered(self.sid, elements);
        }
        for element in elements {
            context.missed(Parcel::sole(element.clone()));
        }
    }
}

/// Whether a domain as a peer wrote it is a prepared one.
fn same_domain(written: &str, prepared: &str) -> bool {
    written.eq_ignore_ascii_case(prepared) || (!written.is_ascii() && written.to_lowercase() == prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_as_peers_write_them() {
        assert!(same_domain("EXAMPLE.org", "example.org") && same_domain("BÜCHER.example", "bücher.example"));
        assert!(!same_domain("example.org.", "example.org") && !same_domain("sub.example.org", "example.org"));
    }
}
