"""Registration with a room, nicknames that are kept, and the form by which admins decide (XEP-0045 7.10, 7.12, 9.9)."""

from __future__ import annotations

from typing import Any

import pytest

from moim.chat.rooms import describing, entering, registration
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import read_form
from room_machine import ANN, BEN, OWNER, admin, codes, enter, form, heard, item, make_room, open_room, tell


def register(room: Room, who: Jid, nick: str, **fields: str) -> None:
    filled = form(ns.MUC_REGISTER, muc__register_roomnick=nick, **fields)
    registration.change(room, who, Element.parse(f"<query xmlns='{ns.REGISTER}'>{filled}</query>"))


def refusal(work: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(StanzaError) as refused:
        work(*arguments, **more)
    return refused.value.condition


def test_the_form_asks_for_a_nickname() -> None:
    room = open_room()
    query = registration.read(room, ANN)
    found = query.find("x", ns.DATA_FORMS)
    assert found is not None
    kind, values = read_form(found)
    assert kind == ns.MUC_REGISTER
    assert "muc#register_roomnick" in values
    assert query.find("registered") is None


def test_who_registers_in_an_open_room_is_a_member_with_a_nickname_of_its_own() -> None:
    room = open_room((ANN, "Ann"))
    register(room, ANN, "Annie")
    (shown,) = heard(room, OWNER)
    assert item(shown).get("affiliation") == "member"
    assert registration.read(room, ANN).find("registered") is not None
    own = describing.room_info(room, ANN, Element("query", ns.DISCO_INFO, {"node": "x-roomuser-item"}))
    (identity,) = own.elements()
    assert identity.get("name") == "Annie"
    nothing = describing.room_info(room, BEN, Element("query", ns.DISCO_INFO, {"node": "x-roomuser-item"}))
    assert not nothing.elements()
    assert refusal(enter, room, BEN, "Annie") == "conflict"
    enter(room, BEN, "Ben")
    stanza = Element("presence", ns.CLIENT)
    assert refusal(entering.available, room, BEN, "Annie", stanza, None) == "conflict"
    assert refusal(register, room, BEN, "Annie") == "conflict"
    assert refusal(register, room, BEN, "O") == "conflict", "somebody is called that now"
    assert room.touched >= {"ann@x.test"}


@pytest.mark.parametrize("nick", ["", "  ", " a", "x" * 129, "a\u200b\u0007"])
def test_what_is_no_nickname_is_not_registered(nick: str) -> None:
    room = open_room()
    filled = f"<field var='muc#register_roomnick'><value>{nick}</value></field>" if "\u0007" not in nick else ""
    head = f"<field var='FORM_TYPE'><value>{ns.MUC_REGISTER}</value></field>"
    query = f"<query xmlns='{ns.REGISTER}'><x xmlns='jabber:x:data' type='submit'>{head}{filled}</x></query>"
    expected = "not-acceptable" if filled else "bad-request"
    assert refusal(registration.change, room, ANN, Element.parse(query)) == expected


def test_registering_is_taken_back() -> None:
    room = open_room((ANN, "Ann"))
    register(room, ANN, "Ann")
    heard(room, OWNER)
    remove = Element.parse(f"<query xmlns='{ns.REGISTER}'><remove/></query>")
    registration.change(room, ANN, remove)
    assert item(heard(room, OWNER)[0]).get("affiliation") == "none"
    assert not room.nicks
    assert refusal(registration.change, room, ANN, remove) == "registration-required"
    register(room, OWNER, "O")
    registration.change(room, OWNER, remove)
    assert room.affiliation(OWNER) is Affiliation.OWNER


@pytest.mark.parametrize("config", [{"moderated": True}, {"members_only": True}, {"registration": "approval"}])
def test_where_members_have_rights_an_admin_decides(config: dict[str, Any]) -> None:
    room = open_room(**config)
    register(room, ANN, "Annie", muc__register_email="ann@x.test")
    assert room.affiliation(ANN) is Affiliation.NONE
    (question,) = heard(room, OWNER)
    asked = question.find("x", ns.DATA_FORMS)
    assert asked is not None
    kind, values = read_form(asked)
    assert (kind, values["muc#register_roomnick"], values["muc#register_email"]) == (
        ns.MUC_REGISTER, ("Annie",), ("ann@x.test",)
    )  # fmt: skip
    assert refusal(register, room, ANN, "Annie") == "policy-violation", "one question is enough"
    assert refusal(register, room, BEN, "Annie") == "conflict", "the nickname waits with its applicant"
    yes = form(ns.MUC_REGISTER, muc__register_roomnick="Annie", muc__register_allow="1")
    assert refusal(tell, room, ANN, yes) in ("forbidden", "not-acceptable")
    tell(room, OWNER, yes)
    assert room.affiliation(ANN) is Affiliation.MEMBER
    assert room.nicks == {"ann@x.test": "Annie"}
    assert heard(room, ANN.bare), "the new member hears of it"
    assert refusal(tell, room, OWNER, yes) == "item-not-found"


def test_an_admin_may_say_no_or_say_nothing() -> None:
    room = open_room(moderated=True)
    register(room, ANN, "Annie")
    heard(room, OWNER)
    tell(room, OWNER, "<x xmlns='jabber:x:data' type='cancel'/>")
    assert room.applicants
    tell(room, OWNER, form(ns.MUC_REGISTER, muc__register_roomnick="Annie", muc__register_allow="0"))
    assert (room.applicants, room.affiliation(ANN)) == ({}, Affiliation.NONE)


def test_closed_rooms_and_the_banned() -> None:
    room = open_room(registration="closed")
    assert refusal(register, room, ANN, "Ann") == "not-allowed"
    register(room, OWNER, "O")  # whoever belongs here may still have a nickname kept
    admin(room, OWNER, "<item jid='ben@x.test' affiliation='outcast'/>")
    assert refusal(registration.read, room, BEN) == "not-allowed"
    assert refusal(registration.read, make_room(locked=True), ANN) == "item-not-found"


def test_a_room_may_keep_people_to_their_nickname() -> None:
    room = open_room((ANN, "Ann"), lock_nicks=True)
    register(room, ANN, "Annie")
    shown = heard(room, ANN)
    assert [codes(stanza) for stanza in shown] == [[110], [303, 110], [210, 110]]
    assert room.by_session[ANN].nick == "Annie"
    refused = refusal(entering.available, room, ANN, "Other", Element("presence", ns.CLIENT), None)
    assert refused == "not-acceptable"
    entering.unavailable(room, ANN, Element("presence", ns.CLIENT))
    heard(room, ANN)
    enter(room, ANN, "Other")
    own = next(stanza for stanza in heard(room, ANN) if 110 in codes(stanza))
    assert (own.get("from"), codes(own)) == ("room@rooms.x.test/Annie", [170, 210, 110])


def test_admins_keep_nicknames_for_members() -> None:
    room = open_room()
    admin(room, OWNER, "<item jid='ann@x.test' affiliation='member' nick='Annie'/>")
    assert room.nicks == {"ann@x.test": "Annie"}
    both = (
        "<item jid='ben@x.test' affiliation='member' nick='B'/>",
        "<item jid='c@x.test' affiliation='member' nick='B'/>",
    )
    assert refusal(admin, room, OWNER, *both) == "conflict"
    admin(room, OWNER, "<item jid='ann@x.test' affiliation='member' nick=''/>")
    assert not room.nicks
    admin(room, OWNER, "<item jid='ann@x.test' affiliation='member' nick='Annie'/>")
    admin(room, OWNER, "<item jid='ann@x.test' affiliation='none'/>")
    assert not room.reserved
