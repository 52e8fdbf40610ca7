"""Readers of what other machines say: nodes on the bus, web servers, name servers, and browsers to the edge."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from unittest import mock

import dns.flags
import dns.message
import dns.name
import dns.rrset
import h11

from hostile.grammar import JIDS, TEXTS
from hostile.reader import Reader
from moim.bus import facts
from moim.chat.cluster import codec, link
from moim.edge import requests
from moim.errors import MoimError
from moim.federation.fetching import Fetcher
from moim.federation.posh import Posh
from moim.model import Address, UserChanged
from moim.net import http_client, resolver
from moim.net.resolver import Answer

_JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**63, -(2**63), 2**64, 10**400, 1.5, 1e308, float("nan"), float("inf"),
    [], {}, [[]], [{}], "", "\0", "\ud800", "<", "<message", *JIDS, *TEXTS,
)  # fmt: skip


def bent(value: Any, rng: random.Random) -> Any:
    """A document of JSON with something else in one place, or in none."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice((value, rng.choice(_JUNK), [value], {"x": value}))
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    made = value.copy()
    match rng.randrange(6):
        case 0:
            del made[key]
        case 1:
            made[key] = value[rng.choice(keys)]
        case _:
            made[key] = bent(value[key], rng)
    return made


# --- nodes ------------------------------------------------------------------------------------------------------------

_STATE = {"presence": "<presence/>", "priority": 1, "interested": True, "at": 1.5, "moved": False}
_MESSAGE = "<message xmlns='jabber:client' to='a@chat.test'><body>x</body></message>"
_ITEMS: tuple[link.Item, ...] = (
    [codec.SESSION, "a@chat.test/r", _STATE],
    [codec.DELIVER, _MESSAGE, ["a@chat.test/r", "b@chat.test/r"], False],
    [codec.SENT, "a@chat.test/r", [[_MESSAGE, True]]],
    [codec.WANT, 1, "a@chat.test", "token"],
    [codec.KEPT, 1, None],
    [codec.LIVE],
)
_HEAD = {"v": link.VERSION, "from": "inside2", "epoch": 7, "to": 3, "got": 0}
_MESSAGES = (
    json.dumps(_HEAD | {"hello": True}).encode(),
    json.dumps(_HEAD | {"seq": 1, "items": _ITEMS}).encode(),
    json.dumps(_HEAD | {"seq": 3, "items": _ITEMS[1:3]}).encode(),
)
_FACT = facts.dump(UserChanged(Address.parse("a@chat.test")))
_ACCESSORS = (codec.element, codec.text, codec.jid, codec.jids, codec.number, codec.sent, codec.flag)


def _node(data: bytes, rng: random.Random) -> None:
    """Messages as they should be, and others; what they bring is looked at in every way."""
    end = link.Link("inside", "inside2", 3)
    valid = rng.choice(_MESSAGES)
    for message in rng.sample((data, valid, json.dumps(bent(json.loads(valid), rng)).encode()), 3):
        for event in end.receive(link.read(message), 1.0):
            for item in event.items if isinstance(event, link.Received) else ():
                place = rng.randrange(5)
                try:
                    rng.choice(_ACCESSORS)(item, place)
                except ValueError:
                    continue
        end.send(["live"])
        end.flush(1.0)
        end.tick(5.0)
    assert len(end.output) < 20, "an answer to each message is enough"


def _fact(data: bytes, rng: random.Random) -> None:
    facts.load(data)
    facts.load(json.dumps(bent(json.loads(_FACT), rng)).encode())


# --- web servers ------------------------------------------------------------------------------------------------------

_POSH = (
    b'{"fingerprints":[{"sha-256":"4/mggdlVx8A3pvHAWW5sD+qJyMtUHgiRuPjVC48N0XQ=","sha-512":"AA=="}],"expires":604800}',
    b'{"url":"https://x.test/p.json?a=b","expires":86400}',
)


def _answer(document: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(document), document)


_ANSWERS = (
    *(_answer(document) for document in _POSH),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"HTTP/1.0 302 Found\r\nLocation: https://x.test/\r\n\r\n",
)


class _Names(resolver.Resolver):
    """Every host that can be asked for has an address."""

    async def _ask(self, name: str, kind: Any) -> Answer:
        dns.name.from_text(name)
        return Answer("ok", "names", 60, addresses=("192.0.2.1",))


