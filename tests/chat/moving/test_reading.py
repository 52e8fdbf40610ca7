"""Exports as a stream: what is written is read again; what is hostile is refused, within bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.chat.moving.credentials import read_credentials, write_credentials
from moim.chat.moving.reading import PIE, Event, Export, Piece, Skipped, UserBegins, UserEnds, _Parser
from moim.errors import ProtocolError, UsageError
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.scram import ScramHash, ScramVerifier

Write = Callable[..., Path]
_HEAD = f"<server-data xmlns='{PIE}' xmlns:xi='http://www.w3.org/2001/XInclude'>"
_USER = "<host jid='old.test'><user name='a'>{}</user></host></server-data>"
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=30)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str | bytes, name: str = "main.xml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return make


def events(path: Path) -> list[Event]:
    return list(Export(path).read())


@given(
    name=_TEXT.filter(bool),
    password=_TEXT,
    contacts=st.lists(_TEXT, max_size=4),
    notes=st.lists(_TEXT, max_size=4),
    cut=st.integers(1, 50),
)
def test_what_is_written_is_read(name: str, password: str, contacts: list[str], notes: list[str], cut: int) -> None:
    items = [Element("item", ns.ROSTER, {"jid": "b@c", "name": contact}) for contact in contacts]
    kept = [Element("n", "test:n", {}, (note,) if note else ()) for note in notes]
    vcard = Element("vCard", ns.VCARD, {}, (Element("FN", ns.VCARD, {}, (name,)),))
    whole = [Element("query", ns.ROSTER, {}, items), Element("query", ns.PRIVATE, {}, kept), vcard]
    user = f"<user name={quoteattr(name)} password={quoteattr(password)}>"
    text = f"{_HEAD}<host jid='h'>{user}{''.join(e.to_xml(PIE) for e in whole)}</user></host></server-data>"
    parser, data, read = _Parser("", ""), text.encode(), []
    for start in range(0, len(data), cut):
        read += parser.feed(data[start : start + cut], last=False)
    read += parser.feed(b"", last=True)
    shells: Sequence[Element] = [
        *(Element("query", ns.ROSTER, {}, (item,)) for item in items),
        *(Element("query", ns.PRIVATE, {}, (one,)) for one in kept),
        vcard,
    ]
    assert read == [UserBegins("h", name, password), *(Piece(shell) for shell in shells), UserEnds(0)]


@given(
    known=st.dictionaries(
        st.sampled_from(["SCRAM-SHA-1", "SCRAM-SHA-256"]),
        st.tuples(st.binary(min_size=1, max_size=64), st.integers(1, 1_000_000), st.binary(min_size=32, max_size=32)),
    )
)
def test_credentials_survive(known: dict[ScramHash, tuple[bytes, int, bytes]]) -> None:
    size = {"SCRAM-SHA-1": 20, "SCRAM-SHA-256": 32}
    given = {
        name: ScramVerifier(salt, count, key[: size[name]], key[::-1][: size[name]])
        for name, (salt, count, key) in known.items()
    }
    assert read_credentials(write_credentials(given)) == given


@pytest.mark.parametrize("wrong", [("iter-count", "0"), ("iter-count", "9" * 30), ("salt", ""), ("stored-key", "%")])
def test_impossible_credentials_are_refused(wrong: tuple[str, str]) -> None:
    verifier = ScramVerifier(b"salt", 4096, b"x" * 20, b"y" * 20)
    (element,) = write_credentials({"SCRAM-SHA-1": verifier})
    children = [c if c.name != wrong[0] else Element(c.name, c.ns, {}, (wrong[1],)) for c in element.elements()]
    with pytest.raises(ProtocolError):
        read_credentials([element.with_children(children)])


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>" + _HEAD + "&b;</server-data>",
        "<!DOCTYPE server-data SYSTEM 'http://127.0.0.1:1/x'>" + _HEAD + "</server-data>",
        _HEAD + _USER.format("<d>" * 200 + "</d>" * 200),
        _HEAD + _USER.format("<e " + " ".join(f"a{n}=''" for n in range(200)) + "/>"),
        _HEAD + _USER.format("<e a='" + "x" * 3_000_000 + "'/>"),
        _HEAD + "<!--" + "x" * 3_000_000 + "--></server-data>",
        _HEAD + _USER.format("&unknown;"),
        _HEAD + "<host jid='h'>",
        "<html/>",
        "",
        b"\xff\xfe<\x00",
    ],
)
def test_hostile_files_are_refused(write: Write, text: str | bytes) -> None:
    with pytest.raises(UsageError, match=r"main\.xml"):
        events(write(text))


def test_what_is_too_large_is_left_out_alone(write: Write) -> None:
    large = f"<vCard xmlns='vcard-temp'><FN>{'x' * 300_000}</FN></vCard>"
    read = events(write(_HEAD + _USER.format(large + "<a xmlns='test:a'/>")))
    assert [type(event) for event in read] == [UserBegins, Skipped, Piece, UserEnds]
    item = f"<query xmlns='jabber:iq:private'><a xmlns='a'>{'y' * 300_000}</a><b xmlns='b'/></query><c xmlns='c'/>"
    read = events(write(_HEAD + _USER.format(item)))
    assert [type(event) for event in read] == [UserBegins, Skipped, Piece, Piece, UserEnds]


@pytest.mark.parametrize(
    "href",
    ["", "/etc/passwd", "../out.xml", "a/../../out.xml", "%2e%2e/out.xml", "file:///etc/passwd", "http://127.0.0.1/x",
     "//127.0.0.1/x", "link.xml", "missing.xml", "main.xml", "folder", "x\\..\\out.xml"],
)  # fmt: skip
def test_includes_stay_in_the_folder(tmp_path: Path, write: Write, href: str) -> None:
    (tmp_path / "out.xml").write_text(f"<host xmlns='{PIE}' jid='h'/>")
    (tmp_path / "in" / "folder").mkdir(parents=True)
    (tmp_path / "in" / "link.xml").symlink_to(tmp_path / "out.xml")
    with pytest.raises(UsageError):
        events(write(f"{_HEAD}<xi:include href='{href}'/></server-data>", "in/main.xml"))


def test_included_hosts_and_users_are_read_in_place(write: Write) -> None:
    write(f"<user xmlns='{PIE}' name='b'/>", "h/b.xml")
    write(f"<host xmlns='{PIE}' xmlns:xi='http://www.w3.org/2001/XInclude' jid='h'><user name='a'/>"
          "<xi:include href='h/b.xml'/></host>", "h.xml")  # fmt: skip
    read = events(write(_HEAD + "<xi:include href='h.xml'/><host jid='i'><user name='c'/></host></server-data>"))
    assert [(e.host, e.name) for e in read if isinstance(e, UserBegins)] == [("h", "a"), ("h", "b"), ("i", "c")]
