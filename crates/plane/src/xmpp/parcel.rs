//! One stanza on its way to one session.

use std::sync::Arc;

use moim_wire::xml::{Element, Str};

/// An element for a recipient; cheap to copy, and small, because many may wait.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub element: Arc<Element>,
    /// Whether `to` is the recipient's own full JID; the element then has none, so that one serves many.
    pub own: bool,
    /// Whether nobody else is known to get it, so that it must not be lost with its recipient.
    pub sole: bool,
}

impl Parcel {
    /// An element that goes out as it is.
    pub fn sole(element: Arc<Element>) -> Self {
        Self {
            element,
            own: false,
            sole: true,
        }
    }

    /// A copy, addressed to whoever gets it.
    pub fn own(element: Arc<Element>) -> Self {
        Self {
            element,
            own: true,
            sole: false,
        }
    }

    /// Whether somebody has to hear of its loss: a message, or a request.
    pub fn is_missed(&self) -> bool {
        self.sole
            && match self.element.name().as_str() {
                "message" => true,
                "iq" => matches!(self.element.attr("type"), Some("get" | "set")),
                _ => false,
            }
    }

    /// The element with the address of a recipient in it.
    pub fn addressed(&self, full: &Str) -> Arc<Element> {
        if !self.own {
            return self.element.clone();
        }
        let mut element = Element::clone(&self.element);
        element.stamp("to", full.clone());
        element.into()
    }
}

/// An element as it serves many recipients: without `to`.
pub fn unaddressed(element: &Arc<Element>) -> Arc<Element> {
    if element.attr("to").is_none() {
        return element.clone();
    }
    let mut copy = Element::clone(element);
    copy.strip("to");
    copy.into()
}
