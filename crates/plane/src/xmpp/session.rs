//! One connection's life: from its first byte to the end of its linger time. What it may send is judged in `stanza`, how
//! bytes become elements in `input`, what Python asks of it in `control`.

use std::cmp::Reverse;
use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moim_wire::xml::{self, ns, Attr, Element, Form, Framer, Limits, Str};

use super::config::ListenerOptions;
use super::event::{Event, Flow};
use super::held::Held;
use super::listener::Peer;
use super::managed::Managed;
use super::shared::{Accepted, Context, READ_SIZE};
use super::transport::{Queue, Transport};
use super::websocket;
use crate::tls::TlsInfo;

mod control;
mod dialling;
mod ending;
mod input;
mod management;
mod pairs;
mod peer;
mod stanza;
mod unsent;

pub use management::{newer_connection, Detached};
use peer::PeerServer;

/// What a connection's bytes are at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// An outgoing connection that is not there yet.
    Connecting,
    /// A PROXY header, before everything else.
    Proxy,
    /// The HTTP request that opens a WebSocket.
    Upgrade,
    /// XMPP.
    Stream,
    /// Over for Python; what is left is to flush and to read the peer's farewell.
    Leaving,
}

/// Why the next element must wait for Python's answer to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    StartTls,
    Sasl,
    Restart,
    /// Stream management is to begin, or a session to go on.
    Management,
    /// Another server may have accepted us: what it says next is let in, or is not, when Python has said so.
    Pair,
}

/// Framing by WebSocket, where there is any.
struct WebSocket {
    decoder: websocket::Decoder,
    message: Option<(Element, u32)>,
}

/// Who a session is, once bound.
pub struct Identity {
    full: Str,
    bare_len: usize,
}

impl Identity {
    /// The bare JID.
    pub fn bare(&self) -> &str {
        &self.full[..self.bare_len]
    }

    fn resource(&self) -> &str {
        &self.full[self.bare_len + 1..]
    }
}

/// How a client opened its stream, and what it is answered if it opens the next one in the same words.
struct Opening {
    attrs: Vec<Attr>,
    answer: Option<(Arc<Element>, Arc<Element>)>,
}

impl Opening {
    /// Bytes of a header that are kept.
    const MOST: usize = 512;

    fn of(attrs: &[Attr]) -> Option<Self> {
        let size: usize = attrs.iter().map(|attr| attr.key.len() + attr.value.len()).sum();
        (size <= Self::MOST).then(|| Self {
            attrs: attrs.to_vec(),
            answer: None,
        })
    }
}

/// What a session may still send before its rate holds, as of some moment. Negative while it waits.
struct Allowance {
    left: i64,
    at: Instant,
}

/// Bytes that a leaving peer may still send before it is cut off.
const MAX_FAREWELL: usize = 1 << 20;

/// One connection.
pub struct Session {
    pub sid: u64,
    pub transport: Transport,
    /// Whether the socket may have something to read.
    pub readable: bool,
    /// Whether the poll said that the peer sends no more; then only a read tells the end.
    pub hangup: bool,
    /// Whether the session stands among those of the thread that are to be read, and in which pass it was read last.
    pub in_turns: bool,
    pub last_turn: u32,
    /// Whether it stands in the list of those to flush.
    pub in_dirty: bool,
    /// Nothing is left to do; the thread drops the session.
    pub over: bool,
    pub authenticated: bool,
    pub last_read: Instant,
    /// Since when the peer takes nothing of what waits.
    pub blocked_since: Option<Instant>,
    out: Queue,
    listener: u64,
    options: Arc<ListenerOptions>,
    peer: Peer,
    phase: Phase,
    hold: Hold,
    websocket: Option<Box<WebSocket>>,
    framer: Framer,
    /// The language of the peer's stream, where it is another than ours.
    language: Option<Str>,
    flow: Arc<Flow>,
    identity: Option<Box<Identity>>,
    /// What belongs to a stream between servers, if this is one.
    server: Option<Box<PeerServer>>,
    /// Stream management, once the client wants it.
    managed: Option<Box<Managed>>,
    /// What waits until the client is active again; `None` while it is.
    held: Option<Box<Held>>,
    tls_info: Option<Box<TlsInfo>>,
    /// The client's header, until it has an address.
    opening: Option<Box<Opening>>,
    /// Decrypted bytes that wait because of a hold or of back-pressure.
    pending: Vec<u8>,
    /// A PROXY header or HTTP request that is not complete yet.
    head: Vec<u8>,
    farewell: usize,
    handshake_bytes: usize,
    announced: bool,
    /// Whether the peer's header has come.
    header_seen: bool,
    /// Whether ours has gone.
    opened: bool,
    peer_closed: bool,
    /// Whether the peer's side of the connection is closed.
    ended: bool,
    tapped: bool,
    stalled: bool,
    throttled: bool,
    silent: bool,
    allowance: Allowance,
}

