"""Sessions of other nodes, as this node sees them: entries among the accounts, under negative numbers.

What the room does for a session it does for a shadow too (presence, roster pushes, messages to a bare JID), because it
only ever hands stanzas to the plane: those for negative numbers go over the link to the node that holds the session.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from moim.chat.accounts import Accounts, Connection, Session
from moim.chat.cluster import codec
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, Jid

if TYPE_CHECKING:
    from moim.chat.negotiation import Negotiation
    from moim.chat.rosters import Roster

_REASON = "cluster"

_log = logging.getLogger("moim.chat.cluster")


@dataclass(frozen=True, slots=True)
class State:
    """A session of another node. ``at``: when it got its address, in seconds since the epoch.

    ``blind``: its node does not know all sessions here, and may not have shown it to those that see it.
    """

    presence: Element | None
    priority: int
    interested: bool
    at: float
    moved: bool
    blind: bool


class Shadows:
    """Every session that another node holds."""

    def __init__(self, accounts: Accounts, plane: Plane) -> None:
        self._accounts = accounts
        self._plane = plane
        self._numbers = itertools.count(1)
        self._by_sid: dict[int, Session] = {}
        self.holds: dict[Session, list[Element]] = {}
        """Sessions that may be about to come here: what this node has for them waits until that is known."""
        self.coming: dict[Jid, list[Element]] = {}
        """Sessions that are on their way here: what their node has for them, besides what comes with them."""
        self.copies: dict[str, list[Element]] = {}
        """Accounts (bare JIDs) of such sessions: messages whose carbons wait."""

    def of(self, sid: int) -> Session | None:
        """The shadow with a (negative) number; None when it is gone."""
        return self._by_sid.get(sid)

    def on(self, node: str) -> Iterator[Session]:
        """The sessions of a node."""
        return iter([session for session in self._by_sid.values() if session.node == node])

    def __len__(self) -> int:
        return len(self._by_sid)

    def get(self, node: str, jid: Jid) -> Session | None:
        """The session of a node with a full JID."""
        session = self._accounts.session(jid)
        return session if session is not None and session.node == node else None

    def add(self, node: str, jid: Jid) -> Session:
        """A session of another node has this address, which must be free here. The same one when it is known."""
        known = self.get(node, jid)
        if known is not None:
            return known
        sid = -next(self._numbers)
        nobody = cast("Negotiation", None)  # the other node's business
        session = Session(Connection(sid, node, "", 0), nobody, node=node)
        self._accounts.add(session, jid)
        self._by_sid[sid] = session
        self.tap(str(jid.bare))
        return session

    def send_off(self, session: Session, node: str) -> None:
        """A session of this node goes on at another one, as it is."""
        session.node = node
        session.connection = Connection(-next(self._numbers), node, "", 0)
        self._by_sid[session.sid] = session
        self._accounts.moves += 1
        self.tap(session.bare)

    def take_in(self, session: Session, connection: Connection) -> None:
        """A session of another node goes on here, as it is; ``connection`` has its number here."""
        self._by_sid.pop(session.sid, None)
        session.node = ""
        session.connection = connection
        self._accounts.moves += 1
        self.tap(session.bare)

    @staticmethod
    def read(state: Any) -> State:
        """What another node says of a session. Raises ValueError for what none says."""
        if not isinstance(state, dict):
            raise ValueError("a session has a state")
        presence, priority, at = state.get("presence"), state.get("priority", 0), state.get("at", 0.0)
        if not isinstance(presence, str | None) or not isinstance(priority, int) or not -128 <= priority <= 127:
            raise ValueError("a session's presence is not understood")
        if not isinstance(at, float):
            raise ValueError("a session's time is not understood")
        shown = codec.element(["presence", presence], 1) if presence else None
        interested, moved, blind = (bool(state.get(name)) for name in ("interested", "moved", "blind"))
        return State(shown, priority if presence else 0, interested, at, moved, blind)

    @staticmethod
    def update(session: Session, state: State, roster: Roster | None) -> None:
        """Takes over what the other node says of a session."""
        session.presence, session.priority, session.interested = state.presence, state.priority, state.interested
        if roster is not None:
            session.full_account.roster = roster

    def remove(self, session: Session) -> None:
        """The session is gone."""
        session.gone = True
        bare = session.bare
        self._accounts.remove(session)
        self._by_sid.pop(session.sid, None)
        self.tap(bare)

    def tap(self, bare: str) -> None:
        """An account with sessions on several nodes has its messages judged here: the plane's table knows one node."""
        account = self._accounts.get(bare)
        if account is None:
            return
        sessions = account.sessions.values()
        abroad = any(session.node for session in sessions)
        for session in sessions:
            if not session.node:
                self._plane.tap(session.sid, abroad, _REASON)
