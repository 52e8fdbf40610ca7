//! The immutable element tree: shared, compared by meaning, bounded in depth however it was made.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::chars::{is_ncname, is_xml_text};
use super::ns;
use super::strings::Str;

/// The deepest tree that can be made; walking one needs that much stack.
pub const MAX_TREE_DEPTH: usize = 256;

/// An attribute. The key is the local name, `xml:lang` and its kin, or `{namespace}local` for any other namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attr {
    pub key: Str,
    pub value: Str,
}

/// What stands inside an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Element(Arc<Element>),
    Text(Str),
}

/// An element with its attributes and children. Never changed once shared.
#[derive(Clone, Debug)]
pub struct Element {
    name: Str,
    ns: Str,
    attrs: Vec<Attr>,
    children: Vec<Node>,
    depth: u16,
}

impl Element {
    /// Makes an element from parts that a parser or [`Element::checked`] has checked. `None` when it would be deeper
    /// than [`MAX_TREE_DEPTH`].
    pub(super) fn from_parts(name: Str, ns: Str, attrs: Vec<Attr>, children: Vec<Node>) -> Option<Self> {
        let depth = depth_over(&children);
        (usize::from(depth) <= MAX_TREE_DEPTH).then_some(Self {
            name,
            ns,
            attrs,
            children,
            depth,
        })
    }

    /// Makes an element from anything: merges neighbouring texts, drops empty ones, checks names and characters.
    ///
    /// # Errors
    /// A plain sentence that says which part cannot stand in XML.
    pub fn checked(name: Str, ns: Str, attrs: Vec<Attr>, children: Vec<Node>) -> Result<Self, String> {
        if !is_ncname(&name) {
            return Err(format!("{name:?} is not an XML element name"));
        }
        if !valid_namespace(&ns) {
            return Err(format!("{ns:?} cannot be the namespace of an element"));
        }
        for (index, attr) in attrs.iter().enumerate() {
            check_attr(attr)?;
            if attrs[..index].iter().any(|other| other.key == attr.key) {
                return Err(format!("the attribute {:?} occurs twice", attr.key));
            }
        }
        if children
            .iter()
            .any(|node| matches!(node, Node::Text(text) if !is_xml_text(text)))
        {
            return Err("the text has a character that XML forbids".into());
        }
        Self::from_parts(name, ns, attrs, merged(children))
            .ok_or_else(|| format!("the tree is deeper than {MAX_TREE_DEPTH} elements"))
    }

