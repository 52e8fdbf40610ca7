"""How a PEP node is configured (XEP-0060 section 16.4.4): the fields of its form, both ways."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal, cast

from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_boolean, read_form

Access = Literal["open", "presence", "roster", "whitelist"]
ACCESS: Final = ("open", "presence", "roster", "whitelist")
SEND_LAST: Final = ("never", "on_sub", "on_sub_and_presence")
FORM: Final = ns.PUBSUB + "#node_config"
OPTIONS: Final = ns.PUBSUB + "#publish-options"
_MAX_NAMES = 200
_MAX_TEXT = 1023

# Fields that clients send although there is nothing to choose here: the values that say what is so anyway.
_FIXED: Final[Mapping[str, tuple[str, ...]]] = {
    "publish_model": ("publishers",),
    "deliver_payloads": ("1", "true"),
    "deliver_notifications": ("1", "true"),
    "subscribe": ("1", "true"),
    "purge_offline": ("0", "false"),
    "notify_config": ("0", "false"),
    "notify_sub": ("0", "false"),
    "notification_type": ("headline",),
    "itemreply": ("publisher", "owner"),
    "item_expire": ("max",),
    "node_type": ("leaf",),
    "collection": ("",),
    "publish_node_full": ("retract-oldest", "discard-oldest"),
}


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of a node. ``members`` are the bare JIDs of a whitelist, ``groups`` those of the roster."""

    access_model: Access = "presence"
    max_items: int = 1
    persist_items: bool = True
    send_last_published_item: str = "on_sub_and_presence"
    notify_retract: bool = True
    notify_delete: bool = True
    title: str = ""
    type: str = ""
    roster_groups_allowed: tuple[str, ...] = ()
    members: tuple[str, ...] = ()

    def stored(self) -> str:
        """The configuration as it is kept."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def load(text: str) -> Config:
        """The configuration as it was kept."""
        found: dict[str, Any] = json.loads(text)
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}
        return Config(**values)

    def element(self, groups: Collection[str] = ()) -> Element:
        """The form to change it; ``groups`` are those of the owner's contacts."""

        def flag(var: str, value: bool) -> Field:
            return Field(f"pubsub#{var}", "boolean", ("1" if value else "0",))

        def choice(var: str, value: str, options: tuple[str, ...]) -> Field:
            return Field(f"pubsub#{var}", "list-single", (value,), "", tuple((option, option) for option in options))

        return form(
            "form",
            FORM,
            [
                choice("access_model", self.access_model, ACCESS),
                Field("pubsub#max_items", "text-single", (str(self.max_items),)),
                flag("persist_items", self.persist_items),
                choice("send_last_published_item", self.send_last_published_item, SEND_LAST),
                flag("notify_retract", self.notify_retract),
                flag("notify_delete", self.notify_delete),
                choice("publish_model", "publishers", ("publishers",)),
                Field("pubsub#title", "text-single", (self.title,)),
                Field("pubsub#type", "text-single", (self.type,)),
                Field(
                    "pubsub#roster_groups_allowed",
                    "list-multi",
                    self.roster_groups_allowed,
                    options=tuple((group, group) for group in sorted({*groups, *self.roster_groups_allowed})),
                ),
            ],
        )


def changes(element: Element, form_type: str, *, most_items: int) -> dict[str, Any]:
    """The values that a submitted form sets, by the names of ``Config``.

    Raises StanzaError not-acceptable for a field or a value that is not possible here.
    """
    kind, fields = read_form(element)
    if kind != form_type:
        raise StanzaError("bad-request", f"the form has to be of the type {form_type}")
    found: dict[str, Any] = {}
    for var, values in fields.items():
        name = var.removeprefix("pubsub#")
        reader = _READERS.get(name)
        if reader is not None:
            found[name] = reader(values)
        elif name not in _FIXED or (values[0] if values else "") not in _FIXED[name]:
            raise StanzaError("not-acceptable", f"{var} cannot be set to that here")
    if "max_items" in found:
        found["max_items"] = most_items if found["max_items"] == 0 else min(found["max_items"], most_items)
    return found


def with_changes(config: Config, found: Mapping[str, Any]) -> Config:
    """The configuration with the values of ``changes``."""
    return replace(config, **found)


def with_members(config: Config, affiliations: Element, owner: str = "") -> Config:
    """The configuration with a whitelist changed as ``<affiliations/>`` of the owner says."""
    members = dict.fromkeys(config.members)
    for child in affiliations.elements():
        try:
            bare = str(Jid.parse(child.get("jid") or "").bare)
        except ProtocolError as error:
            raise StanzaError("jid-malformed", error.message) from None
        kind = child.get("affiliation")
        if kind == "member":
            members[bare] = None
        elif kind == "none":
            members.pop(bare, None)
        elif kind != "owner" or bare != owner:
            raise StanzaError("not-acceptable", "others than the account are members or nothing")
    if len(members) > _MAX_NAMES:
        raise StanzaError("resource-constraint", f"a whitelist may have {_MAX_NAMES} members")
    return replace(config, members=tuple(members))


def _one_of(allowed: tuple[str, ...]) -> Callable[[tuple[str, ...]], str]:
    def read(values: tuple[str, ...]) -> str:
        if len(values) != 1 or values[0] not in allowed:
            raise StanzaError("not-acceptable", f"one of these is expected: {', '.join(allowed)}")
        return values[0]

    return read


def _count(values: tuple[str, ...]) -> int:
    """The number of items, 0 for as many as possible."""
    text = values[0].strip() if values else ""
    if text == "max":
        return 0
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0):
        raise StanzaError("not-acceptable", "a number of items, or 'max', is expected")
    return int(text)


def _text(values: tuple[str, ...]) -> str:
    text = values[0] if values else ""
    if len(text.encode()) > _MAX_TEXT:
        raise StanzaError("not-acceptable", "a text of the form is too long")
    return text


def _names(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(values) > _MAX_NAMES or any(len(value.encode()) > _MAX_TEXT for value in values):
        raise StanzaError("not-acceptable", "there are too many groups, or one is too long")
    return tuple(dict.fromkeys(values))


_READERS: Final = cast(
    Mapping[str, Callable[[tuple[str, ...]], Any]],
    {
        "access_model": _one_of(ACCESS),
        "max_items": _count,
        "persist_items": read_boolean,
        "send_last_published_item": _one_of(SEND_LAST),
        "notify_retract": read_boolean,
        "notify_delete": read_boolean,
        "title": _text,
        "type": _text,
        "roster_groups_allowed": _names,
    },
)
