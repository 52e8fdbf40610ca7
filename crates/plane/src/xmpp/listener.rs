//! Listening sockets, TCP and Unix, and what an accepted connection is known by.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::config::ListenerOptions;
use super::transport::Stream;

/// How long what was sent may stay without the peer's acknowledgement.
const UNCONFIRMED: Duration = Duration::from_secs(45);

const BACKLOG: i32 = 1024;
/// Bytes the kernel may hold for a slow reader; the rest waits here, where it is bounded and seen.
const UNSENT: u32 = 131_072;

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// One listening socket.
pub struct Listener {
    pub id: u64,
    pub options: Arc<ListenerOptions>,
    acceptor: Acceptor,
}

/// The other end of a connection; the address of a Unix socket's peer is unknown.
pub type Peer = Option<SocketAddr>;

impl Listener {
    /// Binds a TCP address; port 0 is any. With the port that was bound.
    pub fn tcp(id: u64, address: IpAddr, port: u16, options: ListenerOptions) -> io::Result<(Self, u16)> {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Linux hands these on to accepted connections, which saves the calls there.
        prepare(&socket)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        let port = listener.local_addr()?.port();
        Ok((
            Self {
                id,
                options: options.into(),
                acceptor: Acceptor::Tcp(TcpListener::from_std(listener)),
            },
            port,
        ))
    }

    /// Binds a Unix socket; one that nobody listens on any more is replaced.
    pub fn unix(id: u64, path: &Path, options: ListenerOptions) -> io::Result<Self> {
        let bound = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path) => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            other => other?,
        };
        Ok(Self {
            id,
            options: options.into(),
            acceptor: Acceptor::Unix(bound, path.to_owned()),
        })
    }

    /// Lets a poll report connections.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.acceptor {
            Acceptor::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Acceptor::Unix(listener, _) => listener.register(registry, token, Interest::READABLE),
        }
    }

    /// Undoes [`Listener::register`].
    pub fn deregister(&mut self, registry: &Registry) {
        // Dropping the listener ends the registration in any case.
        let _ = match &mut self.acceptor {
            Acceptor::Tcp(listener) => listener.deregister(registry),
            Acceptor::Unix(listener, _) => listener.deregister(registry),
        };
    }

    /// The next connection, or `WouldBlock`.
    pub fn accept(&self) -> io::Result<(Stream, Peer)> {
        match &self.acceptor {
            Acceptor::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Acceptor::Unix(listener, _) => Ok((Stream::Unix(listener.accept()?.0), None)),
        }
    }
}

/// Sets the options that every connection has.
pub fn prepare(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_secs(120))
            .with_interval(Duration::from_secs(30)),
    )?;
    // A peer that vanished is noticed while something is on its way to it, not after the kernel's quarter of an hour.
    socket.set_tcp_user_timeout(Some(UNCONFIRMED))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Acceptor::Unix(_, path) = &self.acceptor {
            // It may be gone already, or belong to a successor that could not be told apart: then it stays.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_stale(path: &Path) -> bool {
    let socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused =
        std::os::unix::net::UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    socket && refused
}
