//! What holds for every input: trees survive the wire, cuts do not matter, and rubbish neither panics nor gets through.

use std::sync::Arc;

use moim_wire::xml::{ns, serialise, Attr, Element, Form, Framer, Limits, Node, Str, XmlEvent};
use proptest::collection::vec;
use proptest::prelude::*;

const HEADER: &[u8] =
    b"<stream:stream to='x' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

fn parse(document: &[u8]) -> Option<Element> {
    let mut framer = Framer::document(Limits::bytes(1 << 20));
    let mut rest = document;
    match framer.next(&mut rest) {
        Ok(Some(XmlEvent::Element(element, _))) if rest.is_empty() => framer.end_document().ok().map(|()| element),
        _ => None,
    }
}

fn serialised(element: &Element, form: Form<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    serialise(&mut out, element, form);
    out
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9.-]{0,8}",
        Just("message".into()),
        Just("stream".into()),
        "[가-힣é_]{1,3}"
    ]
}

fn namespace() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just(ns::CLIENT.to_owned()),
        Just(ns::STREAMS.to_owned()),
        Just(ns::XML.to_owned()),
        "urn:[a-c]",
        "[ -~]{1,10}",
    ]
}

fn key() -> impl Strategy<Value = String> {
    let qualified = (namespace(), name()).prop_map(|(namespace, name)| match namespace.as_str() {
        "" | ns::XML => format!("xml:{name}"),
        other => format!("{{{other}}}{name}"),
    });
    prop_oneof![4 => name(), 1 => qualified]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,20}", "[\\t\\n\\r<>&'\"\\]가🎉]{0,12}"]
}

fn tree() -> impl Strategy<Value = Element> {
    let leaf = text().prop_map(|text| Node::Text(Str::value(&text)));
    let node = leaf.prop_recursive(5, 40, 5, |inner| {
        element(vec(inner, 0..5)).prop_map(|element| Node::Element(Arc::new(element)))
    });
    element(vec(node, 0..5))
}

fn element(children: impl Strategy<Value = Vec<Node>>) -> impl Strategy<Value = Element> {
    (name(), namespace(), vec((key(), text()), 0..5), children).prop_map(|(name, namespace, attrs, children)| {
        let mut unique: Vec<Attr> = Vec::new();
        for (key, value) in attrs {
            if unique.iter().all(|attr| attr.key != key.as_str()) {
                unique.push(Attr {
                    key: Str::name(&key),
                    value: Str::value(&value),
                });
            }
        }
        Element::checked(Str::name(&name), Str::name(&namespace), unique, children).unwrap()
    })
}

/// What comes out of a stream in pieces, up to the first error.
fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
    let mut framer = Framer::stream(Limits::bytes(4096));
    let mut seen = Vec::new();
    for piece in pieces {
        let mut rest = piece.as_slice();
        loop {
            match framer.next(&mut rest) {
                Ok(None) => break,
                Ok(Some(XmlEvent::Element(element, weight))) => {
                    // Whatever was let in must be fit to be sent on, and mean the same there.
                    let form = Form {
                        default_ns: ns::CLIENT,
                        stream_prefix: false,
                        server: false,
                    };
                    let again = [
                        b"<w xmlns='jabber:client'>".to_vec(),
                        serialised(&element, form),
                        b"</w>".to_vec(),
                    ];
                    let wrapped = parse(&again.concat()).expect("what was serialised can be read");
                    assert_eq!(wrapped.elements().next().map(|inner| &**inner), Some(&element));
                    seen.push(format!(
                        "{weight} {}",
                        String::from_utf8(serialised(&element, form)).unwrap()
                    ));
                }
                Ok(Some(other)) => seen.push(format!("{other:?}")),
                Err(error) => {
                    seen.push(error.to_string());
                    assert_eq!(
                        framer.next(&mut &b"<a/>"[..]).unwrap_err(),
                        error,
                        "an error is for ever"
                    );
                    return seen;
                }
            }
        }
    }
    seen
}

fn cut(bytes: &[u8], at: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #[test]
    fn a_tree_survives_the_wire(element in tree()) {
        for form in [Form::MESSAGE, Form { default_ns: "", stream_prefix: false, server: false }] {
            let bytes = serialised(&element, form);
            let parsed = parse(&bytes);
            prop_assert_eq!(parsed.as_ref(), Some(&element), "{}", String::from_utf8_lossy(&bytes));
        }
        let mut framer = Framer::stream(Limits::bytes(1 << 20));
        framer.next(&mut &*HEADER).unwrap();
        if !element.is("stream", ns::STREAMS) {
            let bytes = serialised(&element, Form::STREAM);
            match framer.next(&mut bytes.as_slice()).unwrap() {
                Some(XmlEvent::Element(found, _)) => prop_assert_eq!(found, element),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn cuts_do_not_matter(elements in vec(tree(), 1..4), at in vec(any::<prop::sample::Index>(), 0..12)) {
        let mut bytes = HEADER.to_vec();
        for element in &elements {
            serialise(&mut bytes, element, Form::STREAM);
        }
        bytes.extend_from_slice(b"</stream:stream>");
        prop_assert_eq!(read([bytes.clone()]), read(cut(&bytes, &at)));
        prop_assert_eq!(read([bytes.clone()]), read(bytes.chunks(1).map(<[u8]>::to_vec)));
    }
}

/// A small generator of numbers, so that the same rubbish comes every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

#[test]
fn broken_streams_neither_panic_nor_depend_on_cuts() {
    let seed = [
        HEADER,
        b"<message to='a@b/c' xml:lang='ko'><body>x &lt;&#x41; \xEA\xB0\x80</body><x xmlns='jabber:x:data' p:q='1' \
          xmlns:p='u'><p:y><![CDATA[z]]></p:y></x></message><iq type='get' id=\"1\"/> </stream:stream>",
    ]
    .concat();
    let parts: [&[u8]; 24] = [
        b"<",
        b">",
        b"/",
        b"'",
        b"\"",
        b"&",
        b";",
        b"=",
        b"!",
        b"?",
        b"]]>",
        b"<![CDATA[",
        b"&#",
        b"xmlns",
        b":",
        b" ",
        b"\xFF",
        b"\xEF\xBF\xBE",
        b"\0",
        b"</",
        b"/>",
        b"<a>",
        b"xmlns:p=''",
        b"<stream:stream>",
    ];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..20_000 {
        let mut bytes = seed.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.splice(at..at, parts[random.below(parts.len())].iter().copied())),
                2 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
                _ => {
                    let end = (at + random.below(40)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let place = random.below(bytes.len());
                    drop(bytes.splice(place..place, copy));
                }
            }
        }
        let step = 1 + random.below(64);
        assert_eq!(
            read([bytes.clone()]),
            read(bytes.chunks(step).map(<[u8]>::to_vec)),
            "{bytes:?}"
        );
    }
}
