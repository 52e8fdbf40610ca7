"""Takes over what a user had at another server, piece by piece. What is here stays; taking again changes nothing.

Everything goes through the objects that the running service has, so that what it keeps in memory stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from moim.chat.archive import Archive
from moim.chat.block_lists import BlockLists
from moim.chat.blocking import Blocking
from moim.chat.moving.messages import take_archived, take_waiting
from moim.chat.moving.outcome import Outcome
from moim.chat.moving.personal import take_nodes
from moim.chat.moving.reading import MAM, PIE
from moim.chat.offline import OfflineMessages
from moim.chat.pep import Pep
from moim.chat.pep_store import PepStore
from moim.chat.plane import Plane
from moim.chat.private import PrivateStorage
from moim.chat.roster import RosterPushes
from moim.chat.rosters import Item, Roster, Rosters
from moim.chat.subscriptions import Subscription
from moim.chat.vcard import VCards
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.store import Store

_PRIVACY: Final = "jabber:iq:privacy"
_SUBSCRIPTIONS: Final[Mapping[str, Subscription]] = {"none": "none", "to": "to", "from": "from", "both": "both"}
_MAX_NAME: Final = 1023
_MAX_GROUPS: Final = 100


class Parts(Protocol):
    """The chat service's parts that keep something for users."""

    @property
    def rosters(self) -> Rosters: ...
    @property
    def pushes(self) -> RosterPushes: ...
    @property
    def block_lists(self) -> BlockLists: ...
    @property
    def blocking(self) -> Blocking: ...
    @property
    def vcards(self) -> VCards: ...
    @property
    def private(self) -> PrivateStorage: ...
    @property
    def pep_store(self) -> PepStore: ...
    @property
    def pep(self) -> Pep: ...
    @property
    def offline(self) -> OfflineMessages: ...
    @property
    def archive(self) -> Archive | None: ...
    @property
    def plane(self) -> Plane: ...
    def hide(self, owner: str, addresses: frozenset[str]) -> None: ...


