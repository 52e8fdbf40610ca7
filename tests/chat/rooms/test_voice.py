"""Voice asked for and granted, whatever happens between the question and the answer (XEP-0045 7.13, 8.6)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from moim.chat.rooms import entering, owners
from moim.chat.rooms.ranks import Affiliation, Role
from moim.chat.rooms.room import MAX_VOICES, Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import read_form
from room_machine import ANN, BEN, CEM, NOW, OWNER, admin, element, enter, form, heard, item, open_room, tell

ASK = form(ns.MUC_REQUEST, muc__role="participant")


def answer(room: Room, who: Jid, allow: str = "1", **fields: str) -> None:
    tell(room, who, form(ns.MUC_REQUEST, muc__request_allow=allow, **fields))


def refusal(work: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(StanzaError) as refused:
        work(*arguments, **more)
    return refused.value.condition


def test_a_visitor_asks_and_every_moderator_is_asked() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), moderated=True)
    admin(room, OWNER, "<item jid='ben@x.test' affiliation='admin'/>")
    room.output.clear()
    tell(room, ANN, ASK)
    output = list(room.output)
    for moderator in (OWNER, BEN):
        room.output = list(output)
        (question,) = heard(room, moderator)
        asked = question.find("x", ns.DATA_FORMS)
        assert asked is not None
        kind, values = read_form(asked)
        assert (kind, values["muc#jid"], values["muc#roomnick"]) == (ns.MUC_REQUEST, (str(ANN),), ("Ann",))
    answer(room, BEN, muc__jid=str(ANN), muc__roomnick="Ann")
    assert item(heard(room, ANN)[0]).get("role") == "participant"


def test_the_answer_is_for_the_person_not_the_nickname() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), moderated=True)
    tell(room, ANN, ASK)
    entering.available(room, ANN, "Anna", element("<presence/>"), NOW)
    entering.available(room, BEN, "Ann", element("<presence/>"), NOW)
    answer(room, OWNER, muc__jid=str(ANN), muc__roomnick="Ann")
    assert (room.by_session[ANN].role, room.by_session[BEN].role) == (Role.PARTICIPANT, Role.VISITOR)
    assert refusal(answer, room, OWNER, muc__jid="nobody@x.test/1") == "item-not-found"
    assert refusal(answer, room, OWNER, muc__jid="@") == "jid-malformed"


def test_no_is_no_and_nobody_is_asked_all_the_time() -> None:
    room = open_room((ANN, "Ann"), (CEM, "Cem"), moderated=True)
    tell(room, ANN, ASK)
    assert refusal(tell, room, ANN, ASK, now=NOW + timedelta(seconds=5)) == "policy-violation"
    answer(room, OWNER, "0", muc__jid=str(ANN))
    assert room.by_session[ANN].role is Role.VISITOR
    tell(room, ANN, ASK, now=NOW + timedelta(seconds=6))
    tell(room, ANN, ASK, now=NOW + timedelta(seconds=70))
    assert refusal(answer, room, CEM, muc__jid=str(ANN)) == "forbidden"
    assert refusal(tell, room, CEM, form(ns.MUC_REQUEST, muc__role="moderator")) == "bad-request"
    assert refusal(tell, room, OWNER, ASK) == "not-allowed"
    assert refusal(tell, room, Jid("stranger", "x.test", "1"), ASK) == "not-acceptable"
    tell(room, OWNER, "<x xmlns='jabber:x:data' type='cancel'/>")


def test_a_moderator_who_comes_later_is_asked() -> None:
    room = open_room((ANN, "Ann"), moderated=True)
    room.set_affiliation("ben@x.test", Affiliation.ADMIN)
    entering.unavailable(room, OWNER, element("<presence type='unavailable'/>"))
    tell(room, ANN, ASK)
    room.output.clear()
    enter(room, CEM, "Cem")
    assert not any(stanza.find("x", ns.DATA_FORMS) for stanza in heard(room, CEM))
    enter(room, BEN, "Ben")
    *_, question = heard(room, BEN)
    asked = question.find("x", ns.DATA_FORMS)
    assert asked is not None
    assert read_form(asked)[1]["muc#jid"] == (str(ANN),)
    answer(room, BEN, muc__jid=str(ANN))
    enter(room, BEN, "Ben")
    assert not any(stanza.find("x", ns.DATA_FORMS) for stanza in heard(room, BEN)), "who was answered waits no more"


def again(room: Room, who: Jid, nick: str) -> Role:
    """Leaves, and comes back."""
    entering.unavailable(room, who, element("<presence type='unavailable'/>"))
    enter(room, who, nick)
    return room.by_session[who].role


def test_whoever_has_voice_has_it_when_it_comes_back() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), moderated=True)
    admin(room, OWNER, "<item nick='Ann' role='participant'/>")
    assert (again(room, ANN, "Ann"), again(room, BEN, "Ben")) == (Role.PARTICIPANT, Role.VISITOR)
    admin(room, OWNER, "<item nick='Ann' role='moderator'/>")
    assert again(room, ANN, "Ann") is Role.VISITOR, "moderators are made for a visit"
    admin(room, OWNER, f"<item jid='{BEN.bare}' affiliation='member'/>", "<item nick='Ann' role='participant'/>")
    admin(room, OWNER, "<item nick='Ben' role='visitor'/>")
    assert again(room, BEN, "Ben") is Role.VISITOR
    admin(room, OWNER, f"<item jid='{BEN.bare}' affiliation='none'/>", f"<item jid='{BEN.bare}' affiliation='member'/>")
    assert again(room, BEN, "Ben") is Role.PARTICIPANT


def test_silence_does_not_end_by_coming_back() -> None:
    room = open_room((ANN, "Ann"))
    admin(room, OWNER, "<item nick='Ann' role='visitor'/>")
    assert again(room, ANN, "Another") is Role.VISITOR


def test_what_is_remembered_of_voices_has_a_bound() -> None:
    room = open_room((ANN, "Ann"), moderated=True)
    for number in range(MAX_VOICES):
        room.voices[f"p{number}@x.test"] = Role.PARTICIPANT
    admin(room, OWNER, "<item nick='Ann' role='participant'/>")
    assert len(room.voices) == MAX_VOICES


def test_a_room_that_is_not_moderated_any_more_gives_voice() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), moderated=True)
    admin(room, OWNER, f"<item jid='{BEN.bare}' affiliation='member'/>")
    admin(room, OWNER, "<item nick='Ben' role='visitor'/>")
    room.output.clear()
    filled = form(ns.MUC_CONFIG, muc__roomconfig_moderatedroom="0")
    owners.change(room, OWNER, Element.parse(f"<query xmlns='{ns.MUC_OWNER}'>{filled}</query>"))
    assert [item(stanza).get("role") for stanza in heard(room, ANN) if stanza.name == "presence"] == ["participant"]
    assert room.by_session[BEN].role is Role.VISITOR, "what a moderator took stays taken"