    /// A stanza-like element made from literals of the program.
    ///
    /// # Panics
    /// When the literals are not valid XML names or texts.
    pub fn build(name: &'static str, ns: &'static str, attrs: &[(&'static str, &str)], children: Vec<Node>) -> Self {
        let attrs = attrs.iter().map(|(key, value)| Attr {
            key: Str::Static(key),
            value: Str::value(value),
        });
        Self::checked(Str::Static(name), Str::Static(ns), attrs.collect(), children).expect("literals are valid XML")
    }

    /// Local name.
    pub fn name(&self) -> &Str {
        &self.name
    }

    /// Namespace; empty when there is none.
    pub fn ns(&self) -> &Str {
        &self.ns
    }

    /// Attributes in the order they came.
    pub fn attrs(&self) -> &[Attr] {
        &self.attrs
    }

    /// Children in order; two texts never stand next to each other.
    pub fn children(&self) -> &[Node] {
        &self.children
    }

    /// Levels of elements, this one included.
    pub fn depth(&self) -> usize {
        usize::from(self.depth)
    }

    /// Whether the element has this name in this namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Whether this is a message, presence or iq, as they are inside Moim: in `jabber:client`.
    pub fn is_stanza(&self) -> bool {
        self.ns == ns::CLIENT && matches!(self.name.as_str(), "message" | "presence" | "iq")
    }

    /// The value of an attribute.
    pub fn attr(&self, key: &str) -> Option<&str> {
        self.attrs
            .iter()
            .find(|attr| attr.key == key)
            .map(|attr| attr.value.as_str())
    }

    /// Direct child elements in order.
    pub fn elements(&self) -> impl Iterator<Item = &Arc<Element>> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(child) => Some(child),
            Node::Text(_) => None,
        })
    }

    /// The direct texts, joined.
    pub fn text(&self) -> String {
        let mut whole = String::new();
        for node in &self.children {
            if let Node::Text(text) = node {
                whole.push_str(text);
            }
        }
        whole
    }

    /// Sets an attribute to a value that is known to be valid; for the owner of an unshared element.
    pub fn stamp(&mut self, key: &'static str, value: Str) {
        match self.attrs.iter_mut().find(|attr| attr.key == key) {
            Some(attr) => attr.value = value,
            None => self.attrs.push(Attr {
                key: Str::Static(key),
                value,
            }),
        }
    }

    /// Removes an attribute if it is there; for the owner of an unshared element.
    pub fn strip(&mut self, key: &str) {
        self.attrs.retain(|attr| attr.key != key);
    }

    /// Exchanges the content namespaces of client and server streams, from this element down to where another namespace
    /// begins; for the owner of an unshared element. Doing it twice changes nothing, so nothing that a peer put into the
    /// wrong one of the two can be taken for the other.
    pub fn swap_content(&mut self) {
        let Some(swapped) = swapped_content(&self.ns) else {
            return;
        };
        self.ns = Str::Static(swapped);
        for node in &mut self.children {
            if let Node::Element(child) = node {
                if swapped_content(&child.ns).is_some() {
                    Arc::make_mut(child).swap_content();
                }
            }
        }
    }

    /// Appends a child; for the owner of an unshared element. False, and nothing done, when the tree would be deeper than
    /// [`MAX_TREE_DEPTH`].
    pub fn push(&mut self, child: Arc<Element>) -> bool {
        let depth = self.depth.max(child.depth + 1);
        let fits = usize::from(depth) <= MAX_TREE_DEPTH;
        if fits {
            self.depth = depth;
            self.children.push(Node::Element(child));
        }
        fits
    }

    /// Removes the child elements that do not pass; for the owner of an unshared element.
    pub fn retain_elements(&mut self, mut keep: impl FnMut(&Element) -> bool) {
        let mut left = std::mem::take(&mut self.children);
        left.retain(|node| !matches!(node, Node::Element(child) if !keep(child)));
        self.children = merged(left);
        self.depth = depth_over(&self.children);
    }

    /// Bytes of names, values and texts, all levels together: about what the element takes on the wire.
    pub fn weight(&self) -> usize {
        let attrs = self.attrs.iter().map(|attr| attr.key.len() + attr.value.len() + 4);
        let children = self.children.iter().map(|node| match node {
            Node::Element(child) => child.weight(),
            Node::Text(text) => text.len(),
        });
        2 * self.name.len() + 5 + attrs.sum::<usize>() + children.sum::<usize>()
    }

    /// A copy with some attributes set (`Some`) or removed (`None`); children are shared.
    ///
    /// # Errors
    /// As [`Element::checked`].
    pub fn with_attrs(&self, changes: Vec<(Str, Option<Str>)>) -> Result<Self, String> {
        let mut attrs = self.attrs.clone();
        for (key, value) in changes {
            let place = attrs.iter().position(|attr| attr.key == key);
            match (place, value) {
                (Some(place), Some(value)) => {
                    attrs[place].value = value;
                    check_attr(&attrs[place])?;
                }
                (Some(place), None) => {
                    attrs.remove(place);
                }
                (None, Some(value)) => {
                    let attr = Attr { key, value };
                    check_attr(&attr)?;
                    attrs.push(attr);
                }
                (None, None) => {}
            }
        }
        Ok(Self { attrs, ..self.clone() })
    }
}

/// Levels of an element with these children, itself included.
fn depth_over(children: &[Node]) -> u16 {
    let below = children.iter().map(|node| match node {
        Node::Element(child) => child.depth,
        Node::Text(_) => 0,
    });
    below.max().unwrap_or(0) + 1
}

/// The same without empty texts, and with one text where several stood next to each other, in time that grows as they do.
fn merged(nodes: Vec<Node>) -> Vec<Node> {
    let mut left: Vec<Node> = Vec::with_capacity(nodes.len());
    let mut joined = String::new();
    for node in nodes {
        match (node, left.last()) {
            (Node::Text(text), _) if text.is_empty() => {}
            (Node::Text(text), Some(Node::Text(before))) => {
                if joined.is_empty() {
                    joined.push_str(before);
                }
                joined.push_str(&text);
            }
            (node, _) => {
                end_text(&mut left, &mut joined);
                left.push(node);
            }
        }
    }
    end_text(&mut left, &mut joined);
    left
}

