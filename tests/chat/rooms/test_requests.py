"""Whatever somebody asks of a room, it is answered or refused, and nothing breaks: stanzas grown from its grammar."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from moim.chat.rooms import entering, lists, messages, requests, retracting
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.directory import Directory
from moim.chat.rooms.hat_list import Hats
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.requests import Request
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from room_machine import ANN, BEN, NOW, OWNER, make_room, open_room, unfolded

TEXTS = st.sampled_from(
    ["", " ", "0", "1", "-1", "true", "99999999999999", "ann@x.test", "owner@x.test", "x.test", "@", "a/b", "O",
     "Ann", "member", "owner", "none", "outcast", "admin", "visitor", "moderator", "participant", "anyone",
     "u:hat", "t1", "t2", "x" * 2000, "모임", "\u200f", "create", "execute", "cancel", "submit", "form", "image/png",
     "aGFsbG8=", "§"]
)  # fmt: skip
VARS = st.sampled_from(
    ["FORM_TYPE", "hats#uri", "hats#title", "hats#hue", "hats#jid", "hat", "muc#register_roomnick", "muc#jid",
     "muc#register_allow", "muc#role", "muc#request_allow", "muc#roomnick", "muc#maxhistoryfetch", "q", "all",
     "key", "x-roomconfig_registration", "x-roomconfig_locknicks", "min_users", "types", "sinname", "",
     *(f"muc#roomconfig_{name}" for name in ( "roomowners", "roomadmins", "whois", "allowpm", "maxusers",
     "roomsecret", "passwordprotectedroom", "persistentroom", "membersonly", "moderatedroom", "presencebroadcast",
     "getmemberlist", "enablelogging", "pubsub"))]
)  # fmt: skip
FORM_TYPES = st.sampled_from(
    [ns.MUC_CONFIG, ns.MUC_REGISTER, ns.MUC_REQUEST, ns.CHANNEL_SEARCH_PARAMS, "urn:xmpp:hats:commands", "",
     "other"]
)  # fmt: skip
SPACES = st.sampled_from(
    [ns.MUC_ADMIN, ns.MUC_OWNER, ns.MUC_USER, ns.MUC, ns.REGISTER,
     ns.DATA_FORMS, ns.COMMANDS, ns.VCARD, ns.RSM, ns.CLIENT, ns.MODERATION, ns.RETRACTION, ns.CHANNEL_SEARCH,
     ns.DISCO_INFO, ns.DISCO_ITEMS]
)  # fmt: skip
NAMES = st.sampled_from(
    ["query", "item", "reason", "destroy", "remove", "invite", "decline", "set", "max", "after", "before",
     "index", "retract", "PHOTO", "BINVAL", "TYPE", "body", "subject", "history", "password", "continue"]
)  # fmt: skip
ATTRS = st.dictionaries(
    st.sampled_from(
        ["affiliation", "role", "jid", "nick", "to", "id", "node", "action", "type", "maxstanzas", "since"]
    ),
    TEXTS | st.just("urn:xmpp:hats:commands:create") | st.just("urn:xmpp:hats:commands:assign"),
    max_size=4,
)


@st.composite
def forms(draw: st.DrawFn) -> Element:
    """A data form with the right head, more or less."""
    fields = [Element("field", ns.DATA_FORMS, {"var": "FORM_TYPE"}, (_value(draw(FORM_TYPES)),))]
    for _ in range(draw(st.integers(0, 6))):
        values = tuple(_value(text) for text in draw(st.lists(TEXTS, max_size=3)))
        fields.append(Element("field", ns.DATA_FORMS, {"var": draw(VARS)}, values))
    return Element("x", ns.DATA_FORMS, {"type": draw(st.sampled_from(["submit", "cancel", "form", "result"]))}, fields)


def _value(text: str) -> Element:
    return Element("value", ns.DATA_FORMS, {}, (text,))


def element(name: str, space: str, attrs: dict[str, str], children: list[Element | str]) -> Element:
    return Element(name, space, attrs, tuple(children))


trees = st.recursive(
    st.builds(element, NAMES, SPACES, ATTRS, st.lists(TEXTS, max_size=1)) | forms(),
    lambda inner: st.builds(element, NAMES, SPACES, ATTRS, st.lists(inner, max_size=4)),
    max_leaves=8,
)
people = st.sampled_from([OWNER, ANN, BEN, Jid("stranger", "y.test", "1")])


def check(room: Room) -> None:
    """What holds whatever was asked."""
    for to, stanza in unfolded(room.output):
        assert stanza.get("to") == str(to)
        Element.parse(stanza.to_xml(""))
    room.output.clear()
    assert room.destroyed or Affiliation.OWNER in room.affiliations.values()
    assert len(room.affiliations) <= room.bounds.affiliations
    assert room.reserved == {nick: bare for bare, nick in room.nicks.items()}
    assert all(room.affiliations.get(bare) not in (None, Affiliation.OUTCAST) for bare in room.nicks)
    assert RoomConfig.from_json(room.config.to_json()) == room.config
    assert json.loads(room.hats.to_json() or "{}") is not None
    assert list(Hats.from_json(room.hats.to_json())) == list(room.hats)


@given(
    st.lists(
        st.tuples(people, st.sampled_from(sorted(requests.ROOM, key=str)), ATTRS, st.lists(trees, max_size=3)),
        max_size=6,
    )
)
def test_requests(asked: list[tuple[Jid, tuple[str | None, str, str], dict[str, str], list[Element]]]) -> None:
    room = open_room((ANN, "Ann"), bounds=Bounds(6, 5, affiliations=8, archive=True))
    for who, key, attrs, children in asked:
        if room.destroyed:
            break
        _, space, name = key
        try:
            answer = requests.ROOM[key](Request(room, who, Element(name, space, attrs, tuple(children))))
        except StanzaError:
            assert not room.output
        else:
            for payload in answer:
                Element.parse(payload.to_xml(""))
        check(room)


@given(
    people,
    st.sampled_from(["groupchat", "chat", "normal"]),
    st.lists(trees, max_size=4),
    st.sampled_from(["", "O", "Ann", "x"]),
)
def test_messages(who: Jid, kind: str, children: list[Element], nick: str) -> None:
    room = open_room((ANN, "Ann"), moderated=True)
    message = Element("message", ns.CLIENT, {"type": kind}, tuple(children))
    try:
        if nick:
            messages.to_occupant(room, who, nick, message)
        else:
            messages.to_room(room, who, message, NOW)
    except StanzaError:
        assert not room.output
    check(room)


@given(people, st.text(max_size=3), st.lists(trees, max_size=3), ATTRS, st.lists(trees, max_size=2))
def test_presence(who: Jid, nick: str, children: list[Element], attrs: dict[str, str], entry: list[Element]) -> None:
    room = open_room((ANN, "Ann"))
    muc = Element("x", ns.MUC, attrs, tuple(entry))
    try:
        nick = Jid.parse(f"room@rooms.x.test/{nick}").resource if nick else ""
    except Exception:
        return
    presence = Element("presence", ns.CLIENT, {}, (*children, muc))
    try:
        entering.available(room, who, nick, presence, NOW)
    except StanzaError:
        assert not room.output
    check(room)
    entering.unavailable(room, who, presence)
    check(room)


@given(people, ATTRS, st.lists(trees, max_size=3))
def test_orders_of_moderators(who: Jid, attrs: dict[str, str], children: list[Element]) -> None:
    room = open_room((ANN, "Ann"), persistent=True)
    try:
        order = retracting.read_order(room, who, Element("moderate", ns.MODERATION, attrs, tuple(children)), NOW)
    except StanzaError:
        assert not room.output
    else:
        retracting.carry_out(room, order, NOW)
    check(room)


@given(st.lists(trees | forms(), max_size=3))
def test_searches(children: list[Element]) -> None:
    rooms = [make_room(name=name) for name in ("모임", "tea", "")]
    directory = Directory(lambda: rooms)
    try:
        found = directory.search(Element("search", ns.CHANNEL_SEARCH, {}, tuple(children)))
    except StanzaError:
        return
    Element.parse(found.to_xml(""))


@given(st.lists(trees, max_size=3))
def test_lists_are_read_or_refused(children: list[Element]) -> None:
    room = open_room((ANN, "Ann"))
    try:
        lists.read(room, OWNER, Element("query", ns.MUC_ADMIN, {}, tuple(children)))
    except StanzaError:
        return
