"""XEP-0049 private XML storage: what clients keep at the server for themselves, one element per name and namespace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.feature import Feature, Iq, Payload
from moim.proto.xmpp import Element, StanzaError, ns
from moim.store import Store, insert

Key = tuple[str, str]


class Elsewhere(Protocol):
    """Keeps one kind of element in another form, so that older and newer clients see the same."""

    async def load(self, owner: str, kept: Element) -> Element:
        """The element as it is now; ``kept`` is what private storage has of it."""
        ...

    async def save(self, owner: str, content: Element) -> Element:
        """Takes what the owner stores, and gives what private storage has to keep of it. Raises StanzaError."""
        ...


class PrivateStorage:
    """The private elements of every account. ``elsewhere``: those by (namespace, name) that are kept by others.

    ``bounds`` are how many elements and bytes an account (bare JID) may keep.
    """

    def __init__(
        self, store: Store, *, elsewhere: Mapping[Key, Elsewhere], bounds: Callable[[str], tuple[int, int]]
    ) -> None:
        self._store = store
        self._elsewhere = elsewhere
        self._bounds = bounds
        self.feature = Feature(
            name="XEP-0049 private XML storage",
            server_vars=(ns.PRIVATE,),
            account_iq={("get", ns.PRIVATE, "query"): self._get, ("set", ns.PRIVATE, "query"): self._set},
            on_account_removed=self._drop,
        )

    async def _get(self, iq: Iq) -> Payload:
        wanted = _only(iq)
        return (Element("query", ns.PRIVATE, {}, (await self.load(iq.owner.bare, wanted),)),)

    async def load(self, owner: str, wanted: Element) -> Element:
        """What an account keeps under the name and namespace of ``wanted``; empty when it keeps nothing."""
        table = tables.private.c
        query = sa.select(table.content).where(table.owner == owner, table.ns == wanted.ns, table.name == wanted.name)
        content = await self._store.read(lambda connection: connection.execute(query).scalar())
        found = Element(wanted.name, wanted.ns) if content is None else Element.parse(content)
        if (other := self._elsewhere.get((wanted.ns, wanted.name))) is not None:
            found = await other.load(owner, found)
        return found

    async def keys(self, owner: str) -> list[Element]:
        """Empty elements with the names and namespaces of everything that an account keeps, or may keep elsewhere."""
        table = tables.private.c
        query = sa.select(table.name, table.ns).where(table.owner == owner)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        kept = {(row.ns, row.name) for row in rows} | self._elsewhere.keys()
        return [Element(name, namespace) for namespace, name in sorted(kept)]

    async def _set(self, iq: Iq) -> Payload:
        await self.save(iq.owner.bare, _stored(iq))
        return ()

    async def save(self, owner: str, contents: Sequence[Element]) -> None:
        """Keeps elements for an account. Raises StanzaError where a bound is not met."""
        rest = []
        for content in contents:
            other = self._elsewhere.get((content.ns, content.name))
            rest.append(content if other is None else await other.save(owner, content))
        bounds = self._bounds(owner)
        await self._store.write(lambda connection: self._write(connection, owner, rest, *bounds))

    @staticmethod
    def _write(connection: sa.Connection, owner: str, contents: list[Element], most: int, most_bytes: int) -> None:
        table = tables.private
        for content in contents:
            text = content.to_xml("")
            key = {"owner": owner, "ns": content.ns, "name": content.name}
            row = {"size": len(text.encode()), "content": text}
            upsert = insert(table).values(**key, **row)
            connection.execute(upsert.on_conflict_do_update(index_elements=["owner", "ns", "name"], set_=row))
        count, size = sa.func.count(), sa.func.sum(table.c.size)
        items, used = connection.execute(sa.select(count, size).where(table.c.owner == owner)).one()
        if items > most or used > most_bytes:
            raise StanzaError("resource-constraint", f"there is room for {most_bytes} bytes of private data")

    async def _drop(self, owner: str) -> None:
        gone = sa.delete(tables.private).where(tables.private.c.owner == owner)
        await self._store.write(lambda connection: connection.execute(gone))


def _stored(iq: Iq) -> list[Element]:
    contents = iq.payload.elements()
    if not contents:
        raise StanzaError("not-acceptable", "there is nothing to store")
    for content in contents:
        if not content.ns or content.ns in (ns.PRIVATE, ns.CLIENT, ns.SERVER):
            raise StanzaError("not-acceptable", "private data needs a namespace of its own")
        if len(content.to_xml("").encode()) > 250_000:
            raise StanzaError("not-acceptable", "the element is too large")
    return contents


def _only(iq: Iq) -> Element:
    contents = iq.payload.elements()
    if len(contents) != 1:
        raise StanzaError("bad-request", "ask for exactly one element")
    return contents[0]
