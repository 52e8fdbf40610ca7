"""Who hears of personal events (XEP-0163 section 4): those who may, who are there, and whose client wants the node."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from typing import Protocol

from moim.chat.accounts import Accounts, Session
from moim.chat.block_lists import BlockLists
from moim.chat.caps import Caps
from moim.chat.pep_config import Config
from moim.chat.pep_store import Item, PepStore, pubsub_error
from moim.chat.plane import Plane
from moim.chat.rosters import Roster, Rosters
from moim.proto.xmpp import Element, Jid, StanzaError, ns


class Elsewhere(Protocol):
    """The clients of contacts at other domains."""

    def wanting(self, owner: str, contact: str, node: str) -> Iterator[Jid]:
        """Those of a contact that want to hear of a node of ``owner``."""
        ...

    def tell(self, stanza: Element) -> None:
        """Takes a stanza for one of them."""
        ...

    async def introduce(self, owner: str, contact: str) -> None:
        """A contact may hear of the nodes of ``owner`` from now on."""
        ...


class PepEvents:
    """Judges who may read a node, and sends what changes to those whose capabilities ask for it."""

    def __init__(
        self,
        domains: Container[str],
        store: PepStore,
        *,
        accounts: Accounts,
        rosters: Rosters,
        block_lists: BlockLists,
        plane: Plane,
    ) -> None:
        self._domains = domains
        self._store = store
        self._accounts = accounts
        self._rosters = rosters
        self._block_lists = block_lists
        self._plane = plane
        self._told: dict[Session, set[str]] = {}
        self.elsewhere: Elsewhere | None = None
        """The clients of other domains; there are none without it."""

    def wanted(self, owner: str, node: str, caps: Caps) -> bool:
        """Whether a session of the account itself wants to hear of a node."""
        return any(node in caps.wants(session) for session in self._accounts.available(owner))

    async def groups(self, owner: str) -> set[str]:
        """The groups of an account's contacts."""
        return {group for item in (await self._rosters.get(owner)).items() for group in item.groups}

    async def check(self, owner: str, config: Config, reader: Jid) -> None:
        """Whether somebody may read a node. Raises StanzaError as XEP-0060 section 6.5.9 has it."""
        bare = str(reader.bare)
        if bare == owner or config.access_model == "open" or bare in config.members:
            return
        if config.access_model == "whitelist":
            raise pubsub_error("not-allowed", "closed-node")
        if _may(config, await self._rosters.get(owner), bare):
            return
        if config.access_model == "roster":
            raise pubsub_error("not-authorized", "not-in-roster-group")
        raise pubsub_error("not-authorized", "presence-subscription-required")

    async def may(self, owner: str, config: Config, reader: Jid) -> bool:
        """Whether somebody may read a node."""
        try:
            await self.check(owner, config, reader)
        except StanzaError:
            return False
        return True

    async def send(
        self,
        owner: str,
        node: str,
        config: Config,
        change: Element,
        caps: Caps,
        *,
        first: bool = False,
        readers: Sequence[str] | None = None,
    ) -> None:
        """Tells of a change: ``change`` is the child of ``<event/>``.

        ``first``: it happened here, so that subscribers elsewhere are told from here. ``readers`` are the subscribers
        of a node that is gone; those of one that is there are looked up.
        """
        if readers is None:
            readers = await self._store.subscribers.of_node(owner, node)
        roster = await self._rosters.get(owner)
        sender = Jid.parse(owner)
        event = Element("event", ns.PUBSUB_EVENT, {}, (change,))
        batch = []
        told: set[Jid] = set()
        for bare in (owner, *_readers(config, roster)):
            for session in self._accounts.available(bare):
                if node in caps.wants(session) and not self._block_lists.parted(sender, session.full):
                    batch.append((session.sid, _message(owner, session.full, event)))
                    told.add(session.full)
            if self.elsewhere is not None and bare != owner:
                for reader in self.elsewhere.wanting(owner, bare, node):
                    if not self._block_lists.parted(sender, reader):
                        self.elsewhere.tell(_message(owner, reader, event))
                        told.add(reader)
        for text in readers:
            subscriber = Jid.parse(text)
            if not _may_read(owner, config, roster, str(subscriber.bare)):
                if first:  # who lost access has lost the subscription (XEP-0163 section 6.1)
                    await self._store.subscribers.remove(owner, node, subscriber)
                continue
            batch += [
                (session.sid, _message(owner, session.full, event))
                for session in self._sessions(subscriber)
                if session.full not in told and not self._block_lists.parted(sender, session.full)
            ]
            if first and subscriber not in told:
                self._tell_elsewhere(owner, subscriber, event)
        self._plane.send_many(batch)

    def _sessions(self, subscriber: Jid) -> Iterator[Session]:
        """The available sessions here that an address stands for."""
        for session in self._accounts.available(str(subscriber.bare)):
            if not subscriber.resource or session.full == subscriber:
                yield session

    def _tell_elsewhere(self, owner: str, subscriber: Jid, event: Element) -> None:
        sender = Jid.parse(owner)
        if self.elsewhere is None or subscriber.domain in self._domains:
            return
        if not self._block_lists.parted(sender, subscriber):
            self.elsewhere.tell(_message(owner, subscriber, event))

    async def introduce_subscriber(self, owner: str, subscriber: Jid, node: str) -> None:
        """Somebody who may read a node has subscribed: they get its last item."""
        for item, config in await self._store.last([owner], [node]):
            if not config.persist_items:
                continue
            event = _published(item)
            self._plane.send_many([(s.sid, _message(owner, s.full, event)) for s in self._sessions(subscriber)])
            self._tell_elsewhere(owner, subscriber, event)

    async def introduce_contact(self, owner: str, contact: str, caps: Caps) -> None:
        """A contact may see the owner's presence from now on: its clients get the last items that they want."""
        roster = await self._rosters.get(owner)
        sessions = [session for session in self._accounts.available(contact) if caps.wants(session)]
        nodes = sorted(set().union(*(caps.wants(session) for session in sessions)))
        batch = []
        for item, config in await self._store.last([owner], nodes) if nodes else ():
            if config.send_last_published_item == "never" or not config.persist_items:
                continue
            if not _may(config, roster, contact):
                continue
            event = _published(item)
            batch += [
                (session.sid, _message(owner, session.full, event))
                for session in sessions
                if item.node in caps.wants(session) and not self._block_lists.parted(Jid.parse(owner), session.full)
            ]
        self._plane.send_many(batch)
        if self.elsewhere is not None:
            await self.elsewhere.introduce(owner, contact)

    async def introduce_remote(self, owner: str, reader: Jid, nodes: Collection[str]) -> None:
        """A client of another domain is there and what it wants is known: it gets the last items that it may read."""
        if self.elsewhere is None or self._block_lists.parted(Jid.parse(owner), reader):
            return
        roster = await self._rosters.get(owner)
        for item, config in await self._store.last([owner], sorted(nodes)):
            if config.send_last_published_item != "on_sub_and_presence" or not config.persist_items:
                continue
            if _may(config, roster, str(reader.bare)):
                self.elsewhere.tell(_message(owner, reader, _published(item)))

    async def introduce(self, session: Session, caps: Caps, *, anew: bool) -> None:
        """A session is there and what it wants is known: it gets the last item of each such node that it may read.

        Each node once for as long as it is available and wants it; ``anew`` when it just became so.
        """
        told = self._told.setdefault(session, set())
        told &= caps.wants(session)
        if anew:
            told.clear()
        nodes = sorted(caps.wants(session) - told)
        if not nodes:
            return
        told.update(nodes)
        roster = await self._rosters.get(session.bare)
        local = [c for c in roster.watched() if c.rpartition("@")[2] in self._domains]
        batch = []
        for item, config in await self._store.last([session.bare, *local], nodes):
            if config.send_last_published_item != "on_sub_and_presence" or not config.persist_items:
                continue
            if self._block_lists.parted(Jid.parse(item.owner), session.full):
                continue
            if item.owner == session.bare or _may(config, await self._rosters.get(item.owner), session.bare):
                batch.append((session.sid, _message(item.owner, session.full, _published(item))))
        if session.available and not session.gone:
            self._plane.send_many(batch)

    def told(self, session: Session) -> list[str]:
        """The nodes whose last items a session was sent."""
        return sorted(self._told.get(session, ()))

    def remember(self, session: Session, nodes: Iterable[str]) -> None:
        """A session of another node was sent these nodes' last items there."""
        self._told[session] = set(nodes)

    def gone(self, session: Session) -> None:
        """Forgets a session."""
        self._told.pop(session, None)


