//! What a message is, seen from its children: whether carbons of it are made, whether archives keep it, and what in it
//! only a server may say. The one place with these rules; Python asks it too.

use moim_wire::xml::{ns, Element};

/// What one look at a message finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Whether whoever gets it has copies of it as well (XEP-0280 §6.1).
    pub copied: bool,
    /// Whether whoever sends it has.
    pub copied_sent: bool,
    /// Whether it belongs into archives (XEP-0313 §5).
    pub archived: bool,
    /// Whether it has a child that only a server may write; see [`is_forged`].
    pub forged: bool,
}

impl Traits {
    /// Looks at a message. Only chat and normal ones are archived or copied, and errors that come back for what was said
    /// to somebody's bare address: the other devices have a copy of that.
    pub fn of(message: &Element, ours: impl Fn(&str) -> bool) -> Self {
        let kind = message.attr("type");
        let bounce = kind == Some("error") && message.attr("from").is_some_and(is_bare);
        let chat = match kind {
            Some("chat") => true,
            None | Some("normal") => false,
            Some("error") if bounce => false,
            Some(_) => {
                return Self {
                    forged: message.elements().any(|child| is_forged(child, &ours)),
                    ..Self::default()
                }
            }
        };
        let mut traits = Self::default();
        let (mut body, mut worth, mut store) = (false, false, false);
        let (mut private, mut no_store, mut room) = (false, false, false);
        let (mut spoken, mut invited) = (false, false);
        for child in message.elements() {
            let name = child.name().as_str();
            match child.ns().as_str() {
                ns::CLIENT => body |= name == "body",
                ns::CARBONS => private |= name == "private",
                ns::HINTS => match name {
                    "store" => store = true,
                    "no-store" | "no-permanent-store" => no_store = true,
                    "no-copy" => private = true,
                    _ => {}
                },
                ns::MUC_USER => {
                    room = true;
                    invited |= child.elements().any(|inner| inner.is("invite", ns::MUC_USER));
                }
                namespace => {
                    worth |= is_worth_keeping(namespace, name);
                    invited |= namespace == DIRECT_INVITATION;
                    spoken |= matches!(namespace, ns::CHAT_STATES | RECEIPTS | MARKERS);
                }
            }
            traits.forged |= is_forged(child, &ours);
        }
        let copied = !private;
        let spoken = chat || body || worth || spoken;
        // What an occupant says in private, the room sends to each of the devices that are in it.
        traits.copied = copied && (bounce || invited || (spoken && !room));
        traits.copied_sent = copied && !bounce && (invited || spoken);
        traits.archived = !bounce && !no_store && (store || body || worth);
        traits
    }
}

const RECEIPTS: &str = "urn:xmpp:receipts";
const MARKERS: &str = "urn:xmpp:chat-markers:0";
const DIRECT_INVITATION: &str = "jabber:x:conference";

/// Whether an address is a person's, or a room's, and not that of one of their programs.
fn is_bare(jid: &str) -> bool {
    jid.contains('@') && !jid.contains('/')
}

/// Payloads that a conversation would miss later, besides texts.
fn is_worth_keeping(namespace: &str, name: &str) -> bool {
    match namespace {
        RECEIPTS => name == "received",
        MARKERS => name != "markable",
        "urn:xmpp:reactions:0"
        | "urn:xmpp:message-retract:0"
        | "urn:xmpp:message-retract:1"
        | "urn:xmpp:fasten:0"
        | "urn:xmpp:message-attaching:1"
        | "urn:xmpp:jingle-message:0"
        | DIRECT_INVITATION
        | "jabber:x:encrypted"
        | "urn:xmpp:openpgp:0"
        | "urn:xmpp:omemo:1"
        | "urn:xmpp:omemo:2"
        | "eu.siacs.conversations.axolotl" => true,
        _ => false,
    }
}

/// Whether a client's message must not have this child: archive ids, carbons, results of archives, and notes about
/// delays in the name of this site are for the server to write. `ours` says whether an address is of this site, and not
/// the sender's own, who may say how long it waited itself.
pub fn is_forged(child: &Element, ours: impl Fn(&str) -> bool) -> bool {
    match child.ns().as_str() {
        ns::STANZA_IDS => child.name() == "stanza-id",
        ns::CARBONS => matches!(child.name().as_str(), "sent" | "received"),
        ns::ARCHIVE => true,
        ns::DELAY => child.attr("from").is_some_and(ours),
        _ => false,
    }
}

