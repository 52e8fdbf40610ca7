"""Streams between servers: connections that come about or do not, bounds, and what was not delivered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from moim._native import Element
from moim.errors import UsageError

from .xmpp_peers import NS_CLIENT, Client, Host
from .xmpp_servers import (
    NS_DIALBACK,
    A,
    B,
    Raw,
    Side,
    connect,
    header,
    message,
    raw,
    side,
)


def test_connections_that_cannot_be_made(a: Side) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    sid = a.server.connect("127.0.0.1", port, tls=False, server_name=B)
    assert a.next("closed") == (
        "closed",
        sid,
        "the connection could not be made: Connection refused (os error 111)",
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        # It listens, but says nothing: TLS does not come about.
        sid = a.server.connect("127.0.0.1", port, tls=True, server_name=B, timeout=0.2)
        assert a.next("closed") == ("closed", sid, "the connection could not be made: no answer within 0.2 s")
        sid = a.server.connect("127.0.0.1", port, tls=True, server_name=B)
        for _ in range(2):
            accepted, _ = listening.accept()
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert a.next("closed")[2].startswith("TLS failed: ")
        accepted.close()
    a.until(lambda: a.server.stats()["sessions"] == 0)
    assert a.server.stats()["servers"] == 0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects gets no answer."""
    with socket.socket() as listening, ExitStack() as waiting:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            caller = waiting.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def test_an_address_that_does_not_answer(a: Side, silent: int) -> None:
    sid = a.server.connect("127.0.0.1", silent, tls=False, server_name=B, timeout=0.2)
    assert a.next("closed") == ("closed", sid, "the connection could not be made: no answer within 0.2 s")
    sid = a.server.connect("127.0.0.1", silent, tls=True, server_name=B, timeout=60.0)
    a.server.send(sid, [message(1)])
    a.server.close(sid)
    assert a.next("undelivered") == ("undelivered", sid, [message(1)])
    assert a.next("closed") == ("closed", sid, "the server ended the stream")
    a.until(lambda: a.server.stats()["servers"] == 0)


def test_the_source_address_is_used(a: Side, b: Side) -> None:
    port = b.listen()
    sid = a.server.connect("127.0.0.1", port, tls=False, server_name=B, source="127.0.0.9")
    a.next("connected")
    a.open(sid, B)
    assert b.next("connected")[3] == "127.0.0.9"


def test_arguments_that_make_no_sense(a: Side) -> None:
    connections: list[dict[str, Any]] = [
        {"address": "b.test", "server_name": B},
        {"address": "127.0.0.1", "server_name": "b_ü.test"},
        {"address": "127.0.0.1", "server_name": ""},
        {"address": "127.0.0.1", "server_name": B, "timeout": -1.0},
        {"address": "127.0.0.1", "server_name": B, "source": "::1"},
    ]
    for arguments in connections:
        with pytest.raises(UsageError):
            a.server.connect(port=1, tls=False, **arguments)
    for domain in ("", "u@b.test", "b.test/r"):
        with pytest.raises(UsageError):
            a.server.pair(1, A, domain)


def test_strangers_among_servers_do_not_push_out_clients() -> None:
    with side(A, max_unauthenticated_servers=2, max_unauthenticated=2, threads=1) as a:
        client = Raw(a, a.listen("starttls"))
        client.send(header(default=NS_CLIENT))
        a.next("connected")
        a.next("open")
        port = a.listen()
        peers = [Raw(a, port) for _ in range(5)]
        a.until(lambda: a.server.stats()["refused"] == 3)
        assert all(peer.rest() == "" for peer in peers[:3])
        assert a.server.stats()["unauthenticated"] == 1
        assert a.server.stats()["unauthenticated_servers"] == 2
        for peer in [client, *peers]:
            peer.close()


def test_the_time_for_signing_in_is_bounded() -> None:
    with side(A, handshake_timeout=0.3) as a, side(B) as b:
        out, _ = connect(a, b, tls=True)
        assert a.next("closed") == ("closed", out, "connection-timeout: signing in took too long")
        with raw(a) as peer:
            peer.opened()
            assert "<connection-timeout" in peer.rest()
            a.next("closed")
        port = b.listen("server-tls")
        out = a.server.connect("127.0.0.1", port, tls=True, server_name=B)
        a.server.authenticated(out, B)
        a.next("connected")
        a.next("tls")
        with raw(a) as peer:
            peer.opened()
            peer.rest()
            assert a.next("closed")[1] != out


@pytest.mark.parametrize("tls", [False, True])
def test_what_a_server_does_not_take_is_handed_back(tls: bool) -> None:
    with side(A, server_write_queue=1 << 20) as a, side(B) as b:
        if tls:
            out, into = connect(a, b, tls=True)
            b.server.pair(into, B, A)
        else:
            port = b.listen()
            out = a.server.connect("127.0.0.1", port, tls=False, server_name=B)
            a.next("connected")
            a.open(out, B)
            into = b.next("connected")[1]
            b.next("open")
            b.server.pair(into, B, A)
        a.server.authenticated(out, B)
        sent = [message(number) for number in range(20_000)]
        for start in range(0, len(sent), 100):
            a.server.send(out, sent[start : start + 100])
        # Nobody drains b: it stops reading, and a's queue grows over its bound.
        closed = a.until(lambda: next((event for event in a.seen if event[0] == "closed"), None))
        assert closed[2] == "resource-constraint: the peer reads too slowly"
        b.until(lambda: any(event[0] == "closed" for event in b.seen))
        arrived = [event[2] for event in b.seen if event[0] == "stanza" and event[2].name == "message"]

        def whole() -> list[Element] | None:
            returned = [element for event in a.seen if event[0] == "undelivered" for element in event[2]]
            return arrived + returned if len(arrived) + len(returned) == len(sent) else None

        # In order, none twice, none lost.
        found = a.until(whole)
        assert found == sent
        assert a.seen.index(closed) > next(index for index, event in enumerate(a.seen) if event[0] == "undelivered")


def test_stanzas_for_a_stream_that_is_gone_come_back(a: Side, b: Side) -> None:
    out, into = connect(a, b, tls=True)
    a.server.authenticated(out, B)
    b.server.close(into)
    a.next("close")
    a.server.close(out)
    a.next("closed")
    a.until(lambda: a.server.stats()["servers"] == 0)
    a.server.send(out, [message(1), Element("result", NS_DIALBACK), message(2)])
    assert a.next("undelivered") == ("undelivered", out, [message(1), message(2)])


def test_a_host_of_clients_is_not_disturbed(a: Side) -> None:
    host = Host()
    try:
        client = Client(host, host.listen())
        client.starttls()
        client.login("alice", "desk")
        assert host.event("tls")[2]["chain"] == []
    finally:
        host.server.stop()