class _Guard:
    def refusal(self, address: str, port: int) -> str:
        return ""


def _web(data: bytes, rng: random.Random) -> None:
    """A domain's web server answers to the question for its POSH document, and to the next one."""

    async def connected(*_: object, **__: object) -> tuple[asyncio.StreamReader, Any]:
        reader = asyncio.StreamReader()
        document = json.dumps(bent(json.loads(rng.choice(_POSH)), rng)).encode()
        reader.feed_data(rng.choice((data, _answer(document), rng.choice(_ANSWERS))))
        reader.feed_eof()
        writer = mock.Mock(drain=mock.AsyncMock(), get_extra_info=lambda _: None)
        return reader, writer

    async def ask() -> None:
        fetch = Fetcher(_Names([]), _Guard(), mock.Mock())  # type: ignore[arg-type]
        with mock.patch.object(http_client, "connect", connected):
            assert await Posh(fetch).prove("far.test", b"leaf"), "no certificate has these fingerprints"

    asyncio.run(ask())


# --- name servers -----------------------------------------------------------------------------------------------------

_RECORDS = {
    "SRV": ("_xmpp-server._tcp.far.test. 60 IN SRV 1 2 5269 xmpp.far.test.",),
    "A": ("far.test. 60 IN CNAME other.test.", "other.test. 60 IN A 192.0.2.1"),
    "TLSA": (f"_5269._tcp.far.test. 60 IN TLSA 3 1 1 {'ab' * 32}",),
}


def _reply(kind: str) -> bytes:
    lines = [line.split(" ", 4) for line in _RECORDS[kind]]
    reply = dns.message.make_response(dns.message.make_query(lines[0][0], kind))
    reply.answer = [dns.rrset.from_text(name, int(ttl), space, of, data) for name, ttl, space, of, data in lines]
    reply.flags |= dns.flags.AD
    return reply.to_wire()


def _names(data: bytes, rng: random.Random) -> None:
    """An answer of a name server to each kind of question, under the number that was asked with."""

    async def exchange(query: bytes, server: resolver.Server, **_: object) -> bytes:
        return query[:2] + data[2:] + bytes(max(0, 12 - len(data)))

    async def ask() -> None:
        asked = resolver.Resolver([("127.0.0.1", 53)])
        for question, name in (
            (asked.services, "_xmpp-server._tcp.far.test"),
            (asked.addresses, "far.test"),
            (asked.associations, "_5269._tcp.far.test"),
        ):
            try:
                await question(name)
            except MoimError:
                continue

    with mock.patch.object(resolver, "exchange", exchange):
        asyncio.run(ask())


# --- browsers ---------------------------------------------------------------------------------------------------------

_REQUESTS = (
    b"GET /xmpp-websocket HTTP/1.1\r\nHost: edge.test:8443\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://edge.test:8443\r\n\r\n",
    b"PUT https://edge.test/upload/0123/a%20b.png?token=ab HTTP/1.1\r\nhost: edge.test\r\nContent-Length: 12\r\n\r\n",
    b"POST /http-bind HTTP/1.1\r\nHost: [2001:db8::1]\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: ::1\r\n\r\n",
)


def _edge(data: bytes, rng: random.Random) -> None:
    head = data[: data.find(b"\r\n\r\n") + 4] or data
    requests.check_bytes(head)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=requests.MAX_HEAD)
    connection.receive_data(head)
    request = connection.next_event()
    if not isinstance(request, h11.Request):
        return
    judged = requests.read(request, rng.choice((None, frozenset({"edge.test", "2001:db8::1"}))))
    headers = [(b"Host", judged.host.encode()), *judged.headers]
    again = h11.Request(method=judged.method, target=judged.target, headers=headers)
    h11.Connection(h11.CLIENT).send(again)
    assert not {name for name, _ in judged.headers} & {b"x-forwarded-for", b"transfer-encoding", b"upgrade"}


READERS = (
    Reader("messages of other nodes", _MESSAGES, _node, (ValueError, RecursionError)),
    Reader("facts of other nodes", (_FACT,), _fact),
    Reader("answers of web servers", _ANSWERS, _web),
    Reader("answers of name servers", tuple(_reply(kind) for kind in _RECORDS), _names),
    Reader("requests to the edge", _REQUESTS, _edge, (MoimError, h11.RemoteProtocolError)),
)