impl Session {
    /// A connection just accepted. `None` when it needs TLS and there is no certificate.
    pub fn new(accepted: Accepted, context: &Context) -> Option<Self> {
        let Accepted {
            sid,
            stream,
            peer,
            listener,
            options,
        } = accepted;
        let mode = options.mode;
        let limits = Limits::bytes(context.shared.config.max_stanza_unauthenticated);
        let websocket = mode.is_websocket();
        let phase = match (options.proxy_protocol, websocket) {
            (true, _) => Phase::Proxy,
            (false, true) => Phase::Upgrade,
            (false, false) => Phase::Stream,
        };
        let mut session = Self {
            sid,
            transport: Transport::new(stream),
            readable: false,
            hangup: false,
            in_turns: false,
            last_turn: 0,
            in_dirty: false,
            over: false,
            authenticated: false,
            last_read: context.now,
            blocked_since: None,
            out: if mode.is_server() {
                Queue::exact()
            } else {
                Queue::default()
            },
            listener,
            options,
            peer,
            phase,
            hold: Hold::No,
            websocket: websocket.then(|| {
                Box::new(WebSocket {
                    decoder: websocket::Decoder::default(),
                    message: None,
                })
            }),
            framer: if websocket {
                Framer::document(limits)
            } else {
                Framer::stream(limits)
            },
            language: None,
            flow: Arc::default(),
            identity: None,
            server: mode.is_server().then(Box::default),
            managed: None,
            held: None,
            tls_info: None,
            opening: None,
            pending: Vec::new(),
            head: Vec::new(),
            farewell: 0,
            handshake_bytes: 0,
            announced: false,
            header_seen: false,
            opened: false,
            peer_closed: false,
            ended: false,
            tapped: false,
            stalled: false,
            throttled: false,
            silent: true,
            allowance: Allowance {
                left: i64::from(context.shared.config.burst),
                at: context.now,
            },
        };
        if mode.is_tls() && phase != Phase::Proxy {
            session.begin_tls(context).then_some(session)
        } else {
            Some(session)
        }
    }

    /// Reads some of what the socket has; true when there may be more.
    pub fn read(&mut self, context: &mut Context) -> bool {
        let mut raw = std::mem::take(&mut context.raw);
        if raw.is_empty() {
            // A session that panicked took it along, and a read into nothing looks like the end of a connection.
            raw = vec![0; READ_SIZE];
        }
        let more = self.read_into(&mut raw, context);
        context.raw = raw;
        more
    }

    fn read_into(&mut self, raw: &mut [u8], context: &mut Context) -> bool {
        if self.over || !self.readable || self.must_wait(context) {
            return false;
        }
        match self.transport.stream.read(raw) {
            Ok(0) => {
                self.readable = false;
                self.end_of_input(context);
            }
            Ok(length) => {
                context.tally.bytes_in += length as u64;
                self.last_read = context.now;
                self.silent = false;
                self.charge(length, context);
                if length < raw.len() && !self.hangup {
                    self.readable = false;
                }
                self.input(&raw[..length], context);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) => self.lose(format!("the connection broke: {error}"), context),
        }
        self.readable && !self.over && !self.must_wait(context)
    }

    /// Whether the socket must not be read now.
    fn must_wait(&mut self, context: &mut Context) -> bool {
        if self.phase == Phase::Leaving {
            return false;
        }
        if self.phase == Phase::Connecting {
            return true;
        }
        if context.shared.gauge.is_full() {
            if !self.stalled {
                self.stalled = true;
                context.stalled.push(self.sid);
            }
            return true;
        }
        self.throttled || self.hold != Hold::No || !self.pending.is_empty() || self.flow.is_paused()
    }

    /// Takes received bytes from the allowance; a session that has used it up is not read until it has grown again.
    fn charge(&mut self, length: usize, context: &mut Context) {
        let (rate, burst) = (
            i64::from(context.shared.config.rate),
            i64::from(context.shared.config.burst),
        );
        if rate == 0 || self.phase == Phase::Leaving || self.is_server() {
            return;
        }
        let idle = i64::try_from((context.now - self.allowance.at).as_micros()).unwrap_or(i64::MAX);
        let grown = idle.saturating_mul(rate) / 1_000_000;
        self.allowance = Allowance {
            left: (self.allowance.left + grown).min(burst) - length as i64,
            at: context.now,
        };
        if self.allowance.left < 0 {
            let wait = Duration::from_micros((-self.allowance.left * 1_000_000 / rate) as u64);
            self.throttled = true;
            context.tally.throttled += 1;
            context.throttled.push(Reverse((context.now + wait, self.sid)));
        }
    }

