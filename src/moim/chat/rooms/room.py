"""One room as a machine: who is in it, what it keeps, and what it tells whom.

No I/O and no clock. What a step sends waits in ``output``; ``changed`` says that something durable changed, and
``recorded`` and ``archived`` hold messages that joined the history and the archive. Whoever drives the room takes all
of it after each step. The steps themselves are in the files beside this one; each raises StanzaError before it changes
anything.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from moim.chat.audience import Audience
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.hat_list import Hats
from moim.chat.rooms.history import Entry, History, Tombstone
from moim.chat.rooms.occupants import Occupant, Subject
from moim.chat.rooms.output import Fan, Output
from moim.chat.rooms.ranks import Affiliation, Role, initial_role
from moim.proto.xmpp import Element, Jid, StanzaError, ns

MAX_INVITED = 1000
MAX_REASON = 1000
MAX_WHISPERS = 1000
MAX_VOICES = 1000
DOMAIN_WIDE = frozenset({Affiliation.MEMBER, Affiliation.OUTCAST})
"""What a whole domain may be."""
_RESERVED = frozenset(
    {
        ns.MUC, ns.MUC_USER, ns.MUC_ADMIN, ns.MUC_OWNER, ns.OCCUPANT_ID, ns.STANZA_IDS, ns.DELAY, ns.HATS, ns.ARCHIVE,
        ns.MODERATION, ns.MODERATION_0, ns.CARBONS,
    }
)  # fmt: skip
"""What only the room says of its occupants and messages; clients' own words in these namespaces are dropped."""


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
    asked: tuple[Jid, str] | None = None
    """The session whose presence this answers, and the id which that had: its own copy has it too."""


