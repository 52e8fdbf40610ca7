//! The SFU engine: one UDP socket, one thread, and the machine of `moim-sfu` between them.
//!
//! Commands come from other threads and work on the machine under its lock; the plane's thread holds the lock for one
//! batch of datagrams at a time, and does its system calls outside.

mod batch;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use moim_sfu::{Config, Event, Kind, Offer, ParticipantStats, Pid, SfuError, Totals};
use moim_sfu::{Datagram, Sfu};

use crate::events::EventQueue;
use batch::Inbox;

/// Kernel buffers in each direction, bytes: some hundred milliseconds of a full node.
const SOCKET_BUFFER: libc::c_int = 4 << 20;
/// Batches taken before timers and output get their turn.
const BATCHES: usize = 8;
/// How long the thread sleeps at the most.
const IDLE: Duration = Duration::from_secs(5);
/// Receive errors in a row after which the socket is given up.
const RECEIVE_FAILURES: u32 = 100;

struct Shared {
    machine: Mutex<Sfu>,
    socket: UdpSocket,
    events: Arc<EventQueue<Event>>,
    wake: std::fs::File,
    stopping: AtomicBool,
    unsent: AtomicU64,
}

/// A running engine; dropping it stops the thread.
pub struct Engine {
    shared: Arc<Shared>,
    local: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Binds the socket and starts the thread. Without candidates in `config` the bound address is announced.
    ///
    /// # Errors
    /// When the address cannot be bound, a candidate cannot be announced, or the system is out of resources.
    pub fn listen(address: IpAddr, port: u16, mut config: Config, events: Arc<EventQueue<Event>>) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, port))?;
        socket.set_nonblocking(true)?;
        enlarge(&socket);
        let local = socket.local_addr()?;
        if config.candidates.is_empty() {
            config.candidates.push(local);
        }
        let machine = Sfu::new(config).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let shared = Arc::new(Shared {
            machine: Mutex::new(machine),
            socket,
            events,
            wake: eventfd()?,
            stopping: AtomicBool::new(false),
            unsent: AtomicU64::new(0),
        });
        let run = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("moim-sfu".into())
            .spawn(move || run.run())?;
        Ok(Self {
            shared,
            local,
            thread: Some(thread),
        })
    }

    /// The address that was bound.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Runs a command on the machine, then sends and announces what came of it.
    pub fn command<R>(&self, work: impl FnOnce(&mut Sfu, Instant) -> R) -> R {
        let mut output = Vec::new();
        let (result, sooner) = {
            let mut machine = self.shared.lock();
            let now = Instant::now();
            let before = machine.deadline();
            let result = work(&mut machine, now);
            self.shared.take(&mut machine, &mut output);
            let after = machine.deadline();
            (
                result,
                after.is_some_and(|after| before.is_none_or(|before| after < before)),
            )
        };
        self.shared.send(&output);
        if sooner {
            self.shared.wake();
        }
        result
    }

    /// Counters of the machine and its participants, and the datagrams the kernel refused.
    pub fn stats(&self) -> (Totals, HashMap<Pid, ParticipantStats>, u64) {
        let (totals, each) = self.shared.lock().stats();
        (totals, each, self.shared.unsent.load(Ordering::Relaxed))
    }

    /// Whether the thread is at work.
    pub fn running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the thread and closes the socket.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self) {
        let mut inbox = Inbox::new();
        let mut output = Vec::new();
        let mut failures = 0;
        while !self.stopping.load(Ordering::Acquire) {
            let deadline = self.lock().deadline();
            self.sleep(deadline);
            let mut more = true;
            for _ in 0..BATCHES {
                if !more {
                    break;
                }
                more = match inbox.fill(self.socket.as_raw_fd()) {
                    Ok(more) => {
                        failures = 0;
                        more
                    }
                    // An ICMP error of an earlier datagram may be told here; it concerns nobody else.
                    Err(_) if failures < RECEIVE_FAILURES => {
                        failures += 1;
                        false
                    }
                    Err(_) => return,
                };
                self.pass(&inbox, &mut output);
            }
        }
    }

    /// One batch through the machine.
    fn pass(&self, inbox: &Inbox, output: &mut Vec<(SocketAddr, Payload)>) {
        output.clear();
        {
            let mut machine = self.lock();
            let now = Instant::now();
            for (data, source) in inbox.datagrams() {
                machine.receive(data, source, now);
            }
            machine.tick(now);
            self.take(&mut machine, output);
        }
        self.send(output);
    }

    fn take(&self, machine: &mut Sfu, output: &mut Vec<(SocketAddr, Payload)>) {
        while let Some(Datagram { destination, contents }) = machine.next_output() {
            output.push((destination, Payload(contents)));
        }
        let mut events = Vec::new();
        while let Some(event) = machine.next_event() {
            events.push(event);
        }
        if !events.is_empty() {
            self.events.extend(events);
        }
    }

    fn send(&self, output: &[(SocketAddr, Payload)]) {
        let unsent = batch::send(self.socket.as_raw_fd(), output);
        if unsent > 0 {
            self.unsent.fetch_add(unsent as u64, Ordering::Relaxed);
        }
    }

    /// Waits for datagrams, a wake-up or the deadline.
    fn sleep(&self, deadline: Option<Instant>) {
        let wait = deadline.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE));
        let timeout = libc::timespec {
            tv_sec: wait.as_secs() as libc::time_t,
            tv_nsec: wait.subsec_nanos().into(),
        };
        let mut watched = [self.socket.as_raw_fd(), self.wake.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: two valid pollfds and their count, a valid timespec, no signal mask.
        let ready = unsafe { libc::ppoll(watched.as_mut_ptr(), 2, &timeout, std::ptr::null()) };
        if ready > 0 && watched[1].revents != 0 {
            let mut counter = [0u8; 8];
            // Whoever woke us set the state first; the count itself says nothing.
            let _ = io::Read::read(&mut &self.wake, &mut counter);
        }
    }

    fn wake(&self) {
        // A full counter leaves the descriptor readable, which is all that is wanted.
        let _ = io::Write::write(&mut &self.wake, &1u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Sfu> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Payload(moim_sfu::Contents);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn eventfd() -> io::Result<std::fs::File> {
    // SAFETY: eventfd takes no pointers; the result is checked before it becomes an owned File.
    let fd: RawFd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fd is a fresh descriptor that nothing else owns.
    Ok(unsafe { std::fs::File::from_raw_fd(fd) })
}

/// Asks for larger kernel buffers; the kernel grants what its limits allow, and less is no error.
fn enlarge(socket: &UdpSocket) {
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option's value is one c_int, passed with its size.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                std::ptr::from_ref(&SOCKET_BUFFER).cast(),
                size,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Engine, Event};
    use crate::events::EventQueue;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    #[test]
    fn commands_reach_the_machine_and_events_come_back() {
        let events = Arc::new(EventQueue::new().unwrap());
        let config = Config::new(vec![]);
        let mut engine = Engine::listen(Ipv4Addr::LOCALHOST.into(), 0, config, Arc::clone(&events)).unwrap();
        engine.command(|machine, now| machine.add(7, now)).unwrap();
        assert_eq!(events.drain(10), vec![Event::Negotiate(7)]);
        let offer = engine.command(|machine, now| machine.offer(7, now)).unwrap().unwrap();
        assert!(offer.sdp.contains(&format!("127.0.0.1 {}", engine.local().port())));
        assert_eq!(engine.stats().0.participants, 1);
        assert!(engine.running());
        engine.stop();
        assert!(!engine.running());
    }

    #[test]
    fn an_address_that_is_not_ours_is_refused() {
        let events = Arc::new(EventQueue::new().unwrap());
        assert!(Engine::listen([192, 0, 2, 1].into(), 0, Config::new(vec![]), events).is_err());
    }
}
