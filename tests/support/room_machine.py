"""A room as a machine for tests: made in one line, entered and spoken in, its output read stanza by stanza."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from moim.chat.rooms import entering, lists, messages
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.output import Fan, Output
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, ns

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = Jid("owner", "x.test", "r")
ANN, BEN, CEM = (Jid(name, "x.test", "1") for name in ("ann", "ben", "cem"))
BOUNDS = Bounds(max_users=6, history=5, archive=True)


def make_room(*, locked: bool = False, bounds: Bounds = BOUNDS, **config: Any) -> Room:
    """A room of ``owner@x.test``; its tokens are ``t1``, ``t2`` …"""
    numbers = itertools.count(1)
    return Room(
        Jid("room", "rooms.x.test"),
        config=RoomConfig(**config),
        bounds=bounds,
        salt=b"salt",
        creator="owner@x.test",
        token=lambda: f"t{next(numbers)}",
        affiliations={"owner@x.test": Affiliation.OWNER},
        locked=locked,
    )


def open_room(*people: tuple[Jid, str], **config: Any) -> Room:
    """A room with its owner, called ``O``, and others in it; everything said so far was taken."""
    room = make_room(**config)
    for who, nick in ((OWNER, "O"), *people):
        enter(room, who, nick)
    room.output.clear()
    return room


def element(text: str) -> Element:
    """One stanza, written without its namespace."""
    return Element.parse(f"<x xmlns='{ns.CLIENT}'>{text}</x>").elements()[0]


def enter(room: Room, who: Jid, nick: str, more: str = "", *, words: str = "") -> None:
    """Enters."""
    stanza = element(f"<presence>{words}<x xmlns='{ns.MUC}'>{more}</x></presence>")
    entering.available(room, who, nick, stanza, NOW)


def say(room: Room, who: Jid, inner: str, *, attrs: str = "", now: datetime = NOW) -> None:
    """Sends a message to the room."""
    messages.to_room(room, who, element(f"<message type='groupchat' {attrs}>{inner}</message>"), now)


def tell(room: Room, who: Jid, inner: str, *, now: datetime = NOW) -> None:
    """Sends the room something that is not for everybody: a form, an invitation."""
    messages.to_room(room, who, element(f"<message>{inner}</message>"), now)


def admin(room: Room, who: Jid, *items: str) -> None:
    """Changes affiliations and roles."""
    lists.change(room, who, Element.parse(f"<query xmlns='{ns.MUC_ADMIN}'>{''.join(items)}</query>"))


def form(kind: str, **fields: str | list[str]) -> str:
    """A submitted form; ``__`` in names stands for ``#``."""
    inner = "".join(
        f"<field var='{key.replace('__', '#')}'>"
        + "".join(f"<value>{text}</value>" for text in ([value] if isinstance(value, str) else value))
        + "</field>"
        for key, value in fields.items()
    )
    head = f"<field var='FORM_TYPE'><value>{kind}</value></field>"
    return f"<x xmlns='jabber:x:data' type='submit'>{head}{inner}</x>"


def heard(room: Room, who: Jid) -> list[Element]:
    """What a session gets, in order; takes everybody's output."""
    found = [stanza for to, stanza in unfolded(room.output) if to == who]
    room.output.clear()
    return found


def codes(stanza: Element) -> list[int]:
    """The status codes of a stanza."""
    muc = stanza.find("x", ns.MUC_USER)
    return [int(c.get("code") or 0) for c in muc.elements() if c.name == "status"] if muc is not None else []


def item(stanza: Element) -> Element:
    """The item of a presence or message of a room."""
    muc = stanza.find("x", ns.MUC_USER)
    found = muc.find("item") if muc is not None else None
    assert found is not None, stanza.to_xml()
    return found


def unfolded(output: Iterable[Output]) -> Iterator[tuple[Jid, Element]]:
    """Every single stanza, addressed."""
    for item in output:
        if isinstance(item, Fan):
            for jid in item.audience:
                if jid not in item.skip:
                    yield jid, item.stanza.with_attrs({"to": str(jid)})
        else:
            yield item
