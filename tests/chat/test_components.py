"""External components: slixmpp's ComponentXMPP attached to a running service, and raw streams that may not."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from slixmpp import ComponentXMPP

from moim import settings
from moim.chat.settings import Settings
from moim.errors import ConfigError
from moim.proto.xmpp import Element, ns

WAIT = 20.0
GATEWAY, BOT = "irc.chat.test", "bot.chat.test"


@pytest.fixture
async def served(new_house: Any, tmp_path: Path) -> Any:
    """A house with two components, whose listener is on the house's own address."""
    files = {}
    for host in (GATEWAY, BOT):
        files[host] = str(tmp_path / host)
        (tmp_path / host).touch(mode=0o600)
        (tmp_path / host).write_text(f"secret of {host}\n")
    return await new_house(default_contacts=False, components=files, components_address="")


class Component(ComponentXMPP):
    """slixmpp, unmodified, with what it receives in a queue."""

    def __init__(self, house: Any, host: str, secret: str = "") -> None:
        address, port = house.place("xmpp-component")
        super().__init__(host, secret or f"secret of {host}", address, port)
        self.got: asyncio.Queue[Any] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self.add_event_handler("session_start", lambda _: self.ready.set())
        self.add_event_handler("disconnected", lambda _: self.gone.set())
        self.add_event_handler("message", self.got.put_nowait)
        self.add_event_handler("presence_subscribe", self.got.put_nowait)
        self.add_event_handler("presence_probe", self.got.put_nowait)
        self.register_plugin("xep_0030")
        self.register_plugin("xep_0199")

    async def attach(self) -> Component:
        self.connect()
        await asyncio.wait_for(self.ready.wait(), WAIT)
        return self

    async def receive(self) -> Any:
        return await asyncio.wait_for(self.got.get(), WAIT)


def condition(answer: Element) -> str:
    error = answer.find("error")
    assert error is not None, answer.to_xml()
    return error.elements()[0].name


async def test_messages_and_requests_both_ways(served: Any) -> None:
    component = await Component(served, GATEWAY).attach()
    alice = await served.online("alice", "desk")
    items = (await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="chat.test")).elements()[0]
    listed = [item.get("jid") for item in items.elements()]
    assert GATEWAY in listed
    assert BOT not in listed  # nobody is there
    info = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="chat.test")
    assert "jid\\20escaping" in [child.get("var") for child in info.elements()[0].elements()]
    assert (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=GATEWAY)).get("type") == "result"
    alice.send(f"<message to='#room\\40net@{GATEWAY}' type='chat' id='1'><body>안녕</body></message>")
    got = await component.receive()
    assert (got["from"].full, got["body"]) == ("alice@chat.test/desk", "안녕")
    component.send_message(mto="alice@chat.test", mfrom=f"x@{GATEWAY}/y", mbody="응", mtype="chat")
    answer = await alice.receive()
    assert (answer.get("from"), answer.find("body").text, answer.ns) == (f"x@{GATEWAY}/y", "응", ns.CLIENT)
    pong = await component.plugin["xep_0199"].send_ping("chat.test", ifrom=GATEWAY, timeout=WAIT)
    assert pong["type"] == "result"
    await component.disconnect()


async def test_contacts_behind_a_gateway(served: Any) -> None:
    component = await Component(served, GATEWAY).attach()
    alice = await served.online("alice", "desk")
    alice.send(f"<presence to='friend@{GATEWAY}' type='subscribe'/>")
    asked = await component.receive()
    assert asked["type"] == "subscribe"
    pushed = await alice.receive()
    item = pushed.elements()[0].elements()[0]
    assert (item.get("jid"), item.get("ask")) == (f"friend@{GATEWAY}", "subscribe")
    component.send_presence(pto="alice@chat.test", pfrom=f"friend@{GATEWAY}", ptype="subscribed")
    component.send_presence(pto="alice@chat.test", pfrom=f"friend@{GATEWAY}/irc", pshow="away")
    seen: list[Element] = []
    while not any(s.name == "presence" and s.find("show") is not None for s in seen):
        seen.append(await alice.receive())
    assert any(s.name == "iq" and s.elements()[0].elements()[0].get("subscription") == "to" for s in seen)
    await component.disconnect()


