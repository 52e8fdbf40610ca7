"""Stanzas nobody sensible sends: valid examples and skeletons of every request, bent in a few places.

Everything is drawn from one ``random.Random``, so a seed says what comes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hostile.vocabulary import Key, Words, all_words, words_for
from moim.errors import MoimError
from moim.proto.xmpp import Element, ns

FOLDER = Path(__file__).parent
_DEPTH = 80
_BYTES = 200_000

JIDS = (
    "", "@", "a@", "@b", "/", "a/b", "alice@chat.test", "ALICE@Chat.Test", "alice@chat.test/one", "bob@chat.test",
    "bob@chat.test/", "carol@chat.test/x y", "nobody@chat.test", "chat.test", "chat.test/x", "chat.test.",
    "rooms.chat.test", "stage@rooms.chat.test", "stage@rooms.chat.test/Bob", "stage@rooms.chat.test/Älice",
    "spare@rooms.chat.test", "missing@rooms.chat.test", "rooms.chat.test/x", "upload.chat.test",
    "a@upload.chat.test/b", "far.test", "romeo@far.test", "romeo@far.test/orchard", "a@b@c", "a b@chat.test",
    "\u212a@chat.test", "ﬃ@chat.test", "xn--a@xn--.test", "é" * 512 + "@chat.test", "a@" + "b." * 120 + "test",
    "x@[::1]", "x@127.0.0.1", "a@chat.test/" + "r" * 1024, "root@chat.test", "٣@chat.test",
    "a\u202eb@chat.test/\u202e",
)  # fmt: skip
TEXTS = (
    "", " ", "\n\t", "0", "-0", "-1", "+1", "1", "01", "1.5", "1e9", "1e999", "NaN", "٣", "²", "½", "４", "1_000",
    "0x10", "127", "128", "-128", "-129", "255", "256", "65536", "2147483648", "4294967295", "4294967296",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 400, "9" * 5000, "true", "false",
    "TRUE", "1 ", "max", "none", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "2026-02-30T00:00:00Z", "2026-13-01T25:61:61Z", "0000-00-00T00:00:00Z", "2026-01-01T00:00:00.999999999Z",
    "2026-01-01T00:00:00+99:99", "a", "A" * 300, "ü" * 1100, "모임", "\u202e\u2066", "e\u0301" * 200, "\ufffd",
    "\U0010ffff", "👋" * 300, "aGFsbG8=", "aGFsbG8", "====", "a===", "aGFs\nbG8=", "/9j/4AAQ", "AAAA" * 2000, "-_",
    "..", "../../etc/passwd", "a/b\\c", "C:\\x", ".", "a.", "\u0085", "\u2028", "%00", "%2e%2e/", "http://[::1",
    "http://127.0.0.1:5347/", "javascript:x", "xmpp:chat.test?node=x", "'", "\"><x/>", "&lt;", "]]>", "' or 1=1 --",
    "%s%n", "{0}", "$a", "n,,n=a,r=b", "y,a=b,", "text/html", "image/png; x=\"", "image/svg+xml\r\nX: y", "*/*",
    "sha-1", "md5", "submit", "cancel", "form", "result", "Bob", "Alice", "current", "princely_musings",
)  # fmt: skip
_KINDS = ("get", "set", "result", "error", "chat", "groupchat", "headline", "normal", "unavailable", "subscribe",
    "subscribed", "unsubscribe", "unsubscribed", "probe", "GET", "", "submit")  # fmt: skip

_ATTRIBUTE = re.compile(r"(?!xml)[A-Za-z_][\w.-]*", re.ASCII)


def read_examples(path: Path) -> list[Element]:
    """The stanzas of a file, comments left out."""
    text = re.sub(r"<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
    return [stanza for line in text.splitlines()[1:-1] if line.strip() for stanza in _parse(line)]


def _parse(line: str) -> list[Element]:
    return Element.parse(f"<x xmlns='{ns.CLIENT}'>{line}</x>").elements()


@cache
def examples() -> tuple[Element, ...]:
    """Stanzas of bound sessions, of other domains and of occupants, with what earlier runs found worth keeping."""
    found = read_examples(FOLDER / "examples.xml")
    kept = FOLDER / "corpus.xml"
    return (*found, *(read_examples(kept) if kept.exists() else ()))


@cache
def entering() -> tuple[Element, ...]:
    """What a connection may say before its resource is bound."""
    return tuple(read_examples(FOLDER / "entering.xml"))


class Grammar:
    """Draws stanzas. ``requests`` are those that features answer; ``seen`` is what the server said."""

    def __init__(self, rng: random.Random, requests: Sequence[Key]) -> None:
        self.rng = rng
        self.requests = sorted({*requests, *all_words().requests})
        self._all = _Sorted(all_words())
        self.seen: list[Element] = []

    # --- what to begin with -----------------------------------------------------------------------------------------

    def stanza(self) -> Element:
        """A stanza; its ``id`` and ``from`` are the caller's to set."""
        rng = self.rng
        choice = rng.random()
        if choice < 0.45:
            stanza = rng.choice(examples())
        elif choice < 0.85 or not self.seen:
            stanza = self._skeleton(rng.choice(self.requests))
        else:
            stanza = self._answered(rng.choice(self.seen))
        for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3, 5))):
            stanza = self.bent(stanza)
        return stanza if len(stanza.to_xml()) < _BYTES else stanza.with_children(())

    def entry(self) -> Element:
        """Something that a connection says before it is let in."""
        element = self.rng.choice(entering())
        for _ in range(self.rng.choice((0, 0, 1, 1, 2, 4))):
            element = self.bent(element)
        return element if len(element.to_xml()) < 10_000 else element.with_children(())

    def answer(self, request: Element) -> Element:
        """The answer of a client that was asked something: right, wrong or an error."""
        rng = self.rng
        kind = "result" if rng.random() < 0.8 else "error"
        payload = rng.choice([e for e in examples() if e.get("type") == kind and e.name == "iq"]).elements()
        if rng.random() < 0.5:
            payload = [self._in_tree(child) for child in payload]
        return Element("iq", ns.CLIENT, {"type": kind, "id": request.get("id") or "x"}, payload)

    def _in_tree(self, element: Element) -> Element:
        try:
            return self._tree(element, 0)
        except MoimError:
            return element

    def _skeleton(self, key: Key) -> Element:
        kind, space, name = key
        attrs = {"type": kind}
        if self.rng.random() < 0.7:
            attrs["to"] = self.rng.choice(JIDS)
        payload = self._grown(name, space, _words_for(space, name), self.rng.randint(0, 3))
        return Element("iq", ns.CLIENT, attrs, (payload,))

    def _answered(self, said: Element) -> Element:
        """What the server said, sent back to it as a request: forms come back filled in."""
        kind = self.rng.choice(("get", "set", "set"))
        return said.with_attrs({"type": kind, "to": said.get("from"), "from": None}).with_children(
            [self._submitted(child) if isinstance(child, Element) else child for child in said.children]
        )

    def _submitted(self, element: Element) -> Element:
        if (element.ns, element.name) == (ns.DATA_FORMS, "x"):
            element = element.with_attrs({"type": "submit"})
        return element.with_children([self._submitted(c) if isinstance(c, Element) else c for c in element.children])

    def _grown(self, name: str, space: str, words: _Sorted, depth: int) -> Element:
        rng = self.rng
        attrs = {rng.choice(words.attributes): self._text(words) for _ in range(rng.randint(0, 3)) if words.attributes}
        children: list[Element | str] = []
        for _ in range(rng.randint(0, 3) if depth else 0):
            if rng.random() < 0.15:
                children.append(self._form(words))
            elif rng.random() < 0.1:
                children.append(self._page())
            elif words.elements and rng.random() < 0.4:
                inner_space, inner = rng.choice(words.elements)
                children.append(self._grown(inner, inner_space, words, depth - 1))
            elif words.names:
                children.append(self._grown(rng.choice(words.names), space, words, depth - 1))
        if not children and rng.random() < 0.5:
            children.append(self._text(words))
        return _element(name, space, attrs, children)

    def _form(self, words: _Sorted) -> Element:
        rng = self.rng
        fields = []
        for _ in range(rng.randint(0, 5)):
            values = [Element("value", ns.DATA_FORMS, {}, (self._text(words),)) for _ in range(rng.randint(0, 3))]
            variable = "FORM_TYPE" if rng.random() < 0.3 else self._text(words)
            fields.append(_element("field", ns.DATA_FORMS, {"var": variable}, values))
        return Element(
            "x", ns.DATA_FORMS, {"type": rng.choice(("submit", "submit", "cancel", "form", "result"))}, fields
        )

    def _page(self) -> Element:
        rng = self.rng
        names = ("max", "before", "after", "index", "first", "last", "count")
        parts = [_element(rng.choice(names), ns.RSM, {}, [rng.choice(TEXTS)]) for _ in range(rng.randint(0, 3))]
        return Element("set", ns.RSM, {}, parts)

    def _text(self, words: _Sorted) -> str:
        choice = self.rng.random()
        if choice < 0.4 and words.texts:
            return self.rng.choice(words.texts)
        return self.rng.choice(JIDS if choice < 0.6 else TEXTS)

    # --- bending ----------------------------------------------------------------------------------------------------

    def bent(self, stanza: Element) -> Element:
        """The stanza with one thing about it changed, if XML allows that."""
        try:
            return self._bent(stanza)
        except MoimError:
            return stanza

    def _bent(self, stanza: Element) -> Element:
        rng = self.rng
        choice = rng.random()
        if choice < 0.12:
            return stanza.with_attrs({"to": rng.choice((*JIDS, None))})
        if choice < 0.17:
            return stanza.with_attrs({"type": rng.choice((*_KINDS, None))})
        if choice < 0.19:
            return stanza.with_attrs({"id": rng.choice(("", " ", "x" * 5000, None))})
        if choice < 0.21:
            return _element(rng.choice(("iq", "message", "presence", "x")), stanza.ns, stanza.attrs, stanza.children)
        if not stanza.elements():
            return stanza.with_children([self._any()])
        return self._tree(stanza, 0)

    def _tree(self, element: Element, depth: int) -> Element:
        """Goes down to some element and changes it."""
        rng = self.rng
        inner = [place for place, child in enumerate(element.children) if isinstance(child, Element)]
        if inner and (depth == 0 or rng.random() < 0.6):
            place = rng.choice(inner)
            children = list(element.children)
            child = children[place]
            if isinstance(child, Element):
                children[place] = self._tree(child, depth + 1)
            return element.with_children(children)
        return self._changed(element)

    def _changed(self, element: Element) -> Element:
        rng = self.rng
        words = _words_for(element.ns, element.name)
        if not words.texts:
            words = self._all
        children = list(element.children)
        match rng.randrange(14):
            case 0:
                return _element(rng.choice(words.names or self._all.names), element.ns, element.attrs, children)
            case 1:
                return _element(element.name, rng.choice(self._all.spaces), element.attrs, children)
            case 2 | 3 if element.attrs:
                return element.with_attrs({rng.choice(sorted(element.attrs)): self._text(words)})
            case 4 if element.attrs:
                return element.with_attrs({rng.choice(sorted(element.attrs)): None})
            case 5:
                return element.with_attrs({rng.choice(words.attributes or self._all.attributes): self._text(words)})
            case 6 | 7:
                return element.with_children([self._text(words)])
            case 8 if children:
                del children[rng.randrange(len(children))]
                return element.with_children(children)
            case 9 if children:
                child = rng.choice(children)
                times = rng.choice((2, 3, 12, 200, 1500))
                if not isinstance(child, Element) or times * len(child.to_xml()) < _BYTES:
                    children += [child] * (times if isinstance(child, Element) else 2)
                return element.with_children(children)
            case 10:
                for _ in range(rng.choice((1, 2, _DEPTH))):
                    element = _element(element.name, element.ns, element.attrs, [element])
                return element
            case 11:
                return element.with_children([*children, self._any()])
            case 12:
                return element.with_children([*children, "x" * rng.choice((100, 5000, 100_000))])
            case _:
                rng.shuffle(children)
                return element.with_children([*children, self._form(words)])

    def _any(self) -> Element:
        """An element of any kind: grown from the vocabulary, or a piece of an example."""
        rng = self.rng
        if rng.random() < 0.5:
            space, name = rng.choice(self._all.elements)
            return self._grown(name, space, _words_for(space, name), 2)
        element = rng.choice(examples())
        while element.elements() and rng.random() < 0.7:
            element = rng.choice(element.elements())
        return element


class _Sorted:
    """Words in an order that does not depend on the run."""

    __slots__ = ("attributes", "elements", "names", "spaces", "texts")

    def __init__(self, words: Words) -> None:
        self.names = sorted(words.names)
        self.attributes = sorted(filter(_ATTRIBUTE.fullmatch, words.attributes))
        self.texts = sorted(words.texts)
        self.spaces = sorted(words.spaces)
        self.elements = sorted(words.elements)


@cache
def _words_for(space: str, name: str) -> _Sorted:
    return _Sorted(words_for(space, name))


def _element(name: str, space: str, attrs: dict[str, str], children: Sequence[Element | str]) -> Element:
    """An element, or the nearest thing that XML allows."""
    try:
        return Element(name, space, attrs, children)
    except MoimError:
        return Element("x", space if space.isprintable() else ns.CLIENT, {}, ())
