//! Streams between servers: a stanza means the same on both sides, however its names are written, and nothing in the wrong
//! content namespace is ever taken for something in the right one.

use std::sync::Arc;

use moim_wire::xml::{ns, serialise, Attr, Element, Form, Framer, Limits, Node, Str, XmlEvent};
use proptest::collection::vec;
use proptest::prelude::*;

const HEADER: &[u8] = b"<stream:stream to='x' version='1.0' xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams'>";

const NAMESPACES: &[&str] = &[ns::CLIENT, ns::SERVER, ns::DIALBACK, ns::STREAMS, "urn:a", ""];

/// What a stream between servers carried, as the framer gives it.
fn carried(bytes: &[u8]) -> Option<Element> {
    let mut framer = Framer::stream(Limits::bytes(1 << 20));
    let mut header = HEADER;
    assert!(matches!(framer.next(&mut header), Ok(Some(XmlEvent::Open(_)))));
    let mut rest = bytes;
    match framer.next(&mut rest) {
        Ok(Some(XmlEvent::Element(element, _))) if rest.is_empty() => Some(element),
        _ => None,
    }
}

fn sent(element: &Element) -> Vec<u8> {
    let mut out = Vec::new();
    serialise(&mut out, element, Form::SERVER);
    out
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("body".to_owned()), Just("message".to_owned()), "[a-z]{1,6}"]
}

fn element(
    namespace: impl Strategy<Value = &'static str> + 'static,
    children: BoxedStrategy<Vec<Node>>,
) -> BoxedStrategy<Element> {
    (name(), namespace, "[ -~]{0,8}", children)
        .prop_map(|(name, namespace, value, children)| {
            let attr = Attr {
                key: Str::name("id"),
                value: Str::value(&value),
            };
            Element::checked(Str::name(&name), Str::name(namespace), vec![attr], children).unwrap()
        })
        .boxed()
}

fn nodes() -> BoxedStrategy<Vec<Node>> {
    let leaf = "[ -~가]{0,8}".prop_map(|text| Node::Text(Str::value(&text)));
    let node = leaf.prop_recursive(5, 40, 4, |inner| {
        element(prop::sample::select(NAMESPACES), vec(inner, 0..4).boxed())
            .prop_map(|element| Node::Element(Arc::new(element)))
    });
    vec(node, 0..4).boxed()
}

fn stanza(namespace: &'static str) -> BoxedStrategy<Element> {
    element(Just(namespace), nodes())
}

/// Writes an element as a peer might: each name with the default namespace, or with a prefix that is bound on the spot,
/// often one that means something else around it.
fn written(element: &Element, choices: &mut impl Iterator<Item = u8>, out: &mut String) {
    let choice = choices.next().unwrap_or(0);
    let prefix = match choice % 6 {
        _ if element.ns().is_empty() => "",
        1 => "db:",
        2 => "stream:",
        3 => "s:",
        4 => "c:",
        _ => "",
    };
    let declared = if prefix.is_empty() {
        format!("xmlns='{}'", element.ns())
    } else {
        format!(
            "xmlns:{}='{}' xmlns='urn:decoy'",
            prefix.trim_end_matches(':'),
            element.ns()
        )
    };
    let mut id = Vec::new();
    moim_wire::xml::escape_attribute(&mut id, element.attr("id").unwrap_or_default());
    let id = String::from_utf8(id).unwrap();
    let name = format!("{prefix}{}", element.name());
    out.push_str(&format!("<{name} {declared} id='{id}'>"));
    for node in element.children() {
        match node {
            Node::Element(child) => written(child, choices, out),
            Node::Text(text) => {
                let mut escaped = Vec::new();
                moim_wire::xml::escape_text(&mut escaped, text);
                out.push_str(&String::from_utf8(escaped).unwrap());
            }
        }
    }
    out.push_str(&format!("</{name}>"));
}

/// Elements of the stanza's own namespace that are reached through nothing else: what routing and policy look at.
fn seen(element: &Element, namespace: &str, found: &mut Vec<String>) {
    if element.ns() == namespace {
        found.push(element.name().to_string());
        element.elements().for_each(|child| seen(child, namespace, found));
    }
}

proptest! {
    #[test]
    fn a_stanza_crosses_unchanged(stanza in stanza(ns::CLIENT)) {
        let mut arrived = carried(&sent(&stanza)).expect("what we write is a stanza");
        prop_assert_eq!(arrived.ns().as_str(), ns::SERVER);
        arrived.swap_content();
        prop_assert_eq!(arrived, stanza);
    }

    #[test]
    fn everything_else_crosses_as_it_is(element in prop::sample::select(&NAMESPACES[1..]).prop_flat_map(stanza)) {
        prop_assume!(element.ns() != ns::STREAMS || element.name() != "stream");
        prop_assert_eq!(carried(&sent(&element)).expect("what we write is an element"), element);
    }

    #[test]
    fn swapping_twice_changes_nothing(stanza in stanza(ns::SERVER)) {
        let mut twice = stanza.clone();
        twice.swap_content();
        prop_assert_eq!(twice.ns().as_str(), ns::CLIENT);
        twice.swap_content();
        prop_assert_eq!(twice, stanza);
    }

    #[test]
    fn a_shared_tree_is_not_changed_by_swapping_its_copy(stanza in stanza(ns::SERVER)) {
        let kept = sent(&stanza);
        let mut copy = stanza.clone();
        copy.swap_content();
        prop_assert_eq!(sent(&stanza), kept);
    }

    #[test]
    fn how_names_are_written_does_not_matter(stanza in stanza(ns::SERVER), choices in vec(any::<u8>(), 64)) {
        let mut text = String::new();
        written(&stanza, &mut choices.into_iter(), &mut text);
        // Prefixes that are bound again and again may be too many; then nothing gets through at all.
        if let Some(arrived) = carried(text.as_bytes()) {
            prop_assert_eq!(arrived, stanza);
        }
    }

    #[test]
    fn only_the_servers_namespace_becomes_ours(stanza in stanza(ns::SERVER)) {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        seen(&stanza, ns::SERVER, &mut before);
        let mut mapped = stanza;
        mapped.swap_content();
        seen(&mapped, ns::CLIENT, &mut after);
        prop_assert_eq!(before, after);
    }
}

#[test]
fn dialback_has_the_prefix_that_the_header_declares() {
    let key = vec![Node::Text(Str::value("key"))];
    let result = Element::build("result", ns::DIALBACK, &[("from", "a"), ("to", "b")], key);
    assert_eq!(sent(&result), b"<db:result from='a' to='b'>key</db:result>");
    assert_eq!(carried(&sent(&result)), Some(result));
}
