"""A subcluster that hosts two domains: people and rooms of both, on both nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moim.bus import Hub
from moim.proto.xmpp import Element, ns

NewPair = Callable[..., Any]


async def until(client: Any, name: str, matches: Callable[[Element], bool]) -> Element:
    """The next stanza that fits; others are passed over."""
    while True:
        stanza: Element = await client.receive(f"waiting for <{name}>")
        if stanza.name == name and matches(stanza):
            return stanza


def says(text: str) -> Callable[[Element], bool]:
    """Whether a message says this."""
    return lambda stanza: (body := stanza.find("body")) is not None and body.text == text


async def enter(client: Any, room: str, nick: str) -> None:
    """Enters a room, and opens it when it is new."""
    client.send(f"<presence to='{room}/{nick}'><x xmlns='{ns.MUC}'/></presence>")
    own = await until(client, "presence", lambda stanza: "code='110'" in stanza.to_xml())
    if "code='201'" in own.to_xml():
        form = f"<query xmlns='{ns.MUC_OWNER}'><x xmlns='{ns.DATA_FORMS}' type='submit'/></query>"
        assert (await client.request(form, kind="set", to=room)).get("type") == "result"


async def test_the_same_name_in_two_domains_on_two_nodes(new_pair: NewPair, hub: Hub) -> None:
    here, there = await new_pair(hosted=["two.test"])
    here.users.passwords["alice@two.test"] = "of two"
    alice, namesake = await here.online("alice", "1"), await there.online("alice@two.test", "1")
    alice.send("<message to='alice@two.test' type='chat'><body>across</body></message>")
    assert (await until(namesake, "message", says("across"))).get("from") == "alice@chat.test/1"
    rooms = {alice: "den@rooms.chat.test", namesake: "den@rooms.two.test"}
    for client, room in rooms.items():
        await enter(client, room, "owner")
    await enter(alice, rooms[namesake], "guest")
    alice.send(f"<message to='{rooms[namesake]}' type='groupchat'><body>in two</body></message>")
    await until(namesake, "message", says("in two"))
    await here.service._parts.rooms._seats.drain()
    await here.service.stop()  # its rooms go on at the other node
    gone = f"{rooms[namesake]}/guest"
    await until(namesake, "presence", lambda s: s.get("from") == gone and s.get("type") == "unavailable")
    namesake.send(f"<message to='{rooms[namesake]}' type='groupchat'><body>still here</body></message>")
    assert (await until(namesake, "message", says("still here"))).get("from") == f"{rooms[namesake]}/owner"
    back = await there.online("alice", "2")
    await enter(back, rooms[namesake], "guest")
    info = await back.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="rooms.chat.test")
    assert "den@rooms.two.test" not in info.to_xml()
