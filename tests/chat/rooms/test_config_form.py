"""The configuration form of rooms, whole, and the status codes that follow a change (XEP-0045 10.2, 15.5.3, 15.6)."""

from __future__ import annotations

from typing import Any

import pytest

from moim.chat.rooms import entering, owners
from moim.chat.rooms.config import Bounds, RoomConfig
from moim.chat.rooms.config_form import apply_form
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import read_form
from room_machine import ANN, BEN, CEM, OWNER, admin, codes, enter, form, heard, item, open_room

PREFIX = "muc__roomconfig_"


def configure(room: Room, **fields: str | list[str]) -> None:
    named = {key if "__" in key or key.startswith("x-") else PREFIX + key: value for key, value in fields.items()}
    owners.change(room, OWNER, Element.parse(f"<query xmlns='{ns.MUC_OWNER}'>{form(ns.MUC_CONFIG, **named)}</query>"))


def refusal(room: Room, **fields: str | list[str]) -> str:
    with pytest.raises(StanzaError) as refused:
        configure(room, **fields)
    return refused.value.condition


def test_the_form_has_every_registered_field() -> None:
    room = open_room(persistent=True, history=5)
    asked = owners.read(room, OWNER).find("x", ns.DATA_FORMS)
    assert asked is not None
    _, values = read_form(asked)
    registered = {
        "allowpm", "allowinvites", "changesubject", "enablelogging", "getmemberlist", "lang", "pubsub", "maxusers",
        "membersonly", "moderatedroom", "passwordprotectedroom", "persistentroom", "presencebroadcast", "publicroom",
        "roomadmins", "roomdesc", "roomname", "roomowners", "roomsecret", "whois",
    }  # fmt: skip
    assert {f"muc#roomconfig_{name}" for name in registered} | {"muc#maxhistoryfetch"} <= set(values)
    assert apply_form(room.config, values, room.bounds) == room.config


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"roomname": "N"}, [104]),
        ({"whois": "anyone"}, [172]),
        ({"enablelogging": "0"}, [171]),
        ({"whois": "anyone", "roomname": "N"}, [104, 172]),
        ({"enablelogging": "0", "whois": "anyone"}, [171, 172]),
        ({"persistentroom": "0"}, [104]),
        ({"roomname": ""}, []),
    ],
)
def test_a_change_is_told_by_its_codes(fields: dict[str, Any], expected: list[int]) -> None:
    room = open_room((ANN, "Ann"), persistent=True)
    configure(room, **fields)
    assert [codes(stanza) for stanza in heard(room, ANN)] == ([expected] if expected else [])


def test_back_again() -> None:
    room = open_room((ANN, "Ann"), persistent=True, non_anonymous=True, logged=False)
    configure(room, whois="moderators", enablelogging="1")
    assert codes(heard(room, ANN)[0]) == [170, 173]


def test_who_enters_is_told_that_words_are_kept() -> None:
    room = open_room(persistent=True, non_anonymous=True)
    enter(room, ANN, "Ann")
    assert codes(next(stanza for stanza in heard(room, ANN) if 110 in codes(stanza))) == [100, 170, 110]
    room = open_room(persistent=False)
    enter(room, ANN, "Ann")
    assert codes(next(stanza for stanza in heard(room, ANN) if 110 in codes(stanza))) == [170, 110]
    room = open_room(logged=False)
    enter(room, ANN, "Ann")
    assert codes(next(stanza for stanza in heard(room, ANN) if 110 in codes(stanza))) == [110]


def test_admins_and_owners_are_listed_in_full() -> None:
    room = open_room((ANN, "Ann"))
    configure(room, roomadmins=["ann@x.test/1", "ben@x.test"])
    assert room.affiliation(ANN) is room.affiliation(BEN) is Affiliation.ADMIN
    assert item(heard(room, ANN)[0]).get("affiliation") == "admin"
    configure(room, roomadmins=["ben@x.test"], roomowners=["owner@x.test", "cem@x.test"])
    assert (room.affiliation(ANN), room.affiliation(CEM)) == (Affiliation.NONE, Affiliation.OWNER)
    before = dict(room.affiliations)
    assert refusal(room, roomowners=[""]) == "conflict"
    assert refusal(room, roomadmins=["@"]) == "jid-malformed"
    admin(room, OWNER, "<item jid='bad@x.test' affiliation='outcast'/>")
    assert refusal(room, roomadmins=["bad@x.test"]) == "not-acceptable"
    assert room.affiliations == before | {"bad@x.test": Affiliation.OUTCAST}


def test_roles_that_are_not_shown() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), moderated=True)
    configure(room, presencebroadcast=["moderator", "participant"])
    gone = [stanza for stanza in heard(room, BEN) if stanza.name == "presence"]
    assert [(s.get("from"), s.get("type")) for s in gone if 110 not in codes(s)] == [
        ("room@rooms.x.test/Ann", "unavailable")
    ]
    enter(room, CEM, "Cem")
    assert not [s for s in heard(room, OWNER) if s.name == "presence"]
    admin(room, OWNER, "<item nick='Cem' role='participant'/>")
    assert [s.get("type") for s in heard(room, BEN)] == [None]
    admin(room, OWNER, "<item nick='Cem' role='visitor'/>")
    shown = heard(room, BEN)
    assert [s.get("type") for s in shown] == ["unavailable"]
    entering.unavailable(room, CEM, Element("presence", ns.CLIENT))
    assert not heard(room, BEN)
    assert not room.output


@pytest.mark.parametrize(
    "fields",
    [
        {"presencebroadcast": ["king"]},
        {"getmemberlist": ["king"]},
        {"pubsub": "x" * 1001},
        {"maxusers": "-1"},
        {"allowpm": "king"},
        {"muc__maxhistoryfetch": "999999"},
        {"roomdesc": "x" * 2001},
        {"x-roomconfig_registration": "king"},
        {"x-roomconfig_locknicks": "perhaps"},
    ],
)
def test_what_cannot_be(fields: dict[str, Any]) -> None:
    room = open_room()
    assert refusal(room, **fields) == "not-acceptable"
    assert room.config == RoomConfig()


def test_a_form_cannot_be_a_bomb() -> None:
    assert refusal(open_room(), **{f"x-{number}": "1" for number in range(200)}) == "bad-request"
    assert refusal(open_room(), roomadmins=["a@x.test"] * 2000) == "bad-request"


def test_configurations_of_earlier_versions_are_read() -> None:
    old = '{"name": "N", "history": 7, "forgotten": 1}'
    assert RoomConfig.from_json(old) == RoomConfig(name="N", history=7)
    assert Bounds(5, 5).archive is False
