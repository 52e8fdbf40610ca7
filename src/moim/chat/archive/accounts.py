"""XEP-0313 archives of accounts: the messages that people sent and got, for themselves alone.

The plane makes the records of messages that its table delivers. Everything else comes by ``message``: recipients who
are away or elsewhere, and accounts with preferences of their own, whose messages all come up to Python.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from moim._native import ArchiveIds
from moim.chat.accounts import Accounts, Session
from moim.chat.archive import ids, keeping, querying
from moim.chat.archive.intake import Entry, Intake
from moim.chat.archive.keeping import Found, Selection
from moim.chat.archive.preferences import AllPreferences, Listed, Usual
from moim.chat.archive.retention import Retention, Share
from moim.chat.archive.retraction import Retractions
from moim.chat.archive.rooms import RoomArchives
from moim.chat.archive.rows import Record
from moim.chat.archive.rules import cleaned, stamped
from moim.chat.feature import Feature, Iq, IqHandler, Payload
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, archivable, ns
from moim.store import Store

_PAGES: Final = 64  # pages of one session that are remembered, so that they are not delivered once more
_SWEEP_SECONDS: Final = 3600.0
_DRAIN_SECONDS: Final = 3.0
_TAP: Final = "archive"

_log = logging.getLogger("moim.chat.archive")


class Plane(Protocol):
    """What the archive needs of the plane."""

    @property
    def archive_ids(self) -> ArchiveIds:
        """What archives call the messages that ``next_id`` numbers."""
        ...

    def next_id(self) -> int:
        """The number of the next archived message."""
        ...

    def archive(self, bare: str, on: bool) -> None:
        """Makes records of the account's delivered messages, or not."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """What is asked of sessions inside is handed over when it ends."""
        ...

    def committed(self, ticket: int, kept: bool) -> None:
        """The senders of a batch of records may be acknowledged, if it was kept."""
        ...

    def tap(self, sid: int, on: bool, why: str) -> None:
        """Makes every message from and to a session come up, for one reason or another."""
        ...

    def send(self, sid: int, elements: Sequence[Element]) -> None:
        """Sends to one session."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of archives and of what is asked of them. ``patience`` is in seconds."""

    usual: Callable[[str], Usual] = lambda owner: "always"
    """Of accounts that did not choose, by bare JID."""
    fixed: Callable[[str], bool] = lambda owner: False
    """Whose choice does not count."""
    kept: Callable[[str], bool] = lambda owner: True
    """Who has an archive at all."""
    listed: int = 500
    page: int = 50
    page_most: int = 250
    page_bytes: int = 524_288
    patience: float = 30.0
    share: Share = field(default_factory=Share)
    others: Callable[[], Mapping[str, Share]] = dict
    """The archives with another share, by address."""

    @property
    def bounds(self) -> querying.Bounds:
        """Those of a page."""
        return querying.Bounds(self.page, self.page_most, self.page_bytes)


