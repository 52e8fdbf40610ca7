"""Registration with a room (XEP-0045 sections 7.10 and 9.9): people become members, with a nickname kept for them.

In rooms that anybody may enter and speak in, that happens at once; elsewhere an admin decides, because being a member
means something there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from moim.chat.rooms import lists, nicknames
from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_boolean, read_form

_MAX_APPLICANTS = 100
_MAX_WORDS = 500
_MAX_ASKED = 10
"""Admins who are asked although they are not in the room."""
_DETAILS: Final = (
    ("muc#register_first", "Given name"),
    ("muc#register_last", "Family name"),
    ("muc#register_email", "E-mail address"),
    ("muc#register_url", "A web page"),
    ("muc#register_faqentry", "Something about you"),
)
_NICK: Final = "muc#register_roomnick"
_ALLOW: Final = "muc#register_allow"


def read(room: Room, sender: Jid) -> Element:
    """What there is to fill in, or the nickname of who is registered. Raises StanzaError."""
    nick = room.nicks.get(str(sender.bare))
    if nick is not None:
        children = (Element("registered", ns.REGISTER), Element("username", ns.REGISTER, {}, (nick,)))
        return Element("query", ns.REGISTER, {}, (*children, _form(nick)))
    _check_open(room, sender)
    words = Element("instructions", ns.REGISTER, {}, ("Choose the nickname that this room keeps for you.",))
    return Element("query", ns.REGISTER, {}, (words, _form("")))


def _form(nick: str) -> Element:
    entries = [Field(_NICK, "text-single", (nick,) if nick else (), "Nickname", required=True)]
    entries += [Field(var, label=label) for var, label in _DETAILS]
    return form("form", ns.MUC_REGISTER, entries, title="Registration with this room")


def _check_open(room: Room, sender: Jid) -> None:
    own = room.affiliation(sender)
    if room.locked and own is not Affiliation.OWNER:
        raise StanzaError("item-not-found", "the room is not open yet")
    if own is Affiliation.OUTCAST:
        raise StanzaError("not-allowed", "you are banned from this room")
    if room.config.registration == "closed" and own is Affiliation.NONE:
        raise StanzaError("not-allowed", "this room takes no registrations; ask one of its admins")


def change(room: Room, sender: Jid, query: Element) -> None:
    """Registers, asks for it, changes the nickname, or takes it back. Raises StanzaError before anything changed."""
    bare = str(sender.bare)
    if query.find("remove") is not None:
        _leave(room, bare)
        return
    submitted = query.find("x", ns.DATA_FORMS)
    if submitted is not None and submitted.get("type") == "cancel":
        return
    if submitted is None or submitted.get("type") != "submit":
        raise StanzaError("bad-request", "the form of the room is expected, filled in")
    kind, values = read_form(submitted)
    if kind != ns.MUC_REGISTER or _NICK not in values:
        raise StanzaError("bad-request", "the room does not know this form")
    _check_open(room, sender)
    nick = nicknames.prepared((values.get(_NICK) or ("",))[0])
    nicknames.check_reservable(room, bare, nick)
    if bare in room.affiliations:
        nicknames.reserve(room, bare, nick)
    elif _at_once(room):
        lists.check_whole(room, {bare: Affiliation.MEMBER})
        _accept(room, bare, nick)
    else:
        _ask(room, sender, nick, values)


def _leave(room: Room, bare: str) -> None:
    known = room.applicants.pop(bare, None) is not None
    if bare not in room.nicks and not known:
        raise StanzaError("registration-required", "you are not registered with this room")
    room.reserve(bare, "")
    # An admin or owner keeps its rank: it was not registration that gave it.
    if room.affiliations.get(bare) is Affiliation.MEMBER:
        lists.apply_affiliation(room, bare, Affiliation.NONE, actor="", reason="")


def _at_once(room: Room) -> bool:
    config = room.config
    return config.registration == "open" and not (config.members_only or config.moderated or config.password)


def _accept(room: Room, bare: str, nick: str) -> None:
    if room.affiliations.get(bare, Affiliation.NONE) is Affiliation.NONE:
        lists.apply_affiliation(room, bare, Affiliation.MEMBER, actor="", reason="")
    nicknames.reserve(room, bare, nick)


def _ask(room: Room, sender: Jid, nick: str, values: Mapping[str, tuple[str, ...]]) -> None:
    bare = str(sender.bare)
    if bare in room.applicants:
        raise StanzaError("policy-violation", "you have asked already; wait for an admin's word", kind="wait")
    if len(room.applicants) >= _MAX_APPLICANTS:
        raise StanzaError("resource-constraint", "too many people wait to be registered")
    room.applicants[bare] = nick
    told = [Field(_NICK, values=(nick,), label="Nickname")]
    told += [Field(var, values=(text,), label=label) for var, label in _DETAILS if (text := _words(values.get(var)))]
    question = form(
        "form",
        ns.MUC_REGISTER,
        (
            *told,
            Field("muc#jid", "jid-single", (bare,), "Address"),
            Field(_ALLOW, "boolean", ("0",), "Let this person register?"),
        ),
        title="Somebody wants to register with the room",
    )
    present = [jid for jid in room.by_session if is_manager(room.affiliation(jid))]
    absent = [Jid.parse(jid) for jid, held in room.affiliations.items() if is_manager(held)]
    for admin in present or absent[:_MAX_ASKED]:
        header = {"from": room.address, "to": str(admin), "id": room.token()}
        room.output.append((admin, Element("message", ns.CLIENT, header, (question,))))


def _words(values: tuple[str, ...] | None) -> str:
    return "\n".join(values or ())[:_MAX_WORDS].strip()


def decide(room: Room, sender: Jid, values: Mapping[str, tuple[str, ...]]) -> None:
    """An admin's answer to who wants to register; it may come from outside the room."""
    if not is_manager(room.affiliation(sender)):
        raise StanzaError("forbidden", "only admins of the room register others")
    if _ALLOW not in values:
        raise StanzaError("bad-request", "the form does not say whether the person may register")
    named, nick = (values.get("muc#jid") or ("",))[0], (values.get(_NICK) or ("",))[0]
    bare = named or next((jid for jid, asked in room.applicants.items() if asked == nick), "")
    wanted = room.applicants.get(bare)
    if wanted is None:
        raise StanzaError("item-not-found", "nobody waits to be registered so, or somebody decided already")
    if not read_boolean(values[_ALLOW]):
        del room.applicants[bare]
        return
    held = room.affiliations.get(bare, Affiliation.NONE)
    if held is Affiliation.OUTCAST:
        del room.applicants[bare]
        raise StanzaError("not-allowed", "this person was banned meanwhile")
    nicknames.check_reservable(room, bare, wanted)
    if held is Affiliation.NONE:
        lists.check_whole(room, {bare: Affiliation.MEMBER})
        lists.apply_affiliation(room, bare, Affiliation.MEMBER, actor="", reason="", by=sender.bare)
    del room.applicants[bare]
    nicknames.reserve(room, bare, wanted)
