"""The form of a room's configuration (XEP-0045 section 10.2 and the registry in 15.5.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from moim.chat.rooms.config import PRIVATE, REGISTRATION, ROLES, Bounds, RoomConfig
from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import MAX_VALUES, Field, form, read_boolean

_SIZES: Final = (10, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000)
_MAX_NAME: Final = 200
_MAX_DESCRIPTION: Final = 2000
_MAX_PASSWORD: Final = 200
_MAX_URI: Final = 1000
_MAX_LISTED: Final = min(200, MAX_VALUES)
"""Longer lists of owners or admins do not stand in the form: they are read and changed page by page."""

ADMINS: Final = "muc#roomconfig_roomadmins"
OWNERS: Final = "muc#roomconfig_roomowners"

_Reader = Callable[[tuple[str, ...], Bounds], dict[str, Any]]


def config_form(config: RoomConfig, room: str, bounds: Bounds, admins: Sequence[str], owners: Sequence[str]) -> Element:
    """The form that an owner fills in. ``admins`` and ``owners`` are the bare JIDs that the room has now."""
    sizes = [size for size in _SIZES if size < bounds.max_users] + [bounds.max_users]
    users = config.max_users or bounds.max_users
    if users not in sizes:
        sizes = sorted({*sizes, users})
    entries = [
        Field("muc#roomconfig_roomname", values=(config.name,), label="Name"),
        Field("muc#roomconfig_roomdesc", values=(config.description,), label="Description"),
        Field("muc#roomconfig_lang", values=(config.language,), label="Language"),
        Field("muc#roomconfig_pubsub", values=(config.pubsub,), label="URI of an associated node"),
        _flag("publicroom", config.public, "Listed in the directory"),
        _flag("persistentroom", config.persistent, "Stays when everybody has left"),
        _flag("moderatedroom", config.moderated, "Only those with voice may speak"),
        _flag("membersonly", config.members_only, "Only members may enter"),
        _flag("passwordprotectedroom", bool(config.password), "A password is needed to enter"),
        Field("muc#roomconfig_roomsecret", "text-private", (config.password,), "Password"),
        _one("whois", "anyone" if config.non_anonymous else "moderators", "Who sees real addresses", _WHOIS),
        _flag("changesubject", config.change_subject, "Participants may change the subject"),
        _flag(
            "allowinvites", config.invitations, "Participants may invite others; into a members-only room admins alone"
        ),
        _one("allowpm", config.private_messages, "Who may send private messages", PRIVATE),
        _many("presencebroadcast", config.broadcast, "Roles whose presence is shown"),
        _many("getmemberlist", config.member_list, "Roles that may read the list of members"),
        _one("maxusers", str(users), "The most occupants", tuple(str(size) for size in sizes)),
        Field("muc#maxhistoryfetch", values=(str(min(config.history, bounds.history)),), label="Messages remembered"),
        _one("registration", config.registration, "Who may register a nickname", REGISTRATION, prefix="x-roomconfig_"),
        _flag("locknicks", config.lock_nicks, "Registered people keep their nickname", prefix="x-roomconfig_"),
    ]
    if bounds.archive:
        entries.append(_flag("enablelogging", config.logged, "Messages are archived"))
    for var, label, held in ((ADMINS, "Admins", admins), (OWNERS, "Owners", owners)):
        if len(held) <= _MAX_LISTED:
            entries.append(Field(var, "jid-multi", tuple(held), label))
    return form("form", ns.MUC_CONFIG, entries, title=f"Configuration of {room}")


_PREFIX: Final = "muc#roomconfig_"
_WHOIS: Final = ("moderators", "anyone")


def _flag(name: str, value: bool, label: str, prefix: str = _PREFIX) -> Field:
    return Field(f"{prefix}{name}", "boolean", ("1" if value else "0",), label)


def _one(name: str, value: str, label: str, values: tuple[str, ...], prefix: str = _PREFIX) -> Field:
    options = tuple((option.capitalize(), option) for option in values)
    return Field(f"{prefix}{name}", "list-single", (value,), label, options)


def _many(name: str, values: tuple[str, ...], label: str) -> Field:
    return Field(f"{_PREFIX}{name}", "list-multi", values, label, tuple((role.capitalize(), role) for role in ROLES))


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
    return {"non_anonymous": _choice(values, _WHOIS) == "anyone"}


def _private(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    return {"private_messages": _choice(values or ("none",), PRIVATE)}


def _registration(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    return {"registration": _choice(values or ("closed",), REGISTRATION)}


def _roles(key: str) -> _Reader:
    def read(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
        chosen = {value for value in values if value not in ("", "none")}
        if not chosen <= set(ROLES):
            raise StanzaError("not-acceptable", f"a field has a value that is none of: {', '.join(ROLES)}")
        return {key: tuple(role for role in ROLES if role in chosen)}

    return read


def _number(values: tuple[str, ...], lowest: int, highest: int) -> int:
    text = values[0].strip() if values else ""
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or not lowest <= int(text) <= highest:
        raise StanzaError("not-acceptable", f"a field is not a number from {lowest} to {highest}")
    return int(text)


def _users(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    if not values or values[0].strip() in ("", "none"):
        return {"max_users": 0}
    number = _number(values, 1, bounds.max_users)
    return {"max_users": number if number < bounds.max_users else 0}


def _history(values: tuple[str, ...], bounds: Bounds) -> dict[str, Any]:
    return {"history": _number(values, 0, bounds.history)}


_READERS: Final[Mapping[str, _Reader]] = {
    "muc#roomconfig_roomname": _text("name", _MAX_NAME),
    "muc#roomconfig_roomdesc": _text("description", _MAX_DESCRIPTION),
    "muc#roomconfig_lang": _text("language", 35),
    "muc#roomconfig_pubsub": _text("pubsub", _MAX_URI),
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
    "muc#roomconfig_presencebroadcast": _roles("broadcast"),
    "muc#roomconfig_getmemberlist": _roles("member_list"),
    "muc#roomconfig_maxusers": _users,
    "muc#roomconfig_enablelogging": _boolean("logged"),
    "muc#maxhistoryfetch": _history,
    "x-roomconfig_registration": _registration,
    "x-roomconfig_locknicks": _boolean("lock_nicks"),
}
