//! An engine turned by hand, the peers at its sockets, and somebody who answers its events as Python would.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use moim_plane::xmpp::fuzzing::ByHand;
use moim_plane::xmpp::{Config, Event, ListenerOptions, Mode};
use moim_wire::xml::{ns, Element, Framer, Limits, Node, Str, XmlEvent};

/// One end of a connection, outside.
pub struct Peer {
    pub sid: u64,
    pub mode: Mode,
    pub stream: Option<UnixStream>,
    framer: Framer,
    /// What came and is not a whole frame or request yet, for WebSockets.
    raw: Vec<u8>,
    upgraded: bool,
    /// Elements that came, oldest first.
    pub inbox: Vec<Element>,
}

/// Everything.
pub struct Scene {
    pub hand: ByHand,
    pub peers: Vec<Peer>,
    /// Sessions that Python knows, with the address of those that are bound.
    pub known: BTreeMap<u64, Option<String>>,
    /// Every full address that was ever bound.
    ever: BTreeSet<String>,
    /// Sessions that signed in.
    entered: BTreeSet<u64>,
    /// Streams of servers with an open pair, where no new stream may begin.
    paired: BTreeSet<u64>,
    pub detached: BTreeSet<u64>,
    pub tickets: Vec<u64>,
    /// Messages that Python has to say it is done with: of which session, and under which number.
    pub undone: Vec<(u64, u64)>,
    /// What came back because a session ended.
    pub back: Vec<Arc<Element>>,
}

impl Scene {
    pub fn new(config: Config) -> Self {
        let mut hand = ByHand::new(
            "x",
            Config {
                threads: 2,
                linger: Duration::from_micros(100),
                ..config
            },
        );
        for bare in ["a@x", "b@x"] {
            hand.server.archive(bare, true);
        }
        hand.turn();
        Self {
            hand,
            peers: Vec::new(),
            known: BTreeMap::new(),
            ever: BTreeSet::new(),
            entered: BTreeSet::new(),
            paired: BTreeSet::new(),
            detached: BTreeSet::new(),
            tickets: Vec::new(),
            undone: Vec::new(),
            back: Vec::new(),
        }
    }

    /// Another connection; its place among the peers.
    pub fn connect(&mut self, mode: Mode, proxy_protocol: bool) -> usize {
        let (sid, stream) = self.hand.connect(ListenerOptions {
            mode,
            proxy_protocol,
            origins: vec!["*".to_owned()],
            path: "/xmpp-websocket".to_owned(),
        });
        self.peers.push(Peer {
            sid,
            mode,
            stream: Some(stream),
            framer: Framer::stream(Limits::bytes(1 << 24)),
            raw: Vec::new(),
            upgraded: false,
            inbox: Vec::new(),
        });
        self.hand.turn();
        self.peers.len() - 1
    }

    /// A connection that signed in and bound a resource of an account; `None` when it ended on the way.
    pub fn sign_in(&mut self) -> usize {
        let place = self.connect(Mode::StartTls, false);
        for said in [HEADER, AUTH, HEADER, BIND] {
            self.say(place, said.as_bytes());
            self.serve();
        }
        place
    }

