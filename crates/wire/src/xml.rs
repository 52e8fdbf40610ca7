//! XML as XMPP uses it (RFC 6120 §11): one immutable tree, one push framer, one canonical serialiser.
//!
//! The framer takes bytes as they come, looks at each byte once and builds only what an element needs. It knows no
//! entities but the five, no DTD, no comments and no processing instructions, so nothing in the input can expand.

mod chars;
mod element;
mod error;
mod framer;
mod scope;
mod serialise;
mod strings;
mod tag;

pub use element::{valid_namespace, Attr, Element, Node, MAX_TREE_DEPTH};
pub use error::{Condition, XmlError};
pub use framer::{Framer, Header, Limits, XmlEvent};
pub use serialise::{escape_attribute, escape_text, serialise, Form};
pub use strings::Str;

/// The names every XMPP entity needs.
pub mod ns {
    /// Content namespace of client streams.
    pub const CLIENT: &str = "jabber:client";
    /// Content namespace of server streams.
    pub const SERVER: &str = "jabber:server";
    /// Server dialback (XEP-0220).
    pub const DIALBACK: &str = "jabber:server:dialback";
    /// The stream element and its features and errors.
    pub const STREAMS: &str = "http://etherx.jabber.org/streams";
    /// Conditions inside a stream error.
    pub const STREAM_ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
    /// STARTTLS negotiation.
    pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
    /// SASL negotiation (RFC 6120 §6).
    pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
    /// SASL2 negotiation (XEP-0388).
    pub const SASL2: &str = "urn:xmpp:sasl:2";
    /// Stream management (XEP-0198).
    pub const SM: &str = "urn:xmpp:sm:3";
    /// Client state indication (XEP-0352).
    pub const CSI: &str = "urn:xmpp:csi:0";
    /// Message carbons (XEP-0280).
    pub const CARBONS: &str = "urn:xmpp:carbons:2";
    /// Forwarded stanzas (XEP-0297).
    pub const FORWARD: &str = "urn:xmpp:forward:0";
    /// Stanza ids (XEP-0359).
    pub const STANZA_IDS: &str = "urn:xmpp:sid:0";
    /// Message archives (XEP-0313).
    pub const ARCHIVE: &str = "urn:xmpp:mam:2";
    /// Processing hints (XEP-0334).
    pub const HINTS: &str = "urn:xmpp:hints";
    /// Delayed delivery (XEP-0203).
    pub const DELAY: &str = "urn:xmpp:delay";
    /// Chat states (XEP-0085).
    pub const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
    /// Events of nodes (XEP-0060).
    pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
    /// What rooms tell their occupants (XEP-0045).
    pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
    /// WebSocket framing (RFC 7395).
    pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
    /// Bound to the prefix `xml` everywhere.
    pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
    /// Bound to the prefix `xmlns` everywhere, and to nothing else.
    pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";
}
