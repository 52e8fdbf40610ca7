//! Namespace prefixes in scope (Namespaces in XML §6): declared by a tag, forgotten at its end, bounded in number.

use super::chars::is_ncname;
use super::error::XmlError;
use super::ns;
use super::strings::Str;

/// Declarations of prefixes that may be in scope at once, those of the stream header included.
const MAX_PREFIXES: usize = 64;

struct Binding {
    prefix: Str,
    ns: Str,
}

/// The prefixes in scope. The default namespace is not here: each open element knows its own.
#[derive(Default)]
pub(super) struct Scope {
    bindings: Vec<Binding>,
}

impl Scope {
    /// How many declarations are in scope; hand it to [`Scope::leave`] at the end of the element.
    pub(super) fn mark(&self) -> u16 {
        self.bindings.len() as u16
    }

    /// Forgets the declarations made since the mark.
    pub(super) fn leave(&mut self, mark: u16) {
        self.bindings.truncate(usize::from(mark));
    }

    /// Takes `xmlns:prefix='namespace'`, made by an element that began at `mark`.
    pub(super) fn declare(&mut self, prefix: &str, namespace: &str, mark: u16) -> Result<(), XmlError> {
        if !is_ncname(prefix) || namespace.is_empty() {
            return Err(XmlError::malformed(
                "a namespace declaration without a prefix or a namespace",
            ));
        }
        let fixed = prefix == "xml" || prefix == "xmlns";
        if fixed || namespace == ns::XML || namespace == ns::XMLNS {
            // Declaring xml as what it is anyway is allowed and says nothing.
            return if prefix == "xml" && namespace == ns::XML {
                Ok(())
            } else {
                Err(XmlError::malformed("the prefixes xml and xmlns cannot be bound anew"))
            };
        }
        if self.bindings[usize::from(mark)..]
            .iter()
            .any(|binding| binding.prefix == prefix)
        {
            return Err(XmlError::malformed("a namespace prefix is declared twice in one tag"));
        }
        if self.bindings.len() >= MAX_PREFIXES {
            return Err(XmlError::policy("too many namespace declarations"));
        }
        self.bindings.push(Binding {
            prefix: Str::name(prefix),
            ns: Str::name(namespace),
        });
        Ok(())
    }

    /// The namespace a prefix stands for.
    pub(super) fn resolve(&self, prefix: &str) -> Option<Str> {
        if prefix == "xml" {
            return Some(Str::Static(ns::XML));
        }
        self.bindings
            .iter()
            .rev()
            .find(|binding| binding.prefix == prefix)
            .map(|binding| binding.ns.clone())
    }

    /// Gives memory back that the present declarations do not need.
    pub(super) fn shrink(&mut self) {
        self.bindings.shrink_to_fit();
    }
}
