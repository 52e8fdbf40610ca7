//! Many datagrams per system call: one set of buffers that is received into, framed in place and sent from.
//!
//! Datagrams of one size to one address, such as the packets of a video frame, go through the network stack as one
//! (generic segmentation offload, UDP_SEGMENT), gathered from their buffers.

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
    send_controls: Box<[Control]>,
    /// First datagram and number of datagrams of each message.
    send_runs: Vec<(usize, usize)>,
    /// Until the kernel or a network card says it cannot.
    segmentation: bool,
}

/// A control message with the size of a segment.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

// SAFETY: CMSG_SPACE only computes.
const CONTROL: usize = unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) } as usize;

/// What the kernel takes as one message: segments, bytes, and bytes per segment (below every usual path MTU).
const SEGMENTS: usize = 60;
const SEGMENTED: usize = 64_000;
const SEGMENT: usize = 1_400;

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
            send_controls: vec![Control([0; CONTROL]); BATCH].into_boxed_slice(),
            send_runs: Vec::with_capacity(BATCH),
            segmentation: true,
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
        self.send_as(fd, datagrams, self.segmentation)
    }

    fn send_as(&mut self, fd: RawFd, datagrams: &[Outgoing], segmentation: bool) -> usize {
        debug_assert!(datagrams.len() <= BATCH);
        self.describe(datagrams, segmentation);
        let (mut next, mut lost) = (0, 0);
        while next < self.send_runs.len() {
            let headers = &mut self.send_headers[next..self.send_runs.len()];
            // SAFETY: each header was just filled from buffers of this value; the count is the slice's length.
            let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), headers.len() as u32, 0) };
            if sent > 0 {
                next += sent as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            let (first, count) = self.send_runs[next];
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // The socket's buffer is full: late media is worse than lost media.
                io::ErrorKind::WouldBlock => return lost + datagrams.len() - first,
                _ if count > 1 => {
                    // EIO: the card cannot checksum segments. Others concern this message; its parts may do.
                    self.segmentation &= error.raw_os_error() != Some(libc::EIO);
                    return lost
                        + self.send_as(fd, &datagrams[first..first + count], false)
                        + self.send_as(fd, &datagrams[first + count..], self.segmentation);
                }
                // This one cannot be sent (no route, too long, refused by a filter); the next one may.
                _ => {
                    next += 1;
                    lost += 1;
                }
            }
        }
        lost
    }

    /// Fills the kernel's descriptions of what is to be sent.
    fn describe(&mut self, datagrams: &[Outgoing], segmentation: bool) {
        self.send_runs.clear();
        let mut first = 0;
        while first < datagrams.len() {
            let count = if segmentation {
                run_length(&datagrams[first..])
            } else {
                1
            };
            for (index, datagram) in (first..).zip(&datagrams[first..first + count]) {
                let start = datagram.slot * STRIDE + datagram.bytes.start;
                let bytes = &mut self.memory[start..start + datagram.bytes.len()];
                self.send_vectors[index].iov_base = bytes.as_mut_ptr().cast();
                self.send_vectors[index].iov_len = bytes.len();
            }
            let message = self.send_runs.len();
            let header = &mut self.send_headers[message].msg_hdr;
            header.msg_iov = &raw mut self.send_vectors[first];
            header.msg_iovlen = count;
            header.msg_name = (&raw mut self.send_names[message]).cast();
            header.msg_namelen = put_raw(&mut self.send_names[message], datagrams[first].to);
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if count > 1 {
                header.msg_control = (&raw mut self.send_controls[message]).cast();
                header.msg_controllen = CONTROL;
                let size = datagrams[first].bytes.len() as u16;
                // SAFETY: the control buffer is aligned and has room for one header with a u16.
                unsafe {
                    let control = libc::CMSG_FIRSTHDR(header);
                    (*control).cmsg_level = libc::SOL_UDP;
                    (*control).cmsg_type = libc::UDP_SEGMENT;
                    (*control).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
                    libc::CMSG_DATA(control).cast::<u16>().write_unaligned(size);
                }
            }
            self.send_runs.push((first, count));
            first += count;
        }
    }
}

