"""The nodes and items of personal eventing on disk; every change is one transaction that keeps the bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.owners import Owners
from moim.chat.pep_config import Config, with_changes
from moim.chat.pep_subscribers import Subscribers
from moim.proto.xmpp import Element, StanzaError, ns
from moim.store import Store, insert

_CHUNK = 400  # variables in one statement
_MAX_NAME = 1023


def pubsub_error(condition: str, name: str, text: str = "", **attrs: str) -> StanzaError:
    """A refusal with the condition of XEP-0060's own that explains it."""
    return StanzaError(condition, text, application=Element(name, ns.PUBSUB_ERRORS, attrs))


def node_name(request: Element) -> str:
    """The node that a request is about. Raises StanzaError."""
    node = request.get("node")
    if not node:
        raise pubsub_error("bad-request", "nodeid-required")
    check_name(node)
    return node


def check_name(name: str) -> None:
    """Raises StanzaError when a node or an item cannot be called that."""
    if len(name.encode()) > _MAX_NAME:
        raise StanzaError("not-acceptable", f"a name may have {_MAX_NAME} bytes")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Nodes of an account, items of a node, bytes of one item, and bytes of all items of an account."""

    nodes: int
    items: int
    item_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Item:
    """One published item; ``payload`` is XML."""

    owner: str
    node: str
    name: str
    payload: str


class PepStore:
    """Nodes by owner (bare JID) and name; ``bounds`` are those of an owner.

    Raises StanzaError where a bound or a precondition is not met.
    """

    def __init__(self, store: Store, bounds: Callable[[str], Bounds], *, alone: bool = True) -> None:
        self._store = store
        self._owners = Owners(tables.pep_nodes.c.owner, alone=alone)
        self.bounds = bounds
        self.subscribers = Subscribers(store)

    async def start(self) -> None:
        """Learns who has nodes; nobody is connected yet."""
        await self._owners.load(self._store)

    def has_nodes(self, owner: str) -> bool:
        """Whether an account may have nodes; False is certain."""
        return owner in self._owners

    async def config(self, owner: str, node: str) -> Config | None:
        """The configuration of a node; None when there is none."""
        return await self._store.read(lambda connection: _config(connection, owner, node))

    async def existing(self, owner: str, node: str) -> Config:
        """The configuration of a node. Raises StanzaError item-not-found when there is none."""
        config = await self.config(owner, node)
        if config is None:
            raise StanzaError("item-not-found", "there is no such node")
        return config

    async def nodes(self, owner: str) -> dict[str, Config]:
        """Every node of an account."""
        table = tables.pep_nodes.c
        query = sa.select(table.node, table.config).where(table.owner == owner).order_by(table.node)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        return {row.node: Config.load(row.config) for row in rows}

    async def create(self, owner: str, node: str, config: Config) -> None:
        """Makes a node. Raises StanzaError conflict when there is one."""
        bounds = self.bounds(owner)

        def work(connection: sa.Connection) -> None:
            if _config(connection, owner, node) is not None:
                raise StanzaError("conflict", "there is such a node already")
            self._create(connection, owner, node, config, bounds)

        await self._store.write(work)

    def _create(self, connection: sa.Connection, owner: str, node: str, config: Config, bounds: Bounds) -> None:
        table = tables.pep_nodes
        count = connection.execute(sa.select(sa.func.count()).where(table.c.owner == owner)).scalar_one()
        if count >= bounds.nodes:
            raise pubsub_error("conflict", "max-nodes-exceeded", f"an account may have {bounds.nodes} nodes")
        self._owners.add(owner)
        connection.execute(insert(table).values(owner=owner, node=node, config=config.stored()))

    async def configure(self, owner: str, node: str, config: Config) -> None:
        """Changes a node that exists; items beyond the new number go."""
        table = tables.pep_nodes

        def work(connection: sa.Connection) -> None:
            where = (table.c.owner == owner, table.c.node == node)
            connection.execute(sa.update(table).where(*where).values(config=config.stored()))
            _trim(connection, owner, node, config.max_items)

        await self._store.write(work)

    async def publish(
        self, owner: str, node: str, name: str, payload: str, options: Mapping[str, Any], default: Config
    ) -> Config:
        """Publishes an item; a node that is not there is made from ``default`` and ``options``.

        Raises StanzaError conflict (precondition-not-met) when the node is configured otherwise than ``options`` want.
        """
        size, bounds = len(payload.encode()), self.bounds(owner)

        def work(connection: sa.Connection) -> Config:
            config = _config(connection, owner, node)
            if config is None:
                config = with_changes(default, options)
                self._create(connection, owner, node, config, bounds)
            elif _bounded(with_changes(config, options), bounds) != _bounded(config, bounds):
                raise pubsub_error("conflict", "precondition-not-met", "the node is configured in another way")
            if config.persist_items:
                _insert(connection, Item(owner, node, name, payload), size, config, bounds)
                _weigh(connection, owner, bounds)
            return config

        return await self._store.write(work)

    async def items(self, owner: str, node: str, *, names: Sequence[str] = (), newest: int | None = None) -> list[Item]:
        """Items, oldest first: those with ``names``, or the ``newest``, or all."""
        table = tables.pep_items.c
        query = sa.select(table.item, table.payload).where(table.owner == owner, table.node == node)
        if names:
            query = query.where(table.item.in_(names[:_CHUNK]))
        query = query.order_by(table.id.desc())
        if newest is not None:
            query = query.limit(newest)
        rows = await self._store.read(lambda connection: connection.execute(query).all())
        return [Item(owner, node, row.item, row.payload) for row in reversed(rows)]

    async def names(self, owner: str, node: str) -> Sequence[str]:
        """The names of all items of a node, oldest first."""
        table = tables.pep_items.c
        query = sa.select(table.item).where(table.owner == owner, table.node == node).order_by(table.id)
        return await self._store.read(lambda connection: connection.scalars(query).all())

    async def last(self, owners: Sequence[str], nodes: Sequence[str]) -> list[tuple[Item, Config]]:
        """The newest item of each of these nodes of these owners."""
        items, configs = tables.pep_items, tables.pep_nodes

        def work(connection: sa.Connection) -> list[tuple[Item, Config]]:
            found = []
            for start in range(0, len(owners), _CHUNK):
                newest = (
                    sa.select(sa.func.max(items.c.id))
                    .where(items.c.owner.in_(owners[start : start + _CHUNK]), items.c.node.in_(nodes))
                    .group_by(items.c.owner, items.c.node)
                )
                query = (
                    sa.select(items, configs.c.config)
                    .join(configs, sa.and_(configs.c.owner == items.c.owner, configs.c.node == items.c.node))
                    .where(items.c.id.in_(newest))
                )
                for row in connection.execute(query):
                    found.append((Item(row.owner, row.node, row.item, row.payload), Config.load(row.config)))
            return found

        return await self._store.read(work)

    async def retract(self, owner: str, node: str, name: str) -> None:
        """Deletes an item. Raises StanzaError item-not-found."""
        table = tables.pep_items
        gone = sa.delete(table).where(table.c.owner == owner, table.c.node == node, table.c.item == name)

        def work(connection: sa.Connection) -> None:
            if connection.execute(gone).rowcount == 0:
                raise StanzaError("item-not-found", "there is no such item")

        await self._store.write(work)

    async def purge(self, owner: str, node: str) -> None:
        """Deletes every item of a node."""
        table = tables.pep_items
        gone = sa.delete(table).where(table.c.owner == owner, table.c.node == node)
        await self._store.write(lambda connection: connection.execute(gone))

    async def delete(self, owner: str, node: str) -> None:
        """Deletes a node with its items and subscriptions."""
        await self._delete(lambda table: sa.and_(table.c.owner == owner, table.c.node == node))

    async def drop(self, owner: str) -> None:
        """Deletes everything of an account that is gone."""
        await self._delete(lambda table: table.c.owner == owner)
        await self.subscribers.drop_account(owner)

    async def _delete(self, where: Any) -> None:
        def work(connection: sa.Connection) -> None:
            for table in (tables.pep_items, tables.pep_subscriptions, tables.pep_nodes):
                connection.execute(sa.delete(table).where(where(table)))

        await self._store.write(work)


def _config(connection: sa.Connection, owner: str, node: str) -> Config | None:
    table = tables.pep_nodes.c
    query = sa.select(table.config).where(table.owner == owner, table.node == node)
    text = connection.execute(query).scalar()
    return None if text is None else Config.load(text)


def _bounded(config: Config, bounds: Bounds) -> Config:
    """With the number of items that counts: 'max' may have been another number when the node was made."""
    return with_changes(config, {"max_items": min(config.max_items, bounds.items)})


def _insert(connection: sa.Connection, item: Item, size: int, config: Config, bounds: Bounds) -> None:
    table = tables.pep_items
    here = (table.c.owner == item.owner, table.c.node == item.node)
    before = connection.execute(sa.select(sa.func.count()).where(*here)).scalar_one()
    connection.execute(sa.delete(table).where(*here, table.c.item == item.name))
    row = {"owner": item.owner, "node": item.node, "item": item.name, "size": size, "payload": item.payload}
    connection.execute(insert(table).values(**row))
    # Who has more than there may be now keeps as many.
    _trim(connection, item.owner, item.node, min(config.max_items, max(bounds.items, before)))


def _weigh(connection: sa.Connection, owner: str, bounds: Bounds) -> None:
    table = tables.pep_items
    used = connection.execute(sa.select(sa.func.sum(table.c.size)).where(table.c.owner == owner)).scalar() or 0
    if used > bounds.bytes:
        raise StanzaError("resource-constraint", f"an account's items may have {bounds.bytes} bytes")


def _trim(connection: sa.Connection, owner: str, node: str, most: int) -> None:
    table = tables.pep_items
    here = (table.c.owner == owner, table.c.node == node)
    kept = sa.select(table.c.id).where(*here).order_by(table.c.id.desc()).limit(most)
    connection.execute(sa.delete(table).where(*here, table.c.id.not_in(kept)))