async def test_two_components_talk_and_each_is_there_once(served: Any) -> None:
    gateway, bot = await Component(served, GATEWAY).attach(), await Component(served, BOT).attach()
    gateway.send_message(mto=f"x@{BOT}", mfrom=f"y@{GATEWAY}", mbody="hello")
    assert (await bot.receive())["body"] == "hello"
    assert next(s.detail for s in served.service.health() if s.name == "xmpp-component") == "2 of 2 attached"
    reader, writer = await raw(served)
    answer = await handshake(reader, writer, GATEWAY, f"secret of {GATEWAY}")
    assert "<conflict" in answer
    gateway.send_message(mto=f"x@{BOT}", mfrom=f"y@{GATEWAY}", mbody="still here")
    assert (await bot.receive())["body"] == "still here"
    await gateway.disconnect()
    await bot.disconnect()


async def test_what_is_for_a_component_that_is_not_there(served: Any) -> None:
    alice = await served.online("alice")
    assert condition(await alice.request(f"<ping xmlns='{ns.PING}'/>", to=GATEWAY)) == "service-unavailable"
    alice.send(f"<message to='x@{GATEWAY}'><body>1</body></message>")
    assert condition(await alice.receive()) == "service-unavailable"
    component = await Component(served, GATEWAY).attach()
    assert (await alice.request(f"<ping xmlns='{ns.PING}'/>", to=GATEWAY)).get("type") == "result"
    await component.disconnect()
    await asyncio.wait_for(component.gone.wait(), WAIT)
    while served.service._parts.external.attached():
        await asyncio.sleep(0)
    assert condition(await alice.request(f"<ping xmlns='{ns.PING}'/>", to=GATEWAY)) == "service-unavailable"


async def raw(house: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*house.place("xmpp-component"))


async def handshake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, secret: str) -> str:
    """Attaches by hand; gives what the server says after its header, to the end of the stream or the handshake."""
    writer.write(f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' to='{host}'>".encode())
    header = ""
    while "<stream:stream " not in header:
        header += (await asyncio.wait_for(reader.readuntil(b">"), WAIT)).decode().replace('"', "'")
    found = re.search(r" id='([^']+)'", header)
    assert found is not None
    writer.write(f"<handshake>{hashlib.sha1((found[1] + secret).encode()).hexdigest()}</handshake>".encode())
    said = ""
    while "<handshake/>" not in said and "</stream:stream>" not in said:
        data = await asyncio.wait_for(reader.read(4096), WAIT)
        assert data, said
        said += data.decode()
    return said


async def test_wrong_secrets_and_unknown_names_look_the_same(served: Any) -> None:
    said = []
    for host, secret in ((GATEWAY, "guess"), ("none.chat.test", "guess"), ("chat.test", "guess")):
        reader, writer = await raw(served)
        text = await handshake(reader, writer, host, secret)
        assert "<not-authorized" in text
        said.append(text.replace(host, ""))
        writer.close()
    assert said[0] == said[1] == said[2]


async def test_nobody_speaks_for_others(served: Any) -> None:
    bob = await served.online("bob")
    for sender in ("alice@chat.test", "chat.test", f"x@{BOT}"):
        reader, writer = await raw(served)
        await handshake(reader, writer, GATEWAY, f"secret of {GATEWAY}")
        writer.write(f"<message from='{sender}' to='bob@chat.test'><body>forged</body></message>".encode())
        said = (await asyncio.wait_for(reader.read(), WAIT)).decode()
        assert "<invalid-from" in said
        writer.close()
        while served.service._parts.external.attached():
            await asyncio.sleep(0)
    await bob.quiet()


@pytest.mark.parametrize(
    ("components", "words"),
    [
        ({"irc.chat.test": "none"}, "cannot be read"),
        ({"chat.test": "secret"}, "the site's own domain"),
        ({"rooms.chat.test": "secret"}, "the same domain"),
        ({"no domain": "secret"}, "no domain"),
    ],
)
async def test_settings_that_cannot_be(new_house: Any, tmp_path: Path, components: Any, words: str) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("x\n")
    given = {host: str(tmp_path / name) for host, name in components.items()}
    with pytest.raises(ConfigError, match=words):
        await new_house(components=given)


async def test_nothing_listens_without_components(house: Any) -> None:
    assert "xmpp-component" not in [status.name for status in house.service.health()]
    assert isinstance(house.site.section(Settings), settings.Section)