    /// What a peer sends; framed where messages are.
    pub fn say(&mut self, place: usize, text: &[u8]) {
        let peer = &mut self.peers[place];
        let Some(stream) = peer.stream.as_mut() else { return };
        let mut bytes = Vec::new();
        if peer.mode == Mode::WebSocket && peer.upgraded {
            bytes.extend([0x81, 0x80 | 126]);
            bytes.extend((text.len().min(65_535) as u16).to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend_from_slice(&text[..text.len().min(65_535)]);
        } else {
            bytes.extend_from_slice(text);
        }
        // A full or closed socket takes less, as sockets do.
        let _ = stream.write(&bytes);
        self.hand.turn();
    }

    /// Bytes as they are.
    pub fn say_raw(&mut self, place: usize, bytes: &[u8]) {
        if let Some(stream) = self.peers[place].stream.as_mut() {
            let _ = stream.write(bytes);
        }
        self.hand.turn();
    }

    /// Python takes its events and answers them, until there are none.
    pub fn serve(&mut self) {
        for _ in 0..64 {
            self.hand.turn();
            let events = self.hand.server.drain(1000);
            if events.is_empty() {
                return;
            }
            for event in events {
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        let server = &self.hand.server;
        match event {
            Event::Connected { sid, .. } => drop(self.known.insert(sid, None)),
            Event::Open { sid, .. } => server.open_stream(sid, element("open", ns::FRAMING, &[("from", "x")])),
            Event::Stanza {
                sid, element, number, ..
            } => {
                self.stanza(sid, &element);
                if number > 0 {
                    self.undone.push((sid, number));
                }
            }
            Event::Records { ticket, .. } => self.tickets.push(ticket),
            Event::Missed { element } => self.back.push(element),
            Event::Undelivered { elements, .. } | Event::Unacknowledged { elements, .. } => self.back.extend(elements),
            Event::Detached { sid, .. } => drop(self.detached.insert(sid)),
            Event::Resumed { sid, by } => {
                self.detached.remove(&sid);
                self.known.remove(&by);
            }
            Event::Unresumed { sid, .. } => server.send(sid, vec![element("failed", ns::SM, &[])]),
            Event::Close { sid } => server.close(sid, None),
            Event::Closed { sid, .. } => {
                server.unbind(sid);
                self.known.remove(&sid);
                self.detached.remove(&sid);
            }
            _ => {}
        }
    }

    fn stanza(&mut self, sid: u64, stanza: &Arc<Element>) {
        let server = &self.hand.server;
        let Some(address) = self.known.get(&sid).cloned() else {
            return;
        };
        match (stanza.ns().as_str(), stanza.name().as_str()) {
            (ns::SASL, "auth") if !self.paired.contains(&sid) && self.entered.insert(sid) => {
                server.send(sid, vec![element("success", ns::SASL, &[])]);
                server.authenticated(sid);
                server.restart(sid, None);
            }
            (ns::SASL | ns::SASL2, _) if !self.entered.contains(&sid) => {
                server.send(sid, vec![element("failure", stanza_ns(stanza), &[])])
            }
            (ns::TLS, "starttls") => server.start_tls(sid),
            (ns::DIALBACK, "result") => {
                self.paired.insert(sid);
                server.pair(sid, "x", "far", true);
                server.route_domain(sid, "x", "far", true);
            }
            (ns::SM, "enable") => {
                let resume = stanza.attr("resume").is_some();
                server.manage(
                    sid,
                    Some(element("enabled", ns::SM, &[("id", &sid.to_string())])),
                    resume,
                );
            }
            (ns::SM, "resume") => {
                let number = |key| stanza.attr(key).and_then(|text| text.parse::<u32>().ok());
                let previd = stanza.attr("previd").unwrap_or_default();
                let old = number("previd").unwrap_or_default().into();
                if old == sid || !self.known.contains_key(&old) || self.known[&old].is_none() {
                    server.send(sid, vec![element("failed", ns::SM, &[])]);
                } else {
                    server.resume(sid, old, number("h").unwrap_or_default(), previd, Vec::new());
                }
            }
            (ns::CLIENT, "iq") if address.is_none() && sid < 1 << 48 && self.entered.contains(&sid) => {
                let full = format!("{}@x/r{sid}", ["a", "b", "c"][sid as usize % 3]);
                server.bind(sid, &full);
                server.send(
                    sid,
                    vec![element("iq", ns::CLIENT, &[("type", "result"), ("id", "bind")])],
                );
                server.presence(sid, Some(0));
                self.ever.insert(full.split('/').next().unwrap_or_default().to_owned());
                self.ever.insert(full.clone());
                self.known.insert(sid, Some(full));
            }
            (ns::CLIENT, "presence") if sid < 1 << 48 => {
                let priority = stanza.attr("type").is_none().then_some(1);
                server.presence(sid, priority);
            }
            (ns::CLIENT, "message") if address.is_some() => drop(server.deliver(vec![stanza.clone()])),
            (ns::CLIENT, "iq") if stanza.attr("type") == Some("get") => {
                server.send(sid, vec![element("iq", ns::CLIENT, &[("type", "result")])]);
            }
            _ => {}
        }
    }

    /// Takes up to `most` bytes that came for a peer; each element has to be whole, and in the name of somebody real.
    pub fn read(&mut self, place: usize, most: usize) {
        let peer = &mut self.peers[place];
        let Some(stream) = peer.stream.as_mut() else { return };
        let mut bytes = vec![0; most];
        let length = stream.read(&mut bytes).unwrap_or(0);
        let (taken, start) = (&bytes[..length], peer.inbox.len());
        if peer.mode == Mode::WebSocket {
            peer.raw.extend_from_slice(taken);
            unframe(peer);
        } else {
            unstream(peer, taken);
        }
        for element in &peer.inbox[start..] {
            let from = element.attr("from").unwrap_or("x");
            let real = self.ever.contains(from) || matches!(from, "x" | "room@x/nick");
            let far = from == "far" || from.ends_with("@far") || from.contains("@far/");
            assert!(
                !element.is_stanza() || real || far,
                "{from:?} has not spoken: {element:?}"
            );
        }
    }

    /// Everybody hangs up. Nothing may be left then: no session, no row, no memory that waits.
    pub fn finish(mut self) {
        for place in 0..self.peers.len() {
            self.read(place, 1 << 20);
            self.peers[place].stream = None;
        }
        for round in 0..400 {
            self.serve();
            for ticket in std::mem::take(&mut self.tickets) {
                self.hand.server.committed(ticket, round % 2 == 0);
            }
            for sid in &self.detached {
                self.hand.server.close(*sid, None);
            }
            if self.hand.sessions() == 0 && self.detached.is_empty() && self.known.is_empty() {
                break;
            }
            if round > 20 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        self.serve();
        for gauge in [
            "sessions",
            "unauthenticated",
            "servers",
            "unauthenticated_servers",
            "detached",
            "routes",
            "events",
            "panics",
        ] {
            assert_eq!(self.hand.count(gauge), 0, "{gauge} that are left");
        }
        assert_eq!(
            (self.hand.waiting(), self.hand.exporters()),
            (0, 0),
            "memory that is left"
        );
    }
}

fn unstream(peer: &mut Peer, mut bytes: &[u8]) {
    loop {
        match peer.framer.next(&mut bytes) {
            Ok(None) => return,
            Ok(Some(XmlEvent::Element(element, _))) => {
                if element.is("success", ns::SASL) {
                    peer.framer.restart();
                }
                peer.inbox.push(element);
            }
            Ok(Some(_)) => {}
            Err(error) => panic!("the engine wrote something that cannot be read: {error}"),
        }
    }
}

fn unframe(peer: &mut Peer) {
    if !peer.upgraded {
        let Some(end) = peer.raw.windows(4).position(|four| four == b"\r\n\r\n") else {
            return;
        };
        peer.upgraded = peer.raw.starts_with(b"HTTP/1.1 101 ");
        peer.raw.drain(..end + 4);
    }
    while peer.upgraded && peer.raw.len() >= 2 {
        let (head, length) = match peer.raw[1] {
            126 if peer.raw.len() >= 4 => (4, usize::from(u16::from_be_bytes([peer.raw[2], peer.raw[3]]))),
            127 if peer.raw.len() >= 10 => (
                10,
                u64::from_be_bytes(std::array::from_fn(|at| peer.raw[2 + at])) as usize,
            ),
            126 | 127 => return,
            short => (2, usize::from(short)),
        };
        assert!(length < 1 << 24, "a server masks nothing and writes nothing that large");
        if peer.raw.len() < head + length {
            return;
        }
        let frame: Vec<u8> = peer.raw.drain(..head + length).collect();
        if frame[0] & 0x0F == 1 {
            let mut framer = Framer::document(Limits::bytes(1 << 24));
            let (mut rest, mut found) = (&frame[head..], None);
            while let Some(event) = framer.next(&mut rest).expect("a whole document in each message") {
                if let XmlEvent::Element(element, _) = event {
                    found = Some(element);
                }
            }
            peer.inbox.push(found.expect("a document in each message"));
        }
    }
}

/// An element for a session.
pub fn element(name: &'static str, space: &'static str, attrs: &[(&'static str, &str)]) -> Arc<Element> {
    Element::build(name, space, attrs, Vec::new()).into()
}

/// A message with a number.
pub fn message(number: u32) -> Arc<Element> {
    let body = Element::build("body", ns::CLIENT, &[], vec![Node::Text(Str::value("hello"))]);
    let attrs = [
        ("id", &*number.to_string()),
        ("from", "room@x/nick"),
        ("type", "groupchat"),
    ];
    Element::build("message", ns::CLIENT, &attrs, vec![Node::Element(body.into())]).into()
}

fn stanza_ns(stanza: &Element) -> &'static str {
    if stanza.ns() == ns::SASL2 {
        ns::SASL2
    } else {
        ns::SASL
    }
}

pub const HEADER: &str =
    "<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
pub const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth>";
pub const BIND: &str = "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
