//! What Python has taken and not routed yet. Later messages of the same session must not overtake it on the short way:
//! they are for Python as well until it has been routed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::event::Flow;

/// The stanzas of the batch that was drained last, and those whose routing takes longer.
#[derive(Debug, Default)]
pub struct Unrouted(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    batch: Vec<(u64, Arc<Flow>)>,
    /// By session.
    postponed: HashMap<u64, Vec<Arc<Flow>>>,
}

impl Unrouted {
    /// Python has taken a batch, with stanzas for others from these sessions.
    pub fn taken(&self, batch: impl IntoIterator<Item = (u64, Arc<Flow>)>) {
        self.lock().batch.extend(batch);
    }

    /// The batch has been worked on: what is not postponed is routed.
    pub fn worked_on(&self) {
        let Taken { batch, postponed } = &mut *self.lock();
        for (sid, flow) in batch.drain(..) {
            match postponed.get_mut(&sid) {
                Some(flows) => flows.push(flow),
                None => flow.routed(),
            }
        }
    }

    /// What is taken of a session is not routed with its batch from now on, but when [`Unrouted::caught_up`] says so.
    pub fn postpone(&self, sid: u64) {
        self.lock().postponed.entry(sid).or_default();
    }

    /// Everything of a session that was postponed is routed.
    pub fn caught_up(&self, sid: u64) {
        let flows = self.lock().postponed.remove(&sid);
        flows.into_iter().flatten().for_each(|flow| flow.routed());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_routed_when_it_is_over_and_what_is_postponed_when_that_is_done() {
        let unrouted = Unrouted::default();
        let flows: [Arc<Flow>; 2] = Default::default();
        let take = || {
            for (sid, flow) in (1..).zip(&flows) {
                flow.add_unrouted();
                unrouted.taken([(sid, flow.clone())]);
            }
        };
        let waiting = || [0, 1].map(|place: usize| flows[place].has_unrouted());
        take();
        unrouted.postpone(2);
        assert_eq!(waiting(), [true, true]);
        unrouted.worked_on();
        assert_eq!(waiting(), [false, true]);
        take();
        unrouted.worked_on();
        assert_eq!(waiting(), [false, true]);
        unrouted.caught_up(2);
        unrouted.caught_up(2);
        assert_eq!(waiting(), [false, false]);
        take();
        unrouted.worked_on();
        assert_eq!(waiting(), [false, false]);
    }
}
