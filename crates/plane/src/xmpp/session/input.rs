//! From bytes to elements: PROXY header, TLS, HTTP upgrade, WebSocket frames and XML, in the order a connection has them.

use moim_wire::xml::{ns, Condition, Element, Str, XmlEvent};

use super::super::config::Mode;
use super::super::event::Event;
use super::super::shared::Context;
use super::super::upgrade::{judge, Answer, MAX_HEAD};
use super::super::{proxy, websocket};
use super::{Hold, Phase, Session, MAX_FAREWELL};
use crate::tls::{exporter, TlsInfo};

/// Bytes a client may send before TLS is established; a client without a certificate needs about 2 kB.
const MAX_HANDSHAKE: usize = 24 * 1024;
/// The same for another server, which sends a chain of certificates.
const MAX_PEER_HANDSHAKE: usize = 64 * 1024;

impl Session {
    /// Takes bytes as the socket gave them.
    pub(super) fn input(&mut self, raw: &[u8], context: &mut Context) {
        match self.phase {
            Phase::Leaving => {
                self.farewell += raw.len();
                if self.farewell > MAX_FAREWELL {
                    self.over = true;
                }
            }
            Phase::Proxy => self.proxy_header(raw, context),
            _ if self.transport.tls().is_some() => self.decrypt(raw, context),
            _ => self.decrypted(raw, context),
        }
    }

    /// The peer sends no more. It may still read: a farewell that is due is sent, but not waited for.
    pub(super) fn end_of_input(&mut self, context: &mut Context) {
        self.ended = true;
        if self.phase == Phase::Leaving {
            self.over = true;
            return;
        }
        let reason = if self.peer_closed {
            "the peer ended the stream"
        } else {
            "the peer closed the connection"
        };
        if self.outlives_connection() {
            return self.detach(reason.into(), context);
        }
        if self.opened {
            self.end_stream(None, &context.shared.domain);
        }
        self.leave(reason.into(), context);
    }

