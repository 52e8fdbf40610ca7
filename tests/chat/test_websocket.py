"""RFC 7395: sign-in and chat over WebSocket, origins, and what comes through the tunnel on Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from moim.proto.xmpp import Element, ns, sasl
from moim.proto.xmpp.scram import ScramClient

WAIT = 20.0
OPEN = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='chat.test' version='1.0'/>"
XMPP = [Subprotocol("xmpp")]


class Browser:
    """What the web app does, by hand."""

    def __init__(self, socket: ClientConnection, domain: str = "chat.test") -> None:
        self.socket = socket
        self.domain = domain

    async def frame(self) -> Element:
        text = await asyncio.wait_for(self.socket.recv(), WAIT)
        assert isinstance(text, str)
        return Element.parse(text)

    async def ask(self, text: str) -> Element:
        await self.socket.send(text)
        return await self.frame()

    async def open(self) -> Element:
        """Opens a stream and gives its features."""
        opened = await self.ask(OPEN.replace("chat.test", self.domain))
        assert (opened.ns, opened.name, opened.get("from")) == (ns.FRAMING, "open", self.domain)
        assert opened.get("id")
        features = await self.frame()
        assert (features.ns, features.name) == (ns.STREAMS, "features")
        return features

    async def authenticate(self, name: str, password: str) -> Element:
        client = ScramClient("SCRAM-SHA-256", name, password, nonce="browser")
        text = sasl.encode(client.first())
        challenge = await self.ask(f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-256'>{text}</auth>")
        assert challenge.name == "challenge"
        answer = sasl.encode(client.final(sasl.decode(challenge.text)))
        end = await self.ask(f"<response xmlns='{ns.SASL}'>{answer}</response>")
        if end.name == "success":
            client.verify(sasl.decode(end.text))
        return end

    async def sign_in(self, name: str, password: str) -> str:
        """The whole way; gives the full JID."""
        features = await self.open()
        assert features.find("starttls", ns.TLS) is None
        offered = [child.text for child in features.find("mechanisms", ns.SASL).elements()]  # type: ignore[union-attr]
        assert offered == ["SCRAM-SHA-256", "SCRAM-SHA-1"]
        assert (await self.authenticate(name, password)).name == "success"
        assert (await self.open()).find("bind", ns.BIND) is not None
        bound = await self.ask(f"<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>")
        jid = bound.find("bind", ns.BIND).find("jid", ns.BIND).text  # type: ignore[union-attr]
        assert jid.startswith(f"{name}@{self.domain}/")
        return jid


def address(house: Any) -> str:
    host, port = house.place("xmpp-websocket")
    return f"ws://{host}:{port}/xmpp-websocket"


async def test_a_browser_of_another_hosted_domain(new_house: Any) -> None:
    house = await new_house(people={"alice@two.test": "of two"}, hosted=["two.test"])
    async with connect(address(house), subprotocols=XMPP) as socket:
        await Browser(socket, "two.test").sign_in("alice", "of two")


async def test_chat_between_a_browser_and_a_client(house: Any) -> None:
    bob = await house.online("bob", "desk")
    async with connect(address(house), subprotocols=XMPP) as socket:
        browser = Browser(socket)
        jid = await browser.sign_in("alice", "wonder land")
        shown = await browser.ask("<presence xmlns='jabber:client'/>")
        assert shown.get("from") == jid
        await socket.send(
            "<message xmlns='jabber:client' to='bob@chat.test' type='chat'><body>안녕 👋</body></message>"
        )
        got = await bob.receive()
        assert (got.get("from"), got.find("body").text) == (jid, "안녕 👋")
        bob.send(f"<message to='{jid}' type='chat'><body>응</body></message>")
        answer = await browser.frame()
        assert (answer.ns, answer.get("from")) == (ns.CLIENT, "bob@chat.test/desk")
        closing = await browser.ask(f"<close xmlns='{ns.FRAMING}'/>")
        assert (closing.ns, closing.name) == (ns.FRAMING, "close")


async def test_a_wrong_password(house: Any) -> None:
    async with connect(address(house), subprotocols=XMPP) as socket:
        browser = Browser(socket)
        await browser.open()
        failure = await browser.authenticate("alice", "guess")
        assert failure.find("not-authorized", ns.SASL) is not None


@pytest.mark.parametrize(
    "frame", ["<open", "not xml", "<?xml version='1.0'?><stream:stream>", "<message xmlns='jabber:client'/>"]
)
async def test_rubbish_ends_the_stream(house: Any, frame: str) -> None:
    async with connect(address(house), subprotocols=XMPP) as socket:
        await socket.send(frame)
        with contextlib.suppress(ConnectionClosed):
            while await asyncio.wait_for(socket.recv(), WAIT):
                pass
        assert socket.close_code is not None


async def test_other_pages_may_not_connect(house: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(address(house), subprotocols=XMPP, origin=Origin("https://evil.example"))
    assert refused.value.response.status_code == 403


async def test_the_web_app_may_connect_and_who_is_named(new_house: Any) -> None:
    house = await new_house(websocket_origins=["https://intranet.example"])
    own = f"http://{house.address}:{house.site.settings.ports.bind(8080)}"
    for origin in (own, "https://intranet.example"):
        async with connect(address(house), subprotocols=XMPP, origin=Origin(origin)) as socket:
            await Browser(socket).open()


async def test_browsers_come_through_the_tunnel_with_their_own_address(house: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO", "moim.chat")
    xmpp, web = tmp_path / "x.sock", tmp_path / "w.sock"
    await house.service.listen_edge(xmpp, web)
    assert web.stat().st_mode & 0o777 == 0o600

    reader, writer = await asyncio.open_unix_connection(web)
    writer.close()  # no PROXY header, no service
    assert await asyncio.wait_for(reader.read(), WAIT) == b""

    raw = sockets.socket(sockets.AF_UNIX)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, str(web))
    await asyncio.get_running_loop().sock_sendall(raw, b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 8443\r\n")
    async with unix_connect(sock=raw, uri="ws://edge.chat.test/xmpp-websocket", subprotocols=XMPP) as socket:
        await Browser(socket).sign_in("alice", "wonder land")
    assert "alice@chat.test signed in from 203.0.113.9 (edge-websocket, SCRAM-SHA-256)" in caplog.text
    assert [status.name for status in house.service.health()] == ["xmpp-client", "xmpp-client-tls", "xmpp-websocket"]


async def test_clients_come_through_the_tunnel(house: Any, tmp_path: Path) -> None:
    xmpp, web = tmp_path / "x.sock", tmp_path / "w.sock"
    await house.service.listen_edge(xmpp, web)
    reader, writer = await asyncio.open_unix_connection(xmpp)
    writer.write(b"PROXY TCP6 2001:db8::9 2001:db8::1 40000 5222\r\n")
    writer.write(f"<?xml version='1.0'?><stream:stream to='chat.test' version='1.0' xmlns='{ns.CLIENT}'".encode())
    writer.write(f" xmlns:stream='{ns.STREAMS}'>".encode())
    got = b""
    while b"</stream:features>" not in got:
        got += await asyncio.wait_for(reader.read(4096), WAIT)
    assert b"starttls" in got
    assert b"<mechanisms" not in got
    writer.close()
