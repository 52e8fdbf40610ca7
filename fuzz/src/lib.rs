//! The fuzz targets: each takes any bytes, and panics when something does not hold.

mod before_xmpp;
mod engine;
mod managed;
mod resuming;
mod scene;
mod stanzas;
mod stun;
mod turn;
mod xml_document;
mod xml_stream;

/// A target and its name, which is also that of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("before_xmpp", before_xmpp::run),
    ("engine", engine::run),
    ("managed", managed::run),
    ("resuming", resuming::run),
    ("stanzas", stanzas::run),
    ("stun", stun::run),
    ("turn", turn::run),
    ("xml_document", xml_document::run),
    ("xml_stream", xml_stream::run),
];

/// What follows from an input, byte by byte; zeros at its end.
pub(crate) struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
