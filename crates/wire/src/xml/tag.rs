//! A start tag being read, and what it becomes: names resolved, namespaces declared, attributes checked.

use super::chars::{decode, split_qname};
use super::element::Attr;
use super::error::{Condition, XmlError};
use super::ns;
use super::scope::Scope;
use super::strings::Str;

/// Where the parts of one attribute lie in the buffer: `name..value` and `value..end`.
#[derive(Clone, Copy)]
struct Part {
    name: u32,
    value: u32,
    end: u32,
}

/// The raw parts of a start tag: all text in one buffer, so that a tag costs no allocation per part.
#[derive(Default)]
pub(super) struct Tag {
    text: Vec<u8>,
    parts: Vec<Part>,
    name_end: u32,
}

/// A start tag understood.
pub(super) struct Start {
    pub(super) prefix: Str,
    pub(super) name: Str,
    pub(super) ns: Str,
    /// What an unprefixed child belongs to.
    pub(super) default_ns: Str,
    pub(super) attrs: Vec<Attr>,
}

impl Tag {
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.parts.clear();
        self.name_end = 0;
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.text.push(byte);
    }

    pub(super) fn end_name(&mut self) {
        self.name_end = self.text.len() as u32;
    }

    pub(super) fn name_len(&self) -> usize {
        self.text.len()
    }

    /// The bytes of an end tag's name, which is all such a tag has.
    pub(super) fn raw_name(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn begin_attr(&mut self) {
        let at = self.text.len() as u32;
        self.parts.push(Part {
            name: at,
            value: at,
            end: at,
        });
    }

    pub(super) fn attr_name_len(&self) -> usize {
        self.parts.last().map_or(0, |part| self.text.len() - part.name as usize)
    }

    pub(super) fn begin_value(&mut self) {
        if let Some(part) = self.parts.last_mut() {
            part.value = self.text.len() as u32;
        }
    }

    pub(super) fn end_value(&mut self) {
        if let Some(part) = self.parts.last_mut() {
            part.end = self.text.len() as u32;
        }
    }

    pub(super) fn attr_count(&self) -> usize {
        self.parts.len()
    }

    /// Gives memory back when a tag has left a large buffer.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }

    fn name(&self, part: &Part) -> Result<&str, XmlError> {
        decode(&self.text[part.name as usize..part.value as usize])
    }

    fn value(&self, part: &Part) -> Result<&str, XmlError> {
        decode(&self.text[part.value as usize..part.end as usize])
    }

    /// Resolves the tag inside a scope whose default namespace is `inherited`. Declarations are added to the scope; the
    /// caller leaves it to `mark` when the element ends.
    pub(super) fn resolve(&self, scope: &mut Scope, inherited: &Str, mark: u16) -> Result<Start, XmlError> {
        let mut default_ns = inherited.clone();
        let mut declarations = 0;
        let mut default_declared = false;
        for part in &self.parts {
            let name = self.name(part)?;
            if name == "xmlns" {
                if default_declared {
                    return Err(XmlError::malformed("an attribute occurs twice"));
                }
                let namespace = self.value(part)?;
                if namespace == ns::XML || namespace == ns::XMLNS {
                    return Err(XmlError::malformed("a reserved namespace cannot be the default"));
                }
                default_ns = Str::name(namespace);
                default_declared = true;
            } else if let Some(prefix) = name.strip_prefix("xmlns:") {
                scope.declare(prefix, self.value(part)?, mark)?;
            } else {
                continue;
            }
            declarations += 1;
        }
        let (prefix, name) = split_qname(decode(&self.text[..self.name_end as usize])?)?;
        let ns = if prefix.is_empty() {
            default_ns.clone()
        } else {
            lookup(scope, prefix)?
        };
        let (prefix, name) = (Str::name(prefix), Str::name(name));
        let mut attrs: Vec<Attr> = Vec::with_capacity(self.parts.len() - declarations);
        for part in &self.parts {
            let qname = self.name(part)?;
            if qname == "xmlns" || qname.starts_with("xmlns:") {
                continue;
            }
            let (prefix, local) = split_qname(qname)?;
            let key = match prefix {
                "" => Str::name(local),
                "xml" => Str::name(qname),
                _ => Str::value(&format!("{{{}}}{local}", lookup(scope, prefix)?)),
            };
            if attrs.iter().any(|attr| attr.key == key) {
                return Err(XmlError::malformed("an attribute occurs twice"));
            }
            let value = self.value(part)?;
            let value = if key == "type" {
                Str::name(value)
            } else {
                Str::value(value)
            };
            attrs.push(Attr { key, value });
        }
        Ok(Start {
            prefix,
            name,
            ns,
            default_ns,
            attrs,
        })
    }
}

fn lookup(scope: &Scope, prefix: &str) -> Result<Str, XmlError> {
    scope.resolve(prefix).ok_or_else(|| {
        if prefix == "stream" {
            XmlError::new(Condition::BadNamespacePrefix, "the prefix stream is not declared")
        } else {
            XmlError::malformed("a namespace prefix is not declared")
        }
    })
}
