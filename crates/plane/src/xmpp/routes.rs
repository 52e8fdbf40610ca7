//! The route table: which sessions a local address leads to (RFC 6121 §8.5). Written by Python's decisions, read per
//! message by every thread.

use std::collections::{HashMap, HashSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use moim_wire::xml::Str;

struct Row {
    full: Str,
    bare_len: u32,
    sid: u64,
    /// `None` while the resource is not available.
    priority: Option<i8>,
    tap: bool,
    carbons: bool,
}

impl Row {
    fn resource(&self) -> &str {
        &self.full[self.bare_len as usize + 1..]
    }
}

/// The rows of one bare JID.
#[derive(Default)]
pub struct Account {
    rows: Vec<Row>,
    /// Whether records of its messages are kept.
    pub archive: bool,
}

impl Account {
    /// The sessions that a message is for, appended to `found`; none when no row decides it.
    ///
    /// A full JID leads to its session, available or not; for a `chat` (RFC 6121 section 8.5.3.2.1), one that is not there
    /// leads where its bare JID does. A bare JID leads to every available resource whose priority is not negative. With
    /// `taps`, nothing leads anywhere while a row is tapped.
    pub fn find(&self, resource: Option<&str>, chat: bool, taps: bool, found: &mut Vec<u64>) {
        if taps && self.rows.iter().any(|row| row.tap) {
            return;
        }
        if let Some(resource) = resource {
            if let Some(row) = self.rows.iter().find(|row| row.resource() == resource) {
                found.push(row.sid);
                return;
            }
            if !chat {
                return;
            }
        }
        let available = |row: &&Row| row.priority.is_some_and(|priority| priority >= 0);
        found.extend(self.rows.iter().filter(available).map(|row| row.sid));
    }

    /// The sessions that get copies, appended to `found`: not those that are in it already, and not the one with the
    /// resource `except`.
    pub fn copies(&self, except: Option<&str>, found: &mut Vec<u64>) {
        for row in &self.rows {
            if row.carbons && !found.contains(&row.sid) && except != Some(row.resource()) {
                found.push(row.sid);
            }
        }
    }
}

type Bucket = HashMap<Box<str>, Account>;

const BUCKETS: usize = 64;

/// Rows by bare JID, in buckets so that threads seldom wait for one another; and which session has which row.
pub struct Routes {
    buckets: Box<[RwLock<Bucket>]>,
    holders: RwLock<Holders>,
}

#[derive(Default)]
struct Holders {
    rows: HashMap<u64, Holder>,
    /// Sessions to tap, with or without a row yet.
    tapped: HashSet<u64>,
}

#[derive(Clone)]
struct Holder {
    full: Str,
    bare_len: u32,
}

impl Holder {
    fn bare(&self) -> &str {
        &self.full[..self.bare_len as usize]
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| RwLock::default()).collect(),
            holders: RwLock::default(),
        }
    }
}

impl Routes {
    /// Adds the row of a session; a row with the same resource is replaced, and so is another of the session. `full` has
    /// a bare JID of `bare_len` bytes.
    pub fn bind(&self, full: Str, bare_len: usize, sid: u64) {
        let tap = self.holders().tapped.contains(&sid);
        self.remove(sid);
        let bare_len = bare_len as u32;
        let holder = Holder {
            full: full.clone(),
            bare_len,
        };
        let row = Row {
            full,
            bare_len,
            sid,
            priority: None,
            tap,
            carbons: false,
        };
        let mut bucket = self.write(holder.bare());
        let account = bucket.entry(holder.bare().into()).or_default();
        account.rows.retain(|other| other.resource() != row.resource());
        account.rows.push(row);
        // Rows and their holders are changed in this order everywhere, and never held together.
        drop(bucket);
        self.holders_mut().rows.insert(sid, holder);
    }

    /// Sets the priority of a session's row.
    pub fn presence(&self, sid: u64, priority: Option<i8>) {
        self.change(sid, |row| row.priority = priority);
    }

    /// Marks a session's row: as long as one row of an address is tapped, nothing to it is a hit.
    pub fn tap(&self, sid: u64, on: bool) {
        if on {
            self.holders_mut().tapped.insert(sid);
        } else {
            self.holders_mut().tapped.remove(&sid);
        }
        self.change(sid, |row| row.tap = on);
    }

    /// Makes a session get copies, or not.
    pub fn carbons(&self, sid: u64, on: bool) {
        self.change(sid, |row| row.carbons = on);
    }

    /// Keeps records of an account's messages, or not.
    pub fn archive(&self, bare: &str, on: bool) {
        let mut bucket = self.write(bare);
        if on {
            bucket.entry(bare.into()).or_default().archive = true;
        } else if let Some(account) = bucket.get_mut(bare) {
            account.archive = false;
            if account.rows.is_empty() {
                bucket.remove(bare);
            }
        }
    }

    /// Whether a session gets copies.
    pub fn gets_carbons(&self, sid: u64) -> bool {
        let mut on = false;
        self.change(sid, |row| on = row.carbons);
        on
    }

    /// Removes a session's row, and forgets the session.
    pub fn unbind(&self, sid: u64) {
        self.holders_mut().tapped.remove(&sid);
        self.remove(sid);
    }

