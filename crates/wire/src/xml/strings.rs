//! Strings of the tree: the protocol's own names cost no allocation, others are shared and counted.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

/// An immutable string, cheap to clone.
///
/// A well-known name is a reference to static text: no allocation, and no counter that threads would fight over.
#[derive(Clone)]
pub enum Str {
    /// A name of the table below, or a literal.
    Static(&'static str),
    /// Anything else.
    Shared(Arc<str>),
}

impl Str {
    /// The empty string.
    pub const EMPTY: Str = Str::Static("");

    /// A name or namespace: looked up in the table of well-known ones first.
    pub fn name(text: &str) -> Self {
        match KNOWN.get(text) {
            Some(known) => Self::Static(known),
            None => Self::Shared(text.into()),
        }
    }

    /// A value or text: not looked up.
    pub fn value(text: &str) -> Self {
        if text.is_empty() {
            Self::EMPTY
        } else {
            Self::Shared(text.into())
        }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl Deref for Str {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Str {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (self.as_str(), other.as_str());
        std::ptr::eq(left, right) || left == right
    }
}

impl Eq for Str {}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Hash for Str {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), out)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Hashes a short string by its length and ends; good enough for a fixed table, useless for an open one.
#[derive(Default)]
struct EndsHasher(u64);

impl Hasher for EndsHasher {
    fn write(&mut self, bytes: &[u8]) {
        // `str::hash` ends with a 0xFF byte, which tells nothing.
        if bytes == [0xFF] {
            return;
        }
        let (head, tail) = if bytes.len() >= 8 {
            (word(&bytes[..8]), word(&bytes[bytes.len() - 8..]))
        } else {
            (word(bytes), 0)
        };
        let mixed = (head ^ tail.rotate_left(29) ^ bytes.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0u8; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

type Table = HashSet<&'static str, BuildHasherDefault<EndsHasher>>;

static KNOWN: LazyLock<Table> = LazyLock::new(|| WELL_KNOWN.iter().copied().collect());

#[rustfmt::skip]
const WELL_KNOWN: &[&str] = &[
    // stanzas, their parts and common attributes and values
    "message", "presence", "iq", "query", "body", "subject", "thread", "show", "status", "priority", "error", "text",
    "item", "items", "group", "to", "from", "id", "type", "xml:lang", "version", "chat", "normal", "headline",
    "groupchat", "get", "set", "result", "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed",
    "probe", "jid", "name", "node", "var", "ask", "subscription", "ver", "hash", "stamp", "by", "code", "label",
    "value", "feature", "identity", "category", "x", "c", "ping", "delay", "active", "composing", "paused", "inactive",
    "gone", "request", "received", "displayed", "origin-id", "stanza-id", "enable", "enabled", "a", "r", "h", "resume",
    "resumed", "max", "field", "option", "both", "none", "remove", "approved", "vCard", "pubsub", "publish", "retract",
    "event", "data", "metadata", "forwarded", "sent", "private", "store", "no-store", "no-copy", "no-permanent-store",
    // streams
    "stream", "features", "starttls", "proceed", "required", "failure", "success", "mechanisms", "mechanism", "auth",
    "challenge", "response", "abort", "bind", "resource", "session", "optional", "open", "close", "xmlns",
    "jabber:client", "jabber:server", "jabber:server:dialback", "verify", "http://etherx.jabber.org/streams", "urn:ietf:params:xml:ns:xmpp-streams",
    "urn:ietf:params:xml:ns:xmpp-stanzas", "urn:ietf:params:xml:ns:xmpp-tls", "urn:ietf:params:xml:ns:xmpp-sasl",
    "urn:ietf:params:xml:ns:xmpp-bind", "urn:ietf:params:xml:ns:xmpp-session", "urn:ietf:params:xml:ns:xmpp-framing",
    "http://www.w3.org/XML/1998/namespace", "urn:xmpp:sasl:2", "urn:xmpp:bind:0", "urn:xmpp:features:rosterver",
    // extensions seen in everyday traffic
    "jabber:iq:roster", "jabber:iq:version", "jabber:iq:private", "jabber:x:data", "jabber:x:oob",
    "jabber:x:conference", "vcard-temp", "vcard-temp:x:update", "http://jabber.org/protocol/disco#info",
    "http://jabber.org/protocol/disco#items", "http://jabber.org/protocol/caps",
    "http://jabber.org/protocol/chatstates", "http://jabber.org/protocol/muc", "http://jabber.org/protocol/muc#user",
    "http://jabber.org/protocol/muc#owner", "http://jabber.org/protocol/muc#admin", "http://jabber.org/protocol/nick",
    "http://jabber.org/protocol/pubsub", "http://jabber.org/protocol/pubsub#event",
    "http://jabber.org/protocol/pubsub#owner", "http://jabber.org/protocol/rsm", "http://jabber.org/protocol/commands",
    "urn:xmpp:ping", "urn:xmpp:delay", "urn:xmpp:receipts", "urn:xmpp:sid:0", "urn:xmpp:carbons:2",
    "urn:xmpp:forward:0", "urn:xmpp:mam:2", "urn:xmpp:sm:3", "urn:xmpp:csi:0", "urn:xmpp:hints",
    "urn:xmpp:chat-markers:0", "urn:xmpp:message-correct:0", "urn:xmpp:blocking", "urn:xmpp:avatar:metadata",
    "urn:xmpp:avatar:data", "urn:xmpp:reactions:0", "urn:xmpp:reply:0", "urn:xmpp:occupant-id:0", "urn:xmpp:time",
    "urn:xmpp:http:upload:0", "urn:xmpp:jingle:1", "urn:xmpp:jingle-message:0", "urn:xmpp:eme:0", "urn:xmpp:push:0",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_names_are_static() {
        for known in WELL_KNOWN {
            assert!(matches!(Str::name(&String::from(*known)), Str::Static(found) if found == *known));
        }
        assert!(matches!(Str::name("jabber:clienu"), Str::Shared(_)));
        assert!(matches!(Str::value(""), Str::Static("")));
        assert_eq!(Str::name("message"), Str::value("message"));
    }
}
