//! One queue and one wake-up descriptor per engine: producers are plane threads, the consumer is Python's event loop.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

/// A queue of events with an eventfd that is readable while the queue is not empty.
///
/// The descriptor is written once per empty → non-empty change, not per event: a burst costs one wake-up.
pub struct EventQueue<E> {
    events: Mutex<VecDeque<E>>,
    signalled: AtomicBool,
    descriptor: File,
}

impl<E> EventQueue<E> {
    /// Makes an empty queue.
    ///
    /// # Errors
    /// When the kernel refuses an eventfd (descriptor limit).
    pub fn new() -> std::io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before it becomes an owned File.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: fd is a fresh descriptor that nothing else owns.
        let descriptor = unsafe { File::from_raw_fd(fd) };
        Ok(Self {
            events: Mutex::new(VecDeque::new()),
            signalled: AtomicBool::new(false),
            descriptor,
        })
    }

    /// The descriptor to watch for readability; owned by the queue.
    pub fn fileno(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Adds one event and wakes the consumer when it may be asleep.
    pub fn push(&self, event: E) {
        self.lock().push_back(event);
        self.wake();
    }

    /// Adds a batch of events with one wake-up.
    pub fn extend(&self, batch: impl IntoIterator<Item = E>) {
        let mut events = self.lock();
        events.extend(batch);
        if !events.is_empty() {
            drop(events);
            self.wake();
        }
    }

    /// Takes up to `max` events, oldest first. The descriptor stays readable while any are left.
    pub fn drain(&self, max: usize) -> Vec<E> {
        let mut counter = [0u8; 8];
        // An empty eventfd answers EAGAIN, which means the same as zero here.
        let _ = (&self.descriptor).read(&mut counter);
        // Only after the read: a producer that signals in between would have its wake-up read away, and as the signal
        // would stay set, nobody would ever wake the consumer again.
        self.signalled.store(false, Ordering::SeqCst);
        let mut events = self.lock();
        let take = events.len().min(max);
        let batch = events.drain(..take).collect();
        let left = !events.is_empty();
        drop(events);
        if left {
            self.wake();
        }
        batch
    }

    /// Events waiting now.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn wake(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // A full counter still leaves the descriptor readable, so the result does not matter.
            let _ = (&self.descriptor).write(&1u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<E>> {
        self.events.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::EventQueue;

    #[test]
    fn drains_in_order_and_in_parts() {
        let queue = EventQueue::new().unwrap();
        queue.extend(0..5);
        assert_eq!(queue.drain(2), vec![0, 1]);
        assert_eq!(queue.drain(10), vec![2, 3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const EVENTS: usize = 200_000;
        let queue = EventQueue::new().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..EVENTS).for_each(|number| queue.push(number)));
            let mut taken = 0;
            while taken < EVENTS {
                let mut poll = libc::pollfd {
                    fd: queue.fileno(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                // SAFETY: one valid pollfd, count 1; ten seconds are far more than the producer needs for one event.
                let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
                assert_eq!(ready, 1, "{} events wait, and nobody was told", queue.len());
                taken += queue.drain(4096).len();
            }
        });
    }

    #[test]
    fn descriptor_is_readable_only_while_events_wait() {
        let queue = EventQueue::new().unwrap();
        let readable = |queue: &EventQueue<i32>| {
            let mut poll = libc::pollfd {
                fd: queue.fileno(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one valid pollfd, count 1, no wait.
            unsafe { libc::poll(&mut poll, 1, 0) == 1 }
        };
        assert!(!readable(&queue));
        queue.push(1);
        queue.push(2);
        assert!(readable(&queue));
        queue.drain(1);
        assert!(readable(&queue));
        queue.drain(1);
        assert!(!readable(&queue));
    }
}
