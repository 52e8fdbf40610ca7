//! What is wrong with a peer's bytes, as the stream error that answers it (RFC 6120 §4.9.3).

use std::fmt;

/// A defined condition of a stream error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    BadFormat,
    BadNamespacePrefix,
    Conflict,
    ConnectionTimeout,
    HostUnknown,
    ImproperAddressing,
    InternalServerError,
    InvalidFrom,
    InvalidNamespace,
    NotAuthorized,
    NotWellFormed,
    PolicyViolation,
    ResourceConstraint,
    RestrictedXml,
    SystemShutdown,
    UnsupportedEncoding,
    UnsupportedStanzaType,
    UnsupportedVersion,
}

impl Condition {
    /// The element name in `urn:ietf:params:xml:ns:xmpp-streams`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadFormat => "bad-format",
            Self::BadNamespacePrefix => "bad-namespace-prefix",
            Self::Conflict => "conflict",
            Self::ConnectionTimeout => "connection-timeout",
            Self::HostUnknown => "host-unknown",
            Self::ImproperAddressing => "improper-addressing",
            Self::InternalServerError => "internal-server-error",
            Self::InvalidFrom => "invalid-from",
            Self::InvalidNamespace => "invalid-namespace",
            Self::NotAuthorized => "not-authorized",
            Self::NotWellFormed => "not-well-formed",
            Self::PolicyViolation => "policy-violation",
            Self::ResourceConstraint => "resource-constraint",
            Self::RestrictedXml => "restricted-xml",
            Self::SystemShutdown => "system-shutdown",
            Self::UnsupportedEncoding => "unsupported-encoding",
            Self::UnsupportedStanzaType => "unsupported-stanza-type",
            Self::UnsupportedVersion => "unsupported-version",
        }
    }
}

/// Input that cannot be accepted; the stream it came from is beyond repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XmlError {
    /// The stream error to answer with.
    pub condition: Condition,
    /// What was wrong, for the peer's log and ours; never contains the peer's data.
    pub text: &'static str,
}

impl XmlError {
    pub(super) const fn new(condition: Condition, text: &'static str) -> Self {
        Self { condition, text }
    }

    pub(super) const fn malformed(text: &'static str) -> Self {
        Self::new(Condition::NotWellFormed, text)
    }

    pub(super) const fn restricted(text: &'static str) -> Self {
        Self::new(Condition::RestrictedXml, text)
    }

    pub(super) const fn policy(text: &'static str) -> Self {
        Self::new(Condition::PolicyViolation, text)
    }
}

impl fmt::Display for XmlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.condition.name(), self.text)
    }
}

impl std::error::Error for XmlError {}
