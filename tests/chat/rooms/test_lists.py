"""Lists of affiliations and roles: who may read them, page by page, long ones, and who hears of changes."""

from __future__ import annotations

from typing import Any

import pytest

from moim.chat.rooms import lists
from moim.chat.rooms.config import Bounds
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from room_machine import ANN, BEN, OWNER, admin, codes, enter, heard, item, open_room

ELSE = Jid("ann", "elsewhere.test", "1")


def read(room: Room, who: Jid, item_: str, page: str = "") -> list[Element]:
    page = f"<set xmlns='{ns.RSM}'>{page}</set>" if page else ""
    return lists.read(room, who, Element.parse(f"<query xmlns='{ns.MUC_ADMIN}'>{item_}{page}</query>")).elements()


def refusal(work: Any, *arguments: Any) -> str:
    with pytest.raises(StanzaError) as refused:
        work(*arguments)
    return refused.value.condition


MEMBERS, OUTCASTS = "<item affiliation='member'/>", "<item affiliation='outcast'/>"


def crowded(count: int = 3000) -> Room:
    room = open_room((ANN, "Ann"))
    for number in range(count):
        room.set_affiliation(f"m{number:05}@x.test", Affiliation.MEMBER)
    return room


def test_long_lists_come_in_pages() -> None:
    room = crowded()
    *first, about = read(room, OWNER, MEMBERS)
    assert (len(first), about.name) == (1000, "set")
    seen, last = [], ""
    while True:
        *found, about = read(room, OWNER, MEMBERS, f"<max>700</max><after>{last}</after>" if last else "<max>700</max>")
        if not found:
            break
        seen += [entry.get("jid") for entry in found]
        last = (about.find("last") or about).text
    assert len(seen) == len(set(seen)) == 3000
    count = about.find("count")
    assert count is not None
    assert count.text == "3000"
    (about,) = read(room, OWNER, MEMBERS, "<max>0</max>")
    assert refusal(read, room, OWNER, MEMBERS, "<after>nobody@x.test</after>") == "item-not-found"
    assert refusal(read, room, OWNER, MEMBERS, "<max>-5</max>") == "bad-request"
    assert len(read(room, OWNER, MEMBERS, "<max>99999999</max>")) == 1001


def test_a_room_has_as_many_affiliations_as_it_may() -> None:
    room = open_room(bounds=Bounds(6, 5, affiliations=3))
    admin(room, OWNER, "<item jid='a@x.test' affiliation='member'/>", "<item jid='b@x.test' affiliation='member'/>")
    assert refusal(admin, room, OWNER, "<item jid='c@x.test' affiliation='member'/>") == "resource-constraint"
    admin(room, OWNER, "<item jid='b@x.test' affiliation='admin'/>", "<item jid='a@x.test' affiliation='none'/>")


@pytest.mark.parametrize(
    ("config", "affiliation", "asked", "allowed"),
    [
        ({}, "none", "member", False),
        ({"member_list": ("moderator", "participant")}, "none", "member", True),
        ({"member_list": ("moderator", "participant")}, "none", "owner", False),
        ({"member_list": ("moderator", "participant"), "non_anonymous": True}, "none", "owner", True),
        ({"member_list": ("moderator", "participant")}, "none", "outcast", False),
        ({"members_only": True}, "member", "member", False),
        ({"non_anonymous": True}, "member", "member", True),
        ({"non_anonymous": True}, "none", "member", False),
        ({"members_only": True, "non_anonymous": True}, "member", "admin", True),
        ({}, "admin", "outcast", True),
    ],
)
def test_who_may_read(config: dict[str, Any], affiliation: str, asked: str, allowed: bool) -> None:
    room = open_room()
    room.set_affiliation("ann@x.test", Affiliation(affiliation))
    room = open_room((ANN, "Ann")) if affiliation == "none" else open_room()
    room.set_affiliation("ann@x.test", Affiliation(affiliation))
    room.reconfigure(type(room.config)(**config))
    if allowed:
        read(room, ANN, f"<item affiliation='{asked}'/>")
    else:
        assert refusal(read, room, ANN, f"<item affiliation='{asked}'/>") == "forbidden"


def test_who_is_not_there_hears_of_it_once() -> None:
    room = open_room((ANN, "Ann"))
    admin(room, OWNER, "<item jid='ben@x.test' affiliation='member'><reason>welcome</reason></item>")
    output = list(room.output)
    (told,) = heard(room, BEN.bare)
    assert (codes(told), item(told).get("affiliation")) == ([101], "member")
    room.output.extend(output)
    assert not heard(room, ANN), "addresses are not for everybody"
    admin(room, OWNER, *(f"<item jid='m{n}@x.test' affiliation='member'/>" for n in range(11)))
    assert not heard(room, Jid("m1", "x.test")), "a long list is no mailing list"
    admin(room, OWNER, "<item jid='ben@x.test' affiliation='outcast'><reason>spam</reason></item>")
    assert not heard(room, BEN.bare), "a ban is no way to send words"


