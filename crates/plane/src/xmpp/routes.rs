//! The route table: which sessions a local address leads to (RFC 6121 §8.5). Written by Python's decisions, read per
//! message by every thread.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

struct Row {
    resource: Box<str>,
    sid: u64,
    /// `None` while the resource is not available.
    priority: Option<i8>,
    tap: bool,
}

type Bucket = HashMap<Box<str>, Vec<Row>>;

const BUCKETS: usize = 64;

/// Rows by bare JID, in buckets so that threads seldom wait for one another.
pub struct Routes {
    buckets: Box<[RwLock<Bucket>]>,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| RwLock::default()).collect(),
        }
    }
}

impl Routes {
    /// Adds the row of a session; a row with the same resource is replaced.
    pub fn bind(&self, bare: &str, resource: &str, sid: u64, tap: bool) {
        let mut bucket = self.write(bare);
        let rows = bucket.entry(bare.into()).or_default();
        rows.retain(|row| *row.resource != *resource && row.sid != sid);
        rows.push(Row {
            resource: resource.into(),
            sid,
            priority: None,
            tap,
        });
    }

    /// Sets the priority of a session's row.
    pub fn presence(&self, bare: &str, sid: u64, priority: Option<i8>) {
        if let Some(row) = self
            .write(bare)
            .get_mut(bare)
            .and_then(|rows| rows.iter_mut().find(|row| row.sid == sid))
        {
            row.priority = priority;
        }
    }

    /// Marks a session's row: as long as one row of an address is tapped, nothing to it is a hit.
    pub fn tap(&self, bare: &str, sid: u64, on: bool) {
        if let Some(row) = self
            .write(bare)
            .get_mut(bare)
            .and_then(|rows| rows.iter_mut().find(|row| row.sid == sid))
        {
            row.tap = on;
        }
    }

    /// Removes a session's row.
    pub fn unbind(&self, bare: &str, sid: u64) {
        let mut bucket = self.write(bare);
        if let Some(rows) = bucket.get_mut(bare) {
            rows.retain(|row| row.sid != sid);
            if rows.is_empty() {
                bucket.remove(bare);
            }
        }
    }

    /// The sessions that a message is for, appended to `found`; none when no row decides it.
    ///
    /// A full JID leads to its session, available or not; one that is not there leads where its bare JID does, except for
    /// a headline. A bare JID leads to every available resource whose priority is not negative.
    pub fn find(&self, bare: &str, resource: Option<&str>, headline: bool, found: &mut Vec<u64>) {
        let bucket = self.read(bare);
        let Some(rows) = bucket.get(bare) else { return };
        if rows.iter().any(|row| row.tap) {
            return;
        }
        if let Some(resource) = resource {
            if let Some(row) = rows.iter().find(|row| *row.resource == *resource) {
                found.push(row.sid);
                return;
            }
            if headline {
                return;
            }
        }
        found.extend(
            rows.iter()
                .filter(|row| row.priority.is_some_and(|priority| priority >= 0))
                .map(|row| row.sid),
        );
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        let count = |bucket: &RwLock<Bucket>| {
            bucket
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .map(Vec::len)
                .sum::<usize>()
        };
        self.buckets.iter().map(count).sum()
    }

    fn bucket(&self, bare: &str) -> &RwLock<Bucket> {
        let hash = bare.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        &self.buckets[(hash >> 32) as usize % BUCKETS]
    }

    fn read(&self, bare: &str) -> RwLockReadGuard<'_, Bucket> {
        self.bucket(bare).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, bare: &str) -> RwLockWriteGuard<'_, Bucket> {
        self.bucket(bare).write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(routes: &Routes, bare: &str, resource: Option<&str>, headline: bool) -> Vec<u64> {
        let mut found = Vec::new();
        routes.find(bare, resource, headline, &mut found);
        found
    }

    #[test]
    fn rows_decide_as_the_rules_say() {
        let routes = Routes::default();
        assert!(find(&routes, "a@x", None, false).is_empty());
        routes.bind("a@x", "one", 1, false);
        routes.bind("a@x", "two", 2, false);
        routes.bind("a@x", "three", 3, false);
        assert!(find(&routes, "a@x", None, false).is_empty(), "nobody is available");
        assert_eq!(
            find(&routes, "a@x", Some("one"), false),
            [1],
            "a full JID needs no presence"
        );
        routes.presence("a@x", 1, Some(0));
        routes.presence("a@x", 2, Some(5));
        routes.presence("a@x", 3, Some(-1));
        assert_eq!(find(&routes, "a@x", None, false), [1, 2]);
        assert_eq!(find(&routes, "a@x", Some("three"), true), [3]);
        assert_eq!(find(&routes, "a@x", Some("gone"), false), [1, 2]);
        assert!(find(&routes, "a@x", Some("gone"), true).is_empty());
        routes.tap("a@x", 3, true);
        assert!(find(&routes, "a@x", Some("one"), false).is_empty());
        routes.tap("a@x", 3, false);
        routes.bind("a@x", "one", 9, false);
        assert_eq!(
            find(&routes, "a@x", Some("one"), false),
            [9],
            "the newest holder of a resource has it"
        );
        assert_eq!(find(&routes, "a@x", None, false), [2]);
        for sid in [2, 3, 9] {
            routes.unbind("a@x", sid);
        }
        assert_eq!(routes.len(), 0);
    }
}