def items_element(node: str, namespace: str, *items: Item) -> Element:
    """Items as they stand in answers (``pubsub``) and events (``pubsub#event``)."""
    children = tuple(
        Element("item", namespace, {"id": item.name}, (Element.parse(item.payload),) if item.payload else ())
        for item in items
    )
    return Element("items", namespace, {"node": node}, children)


def _published(item: Item) -> Element:
    """The event that an item is there."""
    return Element("event", ns.PUBSUB_EVENT, {}, (items_element(item.node, ns.PUBSUB_EVENT, item),))


def _message(owner: str, reader: Jid, event: Element) -> Element:
    attrs = {"from": owner, "to": str(reader), "type": "headline", "id": secrets.token_urlsafe(9)}
    return Element("message", ns.CLIENT, attrs, (event,))


def _readers(config: Config, roster: Roster) -> Iterator[str]:
    """Contacts to tell: those who see the owner's presence and may read the node."""
    return (contact for contact in roster.subscribers() if _may(config, roster, contact))


def _may_read(owner: str, config: Config, roster: Roster, reader: str) -> bool:
    return reader == owner or reader in config.members or _may(config, roster, reader)


def _may(config: Config, roster: Roster, reader: str) -> bool:
    item = roster.item(reader)
    if config.access_model == "whitelist":
        return reader in config.members
    if config.access_model == "roster":
        return item.state.seen and not set(item.groups).isdisjoint(config.roster_groups_allowed)
    return config.access_model == "open" or item.state.seen
