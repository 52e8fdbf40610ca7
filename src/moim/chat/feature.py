"""What a feature declares: the IQ requests it answers, what discovery says about it, and the moments it wants to know.

One feature is one file with one class that has a ``feature`` attribute of this type; ``parts.py`` lists them by hand,
and everything else (routing, disco, stream features) is derived from that list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from moim.chat.inline import Bound, Inline, Resume
from moim.proto.xmpp import Element, Jid, StanzaError

if TYPE_CHECKING:
    from moim.chat.accounts import Session


@dataclass(frozen=True, slots=True)
class Iq:
    """A request for the server: the domain itself, or an account of it on whose behalf it answers.

    ``session`` is the sender's when it is a local one. ``own``: the request is for the sender's own account.
    """

    stanza: Element
    payload: Element
    sender: Jid
    to: Jid
    session: Session | None

    @property
    def own(self) -> bool:
        """Whether somebody asks their own account."""
        return self.to == self.sender.bare

    @property
    def owner(self) -> Session:
        """The session that asks its own account. Raises StanzaError when it is somebody else."""
        if self.session is None or not self.own:
            raise StanzaError("forbidden", "only the account's owner may do this")
        return self.session


Payload = Sequence[Element]
IqHandler = Callable[[Iq], Payload | Awaitable[Payload]]
IqKey = tuple[Literal["get", "set"], str, str]
"""Type, namespace and name of the request's payload."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """What discovery says of a node: category, type and name; features; nodes and names below it.

    What is below a node of an account may be no node itself, and has a name alone then.
    """

    identity: tuple[str, str, str]
    variables: tuple[str, ...]
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Luggage:
    """What a feature remembers of a session, for the node that the session goes to (XEP-0198 across nodes).

    ``pack`` gives something for JSON, or None; ``unpack`` takes it where the session goes on. What the feature
    remembers here is forgotten by its ``on_gone``.
    """

    pack: Callable[[Session], Any]
    unpack: Callable[[Session, Any], None]


@dataclass(frozen=True, slots=True)
class Feature:
    """The hooks of one feature. Handlers return the result's payload or raise StanzaError."""

    name: str
    """What it is, for people: ``XEP-0199 ping``."""
    server_vars: tuple[str, ...] = ()
    """What discovery lists for every hosted domain."""
    domain_vars: Callable[[str], tuple[str, ...]] | None = None
    """What else discovery lists for one of the hosted domains."""
    domain_forms: Callable[[str], tuple[Element, ...]] | None = None
    """Extension forms (XEP-0128) of one of the hosted domains."""
    server_node: Callable[[Iq, str], NodeView | None] | None = None
    """Nodes of the domain that discovery shows to whoever asks; None when it is not this feature's, or not for them."""
    server_forms: tuple[Element, ...] = ()
    """Extension forms (XEP-0128) of every hosted domain."""
    server_items: Callable[[], Sequence[tuple[str, str]]] | None = None
    """Domain and name of services of this server that discovery lists now."""
    account_vars: tuple[str, ...] = ()
    """What discovery lists for an account."""
    offered: Callable[[str], bool] | None = None
    """Whether discovery says so of an account (bare JID); None for every account."""
    account_identities: tuple[tuple[str, str], ...] = ()
    """Category and type of what an account is besides a registered account."""
    account_items: Callable[[Iq], Awaitable[Sequence[Element]]] | None = None
    """Nodes of an account that discovery lists to whoever asks."""
    account_node: Callable[[Iq, str], Awaitable[NodeView | None]] | None = None
    """A node of an account, for whoever asks; None when there is none, or not for them."""
    server_iq: Mapping[IqKey, IqHandler] = field(default_factory=dict)
    """Requests to the domain."""
    account_iq: Mapping[IqKey, IqHandler] = field(default_factory=dict)
    """Requests to an account, whoever asks; the handler decides who may."""
    stream_features: tuple[Element, ...] = ()
    """What the stream announces once the client is authenticated."""
    inline: tuple[Inline, ...] = ()
    """What clients may switch on while they bind a resource (XEP-0386)."""
    in_bound: Bound | None = None
    """What a client is told of the account when its resource is bound (XEP-0386)."""
    resume: Resume | None = None
    """Goes on with an older session inside the sign-in (XEP-0198 section 9); one feature at the most has it."""
    sasl_inline: tuple[Element, ...] = ()
    """What is announced as possible inside the sign-in (XEP-0388), as ``<sm/>`` is."""
    on_start: Callable[[], Awaitable[None]] | None = None
    """The service starts; nobody is connected yet."""
    on_stop: Callable[[], Awaitable[None]] | None = None
    """The service stops; connections are still there."""
    on_bind: Callable[[Session], None] | None = None
    """A session got its address; the plane does not route to it yet."""
    before_available: Callable[[Session, int], Awaitable[None] | None] | None = None
    """A session is about to become available with this priority; the plane does not deliver to it yet."""
    on_presence: Callable[[Session, Element], Element] | None = None
    """What others are shown instead of the available presence that a session sent."""
    on_available: Callable[[Session, bool], Awaitable[None] | None] | None = None
    """A session became available or changed its presence; True for the first time since it was bound."""
    on_unavailable: Callable[[Session, Element], None] | None = None
    """A session is not available any more; the presence that said so, its own or the server's."""
    on_answer: Callable[[Session, Element], Awaitable[None] | None] | None = None
    """A local session answered a request of the server's own."""
    on_outside_answer: Callable[[Jid, Jid, Element], bool] | None = None
    """Somebody else answered a request of an account itself: the account, who answers, the answer; whether it was for
    this feature."""
    on_incoming: Callable[[str, Element], None] | None = None
    """A message for an account (bare JID) was accepted, whether anybody is there for it or not."""
    on_spread: Callable[[Element, Container[Jid]], None] | None = None
    """A message of a component was handed to the sessions of these full JIDs."""
    on_detached: Callable[[Session], None] | None = None
    """A session lost its connection and may come back (XEP-0198)."""
    on_resumed: Callable[[Session], None] | None = None
    """A session that had lost its connection came back."""
    on_gone: Callable[[Session], None] | None = None
    """A session that was bound is gone."""
    luggage: Luggage | None = None
    """What goes with a session to another node."""
    on_policy: Callable[[str], None] | None = None
    """What counts for an account (bare JID) is another policy from now on."""
    on_account_removed: Callable[[str], Awaitable[None]] | None = None
    """An account (bare JID) was removed from the directory; its sessions are gone already."""


Hook = TypeVar("Hook")


def hooks(features: Iterable[Feature], pick: Callable[[Feature], Hook | None]) -> tuple[Hook, ...]:
    """The hooks of one kind, in the order of the list."""
    return tuple(hook for feature in features if (hook := pick(feature)) is not None)


def iq_table(
    features: Iterable[Feature], pick: Callable[[Feature], Mapping[IqKey, IqHandler]]
) -> dict[IqKey, IqHandler]:
    """All IQ handlers of one kind. Raises ValueError when two features want the same request."""
    table: dict[IqKey, IqHandler] = {}
    for feature in features:
        for key, handler in pick(feature).items():
            if key in table:
                raise ValueError(f"{feature.name}: {key} is answered by another feature")
            table[key] = handler
    return table
