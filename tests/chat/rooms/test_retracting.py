"""Words taken back by their authors (XEP-0424) and by moderators (XEP-0425), and what stays of them."""

from __future__ import annotations

import pytest

from moim.chat.rooms import retracting
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from room_machine import ANN, BEN, NOW, OWNER, enter, heard, open_room, say


def stanza_id(stanza: Element) -> str:
    mark = stanza.find("stanza-id", ns.STANZA_IDS)
    assert mark is not None
    return mark.get("id") or ""


def spoken(room: Room, who: Jid, words: str) -> str:
    """Says something, and gives its stanza-id."""
    say(
        room, who, f"<body>{words}</body><x xmlns='jabber:x:oob'><url>https://x.test/{words}</url></x>", attrs="id='m1'"
    )
    return stanza_id(heard(room, OWNER)[0])


def moderate(room: Room, who: Jid, identifier: str, reason: str = "") -> None:
    words = f"<reason>{reason}</reason>" if reason else ""
    inner = f"<retract xmlns='{ns.RETRACTION}'/>{words}"
    request = Element.parse(f"<moderate xmlns='{ns.MODERATION}' id='{identifier}'>{inner}</moderate>")
    order = retracting.read_order(room, who, request, NOW)
    if not retracting.knows(room, order):
        raise StanzaError("item-not-found")
    retracting.carry_out(room, order, NOW)


def refusal(room: Room, who: Jid, identifier: str) -> str:
    with pytest.raises(StanzaError) as refused:
        moderate(room, who, identifier)
    return refused.value.condition


def test_a_moderator_takes_back_what_somebody_said() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), persistent=True)
    target = spoken(room, ANN, "DM me")
    moderate(room, OWNER, target, "spam")
    (notice,) = heard(room, BEN)
    assert (notice.get("from"), notice.get("type")) == ("room@rooms.x.test", "groupchat")
    retract = notice.find("retract", ns.RETRACTION)
    assert retract is not None
    assert retract.get("id") == target
    by = retract.find("moderated", ns.MODERATION)
    reason = retract.find("reason")
    assert by is not None
    assert reason is not None
    assert (by.get("by"), reason.text) == ("room@rooms.x.test/O", "spam")
    assert by.find("occupant-id", ns.OCCUPANT_ID) is not None
    assert [stone.identifier for stone in room.tombstones] == [target]
    assert [entry.identifier for entry in room.archived] == [target, stanza_id(notice)]

    enter(room, Jid("new", "x.test", "1"), "New")
    first, second, _subject = [s for s in heard(room, Jid("new", "x.test", "1")) if s.name == "message"]
    assert "DM me" not in first.to_xml()
    assert "https" not in first.to_xml()
    gone = first.find("retracted", ns.RETRACTION)
    assert gone is not None
    assert gone.get("id") == notice.get("id")
    assert gone.find("moderated", ns.MODERATION) == by
    older = first.find("moderated", ns.MODERATION_0)
    assert older is not None
    assert (older.get("by"), [c.name for c in older.elements()]) == ("room@rooms.x.test/O", ["retracted", "reason"])
    assert (first.get("from"), stanza_id(first)) == ("room@rooms.x.test/Ann", target)
    assert second.find("retract", ns.RETRACTION) is not None
    assert refusal(room, OWNER, target) == "item-not-found", "it is taken back already"


