"""Affiliations and roles of XEP-0045 section 5: what each may do, as tables and questions about them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from moim.proto.xmpp import StanzaError


class Affiliation(StrEnum):
    """A lasting relation of a bare JID to a room."""

    OUTCAST = "outcast"
    NONE = "none"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"

    @property
    def rank(self) -> int:
        """Greater is more."""
        return _RANKS[self]


class Role(StrEnum):
    """What an occupant is for as long as it is in the room."""

    NONE = "none"
    VISITOR = "visitor"
    PARTICIPANT = "participant"
    MODERATOR = "moderator"


_RANKS: Final = {affiliation: number for number, affiliation in enumerate(Affiliation)}
_MANAGERS: Final = frozenset({Affiliation.ADMIN, Affiliation.OWNER})


def initial_role(affiliation: Affiliation, *, moderated: bool) -> Role:
    """The role on entry (XEP-0045 section 5.1.2)."""
    if affiliation in _MANAGERS:
        return Role.MODERATOR
    if affiliation is Affiliation.MEMBER:
        return Role.PARTICIPANT
    if affiliation is Affiliation.OUTCAST:
        return Role.NONE
    return Role.VISITOR if moderated else Role.PARTICIPANT


def is_manager(affiliation: Affiliation) -> bool:
    """Whether it is an admin or an owner."""
    return affiliation in _MANAGERS


def check_affiliation_change(actor: Affiliation, old: Affiliation, new: Affiliation) -> None:
    """Raises StanzaError when ``actor`` may not turn ``old`` into ``new`` (XEP-0045 sections 5.2.1, 9 and 10).

    That a room keeps an owner is not asked here.
    """
    if actor is Affiliation.OWNER:
        return
    if actor is not Affiliation.ADMIN:
        raise StanzaError("forbidden", "only admins and owners change affiliations")
    if old in _MANAGERS:
        raise StanzaError("not-allowed", "only owners change the affiliation of admins and owners")
    if new in _MANAGERS:
        raise StanzaError("forbidden", "only owners make admins and owners")


def check_role_change(actor: Affiliation, actor_role: Role, target: Affiliation, target_role: Role, new: Role) -> None:
    """Raises StanzaError when the target's role may not become ``new`` by the actor (XEP-0045 8.2–8.4, 9.6)."""
    if actor_role is not Role.MODERATOR:
        raise StanzaError("forbidden", "only moderators change roles")
    if new is Role.NONE:
        if target.rank > actor.rank:
            raise StanzaError("not-allowed", "somebody with a higher affiliation cannot be removed")
        if target_role is Role.MODERATOR and actor not in _MANAGERS:
            raise StanzaError("not-allowed", "only admins and owners remove moderators")
    elif new is Role.MODERATOR:
        if actor not in _MANAGERS:
            raise StanzaError("forbidden", "only admins and owners make moderators")
    elif target in _MANAGERS:
        raise StanzaError("not-allowed", "admins and owners stay moderators")
    elif target_role is Role.MODERATOR and actor not in _MANAGERS:
        raise StanzaError("forbidden", "only admins and owners take moderation away")
    elif new is Role.VISITOR and target is not Affiliation.NONE and target.rank >= actor.rank:
        raise StanzaError("not-allowed", "voice is not taken from somebody whose affiliation is as high")