    fn proxy_header(&mut self, raw: &[u8], context: &mut Context) {
        self.head.extend_from_slice(raw);
        match proxy::parse(&self.head) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let rest = std::mem::take(&mut self.head).split_off(found.length);
                if found.client.is_some() {
                    self.peer = found.client;
                }
                let mode = self.options.mode;
                self.phase = if mode.is_websocket() {
                    Phase::Upgrade
                } else {
                    Phase::Stream
                };
                if mode.is_tls() && !self.begin_tls(context) {
                    return self.lose("there is no certificate yet".into(), context);
                }
                if !rest.is_empty() {
                    self.input(&rest, context);
                }
            }
            Err(reason) => self.lose(reason.into(), context),
        }
    }

    /// Begins TLS in the way of the listener's mode; false when there is no certificate.
    pub(super) fn begin_tls(&mut self, context: &Context) -> bool {
        let Some(tls) = context.shared.server_tls() else {
            return false;
        };
        let config = match self.options.mode {
            Mode::StartTls | Mode::WebSocket => &tls.upgraded,
            Mode::Tls => &tls.direct,
            Mode::WebSocketTls => &tls.http,
            Mode::Server => &tls.peer,
            Mode::ServerTls => &tls.peer_direct,
        };
        self.transport.start_tls(config.clone(), &mut self.out).is_ok()
    }

    fn decrypt(&mut self, raw: &[u8], context: &mut Context) {
        if !self.transport.is_established() {
            self.handshake_bytes += raw.len();
            let bound = if self.server.is_some() {
                MAX_PEER_HANDSHAKE
            } else {
                MAX_HANDSHAKE
            };
            if self.handshake_bytes > bound {
                context.tally.tls_failures += 1;
                return self.lose("TLS failed: the handshake is too long".into(), context);
            }
        }
        let mut plain = std::mem::take(&mut context.plain);
        plain.clear();
        let result = self.transport.receive(raw, &mut plain);
        match result {
            Ok(received) => {
                if received.handshake_done {
                    self.handshake_done(context);
                }
                if !plain.is_empty() {
                    self.decrypted(&plain, context);
                }
                if received.ended && self.phase != Phase::Leaving {
                    self.end_of_input(context);
                }
            }
            Err(error) => {
                context.tally.tls_failures += 1;
                if self.outlives_connection() {
                    self.detach(format!("TLS failed: {error}"), context);
                } else {
                    self.leave(format!("TLS failed: {error}"), context);
                }
            }
        }
        context.plain = plain;
    }

    fn handshake_done(&mut self, context: &mut Context) {
        context.tally.handshakes += 1;
        let Some(tls) = self.transport.tls() else { return };
        let mut info = Box::new(TlsInfo::of(tls));
        if self.server.is_some() {
            self.peer_secured(&mut info, context);
        } else if let Some(binding) = exporter(tls) {
            let mut exporters = context
                .shared
                .exporters
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            exporters.insert(self.sid, binding);
        }
        if self.announced {
            context.emit(Event::Tls { sid: self.sid, info });
        } else {
            self.tls_info = Some(info);
        }
    }

    /// Takes application data.
    fn decrypted(&mut self, data: &[u8], context: &mut Context) {
        if !self.pending.is_empty() || self.hold != Hold::No || self.flow.is_paused() {
            self.pending.extend_from_slice(data);
            return;
        }
        let mut rest = data;
        self.consume(&mut rest, context);
        if !rest.is_empty() && self.phase != Phase::Leaving {
            self.pending = rest.to_vec();
        }
    }

    /// Goes on after a hold or back-pressure.
    pub(super) fn go_on(&mut self, context: &mut Context) {
        if !self.pending.is_empty() {
            let data = std::mem::take(&mut self.pending);
            self.decrypted(&data, context);
        }
    }

    fn consume(&mut self, rest: &mut &[u8], context: &mut Context) {
        while !rest.is_empty() && self.hold == Hold::No && !self.flow.is_paused() {
            match self.phase {
                Phase::Stream if self.peer_closed => *rest = &[],
                Phase::Stream if self.websocket.is_some() => self.websocket_piece(rest, context),
                Phase::Stream => self.stream_piece(rest, context),
                Phase::Upgrade => self.upgrade(rest, context),
                Phase::Connecting | Phase::Proxy | Phase::Leaving => return,
            }
        }
    }

    fn stream_piece(&mut self, rest: &mut &[u8], context: &mut Context) {
        match self.framer.next(rest) {
            Ok(None) => {}
            Ok(Some(XmlEvent::Open(header))) => self.header(&header.default_ns, header.attrs, context),
            Ok(Some(XmlEvent::Element(element, weight))) => {
                self.element(element, weight, context);
                if self.hold == Hold::StartTls {
                    // What came along in the clear must not be taken for something said under TLS.
                    if !rest.trim_ascii().is_empty() {
                        self.fail(
                            Condition::PolicyViolation,
                            "data came together with <starttls/> or <proceed/>",
                            context,
                        );
                    }
                    *rest = &[];
                }
            }
            Ok(Some(XmlEvent::Close)) => self.peer_close(context),
            Err(error) => self.fail(error.condition, error.text, context),
        }
    }

    fn upgrade(&mut self, rest: &mut &[u8], context: &mut Context) {
        // The end may lie across the border of two reads: look again at the last three bytes of what was there.
        let from = self.head.len().saturating_sub(3);
        let room = MAX_HEAD - self.head.len();
        let old = self.head.len();
        self.head.extend_from_slice(&rest[..rest.len().min(room)]);
        let Some(end) = self.head[from..].windows(4).position(|window| window == b"\r\n\r\n") else {
            *rest = &[];
            if self.head.len() == MAX_HEAD {
                self.leave("the HTTP request is too long".into(), context);
            }
            return;
        };
        let length = from + end + 4;
        *rest = &rest[length - old..];
        let head = std::mem::take(&mut self.head);
        match judge(&head[..length], &self.options, self.options.mode.is_tls()) {
            Answer::Accept(response) => {
                self.out.buffer().extend_from_slice(response.as_bytes());
                self.phase = Phase::Stream;
            }
            Answer::Refuse(response, reason) => {
                self.out.buffer().extend_from_slice(response.as_bytes());
                self.leave(format!("the WebSocket was refused: {reason}"), context);
            }
        }
    }

    fn websocket_piece(&mut self, rest: &mut &[u8], context: &mut Context) {
        let mut frame = std::mem::take(&mut context.frame);
        self.websocket_into(rest, &mut frame, context);
        context.frame = frame;
    }

    fn websocket_into(&mut self, rest: &mut &[u8], frame: &mut Vec<u8>, context: &mut Context) {
        let Some(websocket) = self.websocket.as_deref_mut() else {
            return;
        };
        match websocket.decoder.next(rest, frame) {
            Ok(None) => {}
            Ok(Some(websocket::Piece::Text(end))) => {
                let mut data = frame.as_slice();
                loop {
                    match self.framer.next(&mut data) {
                        Ok(Some(XmlEvent::Element(element, weight))) => websocket.message = Some((element, weight)),
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => return self.fail(error.condition, error.text, context),
                    }
                }
                if end {
                    if let Err(error) = self.framer.end_document() {
                        return self.fail(error.condition, error.text, context);
                    }
                    if let Some((element, weight)) = websocket.message.take() {
                        self.message(element, weight, context);
                    }
                }
            }
            Ok(Some(websocket::Piece::Ping)) => {
                websocket::pong(self.out.buffer(), frame);
                self.check_queue(context);
            }
            Ok(Some(websocket::Piece::Close)) => {
                websocket::close(self.out.buffer(), 1000);
                if self.outlives_connection() {
                    self.detach("the peer closed the connection".into(), context);
                } else {
                    self.leave("the peer closed the connection".into(), context);
                }
            }
            Err(violation) => {
                websocket::close(self.out.buffer(), violation.code);
                self.leave(format!("WebSocket: {}", violation.reason), context);
            }
        }
    }

    /// One whole WebSocket message.
    fn message(&mut self, element: Element, weight: u32, context: &mut Context) {
        if element.ns() == ns::FRAMING {
            match element.name().as_str() {
                "open" if self.header_seen => {
                    self.fail(Condition::BadFormat, "the stream is open already", context);
                }
                "open" => {
                    let attrs = element.attrs().to_vec();
                    self.header(&Str::Static(ns::CLIENT), attrs, context);
                }
                "close" => self.peer_close(context),
                _ => self.fail(
                    Condition::InvalidNamespace,
                    "an unknown element of the framing",
                    context,
                ),
            }
        } else if !self.header_seen {
            self.fail(Condition::BadFormat, "the stream is not open", context);
        } else if element.is("stream", ns::STREAMS) {
            self.fail(Condition::BadFormat, "a stream header stands inside a message", context);
        } else {
            self.element(element, weight, context);
        }
    }

    fn peer_close(&mut self, context: &mut Context) {
        self.peer_closed = true;
        // Python answers by closing; should it not, the linger time ends the session.
        context
            .lingering
            .push_back((context.now + context.shared.config.linger, self.sid));
        if self.announced {
            context.emit(Event::Close { sid: self.sid });
        } else {
            self.end_stream(None, &context.shared.domain);
            self.leave("the peer ended the stream".into(), context);
        }
    }
}