class Taking:
    """Takes pieces for accounts. ``most_contacts`` and ``most_blocked`` are the room's own bounds."""

    def __init__(
        self, parts: Parts, store: Store, domain: str, *, most_contacts: int, most_blocked: int, dry_run: bool
    ) -> None:
        self._parts = parts
        self._store = store
        self._domain = domain
        self._most_contacts = most_contacts
        self._most_blocked = most_blocked
        self._dry = dry_run

    async def take(self, owner: str, pieces: Sequence[Element]) -> Outcome:
        """Takes pieces for a bare JID, in an order in which they fit. Raises Unavailable when the disk refuses."""
        outcome = Outcome()
        kinds: dict[str, list[Element]] = {}
        for piece in pieces:
            kinds.setdefault(_kind(piece), []).append(piece)
        if lists := [content for piece in kinds.get("pep", ()) for content in _bookmark_lists(piece)]:
            kinds.setdefault("private", []).append(Element("query", ns.PRIVATE, {}, lists[-1:]))
        steps: list[tuple[str, Callable[[str, Sequence[Element], Outcome], Any]]] = [
            ("roster", self._roster),
            ("request", self._requests),
            ("blocked", self._blocked),
            ("pep", self._nodes),
            ("private", self._private),
            ("vcard", self._vcard),
            ("waiting", self._waiting),
            ("archived", self._archived),
        ]
        for kind, step in steps:
            if found := kinds.pop(kind, None):
                try:
                    await step(owner, found, outcome)
                except (StanzaError, ProtocolError) as error:
                    outcome.leave(f"{kind}: {error.message}")
        for piece in kinds.get("", ()):
            outcome.leave(f"not known here: <{piece.name} xmlns='{piece.ns[:100]}'>")
        return outcome

    # --- contacts -----------------------------------------------------------------------------------------------

    async def _roster(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        roster = await self._parts.rosters.get(owner)
        async with roster.lock:
            new: dict[str, Item] = {}
            for element in (item for piece in pieces for item in piece.elements()):
                item = _contact(element, outcome)
                if item is None or item.contact == owner:
                    continue
                known = new.get(item.contact) or roster.stored.get(item.contact)
                if known is not None and known.listed:
                    self._compare(known, item, outcome)
                elif len(new) + len(roster.stored) >= self._most_contacts:
                    outcome.leave(f"contacts beyond the {self._most_contacts} that an account may have")
                else:
                    new[item.contact] = item if known is None else replace(item, request=known.request)
            await self._keep(roster, new, outcome, "contacts")

    @staticmethod
    def _compare(known: Item, item: Item, outcome: Outcome) -> None:
        if replace(known, request=None) == replace(item, request=None):
            outcome.same["contacts"] += 1
        else:
            outcome.conflict(f"contact {item.contact}: is here already, otherwise ({known.subscription})")

    async def _keep(self, roster: Roster, new: Mapping[str, Item], outcome: Outcome, kind: str) -> None:
        outcome.new[kind] += len(new)
        if new and not self._dry:
            await self._parts.rosters.save_all(roster, list(new.values()))
            for item in new.values():
                if item.listed:
                    self._parts.pushes.push(roster, item)

    async def _requests(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        roster = await self._parts.rosters.get(owner)
        async with roster.lock:
            new: dict[str, Item] = {}
            for piece in pieces:
                contact = _bare(piece.get("from"))
                if contact is None or contact == owner:
                    outcome.leave("a request without a usable address")
                    continue
                item = roster.item(contact)
                if item.request is not None or item.state.seen:
                    outcome.same["requests"] += 1
                elif len(new) + len(roster.stored) >= self._most_contacts:
                    outcome.leave(f"requests beyond the {self._most_contacts} contacts that an account may have")
                else:
                    words = [child for child in piece.elements() if child.name == "status"]
                    shown = [Element("status", ns.CLIENT, {}, (word.text[:_MAX_NAME],)) for word in words[:1]]
                    attrs = {"from": contact, "to": owner, "type": "subscribe"}
                    new[contact] = replace(item, request=Element("presence", ns.CLIENT, attrs, shown).to_xml(""))
            await self._keep(roster, new, outcome, "requests")

    # --- blocked addresses --------------------------------------------------------------------------------------

    async def _blocked(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        named: set[str] = set()
        for piece in pieces:
            found = _denied(piece, outcome) if piece.ns == _PRIVACY else [item.get("jid") for item in piece.elements()]
            for text in found:
                try:
                    named.add(str(Jid.parse(text or "")))
                except ProtocolError:
                    outcome.leave("blocked addresses that are no addresses")
        here = self._parts.block_lists.of(owner)
        added = frozenset(named) - here
        outcome.same["blocked"] += len(named) - len(added)
        if len(here) + len(added) > self._most_blocked:
            room = max(self._most_blocked - len(here), 0)
            outcome.leave(f"blocked addresses beyond the {self._most_blocked} that an account may have")
            added = frozenset(sorted(added)[:room])
        outcome.new["blocked"] += len(added)
        if added and not self._dry:
            await self._parts.block_lists.write(owner, add=added)
            self._parts.hide(owner, added)
            await self._parts.blocking.reload(owner)

    # --- what users keep ----------------------------------------------------------------------------------------

    async def _nodes(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        before = outcome.new["items"]
        await take_nodes(self._parts.pep_store, owner, pieces, outcome, dry_run=self._dry)
        if outcome.new["items"] > before and not self._dry:
            await self._parts.pep.taken_over(owner)

    async def _private(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        for content in (child for piece in pieces for child in piece.elements()):
            if not content.ns or content.ns in (ns.PRIVATE, ns.CLIENT, ns.SERVER, PIE):
                outcome.leave("private data without a namespace of its own")
                continue
            here = await self._parts.private.load(owner, Element(content.name, content.ns))
            if not here.elements() and not here.text.strip():
                if not content.elements() and not content.text.strip():
                    continue
                outcome.new["private"] += 1
                if not self._dry:
                    try:
                        await self._parts.private.save(owner, [content])
                    except StanzaError as error:
                        outcome.new["private"] -= 1
                        outcome.leave(f"private data: {error.message}")
            elif _bare_of_space(here) == _bare_of_space(content) or _bookmarked(content) <= _bookmarked(here) != set():
                outcome.same["private"] += 1
            else:
                outcome.conflict(f"private <{content.name} xmlns='{content.ns[:100]}'>: is here already, otherwise")

    async def _vcard(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        vcard = pieces[-1]
        here = await self._parts.vcards.stored(owner)
        if here is None:
            if not self._dry:
                await self._parts.vcards.store(owner, vcard)
            outcome.new["vCard"] += 1
        elif _bare_of_space(here) in (_bare_of_space(vcard), _bare_of_space(_without_picture(vcard))):
            outcome.same["vCard"] += 1
        else:
            outcome.conflict("vCard: there is one already, otherwise")

    # --- messages -----------------------------------------------------------------------------------------------

    async def _waiting(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        await take_waiting(self._parts.offline, self._domain, owner, pieces, outcome, dry_run=self._dry)

    async def _archived(self, owner: str, pieces: Sequence[Element], outcome: Outcome) -> None:
        if self._parts.archive is None:
            outcome.leave("archived messages: the site keeps no archive (chat.archive)")
            return
        await take_archived(self._store, self._domain, owner, pieces, outcome, dry_run=self._dry)


def _kind(piece: Element) -> str:
    if piece.name == "presence" and piece.ns in (ns.CLIENT, PIE) and piece.get("type") == "subscribe":
        return "request"
    return {
        ("query", ns.ROSTER): "roster",
        ("blocklist", ns.BLOCKING): "blocked",
        ("query", _PRIVACY): "blocked",
        ("pubsub", ns.PUBSUB): "pep",
        ("pubsub", ns.PUBSUB_OWNER): "pep",
        ("query", ns.PRIVATE): "private",
        ("vCard", ns.VCARD): "vcard",
        ("offline-messages", PIE): "waiting",
        ("archive", MAM): "archived",
    }.get((piece.name, piece.ns), "")


def _bare(text: str | None) -> str | None:
    try:
        return str(Jid.parse(text or "").bare)
    except ProtocolError:
        return None


def _contact(element: Element, outcome: Outcome) -> Item | None:
    contact = _bare(element.get("jid"))
    if element.name != "item" or contact is None:
        outcome.leave("contacts without a usable address")
        return None
    wanted = element.get("subscription") or "none"
    if wanted == "remove":
        return None
    subscription = _SUBSCRIPTIONS.get(wanted, "none")
    groups = tuple(dict.fromkeys(g.text[:_MAX_NAME] for g in element.elements() if g.name == "group" and g.text))
    return Item(
        contact,
        (element.get("name") or "")[:_MAX_NAME],
        groups[:_MAX_GROUPS],
        subscription,
        element.get("ask") == "subscribe" and subscription in ("none", "from"),
        approved=element.get("approved") in ("1", "true") and subscription in ("none", "to"),
        listed=True,
    )


def _denied(query: Element, outcome: Outcome) -> list[str | None]:
    """The addresses that the default privacy list (XEP-0016) denies everything, as XEP-0191 section 5 maps them."""
    lists = [child for child in query.elements() if child.name == "list"]
    default = query.find("default")
    found: list[str | None] = []
    for one in lists:
        if default is not None and one.get("name") != default.get("name"):
            outcome.leave("privacy lists besides the default one")
            continue
        for rule in one.elements():
            if rule.get("action") == "deny" and rule.get("type") == "jid":
                found.append(rule.get("value"))
            elif rule.get("action") != "allow" or rule.get("type"):
                outcome.leave("rules of privacy lists that say more than blocking an address")
    return found


def _bare_of_space(element: Element) -> Element:
    children = [
        _bare_of_space(child) if isinstance(child, Element) else child
        for child in element.children
        if isinstance(child, Element) or child.strip() or not element.elements()
    ]
    return element.with_children(children)


def _bookmark_lists(nodes: Element) -> list[Element]:
    """The bookmarks of XEP-0048 in personal eventing, which are those of private storage here."""
    found = [child for child in nodes.elements() if child.get("node") == ns.STORAGE_BOOKMARKS]
    items = [item for child in found if child.name == "items" for item in child.elements()]
    return [payload for item in items for payload in item.elements() if payload.ns == ns.STORAGE_BOOKMARKS]


def _bookmarked(storage: Element) -> set[str]:
    if storage.ns != ns.STORAGE_BOOKMARKS:
        return set()
    return {child.get("jid") or "" for child in storage.elements() if child.name == "conference"}


def _without_picture(vcard: Element) -> Element:
    picture = vcard.find("PHOTO", ns.VCARD)
    return vcard.with_children([child for child in vcard.children if child != picture])
