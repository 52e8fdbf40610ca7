"""XEP-0317: hats made, given, listed and taken by command, and shown in presence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.chat.rooms import describing, hats, lists
from moim.chat.rooms.hat_list import MAX_HATS, Hat, Hats
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import read_form
from room_machine import ANN, BEN, OWNER, admin, codes, enter, form, heard, open_room

NODE = "urn:xmpp:hats:commands"
TEACHER = "http://tech.example.edu/hats#Teacher"


def run(room: Room, who: Jid, verb: str, action: str = "execute", **fields: str) -> Element:
    inner = form(NODE, **fields) if fields else ""
    request = f"<command xmlns='{ns.COMMANDS}' node='{NODE}:{verb}' action='{action}'>{inner}</command>"
    return hats.command(room, who, Element.parse(request))


def make_hat(room: Room, title: str = "Teacher", uri: str = TEACHER) -> None:
    run(room, OWNER, "create", hats__title=title, hats__uri=uri)


def refusal(room: Room, who: Jid, verb: str, **fields: str) -> str:
    with pytest.raises(StanzaError) as refused:
        run(room, who, verb, **fields)
    return refused.value.condition


def worn(stanza: Element) -> list[str | None]:
    found = stanza.find("hats", ns.HATS)
    return [hat.get("title") for hat in found.elements()] if found is not None else []


def test_a_hat_from_its_making_to_its_end() -> None:
    room = open_room((ANN, "Ann"))
    asked = run(room, OWNER, "create")
    assert (asked.get("status"), asked.find("actions") is not None) == ("executing", True)
    question = asked.find("x", ns.DATA_FORMS)
    assert question is not None
    assert set(read_form(question)[1]) == {"hats#title", "hats#uri", "hats#hue"}
    done = run(room, OWNER, "create", "complete", hats__title="Teacher", hats__uri=TEACHER, hats__hue="327.255249")
    assert done.get("status") == "completed"
    assert [codes(stanza) for stanza in heard(room, ANN)] == [[104]]
    run(room, OWNER, "assign", hats__jid="ann@x.test", hats__uri=TEACHER)
    assert [worn(stanza) for stanza in heard(room, OWNER)] == [["Teacher"]]
    enter(room, BEN, "Ben")
    assert [worn(stanza) for stanza in heard(room, BEN) if stanza.name == "presence"] == [[], ["Teacher"], []]
    run(room, OWNER, "create", hats__title="Professor", hats__uri=TEACHER)
    assert worn(heard(room, BEN)[0]) == ["Professor"]
    run(room, OWNER, "destroy", hats__uri=TEACHER)
    assert worn(heard(room, BEN)[0]) == []
    assert not len(room.hats)


def test_lists_are_tables_and_discovery_tells_of_them() -> None:
    room = open_room((ANN, "Ann"))
    make_hat(room)
    run(room, OWNER, "assign", hats__jid="ann@x.test/1", hats__uri=TEACHER)
    listed = run(room, ANN, "list").find("x", ns.DATA_FORMS)
    assert listed is not None
    assert [child.name for child in listed.elements()] == ["title", "reported", "item"]
    assigned = run(room, OWNER, "list-assigned").find("x", ns.DATA_FORMS)
    assert assigned is not None
    assert "ann@x.test" in assigned.to_xml()
    assert refusal(room, ANN, "list-assigned") == "forbidden"
    info = describing.room_info(room, ANN, Element("query", ns.DISCO_INFO))
    assert "hats#hash" in info.to_xml()
    nodes = describing.room_items(room, OWNER, Element("query", ns.DISCO_ITEMS, {"node": ns.COMMANDS}))
    assert len(nodes.elements()) == len(hats.COMMANDS)
    own = describing.room_items(room, ANN, Element("query", ns.DISCO_ITEMS, {"node": ns.COMMANDS}))
    assert [entry.get("node") for entry in own.elements()] == [f"{NODE}:list"]
    command = describing.room_info(room, ANN, Element("query", ns.DISCO_INFO, {"node": f"{NODE}:list"}))
    assert command.elements()[0].get("type") == "command-node"


def test_who_may_do_what() -> None:
    room = open_room((ANN, "Ann"))
    make_hat(room)
    for verb in ("create", "destroy", "assign", "unassign"):
        assert refusal(room, ANN, verb) == "forbidden"
    admin(room, OWNER, "<item jid='ann@x.test' affiliation='admin'/>")
    run(room, ANN, "don", hats__jid="ben@x.test", hats__uri=TEACHER)
    assert room.hats.worn_by("ben@x.test") == (TEACHER,)
    run(room, ANN, "doff", hats__jid="ben@x.test", hats__uri=TEACHER)
    assert refusal(room, ANN, "unassign", hats__jid="ben@x.test", hats__uri=TEACHER) == "item-not-found"
    assert refusal(room, ANN, "create") == "forbidden"
    assert refusal(room, ANN, "fly") == "item-not-found"
    assert run(room, OWNER, "assign", "cancel").get("status") == "canceled"


@pytest.mark.parametrize(
    ("fields", "condition"),
    [
        ({"hats__title": "T", "hats__uri": "no uri"}, "not-acceptable"),
        ({"hats__title": "T", "hats__uri": "u:" + "x" * 300}, "not-acceptable"),
        ({"hats__title": "", "hats__uri": "u:x"}, "not-acceptable"),
        ({"hats__title": "x" * 101, "hats__uri": "u:x"}, "not-acceptable"),
        ({"hats__title": "T", "hats__uri": "u:x", "hats__hue": "blue"}, "not-acceptable"),
        ({"hats__title": "T", "hats__uri": "u:x", "hats__hue": "999"}, "not-acceptable"),
    ],
)
def test_what_is_no_hat(fields: dict[str, Any], condition: str) -> None:
    assert refusal(open_room(), OWNER, "create", **fields) == condition


def test_hats_have_bounds() -> None:
    room = open_room()
    for number in range(MAX_HATS):
        make_hat(room, uri=f"u:{number}")
    assert refusal(room, OWNER, "create", hats__title="T", hats__uri="u:more") == "resource-constraint"
    for number in range(10):
        run(room, OWNER, "assign", hats__jid="ann@x.test", hats__uri=f"u:{number}")
    assert refusal(room, OWNER, "assign", hats__jid="ann@x.test", hats__uri="u:20") == "resource-constraint"
    assert refusal(room, OWNER, "assign", hats__jid="x.test", hats__uri="u:20") == "jid-malformed"


def test_nobody_puts_a_hat_on_by_themselves() -> None:
    room = open_room()
    forged = f"<hats xmlns='{ns.HATS}'><hat title='King' uri='u:k'/></hats>"
    enter(room, ANN, "Ann", words=forged)
    assert all(worn(stanza) == [] for stanza in heard(room, OWNER))


def test_removed_accounts_lose_their_hats() -> None:
    room = open_room()
    make_hat(room)
    run(room, OWNER, "assign", hats__jid="ann@x.test", hats__uri=TEACHER)
    assert lists.forget(room, "ann@x.test")
    assert not lists.forget(room, "ann@x.test")
    assert room.hats.worn_by("ann@x.test") == ()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()), max_size=20))
def test_hats_survive_the_store(steps: list[tuple[str, str, bool]]) -> None:
    kept = Hats()
    for bare, uri, on in steps:
        kept.define(Hat(uri, f'<{uri}> "모자"', "1.5"))
        if on and uri not in kept.worn_by(bare):
            kept.give(bare, uri)
        else:
            kept.take(bare, uri)
    again = Hats.from_json(kept.to_json())
    assert (list(again), again.wearers(), again.hash) == (list(kept), kept.wearers(), kept.hash)