def test_nobody_bans_themselves() -> None:
    room = open_room((ANN, "Ann"))
    admin(room, OWNER, f"<item jid='{ANN.bare}' affiliation='admin'/>")
    for sender in (OWNER, ANN):
        assert refusal(admin, room, sender, f"<item jid='{sender.bare}' affiliation='outcast'/>") == "conflict"
    admin(room, OWNER, f"<item jid='{ANN.bare}' affiliation='none'/>")
    assert refusal(admin, room, ANN, f"<item jid='{ANN.bare}' affiliation='outcast'/>") == "forbidden"


def test_new_members_of_a_closed_room_are_invited() -> None:
    room = open_room(members_only=True, password="sesame")
    admin(room, OWNER, "<item jid='ben@x.test' affiliation='member'/>")
    (invitation,) = heard(room, BEN.bare)
    muc = invitation.find("x", ns.MUC_USER)
    assert muc is not None
    assert muc.find("invite") is not None
    password = muc.find("password")
    assert password is not None
    assert password.text == "sesame"


def test_reasons_are_cut() -> None:
    room = open_room((ANN, "Ann"))
    admin(room, OWNER, f"<item nick='Ann' role='none'><reason>{'x' * 5000}</reason></item>")
    reason = item(heard(room, ANN)[0]).find("reason")
    assert reason is not None
    assert len(reason.text) == 1000


def test_a_domain_is_banned_but_not_those_of_it_who_belong_here() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), (ELSE, "Else"))
    admin(room, OWNER, f"<item jid='{ANN.bare}' affiliation='member'/>")
    admin(room, OWNER, "<item jid='x.test' affiliation='outcast'/>")
    assert set(room.by_session) == {OWNER, ANN, ELSE}
    assert refusal(enter, room, BEN, "Ben") == "forbidden"
    admin(room, OWNER, f"<item jid='{ANN.bare}' affiliation='none'/>")
    assert ANN not in room.by_session, "without an affiliation of its own, that of the domain counts"
    admin(room, OWNER, "<item jid='x.test' affiliation='none'/>")
    enter(room, BEN, "Ben")


def test_a_domain_may_be_a_member_but_not_an_owner() -> None:
    room = open_room(members_only=True)
    assert refusal(enter, room, BEN, "Ben") == "registration-required"
    admin(room, OWNER, "<item jid='x.test' affiliation='member'/>")
    enter(room, BEN, "Ben")
    assert room.affiliation(BEN) is Affiliation.MEMBER
    assert refusal(enter, room, ELSE, "Else") == "registration-required"
    for affiliation in ("owner", "admin"):
        assert refusal(admin, room, OWNER, f"<item jid='x.test' affiliation='{affiliation}'/>") == "not-acceptable"
    admin(room, OWNER, "<item jid='x.test' affiliation='none'/>")
    assert BEN not in room.by_session


def test_an_item_is_about_one_thing() -> None:
    room = open_room((ANN, "Ann"))
    assert refusal(admin, room, OWNER, f"<item jid='{ANN.bare}' affiliation='outcast' role='none'/>") == "bad-request"


def test_moderators_without_affiliation_do_not_throw_each_other_out() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"))
    admin(room, OWNER, "<item nick='Ann' role='moderator'/>", "<item nick='Ben' role='moderator'/>")
    assert refusal(admin, room, ANN, "<item nick='Ben' role='none'/>") == "not-allowed"
    admin(room, OWNER, "<item nick='Ben' role='participant'/>")
    admin(room, ANN, "<item nick='Ben' role='none'/>")


def test_voice_is_not_taken_from_somebody_as_high() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"))
    admin(room, OWNER, "<item nick='Ann' role='moderator'/>", f"<item jid='{BEN.bare}' affiliation='member'/>")
    assert refusal(admin, room, ANN, "<item nick='Ben' role='visitor'/>") == "not-allowed"
    admin(room, OWNER, f"<item jid='{ANN.bare}' affiliation='member'/>")
    assert room.by_session[ANN].moderates, "who becomes a member stays a moderator"
    assert refusal(admin, room, ANN, "<item nick='Ben' role='visitor'/>") == "not-allowed"
    admin(room, OWNER, "<item nick='Ben' role='visitor'/>")
