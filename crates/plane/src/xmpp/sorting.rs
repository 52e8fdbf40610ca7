//! From one message to everything that comes of it: its recipients by the table, carbon copies for other resources of both
//! sides (XEP-0280), and a record where somebody keeps an archive (XEP-0313). All or nothing: what no row decides is a
//! miss, and nothing was done about it.

use std::sync::Arc;

use moim_wire::xml::{ns, Element, Node, Str};

use super::parcel::Parcel;
use super::records::Record;
use super::shared::Shared;
use super::traits::{is_forged, Traits};

mod outgoing;

/// What came of messages, and the lists that are used again for each.
#[derive(Default)]
pub struct Sorter {
    /// Stanzas for sessions, in order.
    pub deliveries: Vec<(u64, Parcel)>,
    /// Messages for archives.
    pub records: Vec<Record>,
    found: Vec<u64>,
}

impl Sorter {
    /// Sorts a message whose `from` and contents are to be believed; the number of its recipients. Without `taps`, somebody
    /// else has judged who may write to whom. Gives the message back when no row decides.
    pub fn sort(&mut self, message: Element, traits: Traits, taps: bool, shared: &Shared) -> Result<usize, Element> {
        let chat = match message.attr("type") {
            Some("chat") => true,
            None | Some("normal" | "headline") => false,
            Some(_) => return Err(message),
        };
        let (Some(to), Some(from)) = (message.attr("to"), message.attr("from")) else {
            return Err(message);
        };
        let (written, resource) = split(to);
        let lowered;
        // Rows have prepared addresses; one that would have to be prepared beyond ASCII is not found, and goes up.
        let bare = if written.is_ascii() && written.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = written.to_ascii_lowercase();
            lowered.as_str()
        } else {
            written
        };
        self.found.clear();
        let looked = shared.routes.look(bare, |account| {
            account.find(resource, chat, taps, &mut self.found);
            let recipients = self.found.len();
            if traits.copied && recipients > 0 {
                account.copies(None, &mut self.found);
            }
            (recipients, account.archive)
        });
        let Some((recipients, keeps)) = looked.filter(|(recipients, _)| *recipients > 0) else {
            return if taps {
                self.sort_out(message, traits, shared)
            } else {
                Err(message)
            };
        };
        let received = self.found.len();
        let (sender_bare, sender_resource) = split(from);
        let sender_keeps = shared.routes.look(sender_bare, |account| {
            if traits.copied_sent {
                account.copies(sender_resource, &mut self.found);
            }
            account.archive
        });
        let sender_keeps = sender_keeps.unwrap_or(false) && traits.archived;
        let keeps = keeps && traits.archived;