    fn remove(&self, sid: u64) {
        let Some(holder) = self.holders_mut().rows.remove(&sid) else {
            return;
        };
        let mut bucket = self.write(holder.bare());
        if let Some(account) = bucket.get_mut(holder.bare()) {
            account.rows.retain(|row| row.sid != sid);
            if account.rows.is_empty() && !account.archive {
                bucket.remove(holder.bare());
            }
        }
    }

    /// Looks at the rows of a bare JID, if there are any; nothing can change them meanwhile.
    pub fn look<T>(&self, bare: &str, look: impl FnOnce(&Account) -> T) -> Option<T> {
        self.read(bare).get(bare).map(look)
    }

    /// Rows in the table.
    pub fn len(&self) -> usize {
        let count = |bucket: &RwLock<Bucket>| {
            let bucket = bucket.read().unwrap_or_else(PoisonError::into_inner);
            bucket.values().map(|account| account.rows.len()).sum::<usize>()
        };
        self.buckets.iter().map(count).sum()
    }

    fn change(&self, sid: u64, change: impl FnOnce(&mut Row)) {
        let Some(holder) = self.holders().rows.get(&sid).cloned() else {
            return;
        };
        let mut bucket = self.write(holder.bare());
        let account = bucket.get_mut(holder.bare());
        if let Some(row) = account.and_then(|account| account.rows.iter_mut().find(|row| row.sid == sid)) {
            change(row);
        }
    }

    fn bucket(&self, bare: &str) -> &RwLock<Bucket> {
        let hash = bare.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        &self.buckets[(hash >> 32) as usize % BUCKETS]
    }

    fn holders(&self) -> RwLockReadGuard<'_, Holders> {
        self.holders.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn holders_mut(&self) -> RwLockWriteGuard<'_, Holders> {
        self.holders.write().unwrap_or_else(PoisonError::into_inner)
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

    fn find(routes: &Routes, bare: &str, resource: Option<&str>, chat: bool) -> Vec<u64> {
        let mut found = Vec::new();
        routes.look(bare, |account| account.find(resource, chat, true, &mut found));
        found
    }

    fn bind(routes: &Routes, full: &str, sid: u64) {
        routes.bind(Str::value(full), full.find('/').unwrap(), sid);
    }

    #[test]
    fn rows_decide_as_the_rules_say() {
        let routes = Routes::default();
        assert!(find(&routes, "a@x", None, false).is_empty());
        bind(&routes, "a@x/one", 1);
        bind(&routes, "a@x/two", 2);
        bind(&routes, "a@x/three", 3);
        assert!(find(&routes, "a@x", None, false).is_empty(), "nobody is available");
        assert_eq!(
            find(&routes, "a@x", Some("one"), false),
            [1],
            "a full JID needs no presence"
        );
        routes.presence(1, Some(0));
        routes.presence(2, Some(5));
        routes.presence(3, Some(-1));
        assert_eq!(find(&routes, "a@x", None, false), [1, 2]);
        assert_eq!(find(&routes, "a@x", Some("three"), false), [3]);
        assert_eq!(find(&routes, "a@x", Some("gone"), true), [1, 2]);
        assert!(find(&routes, "a@x", Some("gone"), false).is_empty(), "not a chat");
        routes.tap(3, true);
        assert!(find(&routes, "a@x", Some("one"), false).is_empty());
        let mut untapped = Vec::new();
        routes.look("a@x", |account| account.find(None, false, false, &mut untapped));
        assert_eq!(untapped, [1, 2], "who has judged already need not look at taps");
        bind(&routes, "a@x/three", 3);
        assert!(
            find(&routes, "a@x", None, false).is_empty(),
            "a tap stays with its session"
        );
        routes.tap(3, false);
        bind(&routes, "a@x/one", 9);
        assert_eq!(
            find(&routes, "a@x", Some("one"), false),
            [9],
            "the newest holder of a resource has it"
        );
        assert_eq!(find(&routes, "a@x", None, false), [2]);
        for sid in [2, 3, 9] {
            routes.unbind(sid);
        }
        assert_eq!(routes.len(), 0);
    }

    #[test]
    fn copies_go_to_those_who_want_them_and_did_not_get_it() {
        let routes = Routes::default();
        for (full, sid) in [("a@x/one", 1), ("a@x/two", 2), ("a@x/three", 3)] {
            bind(&routes, full, sid);
            routes.carbons(sid, true);
        }
        let copies = |except: Option<&str>, already: &[u64]| {
            let mut found = already.to_vec();
            routes.look("a@x", |account| account.copies(except, &mut found));
            found.split_off(already.len())
        };
        assert_eq!(copies(None, &[2]), [1, 3]);
        assert_eq!(copies(Some("three"), &[]), [1, 2]);
        routes.carbons(1, false);
        assert_eq!(copies(None, &[]), [2, 3]);
    }

    #[test]
    fn an_archive_outlasts_the_sessions() {
        let routes = Routes::default();
        routes.archive("a@x", true);
        bind(&routes, "a@x/one", 1);
        routes.unbind(1);
        assert_eq!(routes.look("a@x", |account| account.archive), Some(true));
        routes.archive("a@x", false);
        assert_eq!(routes.look("a@x", |account| account.archive), None);
    }
}
