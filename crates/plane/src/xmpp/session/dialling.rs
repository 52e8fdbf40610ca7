//! A connection that was begun from here: until it is up, and until its handshake is done.

use std::cmp::Reverse;
use std::time::Instant;

use super::super::config::{ListenerOptions, Mode};
use super::super::connect::Outgoing;
use super::super::event::Event;
use super::super::shared::{Accepted, Context};
use super::super::transport::Stream;
use super::peer::PeerServer;
use super::{Hold, Phase, Session};
use crate::tls::{client_config, TlsInfo};

/// What an outgoing stream remembers of how it was asked for.
pub(super) struct Dialled {
    outgoing: Outgoing,
    /// Whether Python has been told that the connection is there.
    connected: bool,
    deadline: Instant,
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
        self.server.as_ref().is_some_and(|server| server.outgoing.is_some())
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
            .and_then(|tls| tls.certificates.of(local.as_deref()))
            .filter(|_| local.as_deref() != Some(""));
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
}
