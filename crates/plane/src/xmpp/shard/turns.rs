//! Whose turn it is to be read. Everybody has one turn in a pass, and whoever became readable during it goes before those who
//! have much to say: a message of somebody who writes seldom waits for few others, however much they send.

use std::collections::VecDeque;

/// The sessions of a thread that have something to read.
#[derive(Default)]
pub struct Turns {
    /// Sessions that became readable and have not had a turn in this pass.
    fresh: VecDeque<u64>,
    /// Sessions that had more to say than a turn of an earlier pass allows.
    waiting: VecDeque<u64>,
    /// Sessions that have had their turn, and are readable again.
    later: VecDeque<u64>,
    pass: u32,
}

impl Turns {
    /// Adds a session, whose last turn was in the pass `last`; or has never been, which may be any number.
    pub fn add(&mut self, sid: u64, last: u32) {
        if last == self.pass {
            self.later.push_back(sid);
        } else {
            self.fresh.push_back(sid);
        }
    }

    /// The next session, and the pass that this turn belongs to. Nobody is left out: the pass ends when all have had theirs.
    pub fn next(&mut self) -> Option<(u64, u32)> {
        if self.fresh.is_empty() && self.waiting.is_empty() {
            std::mem::swap(&mut self.waiting, &mut self.later);
            self.pass = self.pass.wrapping_add(1);
        }
        let next = self.fresh.pop_front().or_else(|| self.waiting.pop_front());
        next.map(|sid| (sid, self.pass))
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.waiting.is_empty() && self.later.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_goes_first_but_once_in_a_pass() {
        let mut turns = Turns::default();
        turns.add(1, 9);
        turns.add(2, 9);
        let (first, pass) = turns.next().unwrap();
        turns.add(first, pass); // it has more to say
        let (second, pass) = turns.next().unwrap();
        turns.add(second, pass);
        assert_eq!((first, second), (1, 2));
        let (again, pass) = turns.next().unwrap();
        assert_eq!(again, 1);
        turns.add(again, pass);
        turns.add(3, 9);
        let (newcomer, pass) = turns.next().unwrap();
        assert_eq!(
            newcomer, 3,
            "before 2, who has had a turn in the last pass and wants more"
        );
        turns.add(newcomer, pass);
        let order: Vec<u64> = std::iter::from_fn(|| turns.next()).map(|(sid, _)| sid).collect();
        assert_eq!(order, [2, 1, 3], "and then everybody in turn");
        assert!(turns.is_empty());
    }

    #[test]
    fn newcomers_without_end_do_not_shut_out_who_waits() {
        let mut turns = Turns::default();
        let mut last = std::collections::HashMap::new();
        (0..10).for_each(|sid| turns.add(sid, 9));
        let mut had = [0; 10];
        for _ in 0..1000 {
            let (sid, pass) = turns.next().unwrap();
            had[sid as usize] += 1;
            last.insert(sid, pass);
            // All are read empty and readable again at once, but the first, who is never through.
            turns.add(sid, pass);
        }
        assert!(had.iter().all(|turns| *turns == 100), "{had:?}");
    }
}
