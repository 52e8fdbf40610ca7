"""Somebody in a room: the nickname, the role, the sessions, and what others are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from moim.chat.rooms.ranks import Role
from moim.proto.xmpp import Element, Jid


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject, who set it, and when; ``by`` is the occupant-id of who did, where it is known."""

    text: str
    nick: str
    set_at: datetime
    by: str = ""


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
    visible: bool = False
    """Whether others were told that it is here: rooms may hide roles."""
    asked_at: datetime | None = None
    """When it last asked for voice."""
    cards: dict[bool, Element] = field(default_factory=dict)
    """Its presence as those see it who see real addresses, and those who do not; without ``to``, until it changes."""

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
