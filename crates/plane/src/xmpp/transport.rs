//! One connection's socket and TLS: ciphertext in and out without waiting, nothing buffered that need not be.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ProtocolVersion, ServerConfig, ServerConnection};

/// A connected socket.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Lets a poll report every change of readiness.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.register(registry, token, interests),
            Self::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    /// Reports from now on under another token.
    pub fn reregister(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => stream.reregister(registry, token, interests),
            Self::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    /// Undoes [`Stream::register`].
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.deregister(registry),
            Self::Unix(stream) => stream.deregister(registry),
        }
    }

    /// Whether a connection that was begun is there now.
    ///
    /// # Errors
    /// When it failed.
    pub fn is_connected(&self) -> io::Result<bool> {
        let Self::Tcp(stream) = self else { return Ok(true) };
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Tcp(stream) => stream.read(buffer),
                Self::Unix(stream) => stream.read(buffer),
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(buffers),
            Self::Unix(stream) => stream.write_vectored(buffers),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that wait to be written.
#[derive(Default)]
pub struct Queue {
    bytes: Vec<u8>,
    at: usize,
    /// Bytes that were ever taken from here, and how many of those are known to have reached the kernel.
    taken: u64,
    written: u64,
    /// Whether bytes are taken in pieces of one TLS record each. A record that is cut off says nothing to the peer, so it is
    /// known then what can have arrived.
    exact: bool,
}

/// Application data in one TLS record.
const RECORD: usize = 16_384;

/// A queue that was emptied keeps a buffer of at most this size while the connection is busy.
const KEEP: usize = 4096;

impl Queue {
    /// A queue that knows what has left.
    pub fn exact() -> Self {
        Self {
            exact: true,
            ..Self::default()
        }
    }

    /// Where to append.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the last byte stands among all that were ever queued.
    pub fn end(&self) -> u64 {
        self.taken + self.len() as u64
    }

    /// How many of all bytes ever queued have reached the kernel.
    pub fn written(&self) -> u64 {
        self.written
    }

    fn front(&self) -> &[u8] {
        let end = if self.exact {
            self.bytes.len().min(self.at + RECORD)
        } else {
            self.bytes.len()
        };
        &self.bytes[self.at..end]
    }

    fn advance(&mut self, taken: usize) {
        self.at += taken;
        self.taken += taken as u64;
        if self.at == self.bytes.len() {
            self.at = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        } else if self.at > 65_536 && self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }

    /// Gives the buffer back if nothing waits.
    pub fn release(&mut self) {
        if self.is_empty() {
            self.at = 0;
            self.bytes = Vec::new();
        }
    }

    /// Moves what waits into a queue of its own; counting begins anew.
    fn take(&mut self) -> Self {
        let fresh = Self {
            exact: self.exact,
            ..Self::default()
        };
        std::mem::replace(self, fresh)
    }
}

/// What [`Transport::receive`] found out besides the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The handshake was completed by these bytes.
    pub handshake_done: bool,
    /// The peer said that nothing more will come.
    pub ended: bool,
}

/// A socket with TLS on it, or not yet.
pub struct Transport {
    pub stream: Stream,
    tls: Option<Box<Connection>>,
    /// Bytes from before TLS that are not written yet.
    before: Queue,
    /// Whether a session ticket waits for something to go out with.
    ticket: bool,
    /// Whether the peer was told in terms of TLS that nothing follows.
    notified: bool,
    shut: bool,
    cut: bool,
    /// Whether the last write met a full socket.
    pub blocked: bool,
}