        let bare = (keeps || received > recipients).then(|| Str::value(bare));
        let sender_bare = (sender_keeps || self.found.len() > received).then(|| Str::value(sender_bare));
        let message = Arc::new(message);
        let number = if keeps || sender_keeps {
            let keeper = |keeps: bool, bare: &Option<Str>| bare.clone().filter(|_| keeps);
            let owners = [
                keeper(keeps, &bare),
                keeper(sender_keeps && bare != sender_bare, &sender_bare),
            ];
            self.record(&message, owners.into_iter().flatten().collect(), shared)
        } else {
            0
        };
        let stamped = |owner: &Option<Str>, keeps: bool| match owner {
            Some(owner) if keeps => with_id(&message, owner, number, shared),
            _ => message.clone(),
        };
        let sole = received == 1;
        let shown = stamped(&bare, keeps);
        for sid in &self.found[..recipients] {
            let element = shown.clone();
            let own = false;
            self.deliveries.push((*sid, Parcel { element, own, sole }));
        }
        if let (Some(bare), true) = (&bare, received > recipients) {
            self.copy("received", bare, &shown, recipients..received);
        }
        if let (Some(bare), true) = (&sender_bare, self.found.len() > received) {
            let shown = stamped(&sender_bare, sender_keeps);
            self.copy("sent", bare, &shown, received..self.found.len());
        }
        Ok(recipients)
    }

    /// Sorts a message that Python answers for, but that may have come from anywhere.
    pub fn sort_judged(&mut self, message: &Arc<Element>, shared: &Shared) -> bool {
        let traits = Traits::of(message, |_| false);
        let mut message = Element::clone(message);
        if traits.forged {
            let recipient = split(message.attr("to").unwrap_or_default()).0.to_owned();
            message.retain_elements(|child| match child.ns().as_str() {
                ns::STANZA_IDS => child.attr("by") != Some(recipient.as_str()) || child.name() != "stanza-id",
                ns::CARBONS => child.name() == "private",
                ns::ARCHIVE => false,
                _ => true,
            });
        }
        self.sort(message, traits, false, shared).is_ok()
    }

    /// Makes only the copies of a message that somebody else delivers.
    pub fn copies_of(&mut self, message: &Arc<Element>, shared: &Shared) {
        let (Some(to), Some(from)) = (message.attr("to"), message.attr("from")) else {
            return;
        };
        let traits = Traits::of(message, |_| false);
        if !traits.copied && !traits.copied_sent {
            return;
        }
        self.found.clear();
        let chat = message.attr("type") == Some("chat");
        let (bare, resource) = split(to);
        let recipients = shared.routes.look(bare, |account| {
            account.find(resource, chat, false, &mut self.found);
            let recipients = self.found.len();
            if traits.copied {
                account.copies(None, &mut self.found);
            }
            recipients
        });
        let received = self.found.len();
        if let Some(recipients) = recipients.filter(|recipients| *recipients < received) {
            self.copy("received", &Str::value(bare), message, recipients..received);
        }
        let (bare, resource) = split(from);
        if traits.copied_sent {
            shared
                .routes
                .look(bare, |account| account.copies(resource, &mut self.found));
        }
        if self.found.len() > received {
            self.copy("sent", &Str::value(bare), message, received..self.found.len());
        }
    }

    fn copy(&mut self, kind: &'static str, bare: &Str, message: &Arc<Element>, range: std::ops::Range<usize>) {
        let Some(copy) = carbon(kind, bare, message) else {
            return;
        };
        let parcels = self.found[range].iter().map(|sid| (*sid, Parcel::own(copy.clone())));
        self.deliveries.extend(parcels);
    }

    /// Notes a record; the message's number.
    fn record(&mut self, message: &Arc<Element>, owners: Vec<Str>, shared: &Shared) -> u64 {
        let id = shared.ids.next();
        let attr = |key: &str| {
            let found = message.attrs().iter().find(|attr| attr.key == key);
            found.map_or(Str::EMPTY, |attr| attr.value.clone())
        };
        self.records.push(Record {
            id,
            from: attr("from"),
            to: attr("to"),
            owners,
            message: message.clone(),
        });
        id
    }
}

/// The two parts of an address.
pub fn split(jid: &str) -> (&str, Option<&str>) {
    jid.split_once('/')
        .map_or((jid, None), |(bare, resource)| (bare, Some(resource)))
}

/// Looks at a client's message, and removes what it may not say. `sender` is its bare JID.
pub fn clean(message: &mut Element, sender: &str, shared: &Shared) -> Traits {
    let ours = |address: &str| split(address).0 != sender && shared.domains.are_home_of(address);
    let traits = Traits::of(message, ours);
    if traits.forged {
        message.retain_elements(|child| !is_forged(child, ours));
    }
    traits
}

/// The message as the owner of an archive sees it (XEP-0313 §5.1.2).
fn with_id(message: &Arc<Element>, owner: &Str, number: u64, shared: &Shared) -> Arc<Element> {
    let id = shared.config.archive_ids.write(owner, number);
    let stanza_id = Element::build("stanza-id", ns::STANZA_IDS, &[("by", owner), ("id", &id)], Vec::new());
    let mut stamped = Element::clone(message);
    stamped.push(stanza_id.into());
    stamped.into()
}

/// A copy for other resources of `bare`, who all get the same but for `to`. `None` when it would be too deep.
fn carbon(kind: &'static str, bare: &Str, message: &Arc<Element>) -> Option<Arc<Element>> {
    if message.depth() + 3 > moim_wire::xml::MAX_TREE_DEPTH {
        return None;
    }
    let inner = vec![Node::Element(message.clone())];
    let forwarded = Element::build("forwarded", ns::FORWARD, &[], inner);
    let wrapped = Element::build(kind, ns::CARBONS, &[], vec![Node::Element(forwarded.into())]);
    let wrapped = vec![Node::Element(wrapped.into())];
    let copy = match message.attr("type") {
        Some(kind) => Element::build("message", ns::CLIENT, &[("from", bare), ("type", kind)], wrapped),
        None => Element::build("message", ns::CLIENT, &[("from", bare)], wrapped),
    };
    Some(copy.into())
}