/// How many of these can be sent as segments of one message: one address, one size, only the last one shorter.
fn run_length(datagrams: &[Outgoing]) -> usize {
    let (to, size) = (datagrams[0].to, datagrams[0].bytes.len());
    if size == 0 || size > SEGMENT {
        return 1;
    }
    let mut count = 1;
    for datagram in &datagrams[1..] {
        let length = datagram.bytes.len();
        if datagram.to != to || length > size || length == 0 || count == SEGMENTS || (count + 1) * size > SEGMENTED {
            break;
        }
        count += 1;
        if length < size {
            break;
        }
    }
    count
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
    fn frames_are_sent_as_segments_and_arrive_as_they_were() {
        let here = bind("127.0.0.1:0".parse().unwrap(), false, 1 << 20).unwrap();
        let peers = [(); 2].map(|()| bind("127.0.0.1:0".parse().unwrap(), false, 1 << 20).unwrap());
        let to = [0, 1].map(|peer: usize| local_address(peers[peer].as_raw_fd()).unwrap());
        // Two frames to the first peer, one to the second, an empty datagram and one that is too long for a segment.
        let sizes = [
            (0, 1200),
            (0, 1200),
            (0, 1200),
            (0, 300),
            (0, 900),
            (0, 900),
            (1, 900),
            (1, 900),
            (1, 901),
        ];
        let sizes = sizes.into_iter().chain([(0, 0), (0, 0), (0, 1500), (0, 1500), (1, 7)]);
        let mut batch = Batch::new();
        let mut outgoing = Vec::new();
        for (slot, (peer, length)) in sizes.enumerate() {
            batch.buffer(slot)[FRONT..FRONT + length].fill(slot as u8);
            outgoing.push(Outgoing {
                socket: 0,
                to: to[peer],
                slot,
                bytes: FRONT..FRONT + length,
                dont_fragment: false,
            });
        }
        assert_eq!(batch.send(here.as_raw_fd(), &outgoing), 0);
        assert_eq!(
            batch.send_runs,
            [
                (0, 4),
                (4, 2),
                (6, 2),
                (8, 1),
                (9, 1),
                (10, 1),
                (11, 1),
                (12, 1),
                (13, 1)
            ]
        );
        assert!(batch.segmentation);
        for (peer, socket) in peers.iter().enumerate() {
            let mut received = Batch::new();
            let count = received.receive(socket.as_raw_fd(), 0, BATCH).unwrap();
            let expected: Vec<_> = outgoing.iter().filter(|datagram| datagram.to == to[peer]).collect();
            assert_eq!(count, expected.len());
            for (index, datagram) in expected.into_iter().enumerate() {
                let place = received.place(index);
                assert_eq!(place.len(), datagram.bytes.len());
                assert!(received.buffer(index)[place]
                    .iter()
                    .all(|byte| *byte == datagram.slot as u8));
            }
        }
    }

    #[test]
    fn segments_that_cannot_be_sent_are_tried_one_by_one() {
        let here = bind("127.0.0.1:0".parse().unwrap(), false, 1 << 20).unwrap();
        let good = local_address(here.as_raw_fd()).unwrap();
        let broadcast = "255.255.255.255:9".parse().unwrap();
        let mut batch = Batch::new();
        let to = [good, good, broadcast, broadcast, broadcast, good, good];
        let outgoing: Vec<_> = to
            .into_iter()
            .enumerate()
            .map(|(slot, to)| Outgoing {
                socket: 0,
                to,
                slot,
                bytes: FRONT..FRONT + 10,
                dont_fragment: false,
            })
            .collect();
        assert_eq!(batch.send(here.as_raw_fd(), &outgoing), 3);
        assert_eq!(batch.receive(here.as_raw_fd(), 0, BATCH).unwrap(), 4);
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