impl Transport {
    /// Without TLS.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            tls: None,
            before: Queue::default(),
            ticket: false,
            notified: false,
            shut: false,
            cut: false,
            blocked: false,
        }
    }

    /// The TLS connection, once there is one.
    pub fn tls(&self) -> Option<&Connection> {
        self.tls.as_deref()
    }

    /// Whether application data may flow.
    pub fn is_established(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }

    /// Begins the handshake; what waits in `queue` goes out before it, in the clear.
    pub fn start_tls(&mut self, config: Arc<ServerConfig>, queue: &mut Queue) -> Result<(), rustls::Error> {
        self.tls = Some(Box::new(ServerConnection::new(config)?.into()));
        self.before = queue.take();
        Ok(())
    }

    /// Begins the handshake as a client, asking for `name`.
    pub fn start_client_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        queue: &mut Queue,
    ) -> Result<(), rustls::Error> {
        self.tls = Some(Box::new(ClientConnection::new(config, name)?.into()));
        self.before = queue.take();
        Ok(())
    }

    /// Decrypts `raw` and appends what was in it to `plain`. Without TLS, call it not at all.
    ///
    /// # Errors
    /// When the peer breaks TLS; the alert that says so waits to be flushed.
    pub fn receive(&mut self, mut raw: &[u8], plain: &mut Vec<u8>) -> Result<Received, rustls::Error> {
        let mut received = Received::default();
        let Some(tls) = self.tls.as_deref_mut() else {
            return Ok(received);
        };
        let handshaking = tls.is_handshaking();
        while !raw.is_empty() {
            let before = raw.len();
            // Reading from a slice fails only when the connection's own bound on undecrypted data is reached.
            if tls.read_tls(&mut raw).is_err() {
                return Err(rustls::Error::General("a TLS record is too long".into()));
            }
            let state = tls.process_new_packets()?;
            let available = state.plaintext_bytes_to_read();
            if available > 0 {
                let start = plain.len();
                plain.resize(start + available, 0);
                let read = tls.reader().read(&mut plain[start..]).unwrap_or(0);
                plain.truncate(start + read);
            }
            if state.peer_has_closed() {
                received.ended = true;
                break;
            }
            if raw.len() == before {
                break;
            }
        }
        received.handshake_done = handshaking && !tls.is_handshaking();
        // Of TLS 1.3 only a ticket is left now, and the client speaks next: one packet less for each sign-in.
        self.ticket = received.handshake_done
            && matches!(tls, Connection::Server(_))
            && tls.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            || self.ticket;
        Ok(received)
    }

    /// Writes what waits, encrypting it if there is TLS, and behind the `last` TLS's own farewell; the number of bytes that
    /// reached the socket.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, queue: &mut Queue, last: bool) -> io::Result<u64> {
        let mut written = 0;
        let was_blocked = std::mem::replace(&mut self.blocked, false);
        if self.cut {
            return Ok(0);
        }
        while !self.before.is_empty() {
            match write_some(&mut self.stream, self.before.front())? {
                0 => return self.stop(written),
                taken => {
                    self.before.advance(taken);
                    written += taken as u64;
                }
            }
        }
        let Some(tls) = self.tls.as_deref_mut() else {
            while !queue.is_empty() {
                match write_some(&mut self.stream, queue.front())? {
                    0 => return self.stop(written),
                    taken => {
                        queue.advance(taken);
                        queue.written = queue.taken;
                        written += taken as u64;
                    }
                }
            }
            return Ok(written);
        };
        if self.ticket && queue.is_empty() && !last {
            return Ok(written);
        }
        self.ticket = false;
        // What TLS has to say for itself leaves with what waits behind it, in one packet.
        if !queue.exact && !was_blocked && !tls.is_handshaking() {
            let taken = tls.writer().write(queue.front())?;
            queue.advance(taken);
            if last && queue.is_empty() {
                self.notified = true;
                tls.send_close_notify();
            }
        }
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(0) => return self.stop(written),
                    Ok(taken) => written += taken as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return self.stop(written),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            queue.written = queue.taken;
            if tls.is_handshaking() || queue.is_empty() {
                return Ok(written);
            }
            let taken = tls.writer().write(queue.front())?;
            queue.advance(taken);
        }
    }

    fn stop(&mut self, written: u64) -> io::Result<u64> {
        self.blocked = true;
        Ok(written)
    }

    /// Sends nothing more, not even what is half sent.
    pub fn cut(&mut self) {
        self.cut = true;
        self.shutdown();
    }

    /// Bytes that wait inside, besides the queue given to [`Transport::flush`].
    pub fn wants_write(&self) -> bool {
        let tls = || self.tls.as_ref().is_some_and(|tls| tls.wants_write() && !self.ticket);
        !self.cut && (!self.before.is_empty() || tls())
    }

    /// Says that nothing more will be sent; call when everything is flushed. Harmless when repeated.
    pub fn shutdown(&mut self) {
        if self.shut {
            return;
        }
        self.shut = true;
        if let Some(tls) = self.tls.as_deref_mut().filter(|_| !self.cut && !self.notified) {
            tls.send_close_notify();
            // One try: a peer that does not read gets no farewell.
            let _ = tls.write_tls(&mut self.stream);
        }
        let _ = self.stream.shutdown();
    }
}

/// Writes some of the bytes; 0 when the socket is full.
fn write_some(stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            other => return other,
        }
    }
}
