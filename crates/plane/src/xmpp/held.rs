//! What an inactive client need not hear at once (XEP-0352): presence, chat states and personal events, of which only the
//! latest counts. Everything else is important, and lets what is held go first.

use std::hash::{DefaultHasher, Hash, Hasher};

use moim_wire::xml::{ns, Element};

use super::parcel::Parcel;

/// Stanzas held back before all of them go.
const MAX_HELD: usize = 512;
/// Bytes, roughly.
const MAX_BYTES: usize = 262_144;

/// Held stanzas in the order in which they were last renewed.
#[derive(Debug, Default)]
pub struct Held {
    waiting: Vec<(u64, Parcel)>,
    bytes: usize,
}

impl Held {
    /// Takes a stanza that can wait; gives back one that cannot, or for which there is no room.
    pub fn take(&mut self, parcel: Parcel) -> Result<(), Parcel> {
        let Some(topic) = topic(&parcel.element) else {
            return Err(parcel);
        };
        if let Some(place) = self.waiting.iter().position(|(held, _)| *held == topic) {
            let (_, older) = self.waiting.remove(place);
            self.bytes -= older.element.weight();
        }
        let size = parcel.element.weight();
        if self.waiting.len() >= MAX_HELD || self.bytes + size > MAX_BYTES {
            return Err(parcel);
        }
        self.bytes += size;
        self.waiting.push((topic, parcel));
        Ok(())
    }

    /// Lets everything go.
    pub fn release(&mut self) -> Vec<Parcel> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, parcel)| parcel)
            .collect()
    }
}

/// What a stanza tells about, so that later news of the same replaces it; `None` when it must not wait.
fn topic(stanza: &Element) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    match stanza.name().as_str() {
        "presence" => {
            if !matches!(stanza.attr("type"), None | Some("unavailable")) || concerns_the_recipient(stanza) {
                return None;
            }
            0u8.hash(&mut hasher);
        }
        "message" if is_chat_state(stanza) => 1u8.hash(&mut hasher),
        "message" => {
            let event = stanza.elements().find(|child| child.is("event", ns::PUBSUB_EVENT))?;
            if stanza.elements().any(|child| child.is("body", ns::CLIENT)) {
                return None;
            }
            let items = event.elements().next()?;
            // Items of a node add up where they have ids of their own; those of a whole list would be lost.
            if items.elements().next().is_some_and(|item| item.name() == "retract") {
                return None;
            }
            2u8.hash(&mut hasher);
            items.attr("node").hash(&mut hasher);
            let ids: Vec<_> = items.elements().map(|item| item.attr("id")).collect();
            ids.hash(&mut hasher);
        }
        _ => return None,
    }
    stanza.attr("from").hash(&mut hasher);
    Some(hasher.finish())
}

/// Whether presence of a room is about the one who gets it: it entered, left, was kicked (XEP-0045, status 110).
fn concerns_the_recipient(presence: &Element) -> bool {
    let rooms = presence.elements().filter(|child| child.is("x", ns::MUC_USER));
    rooms
        .flat_map(|room| room.elements())
        .any(|child| child.name() == "status" && child.attr("code") == Some("110"))
}

/// Whether a message, or the copy of one, says nothing but that somebody is typing.
fn is_chat_state(message: &Element) -> bool {
    let mut state = false;
    for child in message.elements() {
        match child.ns().as_str() {
            ns::CHAT_STATES => state = true,
            ns::HINTS => {}
            ns::CARBONS => {
                let forwarded = child.elements().find(|inner| inner.is("forwarded", ns::FORWARD));
                let inner = forwarded.and_then(|outer| outer.elements().find(|inner| inner.is("message", ns::CLIENT)));
                return inner.is_some_and(|inner| is_chat_state(inner));
            }
            _ if child.name() == "thread" => {}
            _ => return false,
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use moim_wire::xml::Node;

    use super::*;

    fn element(
        name: &'static str,
        ns: &'static str,
        attrs: &[(&'static str, &str)],
        children: Vec<Element>,
    ) -> Element {
        let children = children.into_iter().map(|child| Node::Element(Arc::new(child)));
        Element::build(name, ns, attrs, children.collect())
    }

    fn stanza(name: &'static str, from: &str, children: Vec<Element>) -> Parcel {
        Parcel::sole(element(name, ns::CLIENT, &[("from", from)], children).into())
    }

    fn typing(from: &str) -> Parcel {
        stanza(
            "message",
            from,
            vec![element("composing", ns::CHAT_STATES, &[], vec![])],
        )
    }

    fn event(node: &str, id: &str) -> Parcel {
        let item = element("item", ns::PUBSUB_EVENT, &[("id", id)], vec![]);
        let items = element("items", ns::PUBSUB_EVENT, &[("node", node)], vec![item]);
        stanza(
            "message",
            "a@x",
            vec![element("event", ns::PUBSUB_EVENT, &[], vec![items])],
        )
    }

    #[test]
    fn the_latest_of_each_topic_waits() {
        let mut held = Held::default();
        for parcel in [
            stanza("presence", "a@x/1", vec![]),
            stanza("presence", "b@x/1", vec![]),
            typing("a@x/1"),
            typing("a@x/1"),
            event("mood", "current"),
            event("tune", "current"),
            event("mood", "current"),
            event("mood", "other"),
            stanza("presence", "a@x/1", vec![]),
        ] {
            assert!(held.take(parcel).is_ok());
        }
        let released = held.release();
        assert_eq!(released.len(), 6);
        assert_eq!(released[5].element.attr("from"), Some("a@x/1"));
        assert!(held.release().is_empty());
    }

    #[test]
    fn what_is_important_does_not_wait() {
        let mut held = Held::default();
        let body = || element("body", ns::CLIENT, &[], vec![]);
        let status = element("status", ns::MUC_USER, &[("code", "110")], vec![]);
        let copy = |inner: Parcel| {
            let forwarded = element("forwarded", ns::FORWARD, &[], vec![Element::clone(&inner.element)]);
            stanza(
                "message",
                "b@x",
                vec![element("sent", ns::CARBONS, &[], vec![forwarded])],
            )
        };
        let subscribe = element("presence", ns::CLIENT, &[("type", "subscribe")], vec![]);
        for parcel in [
            stanza("message", "a@x/1", vec![body()]),
            stanza(
                "message",
                "a@x/1",
                vec![element("received", "urn:xmpp:receipts", &[], vec![])],
            ),
            stanza("iq", "a@x/1", vec![]),
            stanza(
                "presence",
                "room@x/me",
                vec![element("x", ns::MUC_USER, &[], vec![status])],
            ),
            Parcel::sole(subscribe.into()),
            copy(stanza("message", "a@x/1", vec![body()])),
        ] {
            assert!(held.take(parcel.clone()).is_err(), "{parcel:?}");
        }
        assert!(held.take(copy(typing("a@x/1"))).is_ok());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut held = Held::default();
        for number in 0..MAX_HELD {
            assert!(held.take(stanza("presence", &number.to_string(), vec![])).is_ok());
        }
        assert!(held.take(stanza("presence", "one more", vec![])).is_err());
        assert!(
            held.take(stanza("presence", "7", vec![])).is_ok(),
            "this one takes its own place"
        );
    }
}
