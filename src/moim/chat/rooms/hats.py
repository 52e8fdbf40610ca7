"""XEP-0317 hats: the commands (XEP-0050) that make them, hand them out, take them back and list them.

Each command takes one form, and needs no memory between its two steps: whoever knows the fields may send them at once.
Owners make and destroy hats, admins hand them out; every occupant may read which hats there are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from moim.chat.rooms import showing
from moim.chat.rooms.hat_list import MAX_HATS, MAX_TITLE, MAX_URI, MAX_WEARERS, MAX_WORN, Hat
from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import Room
from moim.errors import ProtocolError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_form

_FORM: Final = "urn:xmpp:hats:commands"
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_MAX_LISTED: Final = 500
_HUE: Final = re.compile(r"\d{1,3}(\.\d{1,6})?", re.ASCII)

Values = Mapping[str, tuple[str, ...]]

COMMANDS: Final[Mapping[str, str]] = {
    f"{_FORM}:list": "List the hats of this room",
    f"{_FORM}:list-assigned": "List who wears which hat",
    f"{_FORM}:create": "Make or change a hat",
    f"{_FORM}:destroy": "Destroy a hat",
    f"{_FORM}:assign": "Give somebody a hat",
    f"{_FORM}:unassign": "Take a hat from somebody",
}
"""The commands by their nodes, with what they do."""
_OLDER: Final = {f"{_FORM}:don": f"{_FORM}:assign", f"{_FORM}:doff": f"{_FORM}:unassign"}
"""COMPAT: the nodes of version 0.2 (2023), which deployed clients and servers use."""


def visible(room: Room, sender: Jid) -> list[str]:
    """The nodes of the commands that somebody may use here."""
    return [node for node in COMMANDS if _may(room, sender, node)]


def _may(room: Room, sender: Jid, node: str) -> bool:
    own = room.affiliation(sender)
    verb = node.rpartition(":")[2]
    if verb == "list":
        return sender in room.by_session or is_manager(own)
    return own is Affiliation.OWNER or (is_manager(own) and verb in ("assign", "unassign", "list-assigned"))


def command(room: Room, sender: Jid, request: Element) -> Element:
    """Answers a ``<command/>``. Raises StanzaError when it is unknown, not theirs to give, or cannot be carried out."""
    asked = request.get("node") or ""
    node = _OLDER.get(asked, asked)
    if node not in COMMANDS:
        raise StanzaError("item-not-found", "the room has no such command")
    if not _may(room, sender, node):
        raise StanzaError("forbidden", "this command is not for you")
    action = request.get("action") or "execute"
    session = request.get("sessionid") or room.token()
    if action == "cancel":
        return _reply(asked, session, "canceled")
    if action not in ("execute", "complete"):
        raise StanzaError("bad-request", "this command has one step: it is executed, completed or cancelled")
    verb = node.rpartition(":")[2]
    if verb in _LISTS:
        return _reply(asked, session, "completed", _LISTS[verb](room))
    submitted = request.find("x", ns.DATA_FORMS)
    if submitted is None:
        return _reply(asked, session, "executing", _question(room, verb))
    kind, values = read_form(submitted)
    if submitted.get("type") != "submit" or kind not in (_FORM, ""):
        raise StanzaError("bad-request", "the form of the command is expected, filled in")
    _CHANGES[verb](room, values)
    return _reply(asked, session, "completed")


def _reply(node: str, session: str, status: str, *payload: Element) -> Element:
    attrs = {"node": node, "sessionid": session, "status": status}
    actions = [Element("actions", ns.COMMANDS, {"execute": "complete"}, (Element("complete", ns.COMMANDS),))]
    return Element("command", ns.COMMANDS, attrs, (*(actions if status == "executing" else ()), *payload))


def _question(room: Room, verb: str) -> Element:
    choice = Field(
        "hats#uri",
        "list-single",
        label="The hat",
        options=tuple((hat.title, hat.uri) for hat in room.hats),
        required=True,
    )
    who = Field("hats#jid", "jid-single", label="Address", required=True)
    fields: dict[str, Sequence[Field]] = {
        "create": (
            Field("hats#title", label="Title", required=True),
            Field("hats#uri", label="URI", required=True),
            Field("hats#hue", label="Hue, 0 to 360"),
        ),
        "destroy": (choice,),
        "assign": (who, choice),
        "unassign": (who, choice),
    }
    return form("form", _FORM, fields[verb], title=COMMANDS[f"{_FORM}:{verb}"])


# --- lists ------------------------------------------------------------------------------------------------------


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Element:
    reported = tuple(Element("field", ns.DATA_FORMS, {"var": column}) for column in columns)
    items = [
        Element(
            "item",
            ns.DATA_FORMS,
            {},
            tuple(
                Element("field", ns.DATA_FORMS, {"var": column}, (Element("value", ns.DATA_FORMS, {}, (text,)),))
                for column, text in zip(columns, row, strict=True)
            ),
        )
        for row in rows
    ]
    head = Element("title", ns.DATA_FORMS, {}, (title,))
    return Element(
        "x", ns.DATA_FORMS, {"type": "result"}, (head, Element("reported", ns.DATA_FORMS, {}, reported), *items)
    )


def _list(room: Room) -> Element:
    columns = ("hats#title", "hats#uri", "hats#hue")
    return _table("Hats", columns, [(hat.title, hat.uri, hat.hue) for hat in room.hats])


def _list_assigned(room: Room) -> Element:
    columns = ("hats#jid", "hats#uri", "hats#title", "hats#hue")
    rows = [(bare, hat.uri, hat.title, hat.hue) for bare, hat in room.hats.wearers()[:_MAX_LISTED]]
    return _table("Who wears which hat", columns, rows)


_LISTS: Final[Mapping[str, Callable[[Room], Element]]] = {"list": _list, "list-assigned": _list_assigned}


# --- changes ----------------------------------------------------------------------------------------------------


def _create(room: Room, values: Values) -> None:
    uri, title, hue = _value(values, "hats#uri"), _value(values, "hats#title"), _value(values, "hats#hue")
    if not _URI.fullmatch(uri) or len(uri) > MAX_URI:
        raise StanzaError("not-acceptable", f"a hat has a URI of at most {MAX_URI} characters")
    if not title or len(title) > MAX_TITLE:
        raise StanzaError("not-acceptable", f"a hat has a title of at most {MAX_TITLE} characters")
    if hue and (not _HUE.fullmatch(hue) or not 0 <= math.floor(float(hue)) <= 360):
        raise StanzaError("not-acceptable", "a hue is an angle from 0 to 360")
    old = room.hats.get(uri)
    if old is None and len(room.hats) >= MAX_HATS:
        raise StanzaError("resource-constraint", f"a room has at most {MAX_HATS} hats")
    hat = Hat(uri, title, hue)
    if hat == old:
        return
    room.hats.define(hat)
    _changed(room, [bare for bare, _ in room.hats.wearers(uri)], listed=True)


def _destroy(room: Room, values: Values) -> None:
    _changed(room, room.hats.destroy(_known(room, values).uri), listed=True)


def _assign(room: Room, values: Values) -> None:
    hat, bare = _known(room, values), _person(values)
    worn = room.hats.worn_by(bare)
    if hat.uri in worn:
        return
    if len(worn) >= MAX_WORN or (not worn and room.hats.wearing >= MAX_WEARERS):
        raise StanzaError("resource-constraint", "too many hats are worn")
    room.hats.give(bare, hat.uri)
    _changed(room, [bare])


def _unassign(room: Room, values: Values) -> None:
    hat, bare = _known(room, values), _person(values)
    if hat.uri not in room.hats.worn_by(bare):
        raise StanzaError("item-not-found", "this person does not wear this hat")
    room.hats.take(bare, hat.uri)
    _changed(room, [bare])


_CHANGES: Final[Mapping[str, Callable[[Room, Values], None]]] = {
    "create": _create,
    "destroy": _destroy,
    "assign": _assign,
    "unassign": _unassign,
}


def _changed(room: Room, wearers: Sequence[str], *, listed: bool = False) -> None:
    room.changed = True
    for bare in wearers:
        showing.refresh(room, bare)
    if listed:
        room.notice(104)


def _value(values: Values, var: str) -> str:
    return (values.get(var) or ("",))[0].strip()


def _known(room: Room, values: Values) -> Hat:
    # The example of a form to destroy a hat calls the field ``hat``, the form that is sent back ``hats#uri``.
    hat = room.hats.get(_value(values, "hats#uri") or _value(values, "hat"))
    if hat is None:
        raise StanzaError("item-not-found", "the room has no such hat")
    return hat


def _person(values: Values) -> str:
    try:
        jid = Jid.parse(_value(values, "hats#jid")).bare
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None
    if not jid.local:
        raise StanzaError("jid-malformed", "people wear hats, domains do not")
    return str(jid)
