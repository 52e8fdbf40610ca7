//! Many datagrams per system call: one set of buffers that is received into, framed in place and sent from.

use super::socket::{from_raw, put_raw};
use moim_wire::stun::{HEADROOM, TAILROOM};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::RawFd;

/// Datagrams per call, and buffers.
pub const BATCH: usize = 64;

/// Where a datagram is received, so that a Data indication's header fits in front.
const FRONT: usize = HEADROOM.next_multiple_of(16);
const LARGEST: usize = 65_535;
/// Not a multiple of a page, so that the fronts of the buffers do not compete for the same cache lines.
const STRIDE: usize = (FRONT + LARGEST + TAILROOM).next_multiple_of(256) + 256;

/// One datagram to send: `bytes` of buffer `slot`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Which socket; datagrams of one socket are sent together.
    pub socket: usize,
    pub to: SocketAddr,
    pub slot: usize,
    pub bytes: Range<usize>,
    pub dont_fragment: bool,
}

/// The buffers and the kernel's descriptions of them. Every pointer leads into a boxed slice that lives as long.
pub struct Batch {
    memory: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    headers: Box<[libc::mmsghdr]>,
    _vectors: Box<[libc::iovec]>,
    send_names: Box<[libc::sockaddr_storage]>,
    send_vectors: Box<[libc::iovec]>,
    send_headers: Box<[libc::mmsghdr]>,
}

// SAFETY: the raw pointers lead into the boxes of this same value, which move with it.
unsafe impl Send for Batch {}

impl Batch {
    pub fn new() -> Self {
        // SAFETY: all-zero is valid for each of these plain C structures.
        let (name, vector, header) = unsafe {
            (
                zeroed::<libc::sockaddr_storage>(),
                zeroed::<libc::iovec>(),
                zeroed::<libc::mmsghdr>(),
            )
        };
        let mut memory = vec![0; BATCH * STRIDE].into_boxed_slice();
        let mut names = vec![name; BATCH].into_boxed_slice();
        let mut vectors = vec![vector; BATCH].into_boxed_slice();
        let mut headers = vec![header; BATCH].into_boxed_slice();
        let base = memory.as_mut_ptr();
        for slot in 0..BATCH {
            // SAFETY: the buffer of `slot` lies within `memory`.
            vectors[slot].iov_base = unsafe { base.add(slot * STRIDE + FRONT) }.cast();
            vectors[slot].iov_len = LARGEST;
            headers[slot].msg_hdr.msg_iov = &raw mut vectors[slot];
            headers[slot].msg_hdr.msg_iovlen = 1;
            headers[slot].msg_hdr.msg_name = (&raw mut names[slot]).cast();
            headers[slot].msg_hdr.msg_namelen = NAME;
        }
        Self {
            memory,
            names,
            headers,
            _vectors: vectors,
            send_names: vec![name; BATCH].into_boxed_slice(),
            send_vectors: vec![vector; BATCH].into_boxed_slice(),
            send_headers: vec![header; BATCH].into_boxed_slice(),
        }
    }

