//! What passes between participants: packets to subscribers, keyframe requests and bandwidth limits to publishers.

use std::time::Instant;

use crate::machine::Sfu;
use crate::Pid;

impl Sfu {
    /// Hands published packets to the subscribers and keyframe requests to the publishers, until there are no more.
    pub(crate) fn pump(&mut self, now: Instant) {
        let mut watchers = Vec::new();
        loop {
            let packets = std::mem::take(&mut self.sink.packets);
            let mut keyframes = std::mem::take(&mut self.sink.keyframes);
            if packets.is_empty() && keyframes.is_empty() {
                return;
            }
            for packet in &packets {
                watchers.clear();
                if let Some(publisher) = self.participants.get(&packet.publisher) {
                    watchers.extend_from_slice(&publisher.watchers);
                }
                for watcher in &watchers {
                    let mut forwarded = false;
                    self.guard(*watcher, now, |participant, config, sink| {
                        forwarded = participant.forward(packet, now);
                        if forwarded {
                            participant.drain(now, config, sink)
                        } else {
                            Ok(())
                        }
                    });
                    self.totals.forwarded += u64::from(forwarded);
                }
            }
            keyframes.sort_unstable();
            keyframes.dedup();
            for publisher in keyframes {
                self.guard(publisher, now, |participant, config, sink| {
                    participant.gate.want();
                    participant.tick(now, config, sink)
                });
            }
        }
    }

    pub(crate) fn review(&mut self, pid: Pid, now: Instant) {
        let mut resumed = Vec::new();
        self.guard(pid, now, |participant, config, sink| {
            resumed = participant.review(config);
            participant.drain(now, config, sink)
        });
        self.sink.keyframes.append(&mut resumed);
        let Some(publisher) = self.participants.get(&pid) else {
            return;
        };
        let rates = publisher
            .watchers
            .iter()
            .filter_map(|watcher| self.participants.get(watcher));
        let lowest = rates
            .filter(|watcher| watcher.shows(pid))
            .filter_map(|watcher| watcher.video_rate)
            .min();
        if let Some(rate) = lowest {
            self.guard(pid, now, |participant, config, sink| {
                participant.limit_video(rate);
                participant.drain(now, config, sink)
            });
        }
    }
}