class Archive:
    """Keeps and shows the messages of accounts.

    ``local`` tells whether a bare JID is an account here, ``contact`` whether one account's contact list has an
    address; ``refuse`` ends the streams of full JIDs whose messages cannot be kept.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        store: Store,
        plane: Plane,
        accounts: Accounts,
        local: Callable[[str], bool],
        contact: Listed,
        refuse: Callable[[Collection[str]], None],
    ) -> None:
        self._limits = limits
        self._store = store
        self._plane = plane
        self._accounts = accounts
        self._local = local
        self._contact = contact
        self._pages: dict[Session, list[tuple[int, int]]] = {}
        self._waiting: dict[tuple[Jid, Jid], int] = {}
        self._coming: Counter[str] = Counter()
        self.preferences = AllPreferences(
            store, usual=limits.usual, fixed=limits.fixed, most=limits.listed, changed=self._apply
        )
        self.retractions = Retractions(store)
        self.retention = Retention(store, limits.share, others=limits.others, every=_SWEEP_SECONDS)
        self.intake = Intake(
            store,
            committed=plane.committed,
            together=plane.together,
            refuse=refuse,
            state=self._disk,
            kept=self.retractions.look,
            patience=limits.patience,
        )
        self.rooms = RoomArchives(
            store,
            self.intake,
            self.retention,
            next_id=plane.next_id,
            names=plane.archive_ids,
            bounds=limits.bounds,
        )
        """What rooms keep their messages with."""
        self.feature = Feature(
            name="XEP-0313 message archive",
            server_vars=(ns.RETRACTION,),
            account_vars=(
                ns.ARCHIVE,
                f"{ns.ARCHIVE}#extended",
                f"{ns.ARCHIVE}#groupchat-field",
                ns.RETRACTION,
                f"{ns.RETRACTION}#tombstone",
                ns.STANZA_IDS,
            ),
            account_iq={
                ("get", ns.ARCHIVE, "query"): self._of_those_who_have_one(self._fields),
                ("set", ns.ARCHIVE, "query"): self._of_those_who_have_one(self._query),
                ("get", ns.ARCHIVE, "metadata"): self._of_those_who_have_one(self._metadata),
                ("get", ns.ARCHIVE, "prefs"): self._of_those_who_have_one(self.preferences.get),
                ("set", ns.ARCHIVE, "prefs"): self._of_those_who_have_one(self.preferences.set),
            },
            offered=limits.kept,
            on_policy=self._apply,
            on_start=self._start,
            in_bound=self._in_bound,
            on_bind=self._bound,
            on_gone=self._gone,
            on_stop=self.stop,
            on_account_removed=self._remove,
        )

    async def _start(self) -> None:
        await self.preferences.load()
        await self.retention.load()
        newest = await self._store.read(keeping.newest)
        if newest > self._plane.next_id():
            _log.error("the archive has messages from the future: this machine's clock went back; check it")
        self.intake.start()
        self.retractions.start()
        self.retention.start()

    async def stop(self) -> None:
        """Returns when everything accepted is on disk or refused, or after three seconds."""
        try:
            await asyncio.wait_for(self.intake.stop(), _DRAIN_SECONDS)
            await asyncio.wait_for(self.retractions.stop(), _DRAIN_SECONDS)
        except TimeoutError:
            _log.error("messages that were accepted are not in the archive after %.0f s", _DRAIN_SECONDS)
        await self.retention.stop()

    # --- who keeps what -----------------------------------------------------------------------------------------

    def by_plane(self, bare: str) -> bool:
        """Whether the plane makes the records, if any, of what it delivers from and to an account."""
        if not self._limits.kept(bare):
            return True
        return self.intake.working and self.preferences.of(bare).everything

    def _bound(self, session: Session) -> None:
        ours = self.by_plane(session.bare)
        self._plane.archive(session.bare, ours and self._limits.kept(session.bare))
        self._plane.tap(session.sid, not ours, _TAP)

    def _gone(self, session: Session) -> None:
        self._pages.pop(session, None)
        if len(session.full_account.sessions) <= 1:
            self._plane.archive(session.bare, False)

    def _apply(self, bare: str) -> None:
        account = self._accounts.get(bare)
        for session in tuple(account.sessions.values()) if account is not None else ():
            self._bound(session)

    def _disk(self, working: bool) -> None:
        """While the disk takes nothing, every message comes up, so that its sender can be told."""
        for account in self._accounts:
            self._apply(account.bare)

    async def _remove(self, bare: str) -> None:
        await self.intake.settled()
        await self.retention.remove(bare)
        await self.preferences.drop(bare)

    # --- what comes in ------------------------------------------------------------------------------------------

    def records(self, ticket: int, records: Sequence[Record]) -> None:
        """A batch of the plane's."""
        self.intake.records(ticket, records)

    def message(
        self,
        message: Element,
        sender: Jid,
        to: Jid,
        *,
        delivered: bool,
        then: Callable[[Element, frozenset[str]], None],
        failed: Callable[[StanzaError], None],
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """Archives a message that Python handles for those of its two accounts that want it, then goes on.

        ``message`` has canonical addresses. ``delivered``: its recipient is here, so the plane's table can deliver it,
        and makes the records when it makes those of both. ``kept`` are owners that have it already. ``then`` gets the
        message with the recipient's stanza id and all owners that have it now: at once when there is nothing to keep,
        or when it is delivered and the disk works, as by the plane; else after the commit, or ``failed`` is called.
        Messages between two keep their order. Raises StanzaError when too many wait.
        """
        owners = [
            bare
            for bare in dict.fromkeys((str(sender.bare), str(to.bare)))
            if bare not in kept and self._local(bare) and self._limits.kept(bare)
        ]
        if delivered and all(self.by_plane(bare) for bare in owners):
            owners = []
        if not owners or not archivable(message):
            if self.waiting(sender, to):
                self._wait(sender, to, Entry(None, lambda: then(message, kept), failed))
            else:
                then(message, kept)
            return
        self._keep(message, sender, to, owners, then, failed, kept, delivered)

    def _keep(
        self,
        message: Element,
        sender: Jid,
        to: Jid,
        owners: Sequence[str],
        then: Callable[[Element, frozenset[str]], None],
        failed: Callable[[StanzaError], None],
        kept: frozenset[str],
        delivered: bool,
    ) -> None:
        message = cleaned(message, (str(sender.bare), str(to.bare), sender.domain, to.domain))
        identifier = self._plane.next_id()
        wanting: list[str] = []
        unsure: list[tuple[str, Jid]] = []
        for owner in owners:
            peer = to if owner == str(sender.bare) else sender
            wants = self.preferences.of(owner).wants(peer)
            if wants is None:
                unsure.append((owner, peer))
            elif wants:
                wanting.append(owner)
        entry = Entry(None, lambda: None, failed)

        def record() -> Record | None:
            return (identifier, str(sender), str(to), tuple(wanting), message) if wanting else None

        async def decide() -> Record | None:
            wanting.extend([owner for owner, peer in unsure if await self._contact(owner, str(peer.bare))])
            return record()

        def go_on() -> None:
            target = str(to.bare)
            marked = message
            if target in wanting:
                marked = stamped(message, target, self._plane.archive_ids.write(target, identifier))
            then(marked, kept | frozenset(wanting))

        entry.then = go_on
        if delivered and not unsure and self.intake.working and not self.waiting(sender, to):
            if (made := record()) is not None:
                self.intake.late(made)
            go_on()
            return
        if unsure:
            entry.decide = decide
        else:
            entry.record = record()
        self._wait(sender, to, entry)

    def _wait(self, sender: Jid, to: Jid, entry: Entry) -> None:
        pair, target = (sender, to.bare), str(to.bare)
        then, failed = entry.then, entry.failed

        def over() -> None:
            left = self._waiting[pair] - 1
            if left:
                self._waiting[pair] = left
            else:
                del self._waiting[pair]
            self._coming[target] -= 1
            if not self._coming[target]:
                del self._coming[target]

        def done() -> None:
            over()
            then()

        def refused(error: StanzaError) -> None:
            over()
            failed(error)

        entry.then, entry.failed = done, refused
        self.intake.add(entry)
        self._waiting[pair] = self._waiting.get(pair, 0) + 1
        self._coming[target] += 1

    def waiting(self, sender: Jid, to: Jid) -> bool:
        """Whether messages between these two wait for their commit: what follows must not overtake them."""
        return bool(self._waiting) and (sender, to.bare) in self._waiting

    def coming(self, owner: str) -> bool:
        """Whether messages for an account wait for their commit: where they go is decided after it."""
        return owner in self._coming

    async def settled(self) -> None:
        """Returns when every message accepted so far is on disk, or was refused by it once."""
        await self.intake.settled()

    # --- what is asked ------------------------------------------------------------------------------------------

    def _of_those_who_have_one(self, handler: IqHandler) -> IqHandler:
        def answer(iq: Iq) -> Payload | Awaitable[Payload]:
            if iq.own and not self._limits.kept(str(iq.to)):
                raise StanzaError("service-unavailable", "there is no archive of your messages")
            return handler(iq)

        return answer

    def _fields(self, iq: Iq) -> Payload:
        if not iq.own:
            raise StanzaError("forbidden", "only the account's owner may do this")
        return (querying.fields_form(),)

    async def _query(self, iq: Iq) -> Payload:
        session = iq.owner
        owner, names = session.bare, self._plane.archive_ids
        query = querying.read(iq.payload, owner, names)
        selection = query.selection(owner, self.retention.floor(owner))
        await self.intake.settled()
        answer = await self._store.read(
            lambda connection: querying.answer(
                connection,
                query,
                selection,
                archive=owner,
                names=names,
                asker=str(session.full),
                bounds=self._limits.bounds,
                forwarded=lambda found, name: _as_kept(found, owner, name),
            )
        )
        self._plane.send(session.sid, answer.messages)
        if query.plain and answer.first is not None and answer.last is not None and not session.gone:
            pages = self._pages.setdefault(session, [])
            pages.append((answer.first, answer.last))
            del pages[:-_PAGES]
        return (answer.fin,)

    async def _metadata(self, iq: Iq) -> Payload:
        return (await self.metadata(iq.owner.bare),)

    async def _in_bound(self, owner: str) -> Element | None:
        """What clients that sign in hear of it (XEP-0386)."""
        return await self.metadata(owner) if self._limits.kept(owner) else None

    async def metadata(self, owner: str) -> Element:
        """``<metadata/>`` of an account's archive. Raises Unavailable."""
        selection = Selection(ids.key(owner), after=self.retention.floor(owner))
        await self.intake.settled()
        ends = await self._store.read(lambda connection: keeping.ends(connection, selection))
        return querying.metadata(ends, owner, self._plane.archive_ids)

    def got(self, session: Session, message: Element) -> bool:
        """Whether a session has read a message from the archive already, by the stanza id of its account."""
        pages = self._pages.get(session)
        if not pages:
            return False
        for child in message.elements():
            if (child.ns, child.name) == (ns.STANZA_IDS, "stanza-id") and child.get("by") == session.bare:
                identifier = self._plane.archive_ids.read(session.bare, child.get("id") or "")
                return identifier is not None and any(first <= identifier <= last for first, last in pages)
        return False


def _as_kept(found: Found, owner: str, name: str) -> Element | None:
    """The message as its owner sees it; None when it cannot be read any more."""
    try:
        return stamped(Element.parse(found.stanza), owner, name)
    except ProtocolError as error:
        _log.error("the archived message %d of %s cannot be read any more: %s", found.id, owner, error.message)
        return None