/// Whether archives keep a message.
pub fn archivable(message: &Element) -> bool {
    Traits::of(message, |_| false).archived
}

/// Whether whoever gets a message has copies of it as well.
pub fn copied(message: &Element) -> bool {
    Traits::of(message, |_| false).copied
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use moim_wire::xml::Node;

    use super::*;

    fn message(kind: &str, children: &[(&'static str, &'static str)]) -> Element {
        let children = children
            .iter()
            .map(|(name, ns)| Node::Element(Arc::new(Element::build(name, ns, &[("from", "x.test")], Vec::new()))));
        Element::build("message", ns::CLIENT, &[("type", kind)], children.collect())
    }

    const BODY: (&str, &str) = ("body", ns::CLIENT);

    #[test]
    fn what_is_copied() {
        assert!(copied(&message("chat", &[BODY])));
        assert!(copied(&message("chat", &[("composing", ns::CHAT_STATES)])));
        assert!(copied(&message("normal", &[BODY])));
        assert!(copied(&message("normal", &[("received", RECEIPTS)])));
        assert!(copied(&message("normal", &[("displayed", MARKERS)])));
        assert!(copied(&message("normal", &[("x", DIRECT_INVITATION)])));
        assert!(!copied(&message("normal", &[("x", "urn:example:x")])));
        assert!(!copied(&message("chat", &[BODY, ("private", ns::CARBONS)])));
        assert!(!copied(&message("chat", &[BODY, ("no-copy", ns::HINTS)])));
        assert!(!copied(&message("chat", &[BODY, ("x", ns::MUC_USER)])));
        for kind in ["groupchat", "headline", "error", "nonsense"] {
            assert!(!copied(&message(kind, &[BODY])), "{kind}");
        }
        let sent = Traits::of(&message("chat", &[BODY, ("x", ns::MUC_USER)]), |_| false);
        assert!(sent.copied_sent && !sent.copied);
    }

    #[test]
    fn an_error_is_copied_when_somebody_s_bare_address_could_not_be_reached() {
        let from = |jid| {
            let attrs = [("type", "error"), ("from", jid)];
            Traits::of(&Element::build("message", ns::CLIENT, &attrs, Vec::new()), |_| false)
        };
        let bounce = from("bob@x.test");
        assert!(bounce.copied && !bounce.copied_sent && !bounce.archived);
        for jid in ["bob@x.test/phone", "x.test"] {
            assert!(!from(jid).copied, "{jid}");
        }
    }

    #[test]
    fn what_is_archived() {
        assert!(archivable(&message("chat", &[BODY])));
        assert!(archivable(&message("normal", &[BODY])));
        assert!(archivable(&message("chat", &[("received", "urn:xmpp:receipts")])));
        assert!(archivable(&message(
            "chat",
            &[("x", "urn:example:x"), ("store", ns::HINTS)]
        )));
        assert!(!archivable(&message("chat", &[("composing", ns::CHAT_STATES)])));
        assert!(!archivable(&message("chat", &[("request", "urn:xmpp:receipts")])));
        assert!(!archivable(&message("chat", &[BODY, ("no-store", ns::HINTS)])));
        assert!(!archivable(&message(
            "chat",
            &[BODY, ("no-permanent-store", ns::HINTS)]
        )));
        assert!(!archivable(&message("groupchat", &[BODY])));
        assert!(!archivable(&message("headline", &[BODY])));
    }

    #[test]
    fn what_only_servers_write() {
        let serves = |name: &str| name == "x.test";
        let forged = |child| Traits::of(&message("chat", &[BODY, child]), serves).forged;
        assert!(forged(("stanza-id", ns::STANZA_IDS)));
        assert!(!forged(("origin-id", ns::STANZA_IDS)));
        assert!(forged(("received", ns::CARBONS)) && forged(("sent", ns::CARBONS)));
        assert!(!forged(("private", ns::CARBONS)));
        assert!(forged(("result", ns::ARCHIVE)));
        assert!(forged(("delay", ns::DELAY)));
        assert!(Traits::of(&message("groupchat", &[("delay", ns::DELAY)]), serves).forged);
        assert!(!Traits::of(&message("chat", &[("delay", ns::DELAY)]), |_| false).forged);
    }
}
