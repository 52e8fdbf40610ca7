"""A room's configuration: what owners decide, within what the service allows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

ROLES: Final = ("moderator", "participant", "visitor")
PRIVATE: Final = ("anyone", "participants", "moderators", "none")
REGISTRATION: Final = ("open", "approval", "closed")


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """What owners decide. ``max_users`` 0 is the service's limit; ``private_messages`` says who may send them."""

    name: str = ""
    description: str = ""
    language: str = ""
    public: bool = True
    persistent: bool = False
    moderated: bool = False
    members_only: bool = False
    password: str = ""
    non_anonymous: bool = False
    change_subject: bool = False
    invitations: bool = True
    private_messages: str = "anyone"
    max_users: int = 0
    history: int = 50
    """Messages that the room remembers."""
    logged: bool = True
    """Whether the room keeps an archive."""
    broadcast: tuple[str, ...] = ROLES
    """The roles whose presence others are shown."""
    member_list: tuple[str, ...] = ("moderator",)
    """The roles that may read the list of members, besides those that XEP-0045 section 9.5 gives it to."""
    pubsub: str = ""
    """The URI of a node that belongs to the room."""
    registration: str = "open"
    """Who may register: anybody at once (in rooms that anybody may enter and speak in), after approval, or nobody."""
    lock_nicks: bool = False
    """Whether those who reserved a nickname are called nothing else."""

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RoomConfig:
        """From the store; keys that are not known any more are passed over."""
        known = {field.name for field in fields(cls)}
        found: dict[str, Any] = {}
        for key, value in json.loads(text).items():
            if key in known:
                found[key] = tuple(value) if isinstance(value, list) else value
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Bounds:
    """The service's limits for what owners may choose and for what a room may hold."""

    max_users: int
    history: int
    history_bytes: int = 1_048_576
    affiliations: int = 5000
    vcard_bytes: int = 131_072
    archive: bool = False
    """Whether there is an archive to keep messages in."""