def test_older_clients_order_and_understand_it_in_their_own_way() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"))
    target = spoken(room, ANN, "DM me")
    inner = f"<retract xmlns='{ns.RETRACTION_0}'/><reason>spam</reason>"
    moderated = f"<moderate xmlns='{ns.MODERATION_0}'>{inner}</moderate>"
    request = Element.parse(f"<apply-to xmlns='{ns.FASTENING}' id='{target}'>{moderated}</apply-to>")
    order = retracting.read_order(room, OWNER, request, NOW)
    assert retracting.knows(room, order)
    retracting.carry_out(room, order, NOW)
    (notice,) = heard(room, BEN)
    retract = notice.find("retract", ns.RETRACTION)
    assert retract is not None
    assert retract.get("id") == target
    assert retract.find("moderated", ns.MODERATION) is not None
    older = notice.find("apply-to", ns.FASTENING)
    assert older is not None
    assert older.get("id") == target
    by = older.find("moderated", ns.MODERATION_0)
    assert by is not None
    assert by.get("by") == "room@rooms.x.test/O"
    assert by.find("retract", ns.RETRACTION_0) is not None
    reason = by.find("reason", ns.MODERATION_0)
    assert reason is not None
    assert reason.text == "spam"


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ("", "feature-not-implemented"),
        (f"<moderate xmlns='{ns.MODERATION_0}'/>", "bad-request"),
        (f"<moderate xmlns='{ns.MODERATION_0}'><retract xmlns='{ns.RETRACTION}'/></moderate>", "bad-request"),
    ],
)
def test_what_is_no_order_of_older_clients(inner: str, expected: str) -> None:
    room = open_room((ANN, "Ann"))
    request = Element.parse(f"<apply-to xmlns='{ns.FASTENING}' id='{spoken(room, ANN, 'hi')}'>{inner}</apply-to>")
    with pytest.raises(StanzaError) as refused:
        retracting.read_order(room, OWNER, request, NOW)
    assert refused.value.condition == expected


def test_only_moderators_moderate() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"))
    target = spoken(room, ANN, "hi")
    assert refusal(room, BEN, target) == "forbidden"
    assert refusal(room, Jid("stranger", "x.test", "1"), target) == "not-acceptable"
    assert refusal(room, OWNER, "nothing") == "item-not-found"
    assert refusal(room, OWNER, "") == "bad-request"
    assert not room.output


def test_authors_take_back_their_own_words_alone() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), persistent=True)
    target = spoken(room, ANN, "oops")
    retract = f"<retract xmlns='{ns.RETRACTION}' id='{target}'/>"
    with pytest.raises(StanzaError) as refused:
        say(room, BEN, retract)
    assert refused.value.condition == "forbidden"
    assert not room.output
    say(room, ANN, retract, attrs="id='r1'")
    (passed,) = heard(room, BEN)
    assert passed.find("retract", ns.RETRACTION) is not None
    kept = room.history.find(target)
    assert kept is not None
    gone = kept.message.find("retracted", ns.RETRACTION)
    assert gone is not None
    assert gone.get("id") == "r1"
    assert room.tombstones[0].author == room.by_session[ANN].identifier
    assert room.rewritten == [kept]


def test_a_tombstone_is_only_for_its_author() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"), persistent=True)
    say(room, BEN, f"<retract xmlns='{ns.RETRACTION}' id='1234'/>")  # it may be in the archive: the archive looks
    (stone,) = room.tombstones
    mark = f"<occupant-id xmlns='{ns.OCCUPANT_ID}' id='{room.by_session[ANN].identifier}'/>"
    assert stone.apply(Element.parse(f"<message xmlns='{ns.CLIENT}'>{mark}</message>")) is None
    mark = mark.replace(room.by_session[ANN].identifier, room.by_session[BEN].identifier)
    assert stone.apply(Element.parse(f"<message xmlns='{ns.CLIENT}'>{mark}</message>")) is not None


def test_nobody_plays_moderator() -> None:
    room = open_room((ANN, "Ann"), (BEN, "Ben"))
    target = spoken(room, ANN, "hi")
    by = f"<moderated xmlns='{ns.MODERATION}' by='room@rooms.x.test/O'/>"
    say(room, ANN, f"<retract xmlns='{ns.RETRACTION}' id='{target}'>{by}</retract><body>x</body>")
    assert "moderated" not in heard(room, BEN)[0].to_xml()
    deed = f"<retract xmlns='{ns.RETRACTION_0}'/>"
    older = f"<moderated xmlns='{ns.MODERATION_0}' by='room@rooms.x.test/O'>{deed}</moderated>"
    say(room, ANN, f"<apply-to xmlns='{ns.FASTENING}' id='{target}'>{older}</apply-to>{older}<body>x</body>")
    assert "moderated" not in heard(room, BEN)[0].to_xml()
    say(room, ANN, f"<retracted xmlns='{ns.RETRACTION}' stamp='x'>{by}</retracted>{by}<body>x</body>")
    got = heard(room, BEN)[0]
    assert "moderated" not in got.to_xml()
    assert got.find("retracted", ns.RETRACTION) is None
