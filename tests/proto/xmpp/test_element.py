"""The XML tree as Python sees it: building, reading, copying, comparing, and what cannot be built or read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError, UsageError
from moim.proto.xmpp.element import Element, XmlStream

NS = "jabber:client"


def message(body: str = "x", **attrs: str) -> Element:
    return Element("message", NS, attrs, [Element("body", NS, children=[body])])


def test_parts() -> None:
    inner = Element("x", "urn:x", {"{urn:y}z": "1", "xml:lang": "ko"})
    made = Element("message", NS, {"to": "a@b"}, ["a", inner, "", "b", "c", Element("x", NS)])
    assert (made.name, made.ns, made.attrs, made.text) == ("message", NS, {"to": "a@b"}, "abc")
    assert made.children == ["a", inner, "bc", Element("x", NS)]
    assert made.elements() == [inner, Element("x", NS)]
    assert made.find("x") == Element("x", NS)
    assert made.find("x", "urn:x") == inner
    assert made.find("y") is None
    assert (made.get("to"), made.get("from"), made.get("from", "nobody")) == ("a@b", None, "nobody")
    assert inner.get("{urn:y}z") == "1"
    assert made.to_xml() == (
        "<message to='a@b'>a<x xmlns='urn:x' xmlns:n0='urn:y' n0:z='1' xml:lang='ko'/>bc<x/></message>"
    )
    assert made.to_xml("").startswith("<message xmlns='jabber:client' to='a@b'>")


def test_the_attributes_are_a_copy() -> None:
    made = message(to="a")
    made.attrs["to"] = "b"
    assert made.get("to") == "a"
    with pytest.raises(AttributeError):
        made.name = "iq"  # type: ignore[misc]


def test_copies() -> None:
    made = message(to="a", type="chat")
    changed = made.with_attrs({"to": None, "from": "b", "type": "normal"})
    assert changed.attrs == {"from": "b", "type": "normal"}
    assert changed.children == made.children
    assert made.attrs == {"to": "a", "type": "chat"}
    assert made.with_children(["t"]) == Element("message", NS, {"to": "a", "type": "chat"}, ["t"])


def test_equality_is_about_meaning() -> None:
    assert Element("a", "n", {"x": "1", "y": "2"}) == Element("a", "n", {"y": "2", "x": "1"})
    assert hash(Element("a", "n", {"x": "1", "y": "2"})) == hash(Element("a", "n", {"y": "2", "x": "1"}))
    assert len({message(), message(), message("y")}) == 2
    for other in (
        Element("b", "n"),
        Element("a", "m"),
        Element("a", "n", {"x": ""}),
        Element("a", "n", {}, ["t"]),
        "a",
    ):
        assert Element("a", "n") != other


def test_representations_show_the_element_but_no_credentials() -> None:
    assert repr(message()) == "<Element <message xmlns='jabber:client'><body>x</body></message>>"
    assert len(repr(message("가" * 5000))) < 300
    secret = Element("auth", "urn:ietf:params:xml:ns:xmpp-sasl", {}, ["c2VjcmV0"])
    assert "c2VjcmV0" not in repr(secret)


@pytest.mark.parametrize("name", ["", "a b", "1a", "a:b", "<a", "a\0", "-"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(UsageError):
        Element(name, NS)
    with pytest.raises(UsageError):
        Element("a", NS, {name: ""})


@pytest.mark.parametrize("bad", ["\0", "\x1f", "\ufffe", "\uffff", "a\x08", "\ud800"])
def test_characters_that_cannot_be(bad: str) -> None:
    builds: tuple[Callable[[], Element], ...] = (
        lambda: Element("a", NS, {"b": bad}),
        lambda: Element("a", NS, {}, [bad]),
        lambda: Element("a", bad),
        lambda: Element("a", NS).with_attrs({"b": bad}),
    )
    for build in builds:
        with pytest.raises(UsageError):
            build()


@pytest.mark.parametrize("key", ["xmlns", "{}a", "{u}", "{u", "{http://www.w3.org/2000/xmlns/}a", "xml:", "xmlns:a"])
def test_attribute_names_that_cannot_be(key: str) -> None:
    with pytest.raises(UsageError):
        Element("a", NS, {key: ""})


def test_arguments_of_the_wrong_kind() -> None:
    with pytest.raises(UsageError):
        Element("a", NS, {}, "text")
    with pytest.raises(UsageError):
        Element("a", NS, {}, [1])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        Element("a", NS, {"b": 1})  # type: ignore[dict-item]
    with pytest.raises(UsageError):
        Element.parse(1)  # type: ignore[arg-type]


def test_trees_have_a_bottom() -> None:
    tree = Element("a", NS)
    for _ in range(255):
        tree = Element("a", NS, {}, [tree])
    assert tree.to_xml().count("<a>") == 255
    with pytest.raises(UsageError, match="256"):
        Element("a", NS, {}, [tree])


def test_reading_a_document() -> None:
    assert Element.parse("<?xml version='1.0'?> <a b='c'>d</a> ") == Element("a", "", {"b": "c"}, ["d"])
    assert Element.parse(b"<p:a xmlns:p='u'/>") == Element("a", "u")


@pytest.mark.parametrize(
    ("document", "condition"),
    [
        ("", "not-well-formed"),
        ("<a>", "not-well-formed"),
        ("<a/><b/>", "bad-format"),
        ("<a>&x;</a>", "restricted-xml"),
        ("<!DOCTYPE a><a/>", "restricted-xml"),
        (b"<a>\xff</a>", "unsupported-encoding"),
        ("<a>" * 97, "policy-violation"),
        ("<a>" + "x" * 262_144 + "</a>", "policy-violation"),
    ],
)
def test_documents_that_are_refused(document: str | bytes, condition: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Element.parse(document)
    assert caught.value.condition == condition  # type: ignore[attr-defined]


def test_a_stream_in_pieces() -> None:
    text = (
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "
        "xmlns:db='jabber:server:dialback' from='a'><db:verify id='1'/><iq/></stream:stream>"
    )
    stream = XmlStream()
    events = [event for byte in text.encode() for event in stream.feed(bytes([byte]))]
    assert events == [
        ("open", {"from": "a", "xmlns": "jabber:server"}),
        ("element", Element("verify", "jabber:server:dialback", {"id": "1"})),
        ("element", Element("iq", "jabber:server")),
        ("close",),
    ]
    small = XmlStream(max_stanza=1024)
    with pytest.raises(ProtocolError) as caught:
        small.feed(text.replace("<iq/>", f"<iq>{'x' * 1024}</iq>").encode())
    assert caught.value.condition == "policy-violation"  # type: ignore[attr-defined]
    with pytest.raises(ProtocolError):
        small.feed(b"<iq/>")


names = st.from_regex(r"[a-z_][a-z0-9._-]{0,5}", fullmatch=True)
texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n\r<&>'\"]")
)
spaces = st.sampled_from(["", NS, "urn:x", "http://etherx.jabber.org/streams"])
keys = names | st.just("xml:lang") | names.map("{{urn:q}}{}".format)


def build(name: str, ns: str, attrs: dict[str, str], children: list[Element | str]) -> Element:
    return Element(name, ns, attrs, children)


trees = st.recursive(
    st.builds(build, names, spaces, st.dictionaries(keys, texts, max_size=3), st.lists(texts, max_size=2)),
    lambda inner: st.builds(
        build, names, spaces, st.dictionaries(keys, texts, max_size=3), st.lists(inner | texts, max_size=4)
    ),
    max_leaves=12,
)


@given(trees)
def test_every_tree_survives_its_text(tree: Element) -> None:
    assert Element.parse(tree.to_xml("")) == tree
    wrapped = Element.parse(f"<w xmlns='jabber:client'>{tree.to_xml()}</w>")
    assert wrapped.elements() == [tree]


@given(st.binary(max_size=200) | st.text("<>/='\"&;![]?ax: \n", max_size=60))
def test_rubbish_is_read_or_refused(document: str | bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read = Element.parse(document)
        assert Element.parse(read.to_xml("")) == read