    /// Receives what waits, into buffers from `first` on, `limit` at the most. Zero when nothing waits.
    pub fn receive(&mut self, fd: RawFd, first: usize, limit: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..first + limit];
        // SAFETY: each header describes one buffer and one name of this value; the count is the slice's length.
        let count = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), limit as u32, 0, std::ptr::null_mut()) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
                _ => Err(error),
            };
        }
        for header in &mut headers[..count as usize] {
            header.msg_hdr.msg_namelen = NAME;
        }
        Ok(count as usize)
    }

    /// Who sent what lies in a buffer; None when it is no IP address.
    pub fn sender(&self, slot: usize) -> Option<SocketAddr> {
        from_raw(&self.names[slot])
    }

    /// Where in its buffer a received datagram lies.
    pub fn place(&self, slot: usize) -> Range<usize> {
        FRONT..FRONT + self.headers[slot].msg_len as usize
    }

    /// A whole buffer, with room around the datagram.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        &mut self.memory[slot * STRIDE..(slot + 1) * STRIDE]
    }

    /// Sends datagrams over one socket, in order. Gives how many the system did not take; those are lost, as UDP is.
    pub fn send(&mut self, fd: RawFd, datagrams: &[Outgoing]) -> usize {
        debug_assert!(datagrams.len() <= BATCH);
        for (index, datagram) in datagrams.iter().enumerate() {
            let start = datagram.slot * STRIDE + datagram.bytes.start;
            let bytes = &mut self.memory[start..start + datagram.bytes.len()];
            self.send_vectors[index].iov_base = bytes.as_mut_ptr().cast();
            self.send_vectors[index].iov_len = bytes.len();
            let header = &mut self.send_headers[index].msg_hdr;
            header.msg_iov = &raw mut self.send_vectors[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.send_names[index]).cast();
            header.msg_namelen = put_raw(&mut self.send_names[index], datagram.to);
        }
        let (mut next, mut lost) = (0, 0);
        while next < datagrams.len() {
            let headers = &mut self.send_headers[next..datagrams.len()];
            // SAFETY: each header was just filled from a buffer of this value; the count is the slice's length.
            let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as u32, 0) };
            if sent > 0 {
                next += sent as usize;
                continue;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                // The socket's buffer is full: late media is worse than lost media.
                io::ErrorKind::WouldBlock => return lost + datagrams.len() - next,
                // This one cannot be sent (no route, too long, refused by a filter); the next one may.
                _ => {
                    next += 1;
                    lost += 1;
                }
            }
        }
        lost
    }
}

const NAME: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;

/// Sends one datagram from anywhere.
pub fn send_one(fd: RawFd, to: SocketAddr, bytes: &[u8]) -> bool {
    let (name, length) = super::socket::to_raw(to);
    // SAFETY: both pointers and lengths describe live values.
    let sent = unsafe {
        libc::sendto(
            fd,
            bytes.as_ptr().cast(),
            bytes.len(),
            0,
            (&raw const name).cast(),
            length,
        )
    };
    sent >= 0
}

#[cfg(test)]
mod tests {
    use super::super::socket::{bind, local_address};
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_batch_crosses_in_order_and_errors_cost_one_datagram() {
        let here = bind("127.0.0.1:0".parse().unwrap(), false, 1 << 20).unwrap();
        let there = bind("127.0.0.1:0".parse().unwrap(), false, 1 << 20).unwrap();
        let to = local_address(there.as_raw_fd()).unwrap();
        let mut batch = Batch::new();
        let mut outgoing = Vec::new();
        for slot in 0..BATCH {
            let length = slot * 20;
            batch.buffer(slot)[FRONT..FRONT + length].fill(slot as u8);
            // A broadcast address without permission to use it is refused by the kernel.
            let to = if slot == 10 {
                "255.255.255.255:9".parse().unwrap()
            } else {
                to
            };
            outgoing.push(Outgoing {
                socket: 0,
                to,
                slot,
                bytes: FRONT..FRONT + length,
                dont_fragment: false,
            });
        }
        assert_eq!(batch.send(here.as_raw_fd(), &outgoing), 1);
        let mut received = Batch::new();
        let count = received.receive(there.as_raw_fd(), 0, BATCH).unwrap();
        assert_eq!(count, BATCH - 1);
        for (index, slot) in (0..BATCH).filter(|slot| *slot != 10).enumerate() {
            assert_eq!(received.sender(index), Some(local_address(here.as_raw_fd()).unwrap()));
            let place = received.place(index);
            assert_eq!(place.len(), slot * 20);
            assert!(received.buffer(index)[place].iter().all(|byte| *byte == slot as u8));
        }
        assert_eq!(received.receive(there.as_raw_fd(), 0, BATCH).unwrap(), 0);
    }

    #[test]
    fn the_largest_datagram_fits_with_room_around_it() {
        let here = bind("127.0.0.1:0".parse().unwrap(), false, 1 << 20).unwrap();
        let to = local_address(here.as_raw_fd()).unwrap();
        assert!(send_one(here.as_raw_fd(), to, &[7; 65_507]));
        let mut batch = Batch::new();
        assert_eq!(batch.receive(here.as_raw_fd(), BATCH - 1, 1).unwrap(), 1);
        let place = batch.place(BATCH - 1);
        assert_eq!(place.len(), 65_507);
        assert!(place.start >= HEADROOM && place.end + TAILROOM <= batch.buffer(BATCH - 1).len());
    }
}
