"""A room's configuration and its form (XEP-0045 section 10.2 and the registry in 15.5.3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_boolean

_PRIVATE: Final = ("anyone", "participants", "moderators", "none")
_SIZES: Final = (10, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000)
_MAX_NAME = 200
_MAX_DESCRIPTION = 2000
_MAX_PASSWORD = 200


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

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RoomConfig:
        """From the store; keys that are not known any more are passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in json.loads(text).items() if key in known})


_Reader = Callable[[tuple[str, ...], "Bounds"], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """The service's limits for what owners may choose."""

    max_users: int
    history: int


def config_form(config: RoomConfig, room: str, bounds: Bounds) -> Element:
    """The form that an owner fills in."""
    sizes = [size for size in _SIZES if size < bounds.max_users] + [bounds.max_users]
    users = config.max_users or bounds.max_users
    if users not in sizes:
        sizes = sorted({*sizes, users})
    entries = [
        Field("muc#roomconfig_roomname", values=(config.name,), label="Name"),
        Field("muc#roomconfig_roomdesc", values=(config.description,), label="Description"),
        Field("muc#roomconfig_lang", values=(config.language,), label="Language"),
        _flag("publicroom", config.public, "Listed in the directory"),
        _flag("persistentroom", config.persistent, "Stays when everybody has left"),
        _flag("moderatedroom", config.moderated, "Only those with voice may speak"),
        _flag("membersonly", config.members_only, "Only members may enter"),
        _flag("passwordprotectedroom", bool(config.password), "A password is needed to enter"),
        Field("muc#roomconfig_roomsecret", "text-private", (config.password,), "Password"),
        Field(
            "muc#roomconfig_whois",
            "list-single",
            ("anyone" if config.non_anonymous else "moderators",),
            "Who sees real addresses",
            (("Moderators", "moderators"), ("Anyone", "anyone")),
        ),
        _flag("changesubject", config.change_subject, "Participants may change the subject"),
        _flag("allowinvites", config.invitations, "Participants may invite others"),
        Field(
            "muc#roomconfig_allowpm",
            "list-single",
            (config.private_messages,),
            "Who may send private messages",
            tuple((value.capitalize(), value) for value in _PRIVATE),
        ),
        Field(
            "muc#roomconfig_maxusers",
            "list-single",
            (str(users),),
            "The most occupants",
            tuple((str(size), str(size)) for size in sizes),
        ),
        Field("muc#maxhistoryfetch", values=(str(min(config.history, bounds.history)),), label="Messages remembered"),
    ]
    return form("form", ns.MUC_CONFIG, entries, title=f"Configuration of {room}")


def _flag(name: str, value: bool, label: str) -> Field:
    return Field(f"muc#roomconfig_{name}", "boolean", ("1" if value else "0",), label)


def apply_form(config: RoomConfig, values: Mapping[str, tuple[str, ...]], bounds: Bounds) -> RoomConfig:
    """The configuration after an owner submitted ``values``; fields that are absent keep theirs.

    Raises StanzaError not-acceptable for a value that cannot be. Fields that this service does not know are ignored.
    """
    changes: dict[str, Any] = {}
    for var, found in values.items():
        reader = _READERS.get(var)
        if reader is not None:
            changes |= reader(found, bounds)
    protected = changes.pop("protected", None)
    if protected is False:
        changes["password"] = ""
    elif protected and not changes.get("password", config.password):
        raise StanzaError("not-acceptable", "a room that needs a password needs one that is not empty")
    return replace(config, **changes)


def _text(key: str, limit: int) -> _Reader:
    def read(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
        text = "\n".join(values).strip()
        if len(text) > limit:
            raise StanzaError("not-acceptable", f"a field is longer than {limit} characters")
        return {key: text}

    return read


def _boolean(key: str) -> _Reader:
    return lambda values, bounds: {key: read_boolean(values)}


def _choice(values: tuple[str, ...], known: tuple[str, ...]) -> str:
    if len(values) != 1 or values[0] not in known:
        raise StanzaError("not-acceptable", f"a field has a value that is none of: {', '.join(known)}")
    return values[0]


def _whois(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    return {"non_anonymous": _choice(values, ("moderators", "anyone")) == "anyone"}


def _private(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    return {"private_messages": _choice(values or ("none",), _PRIVATE)}


def _number(values: tuple[str, ...], lowest: int, highest: int) -> int:
    text = values[0].strip() if values else ""
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or not lowest <= int(text) <= highest:
        raise StanzaError("not-acceptable", f"a field is not a number from {lowest} to {highest}")
    return int(text)


def _users(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    if not values or values[0].strip() in ("", "none"):
        return {"max_users": 0}
    return {"max_users": _number(values, 1, bounds.max_users)}


def _history(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    return {"history": _number(values, 0, bounds.history)}


_READERS: Final[Mapping[str, _Reader]] = {
    "muc#roomconfig_roomname": _text("name", _MAX_NAME),
    "muc#roomconfig_roomdesc": _text("description", _MAX_DESCRIPTION),
    "muc#roomconfig_lang": _text("language", 35),
    "muc#roomconfig_publicroom": _boolean("public"),
    "muc#roomconfig_persistentroom": _boolean("persistent"),
    "muc#roomconfig_moderatedroom": _boolean("moderated"),
    "muc#roomconfig_membersonly": _boolean("members_only"),
    "muc#roomconfig_passwordprotectedroom": _boolean("protected"),
    "muc#roomconfig_roomsecret": _text("password", _MAX_PASSWORD),
    "muc#roomconfig_whois": _whois,
    "muc#roomconfig_changesubject": _boolean("change_subject"),
    "muc#roomconfig_allowinvites": _boolean("invitations"),
    "muc#roomconfig_allowpm": _private,
    "muc#roomconfig_maxusers": _users,
    "muc#maxhistoryfetch": _history,
}
