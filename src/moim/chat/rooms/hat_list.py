"""The hats of a room (XEP-0317): which there are, and who wears which."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from moim.proto.xmpp import Element, ns

MAX_HATS: Final = 50
MAX_WORN: Final = 10
MAX_WEARERS: Final = 1000
MAX_URI: Final = 200
MAX_TITLE: Final = 100


@dataclass(frozen=True, slots=True)
class Hat:
    """One hat. ``hue`` is an angle in degrees as text, or empty."""

    uri: str
    title: str
    hue: str = ""


class Hats:
    """Hats by their URI, and the URIs that each bare JID wears. Whoever changes it judges before."""

    def __init__(self, hats: dict[str, Hat] | None = None, worn: dict[str, tuple[str, ...]] | None = None) -> None:
        self._hats = hats if hats is not None else {}
        self._worn = worn if worn is not None else {}
        self._elements: dict[str, Element] = {}

    def __iter__(self) -> Iterator[Hat]:
        return iter(tuple(self._hats.values()))

    def __len__(self) -> int:
        return len(self._hats)

    def get(self, uri: str) -> Hat | None:
        """The hat with a URI."""
        return self._hats.get(uri)

    def worn_by(self, bare: str) -> tuple[str, ...]:
        """The URIs of the hats of an account."""
        return self._worn.get(bare, ())

    def wearers(self, uri: str | None = None) -> list[tuple[str, Hat]]:
        """Bare JIDs with the hats that they wear; those of one hat, or of all."""
        return [(bare, self._hats[own]) for bare, uris in self._worn.items() for own in uris if uri in (None, own)]

    @property
    def wearing(self) -> int:
        """How many accounts wear any."""
        return len(self._worn)

    def define(self, hat: Hat) -> None:
        """Adds a hat, or puts it in the place of the one with its URI."""
        self._hats[hat.uri] = hat
        self._elements.clear()

    def destroy(self, uri: str) -> list[str]:
        """Takes a hat away from the list and from everybody; gives the bare JIDs that wore it."""
        lost = [bare for bare, uris in self._worn.items() if uri in uris]
        for bare in lost:
            self.take(bare, uri)
        del self._hats[uri]
        return lost

    def give(self, bare: str, uri: str) -> None:
        """Puts a hat on."""
        self._worn[bare] = (*self.worn_by(bare), uri)
        self._elements.pop(bare, None)

    def take(self, bare: str, uri: str) -> None:
        """Takes a hat off."""
        left = tuple(own for own in self.worn_by(bare) if own != uri)
        if left:
            self._worn[bare] = left
        else:
            self._worn.pop(bare, None)
        self._elements.pop(bare, None)

    def forget(self, bare: str) -> bool:
        """Takes every hat off an account; whether it wore any."""
        self._elements.pop(bare, None)
        return self._worn.pop(bare, None) is not None

    def element(self, bare: str) -> Element | None:
        """The ``<hats/>`` in the presence of an account; None when it wears none."""
        uris = self._worn.get(bare)
        if not uris:
            return None
        if (made := self._elements.get(bare)) is None:
            worn = [self._hats[uri] for uri in uris]
            made = self._elements[bare] = Element("hats", ns.HATS, {}, tuple(_element(hat) for hat in worn))
        return made

    @property
    def hash(self) -> str:
        """Changes with the list of hats: what discovery tells."""
        text = json.dumps(sorted((hat.uri, hat.title, hat.hue) for hat in self._hats.values()))
        return hashlib.sha256(text.encode()).hexdigest()[:40]

    def to_json(self) -> str:
        """For the store; empty when there are none."""
        if not self._hats:
            return ""
        hats = [[hat.uri, hat.title, hat.hue] for hat in self._hats.values()]
        return json.dumps({"hats": hats, "worn": self._worn}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Hats:
        """From the store."""
        if not text:
            return cls()
        found = json.loads(text)
        hats = {uri: Hat(uri, title, hue) for uri, title, hue in found["hats"]}
        worn = {bare: tuple(uri for uri in uris if uri in hats) for bare, uris in found["worn"].items()}
        return cls(hats, {bare: uris for bare, uris in worn.items() if uris})


def _element(hat: Hat) -> Element:
    return Element("hat", ns.HATS, {"uri": hat.uri, "title": hat.title} | ({"hue": hat.hue} if hat.hue else {}))
