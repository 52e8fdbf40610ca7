//! Outgoing connections: one attempt at one address, made without waiting.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use super::listener::prepare;
use super::transport::Stream;

/// What to connect to, and how.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub sid: u64,
    pub address: SocketAddr,
    /// The local address to connect from.
    pub source: Option<IpAddr>,
    /// For the connection and, if it is direct, TLS.
    pub timeout: Duration,
    /// Whether TLS begins with the first byte.
    pub tls: bool,
    /// What the peer is asked for in TLS.
    pub server_name: ServerName<'static>,
    /// The hosted domain whose certificate is shown; none is for an empty one.
    pub local: Option<String>,
}

impl Outgoing {
    /// Begins to connect.
    ///
    /// # Errors
    /// When the kernel knows at once that it cannot be.
    pub fn begin(&self) -> io::Result<Stream> {
        let socket = Socket::new(
            Domain::for_address(self.address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        prepare(&socket)?;
        if let Some(source) = self.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        Ok(Stream::Tcp(TcpStream::from_std(socket.into())))
    }
}
