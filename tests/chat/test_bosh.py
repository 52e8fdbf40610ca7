"""XMPP over HTTP: sign-in and chat with a client by hand, and what strangers may not do."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from moim import chat
from moim.chat.bosh import serving
from moim.net.http_server import HttpServer
from moim.proto.xmpp import Element, ns, sasl
from moim.proto.xmpp.scram import ScramClient

WAIT = 20.0


def web(house: Any) -> httpx.AsyncClient:
    """The web origin of a house, asked from another machine."""
    app = Starlette(routes=chat.public_routes(house.service, websocket_url="ws://x"))
    transport = httpx.ASGITransport(app=app, client=("203.0.113.9", 4000))
    return httpx.AsyncClient(transport=transport, base_url="http://web.test", timeout=WAIT)


class Browser:
    """A client of BOSH by hand."""

    def __init__(self, http: httpx.AsyncClient, url: str = "/http-bind") -> None:
        self.http = http
        self.url = url
        self.rid = 4_000_000
        self.sid = ""
        self.inbox: list[Element] = []
        self.last: Element | None = None

    async def post(self, payload: str = "", *, rid: int = 0, **attrs: Any) -> Element:
        """One request and its answer."""
        if not rid:
            self.rid += 1
            rid = self.rid
        attrs = ({"sid": self.sid} if self.sid else {}) | attrs
        text = "".join(f" {name.replace('_', ':')}='{value}'" for name, value in attrs.items())
        body = f"<body xmlns='{ns.HTTP_BIND}' xmlns:xmpp='{ns.XBOSH}' rid='{rid}'{text}>{payload}</body>"
        answer = await asyncio.wait_for(self.http.post(self.url, content=body.encode()), WAIT)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/xml; charset=utf-8"
        self.last = Element.parse(answer.content)
        self.inbox += self.last.elements()
        return self.last

    async def until(self, name: str, payload: str = "", **attrs: Any) -> Element:
        """Asks until an element with this name comes."""
        while True:
            await self.post(payload, **attrs)
            payload, attrs = "", {}
            for element in self.inbox:
                if element.name == name:
                    self.inbox.remove(element)
                    return element
            assert self.last is not None
            assert self.last.get("type") != "terminate", self.last.to_xml()

    async def begin(self, to: str = "chat.test", **attrs: str) -> Element:
        """Begins a session; gives the features."""
        terms = {"to": to, "wait": "30", "hold": "1", "ver": "1.6", "xmpp_version": "1.0", "xml_lang": "en"} | attrs
        features = await self.until("features", **terms)
        assert self.last is not None
        self.sid = self.last.get("sid") or ""
        return features

    async def sign_in(self, name: str, password: str, to: str = "chat.test") -> str:
        """The whole way; gives the full JID."""
        await self.begin(to)
        client = ScramClient("SCRAM-SHA-256", name, password, nonce="browser")
        first = f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-256'>{sasl.encode(client.first())}</auth>"
        challenge = await self.until("challenge", first)
        answer = sasl.encode(client.final(sasl.decode(challenge.text)))
        await self.until("success", f"<response xmlns='{ns.SASL}'>{answer}</response>")
        await self.until("features", to=to, xmpp_restart="true")
        bound = await self.until("iq", f"<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>")
        return bound.elements()[0].elements()[0].text


async def test_chat_between_a_client_of_bosh_and_another(house: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "moim.chat")
    bob = await house.online("bob", "desk")
    async with web(house) as http:
        browser = Browser(http)
        jid = await browser.sign_in("alice", "wonder land")
        assert jid.startswith("alice@chat.test/")
        assert "alice@chat.test signed in from 203.0.113.9 (bosh, SCRAM-SHA-256" in caplog.text
        await browser.until("presence", "<presence xmlns='jabber:client'/>")
        waiting = asyncio.create_task(browser.until("message"))
        hello = "<message xmlns='jabber:client' to='bob@chat.test' type='chat'><body>안녕 👋 &lt;3</body></message>"
        await Browser.post(browser, hello)
        got = await bob.receive()
        assert (got.get("from"), got.find("body").text) == (jid, "안녕 👋 <3")
        bob.send(f"<message to='{jid}' type='chat'><body>응</body></message>")
        answer = await waiting
        body = answer.find("body")
        assert body is not None
        assert (answer.ns, body.text) == (ns.CLIENT, "응")
        end = await browser.post("<presence xmlns='jabber:client' type='unavailable'/>", type="terminate")
        assert end.get("type") == "terminate"
        assert (await browser.post()).get("condition") == "item-not-found"
        while len(house.service.bosh):
            await asyncio.sleep(0)


async def test_a_wrong_password_and_a_refused_stream(house: Any) -> None:
    async with web(house) as http:
        browser = Browser(http)
        await browser.begin()
        client = ScramClient("SCRAM-SHA-256", "alice", "guess", nonce="browser")
        first = f"<auth xmlns='{ns.SASL}' mechanism='SCRAM-SHA-256'>{sasl.encode(client.first())}</auth>"
        challenge = await browser.until("challenge", first)
        answer = sasl.encode(client.final(sasl.decode(challenge.text)))
        failure = await browser.until("failure", f"<response xmlns='{ns.SASL}'>{answer}</response>")
        assert failure.find("not-authorized", ns.SASL) is not None
        # A stanza before sign-in ends the stream, and the session with it.
        end = await browser.post("<message xmlns='jabber:client' to='bob@chat.test'/>")
        if end.get("type") != "terminate":
            end = await browser.post()
        assert (end.get("type"), end.get("condition")) == ("terminate", "remote-stream-error")
        error = end.find("error", ns.STREAMS)
        assert error is not None
        assert error.find("not-authorized", ns.STREAM_ERRORS) is not None


async def test_each_hosted_domain_has_sessions(new_house: Any) -> None:
    house = await new_house(people={"alice@two.test": "of two"}, hosted=["two.test"])
    async with web(house) as http:
        assert (await Browser(http).sign_in("alice", "of two", "two.test")).startswith("alice@two.test/")


@pytest.mark.parametrize(
    ("attrs", "condition"),
    [({"to": "other.test"}, "host-unknown"), ({}, "improper-addressing"), ({"sid": "guess"}, "item-not-found")],
)
async def test_sessions_that_are_refused(house: Any, attrs: dict[str, Any], condition: str) -> None:
    async with web(house) as http:
        answer = await Browser(http).post(**attrs)
        assert (answer.get("type"), answer.get("condition")) == ("terminate", condition)


async def test_rubbish(house: Any) -> None:
    async with web(house) as http:
        for data in (b"", b"<x/>", b"\xff", b"<body xmlns='http://jabber.org/protocol/httpbind'/>"):
            answer = await http.post("/http-bind", content=data)
            assert Element.parse(answer.content).get("condition") == "bad-request"
        answer = await http.post("/http-bind", content=b"x" * 300_000)
        assert Element.parse(answer.content).get("condition") == "policy-violation"
        assert (await http.get("/http-bind")).status_code == 200


async def test_numbers_of_sessions_cannot_be_guessed(house: Any) -> None:
    async with web(house) as http:
        found = set()
        for _ in range(20):
            browser = Browser(http)
            await browser.begin()
            found.add(browser.sid)
        assert len(found) == 20
        assert all(len(sid) >= 32 for sid in found)
        # No two share more than chance allows: there is no counter and no clock in them.
        assert len({sid[:6] for sid in found}) == 20


async def test_one_address_has_only_so_many_sessions(new_house: Any) -> None:
    house = await new_house(bosh_sessions_per_address=2, default_contacts=False)
    async with web(house) as http:
        first = Browser(http)
        await first.begin()
        await Browser(http).begin()
        refused = await Browser(http).post(to="chat.test")
        assert refused.get("condition") == "policy-violation"
        await first.post(type="terminate")
        await Browser(http).begin()


async def test_other_pages_may_not_connect(new_house: Any) -> None:
    house = await new_house(websocket_origins=["https://intranet.example"], default_contacts=False)
    async with web(house) as http:
        for origin in ("https://evil.example", "null", "http://[::1"):
            answer = await http.post("/http-bind", content=b"", headers={"Origin": origin})
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers
        for origin in ("https://intranet.example", "http://web.test"):
            answer = await http.options("/http-bind", headers={"Origin": origin})
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["vary"] == "Origin"


async def test_sessions_end_with_the_service(house: Any) -> None:
    async with web(house) as http:
        browser = Browser(http)
        await browser.begin()
        waiting = asyncio.create_task(browser.post())
        while not any(connection._answers for connection in house.service.bosh._sessions.values()):
            await asyncio.sleep(0)
        stopping = asyncio.create_task(house.service.stop())
        answer = await waiting
        assert (answer.get("type"), answer.get("condition")) == ("terminate", "system-shutdown")
        await stopping
        assert (await http.post("/http-bind", content=b"")).status_code == 503


async def test_a_copy_of_a_request_acts_once(house: Any) -> None:
    bob = await house.online("bob", "desk")
    async with web(house) as http:
        browser = Browser(http)
        await browser.sign_in("alice", "wonder land")
        text = "<message xmlns='jabber:client' to='bob@chat.test/desk' type='chat'><body>1</body></message>"
        ping = f"<iq xmlns='jabber:client' type='get' id='p'><ping xmlns='{ns.PING}'/></iq>"
        browser.rid += 1
        first = await browser.post(text + ping, rid=browser.rid)
        assert await browser.post(text + ping, rid=browser.rid) == first
        await bob.receive()
        await bob.quiet()


async def test_a_body_that_does_not_come(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_BODY_S", 0.05)
    server = HttpServer(
        Starlette(routes=chat.public_routes(house.service, websocket_url="ws://x")), address=house.address
    )
    await server.start()
    try:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        writer.write(b"POST /http-bind HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n<body")
        status = (await asyncio.wait_for(reader.read(), WAIT)).split(b" ")[1]
        assert status == b"408"
        writer.close()
    finally:
        await server.stop()