    /// The allowance has grown enough.
    pub fn unthrottle(&mut self, context: &mut Context) {
        self.throttled = false;
        self.go_on(context);
    }

    /// Writes what waits.
    pub fn flush(&mut self, context: &mut Context) {
        if self.over || self.phase == Phase::Connecting {
            return;
        }
        self.speak(true, context);
        let last = self.phase == Phase::Leaving;
        match self.transport.flush(&mut self.out, last) {
            Ok(written) => {
                context.tally.bytes_out += written;
                self.forget_written();
                if self.transport.blocked {
                    if written > 0 || self.blocked_since.is_none() {
                        self.blocked_since = Some(context.now);
                    }
                    return;
                }
                self.blocked_since = None;
                self.out.release();
                if last {
                    self.over = self.ended;
                    self.transport.shutdown();
                }
            }
            Err(error) => self.lose(format!("the connection broke: {error}"), context),
        }
    }

    /// Whether something waits to be written.
    pub fn wants_flush(&self) -> bool {
        !self.out.is_empty() || self.transport.wants_write()
    }

    /// Whether the peer is another server.
    pub fn is_server(&self) -> bool {
        self.server.is_some()
    }

    /// Whether stanzas of others may go to the peer: it is a bound client, or a server.
    pub fn is_addressed(&self) -> bool {
        self.identity.is_some() || self.server.is_some()
    }

    /// Lets the poll forget the session's thread: another one takes it, with everything that waits in it.
    pub fn leave_thread(&mut self) {
        self.in_turns = false;
        self.in_dirty = false;
        self.readable = true;
        self.throttled = false;
        self.stalled = false;
    }

    fn form(&self) -> Form<'static> {
        if self.websocket.is_some() {
            Form::MESSAGE
        } else if self.server.is_some() {
            Form::SERVER
        } else {
            Form::STREAM
        }
    }

    /// Our stream header, from the attributes of an `<open/>`.
    fn write_header(&mut self, open: &Element) {
        self.opened = true;
        let mut bytes = Vec::new();
        if self.websocket.is_some() {
            xml::serialise(&mut bytes, open, Form::MESSAGE);
        } else {
            bytes.extend_from_slice(b"<?xml version='1.0'?><stream:stream xmlns='");
            bytes.extend_from_slice(self.form().default_ns.as_bytes());
            bytes.extend_from_slice(b"' xmlns:stream='");
            bytes.extend_from_slice(ns::STREAMS.as_bytes());
            if self.server.is_some() {
                bytes.extend_from_slice(b"' xmlns:db='");
                bytes.extend_from_slice(ns::DIALBACK.as_bytes());
            }
            bytes.push(b'\'');
            for attr in open.attrs().iter().filter(|attr| !attr.key.starts_with('{')) {
                bytes.push(b' ');
                bytes.extend_from_slice(attr.key.as_bytes());
                bytes.extend_from_slice(b"='");
                xml::escape_attribute(&mut bytes, &attr.value);
                bytes.push(b'\'');
            }
            bytes.push(b'>');
        }
        self.write_piece(&bytes);
    }

    /// Queues one complete piece of XML, as a message of its own where messages are.
    fn write_piece(&mut self, bytes: &[u8]) {
        if self.websocket.is_some() {
            websocket::text(self.out.buffer(), bytes);
        } else {
            self.out.buffer().extend_from_slice(bytes);
        }
    }

    /// Tells Python of the connection, once.
    fn announce(&mut self, context: &mut Context) {
        if self.announced {
            return;
        }
        self.announced = true;
        let (ip, port) = self.peer.map_or((String::new(), 0), |peer| {
            (peer.ip().to_canonical().to_string(), peer.port())
        });
        let secure = self.options.mode.is_tls();
        context.emit(Event::Connected {
            sid: self.sid,
            listener: self.listener,
            ip,
            port,
            secure,
        });
        if let Some(info) = self.tls_info.take() {
            context.emit(Event::Tls { sid: self.sid, info });
        }
    }

    /// Counts the session in or out of those that have not signed in.
    pub fn count_unauthenticated(&self, context: &Context, change: i64) {
        let counters = &context.shared.counters;
        let counter = match &self.server {
            None => &counters.unauthenticated,
            Some(server) if server.outgoing.is_some() => return,
            Some(_) => &counters.unauthenticated_servers,
        };
        if change > 0 {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
