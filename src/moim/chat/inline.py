"""What a client may ask for inside its sign-in: features of the new session (XEP-0386), or an older one (XEP-0198).

A feature declares these in ``feature.py``; ``signing_in.py`` carries them out between the proof and ``<success/>``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moim.proto.xmpp import Element, Jid

if TYPE_CHECKING:
    from moim.chat.accounts import Session


@dataclass(frozen=True, slots=True)
class Inline:
    """One thing that a client switches on while it binds: a child of ``<bind/>`` in another namespace."""

    var: str
    """What the list of inline features calls it, usually its namespace."""
    requests: tuple[tuple[str, str], ...]
    """Namespace and name of the elements that ask for it."""
    enable: Callable[[Session, Element], Element | None]
    """Called with such an element once the session has its address, before the client hears of it.

    Gives what ``<bound/>`` answers, if anything.
    """


@dataclass(frozen=True, slots=True)
class Resumed:
    """How the wish to go on with an older session ended.

    ``jid`` is the full address of the session that goes on; then ``then`` sends what answers the sign-in, and says so
    in it. None when none does: ``element`` says why, and the client may bind a resource.
    """

    element: Element | None
    jid: Jid | None = None
    then: Callable[[Sequence[Element]], None] | None = None


Resume = Callable[["Session", Jid, Element], Awaitable[Resumed]]
"""Goes on with an older session of this account (bare JID), as the element asks; the new session is not bound."""

Bound = Callable[[str], Awaitable[Element | None]]
"""Something that ``<bound/>`` tells of an account (bare JID) at the moment of binding."""
