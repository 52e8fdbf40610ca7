"""XEP-0115 entity capabilities: announces the server's own, and learns what each client wants to be notified of.

A client's claim is believed for all only when the hash vouches for it; any other answer counts for its session alone,
so that nobody can speak for other clients (XEP-0115 section 8).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from moim.chat.accounts import Session
from moim.chat.feature import Feature, Luggage
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, Jid, ns
from moim.proto.xmpp.caps import HASHES, verification

_NOTIFY = "+notify"
_MAX_WANTS = 200
_NOTHING: frozenset[str] = frozenset()

Claim = tuple[str, str, str]
"""Hash, node and verification string."""
OnWants = Callable[[Session], Awaitable[None]]


@dataclass(slots=True)
class _Known:
    claim: Claim | None = None
    asked: str = ""
    wants: frozenset[str] = _NOTHING


class Caps:
    """What every available session wants. ``on_wants`` hears when that is known, also when it is as before."""

    def __init__(self, *, plane: Plane, on_wants: OnWants, max_cached: int) -> None:
        self._plane = plane
        self._on_wants = on_wants
        self._vouched = Vouched(max_cached)
        self._known: dict[Session, _Known] = {}
        self._numbers = itertools.count(1)
        self.feature = Feature(
            name="XEP-0115 entity capabilities",
            server_vars=(ns.CAPS,),
            on_available=self._available,
            on_answer=self._answered,
            on_gone=self._gone,
            luggage=Luggage(self._pack, self._unpack),
        )

    def wants(self, session: Session) -> frozenset[str]:
        """The PEP nodes that a session wants to hear of."""
        known = self._known.get(session)
        return known.wants if known is not None else _NOTHING

    def _gone(self, session: Session) -> None:
        self._known.pop(session, None)

    def _pack(self, session: Session) -> object:
        known = self._known.get(session)
        return (known.claim, known.asked, sorted(known.wants)) if known is not None else None

    def _unpack(self, session: Session, packed: Any) -> None:
        claim, asked, wants = packed
        self._known[session] = _Known(tuple(claim) if claim is not None else None, asked, frozenset(wants))

    def _available(self, session: Session, initial: bool) -> Awaitable[None] | None:
        claim = claim_in(session.presence) if session.presence is not None else None
        if claim is None:
            if initial:
                self._known.pop(session, None)
            return None
        known = self._known.setdefault(session, _Known())
        if claim == known.claim:
            return self._on_wants(session) if initial else None
        known.claim, known.asked, known.wants = claim, "", _NOTHING
        if (wants := self._vouched.get(claim)) is not None:
            known.wants = wants
            return self._on_wants(session)
        known.asked = f"caps-{next(self._numbers)}"
        self._plane.send(session.sid, [question(claim, known.asked, session.full.domain, session.full)])
        return None

    def _answered(self, session: Session, answer: Element) -> Awaitable[None] | None:
        known = self._known.get(session)
        if known is None or known.claim is None or not known.asked or answer.get("id") != known.asked:
            return None
        known.asked = ""
        info = answer.find("query", ns.DISCO_INFO)
        if answer.get("type") != "result" or info is None:
            return None
        known.wants = self._vouched.learn(known.claim, info)
        return self._on_wants(session) if session.available else None


class Vouched:
    """What clients want, by the hash that vouches for it, for whoever shows the hash. ``most`` are remembered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._wants: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()

    def get(self, claim: Claim) -> frozenset[str] | None:
        """What a client with this claim wants; None when nobody has vouched for it yet."""
        kind, _, version = claim
        wants = self._wants.get((kind, version))
        if wants is not None:
            self._wants.move_to_end((kind, version))
        return wants

    def learn(self, claim: Claim, info: Element) -> frozenset[str]:
        """What a client wants that made the claim and answered with ``info``."""
        kind, _, version = claim
        wants = _wanted(info)
        if kind in HASHES and verification(info, kind) == version:
            self._wants[kind, version] = wants
            if len(self._wants) > self._most:
                self._wants.popitem(last=False)
        return wants


def claim_in(presence: Element) -> Claim | None:
    """What a client claims of its capabilities in its presence."""
    shown = presence.find("c", ns.CAPS)
    return (shown.get("hash") or "", shown.get("node") or "", shown.get("ver") or "") if shown is not None else None


def question(claim: Claim, identifier: str, sender: str, to: Jid) -> Element:
    """The request what a claim means (XEP-0115 section 6.2)."""
    query = Element("query", ns.DISCO_INFO, {"node": f"{claim[1]}#{claim[2]}"})
    attrs = {"type": "get", "id": identifier, "from": sender, "to": str(to)}
    return Element("iq", ns.CLIENT, attrs, (query,))


def _wanted(info: Element) -> frozenset[str]:
    """The nodes that a client asks to be notified of, by its features."""
    found = []
    for child in info.elements():
        var = child.get("var") or ""
        if (child.ns, child.name) == (ns.DISCO_INFO, "feature") and var.endswith(_NOTIFY) and len(var) > len(_NOTIFY):
            found.append(var.removesuffix(_NOTIFY))
    return frozenset(found[:_MAX_WANTS])
