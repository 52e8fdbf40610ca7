"""One room as a machine: who is in it, what it remembers, and the presence that it shows of its occupants.

No I/O and no clock. What a step sends waits in ``output``; ``changed`` says that something durable changed, and
``recorded`` holds messages that joined the history. Whoever drives the room takes all three after each step.
The steps themselves are in ``entering``, ``messages``, ``lists`` and ``owners``; each raises StanzaError before it
changes anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.history import Entry, History
from moim.chat.rooms.ranks import Affiliation, Role, initial_role
from moim.proto.xmpp import Element, Jid, StanzaError, ns

MAX_AFFILIATIONS = 5000
MAX_INVITED = 1000
_RESERVED = frozenset({ns.MUC, ns.MUC_USER, ns.OCCUPANT_ID, ns.STANZA_IDS, ns.DELAY})
"""What only the room says of its occupants and messages; clients' own words in these namespaces are dropped."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject, who set it, and when."""

    text: str
    nick: str
    set_at: datetime


@dataclass(eq=False, slots=True)
class Occupant:
    """Somebody under a nickname, with one or more sessions of the same account.

    ``sessions`` are full JIDs with what each last said in presence; the newest comes last and is what others see.
    """

    nick: str
    bare: Jid
    role: Role
    identifier: str
    sessions: dict[Jid, tuple[Element | str, ...]] = field(default_factory=dict)

    @property
    def jid(self) -> Jid:
        """The full JID that others are shown, where they may see it."""
        return next(reversed(self.sessions))

    @property
    def shown(self) -> tuple[Element | str, ...]:
        """The payload of the presence that others see."""
        return next(reversed(self.sessions.values()))

    @property
    def moderates(self) -> bool:
        """Whether its role is moderator."""
        return self.role is Role.MODERATOR


@dataclass(frozen=True, slots=True)
class Change:
    """What a presence says beside who it is about: status codes, and why and by whom."""

    codes: tuple[int, ...] = ()
    own_codes: tuple[int, ...] = ()
    """Codes for the occupant itself, besides 110."""
    new_nick: str = ""
    actor: str = ""
    reason: str = ""
    gone: bool = False
    """Whether the role is shown as none."""
    payload: tuple[Element | str, ...] | None = None
    """Instead of what the occupant last said."""
    extra: Element | None = None
    """One more child of the ``<x/>``: the notice of a destroyed room."""


_NOTHING = Change()


