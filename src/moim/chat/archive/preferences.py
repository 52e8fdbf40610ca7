"""XEP-0441 archiving preferences: which conversations an account wants in its archive."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import sqlalchemy as sa

from moim.chat.archive import tables
from moim.chat.feature import Iq, Payload
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.store import Store, insert

Usual = Literal["always", "never", "roster"]
_USUAL: Final[tuple[Usual, ...]] = ("always", "never", "roster")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What an account archives: ``usual`` is for addresses in neither list."""

    usual: Usual = "always"
    always: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether every message is archived, whoever the other side is."""
        return self.usual == "always" and not self.never

    def wants(self, peer: Jid) -> bool | None:
        """Whether messages to or from ``peer`` are archived; None when it takes the contact list to tell.

        The more specific entry counts when an address is in both lists, and ``never`` when they are equal.
        """
        for text in dict.fromkeys((str(peer), str(peer.bare))):
            if text in self.never:
                return False
            if text in self.always:
                return True
        return None if self.usual == "roster" else self.usual == "always"

    def element(self) -> Element:
        """The ``<prefs/>``."""
        lists = [
            Element(name, ns.ARCHIVE, {}, tuple(Element("jid", ns.ARCHIVE, {}, (jid,)) for jid in sorted(jids)))
            for name, jids in (("always", self.always), ("never", self.never))
        ]
        return Element("prefs", ns.ARCHIVE, {"default": self.usual}, tuple(lists))


def read(element: Element, most: int) -> Preferences:
    """The preferences in ``<prefs/>``. Raises StanzaError for what it cannot mean, or a list longer than ``most``."""
    usual = element.get("default")
    if usual not in _USUAL:
        raise StanzaError("bad-request", "the default is always, never or roster")
    lists = [_addresses(element.find(name), most) for name in ("always", "never")]
    return Preferences(usual, *lists)


def _addresses(element: Element | None, most: int) -> frozenset[str]:
    children = [c for c in element.elements() if (c.ns, c.name) == (ns.ARCHIVE, "jid")] if element is not None else []
    if len(children) > most:
        raise StanzaError("resource-constraint", f"a list has at most {most} addresses")
    try:
        return frozenset(str(Jid.parse(child.text.strip())) for child in children)
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None


_UNCHOSEN: Final[Mapping[Usual, Preferences]] = {usual: Preferences(usual) for usual in _USUAL}


class AllPreferences:
    """The preferences of every account. Those that are not the usual ones are in memory, so that none is waited for.

    ``usual`` is what counts for an account that did not choose, or that may not: where it is ``fixed``.
    """

    def __init__(
        self,
        store: Store,
        *,
        usual: Callable[[str], Usual],
        fixed: Callable[[str], bool],
        most: int,
        changed: Callable[[str], None],
    ) -> None:
        self._store = store
        self._usual = usual
        self._fixed = fixed
        self._most = most
        self._changed = changed
        self._own: dict[str, Preferences] = {}
        self.on_written: Callable[[str], None] = lambda owner: None
        """Hears whose preferences were written."""

    async def load(self) -> None:
        """Reads what accounts chose. Raises Unavailable."""
        rows = await self._store.read(lambda connection: connection.execute(sa.select(tables.preferences)).all())
        for row in rows:
            self._own[row.owner] = _preferences(row)

    def of(self, owner: str) -> Preferences:
        """What counts for an account."""
        chosen = self._own.get(owner)
        return _UNCHOSEN[self._usual(owner)] if chosen is None or self._fixed(owner) else chosen

    def get(self, iq: Iq) -> Payload:
        """Answers the owner's request for its preferences."""
        return (self.of(iq.owner.bare).element(),)

    async def set(self, iq: Iq) -> Payload:
        """Keeps what the owner chooses, then makes it count."""
        owner = iq.owner.bare
        if self._fixed(owner):
            raise StanzaError("not-allowed", "what is archived here is not for people to choose")
        chosen = read(iq.payload, self._most)
        row = {
            "owner": owner,
            "usual": chosen.usual,
            "always": json.dumps(sorted(chosen.always)),
            "never": json.dumps(sorted(chosen.never)),
        }
        statement = insert(tables.preferences).values(row).on_conflict_do_update(["owner"], set_=row)
        await self._store.write(lambda connection: connection.execute(statement))
        self._own[owner] = chosen
        self._changed(owner)
        self.on_written(owner)
        return (chosen.element(),)

    async def reload(self, owner: str) -> None:
        """Another node wrote an account's preferences: they count here too. Raises Unavailable."""
        query = sa.select(tables.preferences).where(tables.preferences.c.owner == owner)
        row = await self._store.read(lambda connection: connection.execute(query).first())
        if row is None:
            self._own.pop(owner, None)
        else:
            self._own[owner] = _preferences(row)
        self._changed(owner)

    async def drop(self, owner: str) -> None:
        """Forgets an account."""
        gone = sa.delete(tables.preferences).where(tables.preferences.c.owner == owner)
        await self._store.write(lambda connection: connection.execute(gone))
        self._own.pop(owner, None)


def _preferences(row: sa.Row[Any]) -> Preferences:
    return Preferences(row.usual, frozenset(json.loads(row.always)), frozenset(json.loads(row.never)))


Listed = Callable[[str, str], Awaitable[bool]]
"""Whether the contact list of the first bare JID has the second one."""
