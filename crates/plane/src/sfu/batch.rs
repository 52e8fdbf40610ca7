//! Many datagrams per system call on one UDP socket (recvmmsg and sendmmsg), both address families.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;

/// Datagrams per system call.
pub const BATCH: usize = 64;
/// Room for one datagram, bytes. A longer one is cut, and no longer a datagram of ours.
const ROOM: usize = 2048;

/// Buffers for one batch of received datagrams.
pub struct Inbox {
    buffers: Vec<[u8; ROOM]>,
    names: Vec<libc::sockaddr_storage>,
    lengths: Vec<usize>,
}

impl Inbox {
    pub fn new() -> Self {
        // SAFETY: sockaddr_storage is plain data for which all zeros is a valid value (AF_UNSPEC).
        let name: libc::sockaddr_storage = unsafe { zeroed() };
        Self {
            buffers: vec![[0; ROOM]; BATCH],
            names: vec![name; BATCH],
            lengths: Vec::with_capacity(BATCH),
        }
    }

    /// Takes what waits on a socket, without blocking; true when there may be more.
    ///
    /// # Errors
    /// What the kernel says, except that nothing waits.
    pub fn fill(&mut self, socket: RawFd) -> io::Result<bool> {
        self.lengths.clear();
        let mut vectors: Vec<libc::iovec> = self
            .buffers
            .iter_mut()
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: ROOM,
            })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(BATCH);
        for (vector, name) in vectors.iter_mut().zip(&mut self.names) {
            // SAFETY: msghdr is plain data for which all zeros is a valid, empty value.
            let mut header: libc::msghdr = unsafe { zeroed() };
            header.msg_name = std::ptr::from_mut(name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            headers.push(libc::mmsghdr {
                msg_hdr: header,
                msg_len: 0,
            });
        }
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: every header points into `vectors`, `names` and `buffers`, which outlive the call and are not
        // touched during it; the count is their number.
        let count = unsafe {
            libc::recvmmsg(
                socket,
                headers.as_mut_ptr(),
                headers.len() as _,
                flags,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            };
        }
        self.lengths.extend(headers.iter().take(count as usize).map(|header| {
            let cut = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            if cut {
                0
            } else {
                header.msg_len as usize
            }
        }));
        Ok(count as usize == BATCH)
    }

    /// The datagrams of the last call to [`Inbox::fill`] with their sources.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        self.lengths
            .iter()
            .zip(&self.buffers)
            .zip(&self.names)
            .filter_map(|((length, buffer), name)| Some((&buffer[..*length], decode(name)?)))
    }
}

/// Sends datagrams in as few calls as possible; gives the number that the kernel did not take.
pub fn send<B: AsRef<[u8]>>(socket: RawFd, datagrams: &[(SocketAddr, B)]) -> usize {
    datagrams.chunks(BATCH).map(|chunk| send_chunk(socket, chunk)).sum()
}

fn send_chunk<B: AsRef<[u8]>>(socket: RawFd, chunk: &[(SocketAddr, B)]) -> usize {
    let mut names: Vec<(libc::sockaddr_storage, libc::socklen_t)> = chunk.iter().map(|(to, _)| encode(*to)).collect();
    let mut vectors: Vec<libc::iovec> = chunk
        .iter()
        .map(|(_, data)| {
            let data = data.as_ref();
            libc::iovec {
                iov_base: data.as_ptr().cast_mut().cast(),
                iov_len: data.len(),
            }
        })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(chunk.len());
    for (vector, (name, length)) in vectors.iter_mut().zip(&mut names) {
        // SAFETY: msghdr is plain data for which all zeros is a valid, empty value.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_name = std::ptr::from_mut(name).cast();
        header.msg_namelen = *length;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        headers.push(libc::mmsghdr {
            msg_hdr: header,
            msg_len: 0,
        });
    }
    let (mut next, mut failed) = (0, 0);
    while next < headers.len() {
        let rest = &mut headers[next..];
        // SAFETY: every header points into `names`, `vectors` and the callers' data, which outlive the call; the
        // kernel only reads the data.
        let sent = unsafe { libc::sendmmsg(socket, rest.as_mut_ptr(), rest.len() as _, libc::MSG_DONTWAIT as _) };
        if sent > 0 {
            next += sent as usize;
            continue;
        }
        match io::Error::last_os_error().kind() {
            io::ErrorKind::Interrupted => {}
            // A full send buffer will not empty within this call; media that waits is worth nothing.
            io::ErrorKind::WouldBlock => return failed + headers.len() - next,
            // Only the first datagram of the call can be at fault: an unreachable destination, for one.
            _ => {
                failed += 1;
                next += 1;
            }
        }
    }
    failed
}

fn encode(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: sockaddr_storage is plain data for which all zeros is a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_storage is larger than and aligned for every sockaddr (POSIX <sys/socket.h>).
            let name = unsafe { &mut *std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = v4.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let name = unsafe { &mut *std::ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = v6.port().to_be();
            name.sin6_addr.s6_addr = v6.ip().octets();
            name.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

fn decode(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in; size and alignment as in `encode`.
            let name = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let name = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::new(IpAddr::V6(ip), u16::from_be(name.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, send, Inbox, BATCH};
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsRawFd;

    #[test]
    fn addresses_survive_the_kernel_s_form() {
        for text in ["127.0.0.1:1", "192.0.2.200:65535", "[::1]:5000", "[2001:db8::7]:16384"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(decode(&encode(address).0), Some(address));
        }
    }

    #[test]
    fn batches_arrive_whole_and_in_order() {
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = to.local_addr().unwrap();
        let sent: Vec<(SocketAddr, Vec<u8>)> = (0..BATCH as u8 + 10).map(|n| (target, vec![n; 5])).collect();
        assert_eq!(send(from.as_raw_fd(), &sent), 0);
        let mut inbox = Inbox::new();
        assert!(inbox.fill(to.as_raw_fd()).unwrap());
        let mut got: Vec<Vec<u8>> = inbox.datagrams().map(|(data, _)| data.to_vec()).collect();
        assert!(inbox
            .datagrams()
            .all(|(_, source)| source == from.local_addr().unwrap()));
        assert!(!inbox.fill(to.as_raw_fd()).unwrap());
        got.extend(inbox.datagrams().map(|(data, _)| data.to_vec()));
        assert_eq!(got, sent.into_iter().map(|(_, data)| data).collect::<Vec<_>>());
        assert!(!inbox.fill(to.as_raw_fd()).unwrap());
        assert_eq!(inbox.datagrams().count(), 0);
    }

    #[test]
    fn a_datagram_that_cannot_go_does_not_stop_the_rest() {
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bad: SocketAddr = "[::1]:9".parse().unwrap();
        let batch = [(bad, vec![1]), (to.local_addr().unwrap(), vec![2])];
        assert_eq!(send(from.as_raw_fd(), &batch), 1);
        let mut inbox = Inbox::new();
        inbox.fill(to.as_raw_fd()).unwrap();
        assert_eq!(
            inbox.datagrams().map(|(data, _)| data.to_vec()).collect::<Vec<_>>(),
            vec![vec![2]]
        );
    }
}