class Room:
    """A room. ``salt`` makes its occupants' identifiers; ``token`` gives unpredictable identifiers of stanzas."""

    def __init__(
        self,
        jid: Jid,
        *,
        config: RoomConfig,
        bounds: Bounds,
        salt: bytes,
        creator: str,
        token: Callable[[], str],
        affiliations: dict[str, Affiliation] | None = None,
        subject: Subject | None = None,
        history: Sequence[Entry] = (),
        locked: bool = False,
    ) -> None:
        self.jid = jid
        self.address = str(jid)
        self.config = config
        self.bounds = bounds
        self.salt = salt
        self.creator = creator
        self.token = token
        self.affiliations = affiliations if affiliations is not None else {}
        self.subject = subject
        self.history = History(min(config.history, bounds.history), history)
        self.locked = locked
        self.destroyed = False
        self.occupants: dict[str, Occupant] = {}
        self.by_session: dict[Jid, Occupant] = {}
        self.invited: dict[tuple[str, str], None] = {}
        self.output: list[tuple[Jid, Element]] = []
        self.recorded: list[Entry] = []
        self.changed = False

    # --- questions ----------------------------------------------------------------------------------------------

    def affiliation(self, jid: Jid) -> Affiliation:
        """The affiliation of an account."""
        return self.affiliations.get(str(jid.bare), Affiliation.NONE)

    def occupant(self, session: Jid) -> Occupant:
        """The occupant that a full JID is. Raises StanzaError not-acceptable when it is none."""
        found = self.by_session.get(session)
        if found is None:
            raise StanzaError("not-acceptable", "only occupants of the room may do this")
        return found

    def sees_jids(self, occupant: Occupant) -> bool:
        """Whether the occupant is shown everybody's real address."""
        return self.config.non_anonymous or occupant.moderates

    def sessions(self) -> Iterator[tuple[Occupant, Jid]]:
        """Every session in the room."""
        return ((occupant, jid) for occupant in self.occupants.values() for jid in occupant.sessions)

    @property
    def max_users(self) -> int:
        """How many occupants there may be."""
        return self.config.max_users or self.bounds.max_users

    @property
    def is_over(self) -> bool:
        """Whether nothing keeps it: destroyed, or left by everybody and not persistent."""
        return self.destroyed or (not self.occupants and (self.locked or not self.config.persistent))

    def identifier(self, bare: Jid) -> str:
        """The occupant-id of an account in this room (XEP-0421): stable, and telling nothing."""
        digest = hmac.new(self.salt, str(bare).encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest[:18]).decode()

    # --- changes ------------------------------------------------------------------------------------------------

    def set_affiliation(self, bare: str, affiliation: Affiliation) -> None:
        """Notes an affiliation; whoever is in the room is the caller's concern."""
        if affiliation is Affiliation.NONE:
            self.affiliations.pop(bare, None)
        else:
            self.affiliations[bare] = affiliation
        self.changed = True

    def add(self, session: Jid, nick: str, payload: tuple[Element | str, ...]) -> Occupant:
        """Puts a session in, as a new occupant or as one more session of one."""
        found = self.occupants.get(nick)
        if found is None:
            role = initial_role(self.affiliation(session), moderated=self.config.moderated)
            found = self.occupants[nick] = Occupant(nick, session.bare, role, self.identifier(session.bare))
        found.sessions[session] = payload
        self.by_session[session] = found
        return found

    def rename(self, occupant: Occupant, nick: str) -> None:
        """Gives an occupant another nickname, which must be free."""
        del self.occupants[occupant.nick]
        occupant.nick = nick
        self.occupants[nick] = occupant

    def leave(self, session: Jid, payload: tuple[Element | str, ...] = (), *, codes: tuple[int, ...] = ()) -> None:
        """A session leaves; does nothing when it is not in."""
        occupant = self.by_session.get(session)
        if occupant is None:
            return
        if len(occupant.sessions) == 1:
            self.remove(occupant, Change(codes=codes, payload=payload, gone=True))
            return
        last = occupant.jid == session
        change = Change(codes=codes, payload=payload, gone=True)
        self.output.append((session, self.presence(occupant, session, occupant, change, kind="unavailable")))
        del occupant.sessions[session]
        del self.by_session[session]
        if last:
            self.show(occupant)

    def remove(self, occupant: Occupant, change: Change) -> None:
        """Takes an occupant out with all its sessions, and tells everybody."""
        self.show(occupant, change, kind="unavailable")
        del self.occupants[occupant.nick]
        for session in occupant.sessions:
            del self.by_session[session]

    # --- presence -----------------------------------------------------------------------------------------------

    def show(self, occupant: Occupant, change: Change = _NOTHING, *, kind: str | None = None) -> None:
        """Sends an occupant's presence to every session in the room."""
        variants: dict[bool, Element] = {}
        for other, session in self.sessions():
            if other is occupant:
                stanza = self.presence(occupant, session, other, change, kind=kind)
            else:
                seen = self.sees_jids(other)
                if seen not in variants:
                    variants[seen] = self.presence(occupant, session, other, change, kind=kind)
                stanza = variants[seen].with_attrs({"to": str(session)})
            self.output.append((session, stanza))

    def presence(
        self, about: Occupant, to: Jid, viewer: Occupant, change: Change = _NOTHING, *, kind: str | None = None
    ) -> Element:
        """The presence of ``about`` as ``viewer`` sees it in its session ``to``."""
        own = viewer is about
        affiliation = self.affiliation(about.bare)
        role = Role.NONE if change.gone else about.role
        attrs = {"affiliation": affiliation.value, "role": role.value}
        if own or self.sees_jids(viewer):
            attrs["jid"] = str(to if own else about.jid)
        if change.new_nick:
            attrs["nick"] = change.new_nick
        words: list[Element | str] = []
        if change.actor:
            words.append(Element("actor", ns.MUC_USER, {"nick": change.actor}))
        if change.reason:
            words.append(Element("reason", ns.MUC_USER, {}, (change.reason,)))
        children: list[Element | str] = [Element("item", ns.MUC_USER, attrs, tuple(words))]
        if change.extra is not None:
            children.append(change.extra)
        codes = (*change.codes, *change.own_codes, 110) if own else change.codes
        children.extend(status(code) for code in codes)
        payload = about.shown if change.payload is None else change.payload
        occupant_id = Element("occupant-id", ns.OCCUPANT_ID, {"id": about.identifier})
        header = {"from": f"{self.address}/{about.nick}", "to": str(to)} | ({"type": kind} if kind else {})
        muc = Element("x", ns.MUC_USER, {}, tuple(children))
        return Element("presence", ns.CLIENT, header, (*payload, occupant_id, muc))

    # --- messages -----------------------------------------------------------------------------------------------

    def broadcast(self, message: Element) -> None:
        """Sends a message to every session in the room."""
        self.output.extend((jid, message.with_attrs({"to": str(jid)})) for _, jid in self.sessions())

    def notice(self, *codes: int) -> None:
        """Tells everybody of a change of the room by its status codes."""
        muc = Element("x", ns.MUC_USER, {}, tuple(status(code) for code in codes))
        attrs = {"type": "groupchat", "from": self.address, "id": self.token()}
        self.broadcast(Element("message", ns.CLIENT, attrs, (muc,)))


def status(code: int) -> Element:
    """A ``<status/>`` of XEP-0045 section 15.6."""
    return Element("status", ns.MUC_USER, {"code": str(code)})


def own_words(stanza: Element) -> tuple[Element | str, ...]:
    """A stanza's children without those that only a room may write."""
    return tuple(c for c in stanza.children if isinstance(c, str) or c.ns not in _RESERVED)
