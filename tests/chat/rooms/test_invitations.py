"""Invitations through the room, and what comes back (XEP-0045 7.8, 7.9; XEP-0249)."""

from __future__ import annotations

from typing import Any

import pytest

from moim.chat.rooms import messages
from moim.chat.rooms.ranks import Affiliation
from moim.chat.rooms.room import MAX_INVITED, Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from room_machine import ANN, BEN, CEM, NOW, OWNER, admin, element, heard, open_room, tell


def invite(room: Room, who: Jid, *guests: Jid | str, inner: str = "") -> None:
    invites = "".join(f"<invite to='{guest}'>{inner}</invite>" for guest in guests)
    tell(room, who, f"<x xmlns='{ns.MUC_USER}'>{invites}</x>")


def decline(room: Room, who: Jid, inviter: Jid, reason: str = "") -> None:
    words = f"<reason>{reason}</reason>" if reason else ""
    tell(room, who, f"<x xmlns='{ns.MUC_USER}'><decline to='{inviter}'>{words}</decline></x>")


def refusal(work: Any, *arguments: Any, **more: Any) -> str:
    with pytest.raises(StanzaError) as refused:
        work(*arguments, **more)
    return refused.value.condition


def parts(message: Element) -> tuple[Element, Element]:
    muc, direct = message.find("x", ns.MUC_USER), message.find("x", ns.DIRECT_INVITATION)
    assert muc is not None
    assert direct is not None
    return muc, direct


def test_an_invitation_goes_on_in_both_forms() -> None:
    room = open_room(password="sesame")
    invite(room, OWNER, "ben@x.test", inner="<reason>오세요</reason><continue thread='t'/>")
    (message,) = heard(room, BEN.bare)
    muc, direct = parts(message)
    sent, password = muc.find("invite"), muc.find("password")
    assert sent is not None
    assert password is not None
    assert (sent.get("from"), password.text) == ("owner@x.test", "sesame")
    proceed = sent.find("continue")
    assert proceed is not None
    assert proceed.get("thread") == "t"
    assert (direct.get("jid"), direct.get("reason"), direct.get("continue"), direct.get("thread")) == (
        room.address, "오세요", "true", "t",
    )  # fmt: skip


def test_only_who_was_invited_declines_and_once() -> None:
    room = open_room((ANN, "Ann"))
    assert refusal(decline, room, BEN, OWNER) == "forbidden"
    invite(room, OWNER, BEN.bare)
    room.output.clear()
    decline(room, BEN, OWNER.bare, "later")
    (told,) = heard(room, OWNER)
    muc = told.find("x", ns.MUC_USER)
    assert muc is not None
    notice = muc.find("decline")
    assert notice is not None
    assert notice.get("from") == "ben@x.test"
    assert refusal(decline, room, BEN, OWNER.bare) == "forbidden"


def test_who_may_invite_whom() -> None:
    room = open_room((ANN, "Ann"), members_only=False)
    invite(room, ANN, BEN.bare)
    assert room.affiliation(BEN) is Affiliation.NONE, "an open room makes no members by the way"
    assert refusal(invite, room, CEM, BEN.bare) == "not-acceptable"
    assert refusal(invite, room, ANN, "@") == "jid-malformed"
    assert refusal(invite, room, ANN, *(f"p{n}@x.test" for n in range(11))) == "not-acceptable"
    admin(room, OWNER, "<item jid='bad@x.test' affiliation='outcast'/>")
    assert refusal(invite, room, ANN, "bad@x.test") == "not-allowed"
    closed = open_room((ANN, "Ann"), invitations=False)
    assert refusal(invite, closed, ANN, BEN.bare) == "forbidden"


def test_admins_make_members_by_inviting() -> None:
    room = open_room()
    room.set_affiliation("ann@x.test", Affiliation.MEMBER)
    room.reconfigure(type(room.config)(members_only=True))
    invite(room, OWNER, BEN.bare)
    assert room.affiliation(BEN) is Affiliation.MEMBER


def test_what_is_remembered_of_invitations_has_a_bound() -> None:
    room = open_room()
    for number in range(MAX_INVITED + 20):
        invite(room, OWNER, f"p{number}@x.test")
    assert len(room.invited) == MAX_INVITED


def test_who_invites_somebody_who_cannot_be_reached_hears_of_it() -> None:
    room = open_room((ANN, "Ann"))
    muc = f"<x xmlns='{ns.MUC_USER}'><invite to='nobody@x.test'/></x>"
    messages.to_room(room, ANN, element(f"<message id='i1'>{muc}</message>"), NOW)
    (sent,) = heard(room, Jid("nobody", "x.test"))

    def bounce(who: str, identifier: str | None) -> list[Element]:
        error = f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error>"
        stanza = element(f"<message type='error' id='{identifier}'>{error}</message>")
        assert not messages.bounced_to(room, Jid.parse(who), "", stanza)
        return heard(room, ANN)

    assert not bounce("nobody@x.test", "other")
    assert not bounce("stranger@x.test", sent.get("id"))
    (told,) = bounce("nobody@x.test", sent.get("id"))
    assert (told.get("type"), told.get("id"), told.get("from")) == ("error", "i1", room.address)
    error = told.find("error")
    assert error is not None
    assert error.find("item-not-found", ns.STANZA_ERRORS) is not None
    assert not bounce("nobody@x.test", sent.get("id")), "once"