fn end_text(left: &mut [Node], joined: &mut String) {
    if let Some(last) = left.last_mut().filter(|_| !joined.is_empty()) {
        *last = Node::Text(Str::value(joined));
        joined.clear();
    }
}

/// Equal when they mean the same: the order of attributes does not count.
impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.depth == other.depth
                && self.name == other.name
                && self.ns == other.ns
                && self.attrs.len() == other.attrs.len()
                && self
                    .attrs
                    .iter()
                    .all(|attr| other.attr(&attr.key) == Some(attr.value.as_str()))
                && self.children == other.children)
    }
}

impl Eq for Element {}

impl Hash for Element {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.ns.hash(state);
        let unordered = self.attrs.iter().fold(0u64, |sum, attr| {
            let mut hasher = DefaultHasher::new();
            (&attr.key, &attr.value).hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        });
        unordered.hash(state);
        for node in &self.children {
            match node {
                Node::Element(child) => child.hash(state),
                Node::Text(text) => text.hash(state),
            }
        }
    }
}

/// What a content namespace is called at the other kind of stream; `None` for every other namespace.
pub(super) fn swapped_content(namespace: &str) -> Option<&'static str> {
    match namespace {
        ns::CLIENT => Some(ns::SERVER),
        ns::SERVER => Some(ns::CLIENT),
        _ => None,
    }
}

/// Whether a string can be the namespace of an element.
pub fn valid_namespace(namespace: &str) -> bool {
    is_xml_text(namespace) && namespace != ns::XMLNS
}

fn check_attr(attr: &Attr) -> Result<(), String> {
    let key = attr.key.as_str();
    let valid = match key.strip_prefix('{').map(|rest| rest.rsplit_once('}')) {
        Some(Some((namespace, local))) => {
            is_ncname(local) && !namespace.is_empty() && valid_namespace(namespace) && namespace != ns::XML
        }
        Some(None) => false,
        None => match key.strip_prefix("xml:") {
            Some(local) => is_ncname(local),
            None => is_ncname(key) && key != "xmlns",
        },
    };
    if !valid {
        return Err(format!(
            "{key:?} is not an attribute name; give 'local', 'xml:lang' or '{{namespace}}local'"
        ));
    }
    if !is_xml_text(&attr.value) {
        return Err(format!(
            "the value of the attribute {key:?} has a character that XML forbids"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_come_and_go() {
        let child = |name| Arc::new(Element::build(name, "x", &[], Vec::new()));
        let text = |text| Node::Text(Str::value(text));
        let nodes = vec![
            text("one "),
            Node::Element(child("a")),
            text("two"),
            Node::Element(child("b")),
        ];
        let mut element = Element::build("e", "x", &[], nodes);
        element.retain_elements(|child| child.name() != "a");
        assert_eq!(
            element,
            Element::build("e", "x", &[], vec![text("one two"), Node::Element(child("b"))])
        );
        element.retain_elements(|_| false);
        assert_eq!((element.depth(), element.text()), (1, "one two".into()));
        let nodes = ["", "a", "b", "", "c"].map(text).into_iter();
        let nodes = nodes.chain([
            Node::Element(child("a")),
            text("d"),
            Node::Element(child("b")),
            text("e"),
        ]);
        let mut many = Element::build("e", "x", &[], nodes.collect());
        assert_eq!(many.children()[0], text("abc"));
        assert_eq!(many.children().len(), 5);
        many.retain_elements(|_| false);
        assert_eq!(many.children(), [text("abcde")]);
        assert!(element.push(child("c")));
        assert_eq!(element.depth(), 2);
    }

    #[test]
    fn no_child_makes_a_tree_too_deep() {
        let mut deep = Arc::new(Element::build("e", "x", &[], Vec::new()));
        for _ in 1..MAX_TREE_DEPTH {
            deep = Arc::new(Element::build("e", "x", &[], vec![Node::Element(deep)]));
        }
        let mut top = Element::build("e", "x", &[], Vec::new());
        assert!(!top.push(deep));
        assert_eq!(top.depth(), 1);
    }
}