PLAIN = Change()


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation that was passed on: its own id, and the session and the id of the message that asked for it."""

    identifier: str
    inviter: Jid
    asked: str = ""


class Room:
    """A room. ``salt`` makes its occupants' identifiers; ``token`` gives unpredictable identifiers of stanzas, and
    ``new_id`` those of the messages of a room in its archive.
    """

    def __init__(
        self,
        jid: Jid,
        *,
        config: RoomConfig,
        bounds: Bounds,
        salt: bytes,
        creator: str,
        token: Callable[[], str],
        new_id: Callable[[str], str] | None = None,
        affiliations: dict[str, Affiliation] | None = None,
        nicks: Mapping[str, str] | None = None,
        subject: Subject | None = None,
        history: Sequence[Entry] = (),
        hats: Hats | None = None,
        vcard: Element | None = None,
        voices: Mapping[str, Role] | None = None,
        locked: bool = False,
    ) -> None:
        self.jid = jid
        self.address = str(jid)
        self.config = config
        self.bounds = bounds
        self.salt = salt
        self.creator = creator
        self.token = token
        self.new_id = partial(new_id, self.address) if new_id is not None else token
        self.affiliations = affiliations if affiliations is not None else {}
        self.nicks = dict(nicks or {})
        """Reserved nicknames, by the bare JID that they are kept for."""
        self.reserved = {nick: bare for bare, nick in self.nicks.items()}
        self.subject = subject
        self.history = History(min(config.history, bounds.history), history, max_bytes=bounds.history_bytes)
        self.hats = hats or Hats()
        self.vcard = vcard
        self.avatar: tuple[str, ...] | None = None
        """The hashes of the vCard's pictures, once somebody asked for them."""
        self.locked = locked
        self.destroyed = False
        self.occupants: dict[str, Occupant] = {}
        self.by_session: dict[Jid, Occupant] = {}
        self.by_bare: dict[str, list[Occupant]] = {}
        self.audiences = {True: Audience(), False: Audience()}
        """The sessions of those who see real addresses, and of those who do not."""
        self.invited: dict[tuple[str, str], Invitation] = {}
        """Invitations passed on lately, by the bare JIDs of who was invited and by whom."""
        self.voices = dict(voices or {})
        """Roles that moderators decided on, by bare JID, where they are not those that everybody gets on entry."""
        self.whispers: dict[tuple[Jid, str], None] = {}
        """Private messages passed on lately, by receiver and id: their errors are for who wrote them."""
        self.applicants: dict[str, str] = {}
        """Nicknames that wait for an admin's word, by the bare JID of who wants to register."""
        self.output: list[Output] = []
        self.recorded: list[Entry] = []
        self.archived: list[Entry] = []
        self.rewritten: list[Entry] = []
        """Messages of the history that became tombstones."""
        self.tombstones: list[Tombstone] = []
        """What the archive is to put into the place of messages."""
        self.changed = False
        self.seating = 0
        """Rises whenever who is in it, under which nickname, in which role and with what words changes."""
        self.touched: set[str] = set()
        """Bare JIDs whose affiliation or reserved nickname changed since it was last written."""

    # --- questions ----------------------------------------------------------------------------------------------

    def affiliation(self, jid: Jid) -> Affiliation:
        """The affiliation of an account; where it has none of its own, that of its domain (XEP-0045 section 9.2)."""
        own = self.affiliations.get(str(jid.bare))
        if own is not None:
            return own
        shared = self.affiliations.get(jid.domain, Affiliation.NONE)
        return shared if shared in DOMAIN_WIDE else Affiliation.NONE

    def belonging(self, bare: str) -> list[Occupant]:
        """The occupants whose affiliation is the one of a bare JID: of an account, or of a whole domain."""
        if "@" in bare:
            return list(self.by_bare.get(bare, ()))
        return [
            occupant
            for occupant in self.occupants.values()
            if occupant.bare.domain == bare and str(occupant.bare) not in self.affiliations
        ]

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
    def logged(self) -> bool:
        """Whether what is said goes into an archive that others may read."""
        return self.bounds.archive and self.config.logged and not self.locked

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
        """Notes an affiliation; whoever is in the room is the caller's concern. Whoever has none keeps no nickname."""
        if affiliation in (Affiliation.NONE, Affiliation.OUTCAST):
            self.reserve(bare, "")
        if affiliation is Affiliation.NONE:
            self.affiliations.pop(bare, None)
        else:
            self.affiliations[bare] = affiliation
        self.voices.pop(bare, None)
        for occupant in self.belonging(bare):
            occupant.cards.clear()
        self.touched.add(bare)
        self.changed = True

    def give_voice(self, occupant: Occupant, role: Role) -> None:
        """A moderator decides on a role. Whoever was given or refused voice keeps that when it comes back."""
        bare, before = str(occupant.bare), dict(self.voices)
        self.voices.pop(bare, None)
        if role not in (Role.MODERATOR, initial_role(self.affiliation(occupant.bare), moderated=self.config.moderated)):
            self.voices[bare] = role
            if len(self.voices) > MAX_VOICES:
                del self.voices[next(iter(self.voices))]
        self.changed = self.changed or self.voices != before
        self.set_role(occupant, role)

    def reserve(self, bare: str, nick: str) -> None:
        """Keeps a nickname, which must be free, for an account; or none, when it is empty."""
        old = self.nicks.pop(bare, "")
        self.reserved.pop(old, None)
        if nick:
            self.nicks[bare] = nick
            self.reserved[nick] = bare
        if old != nick:
            self.touched.add(bare)
            self.changed = True

    def set_role(self, occupant: Occupant, role: Role) -> None:
        """Notes a role, and with it what the occupant sees of others."""
        occupant.role = role
        occupant.cards.clear()
        self.seating += 1
        for session in occupant.sessions:
            self._sort(occupant, session)

    def _sort(self, occupant: Occupant, session: Jid) -> None:
        seen = self.sees_jids(occupant)
        self.audiences[not seen].discard(session)
        self.audiences[seen].add(session)

    def reconfigure(self, config: RoomConfig) -> None:
        """Takes a new configuration; telling of it is the caller's concern."""
        self.config = config
        self.history.resize(min(config.history, self.bounds.history))
        self.changed = True
        for occupant, session in self.sessions():
            self._sort(occupant, session)

    def add(self, session: Jid, nick: str, payload: tuple[Element | str, ...]) -> Occupant:
        """Puts a session in, as a new occupant or as one more session of one."""
        found = self.occupants.get(nick)
        if found is None:
            role = initial_role(self.affiliation(session), moderated=self.config.moderated)
            role = self.voices.get(str(session.bare), role)
            found = self.occupants[nick] = Occupant(nick, session.bare, role, self.identifier(session.bare))
            self.by_bare.setdefault(str(session.bare), []).append(found)
        found.sessions[session] = payload
        found.cards.clear()
        self.seating += 1
        self.by_session[session] = found
        self._sort(found, session)
        return found

    def refresh(self, occupant: Occupant, session: Jid, payload: tuple[Element | str, ...]) -> None:
        """A session of an occupant says something new in its presence."""
        occupant.sessions.pop(session)
        occupant.sessions[session] = payload
        occupant.cards.clear()
        self.seating += 1

    def rename(self, occupant: Occupant, nick: str) -> None:
        """Gives an occupant another nickname, which must be free."""
        del self.occupants[occupant.nick]
        occupant.nick = nick
        occupant.cards.clear()
        self.seating += 1
        self.occupants[nick] = occupant

    def drop_session(self, occupant: Occupant, session: Jid) -> None:
        """Takes one session out; an occupant without any is out as well."""
        del occupant.sessions[session]
        del self.by_session[session]
        occupant.cards.clear()
        self.seating += 1
        for audience in self.audiences.values():
            audience.discard(session)
        if not occupant.sessions:
            del self.occupants[occupant.nick]
            others = self.by_bare[str(occupant.bare)]
            others.remove(occupant)
            if not others:
                del self.by_bare[str(occupant.bare)]

    def clear(self) -> None:
        """Everybody is out, without a word."""
        for occupant, session in tuple(self.sessions()):
            self.drop_session(occupant, session)

    # --- what it says -------------------------------------------------------------------------------------------

    def broadcast(self, message: Element) -> None:
        """Sends a message to every session in the room."""
        self.output.extend(Fan(message, audience) for audience in self.audiences.values())

    def notice(self, *codes: int) -> None:
        """Tells everybody of a change of the room by its status codes."""
        muc = Element("x", ns.MUC_USER, {}, tuple(status(code) for code in codes))
        attrs = {"type": "groupchat", "from": self.address, "id": self.token()}
        self.broadcast(Element("message", ns.CLIENT, attrs, (muc,)))

    def remember(self, entry: Entry) -> None:
        """A message joins the history."""
        self.history.add(entry)
        self.recorded.append(entry)


def status(code: int) -> Element:
    """A ``<status/>`` of XEP-0045 section 15.6."""
    return Element("status", ns.MUC_USER, {"code": str(code)})


def asked_by(session: Jid, stanza: Element) -> tuple[Jid, str] | None:
    """What ``Change.asked`` is for a session's presence, which need not have an id."""
    identifier = stanza.get("id")
    return (session, identifier) if identifier else None


def own_words(stanza: Element) -> tuple[Element | str, ...]:
    """A stanza's children without those that only a room may write."""
    return tuple(c for c in stanza.children if isinstance(c, str) or c.ns not in _RESERVED)


def reason_in(element: Element) -> str:
    """What an item, an order or an invitation gives as its reason, cut where it is too long."""
    spoken = element.find("reason")
    return spoken.text[:MAX_REASON] if spoken is not None else ""
