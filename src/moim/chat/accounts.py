"""Who is connected: sessions by their resource, under the account they belong to. Memory only, one node's view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from moim.proto.xmpp import Element, Jid

if TYPE_CHECKING:
    from moim.chat.custody import Custody
    from moim.chat.negotiation import Negotiation
    from moim.chat.rosters import Roster


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a session comes from. ``name`` is the listener's service name, ``peer`` the client's IP address."""

    sid: int
    name: str
    peer: str
    port: int


@dataclass(eq=False, slots=True)
class Session:
    """One client connection. ``jid`` is its full JID from resource binding on."""

    connection: Connection
    negotiation: Negotiation
    jid: Jid | None = None
    account: Account | None = None
    presence: Element | None = None
    """The last available presence that was broadcast; None while unavailable."""
    priority: int = 0
    client: str = ""
    """The lasting identifier that the program gave (XEP-0388); empty for none. Nobody else may learn it."""
    token_due: bool = False
    """Whether its token (XEP-0484) should be replaced."""
    interested: bool = False
    """Whether it asked for the roster, and so gets roster pushes (RFC 6121 section 2.1.6)."""
    directed: dict[str, None] = field(default_factory=dict)
    """Addresses that directed presence was sent to, besides subscribers."""
    inbox: list[tuple[Element, Custody | None]] = field(default_factory=list)  # a deque takes ten times the memory
    """Stanzas that wait for an earlier one."""
    undone: int = 0
    """Messages that came up and are not dealt with."""
    busy: bool = False
    """Whether a stanza is being worked on."""
    leaving: bool = False
    """Whether it ends once its waiting stanzas are worked off."""
    detached: bool = False
    """Whether its connection is lost, and it waits for its client to come back (XEP-0198)."""
    unconfirmed: Sequence[Element] = ()
    """The newest messages that its client had not confirmed when the connection was lost."""
    gone: bool = False
    """Whether the session has ended."""
    node: str = ""
    """The node that holds it; empty for this one."""

    @property
    def sid(self) -> int:
        """The plane's number for the connection."""
        return self.connection.sid

    @property
    def full(self) -> Jid:
        """The full JID; only for a bound session."""
        if self.jid is None:
            raise ValueError("the session is not bound")
        return self.jid

    @property
    def bare(self) -> str:
        """The bare JID as text; only for a bound session."""
        return self.full_account.bare

    @property
    def full_account(self) -> Account:
        """The account; only for a bound session."""
        if self.account is None:
            raise ValueError("the session is not bound")
        return self.account

    @property
    def available(self) -> bool:
        """Whether it sent initial presence and did not take it back."""
        return self.presence is not None

    @property
    def receives(self) -> bool:
        """Whether messages to the bare JID go to it (RFC 6121 section 8.5.2.1.1)."""
        return self.presence is not None and self.priority >= 0


@dataclass(eq=False, slots=True)
class Account:
    """An account with at least one bound session."""

    jid: Jid
    bare: str
    sessions: dict[str, Session] = field(default_factory=dict)
    roster: Roster | None = None
    """Its contact list, from the first session that is available or asked for it until the last is gone."""

    def available(self) -> Iterator[Session]:
        """Its available sessions."""
        return (session for session in self.sessions.values() if session.presence is not None)

    def receiving(self) -> list[Session]:
        """Its sessions that messages to the bare JID go to."""
        return [session for session in self.sessions.values() if session.receives]


class Watcher(Protocol):
    """Hears of every session: the cluster tells the other nodes."""

    def bound(self, session: Session) -> None:
        """It got its address."""
        ...

    def changed(self, session: Session) -> None:
        """Its presence or its interest in the roster changed."""
        ...

    def gone(self, session: Session) -> None:
        """It lost its address."""
        ...


class Accounts:
    """Every connected account by bare JID: sessions of this node, and those of others as it knows them."""

    def __init__(self) -> None:
        self.watch: Watcher | None = None
        self.moves = 0
        """Rises whenever a session gets another number, because it goes on at another node."""
        self._accounts: dict[str, Account] = {}
        self._sessions: dict[Jid, Session] = {}  # the same once more: rooms look up each occupant for each message

    def __iter__(self) -> Iterator[Account]:
        return iter(tuple(self._accounts.values()))

    def get(self, bare: str) -> Account | None:
        """The connected account of a canonical bare JID."""
        return self._accounts.get(bare)

    def available(self, bare: str) -> Iterable[Session]:
        """The available sessions of a canonical bare JID."""
        account = self._accounts.get(bare)
        return account.available() if account is not None else ()

    def abroad(self, bare: str) -> bool:
        """Whether other nodes hold sessions of an account."""
        account = self._accounts.get(bare) if self.watch is not None else None
        return account is not None and any(session.node for session in account.sessions.values())

    def session(self, jid: Jid) -> Session | None:
        """The bound session of a full JID."""
        return self._sessions.get(jid)

    def add(self, session: Session, jid: Jid) -> None:
        """Makes ``session`` the holder of the full ``jid``, which must be free."""
        bare = str(jid.bare)
        account = self._accounts.setdefault(bare, Account(jid.bare, bare))
        if jid.resource in account.sessions:
            raise ValueError("the resource is taken")
        account.sessions[jid.resource] = session
        self._sessions[jid] = session
        session.jid = jid
        session.account = account
        if self.watch is not None:
            self.watch.bound(session)

    def changed(self, session: Session) -> None:
        """Call after what others know of a session changed: presence, priority, interest."""
        if self.watch is not None:
            self.watch.changed(session)

    def remove(self, session: Session) -> None:
        """Takes ``session`` out; does nothing when it is not in."""
        account, jid = session.account, session.jid
        if account is None or jid is None or account.sessions.get(jid.resource) is not session:
            return
        del account.sessions[jid.resource]
        del self._sessions[jid]
        if not account.sessions:
            del self._accounts[account.bare]
        if self.watch is not None:
            self.watch.gone(session)
