"""The reverse proxy over real TLS and a real tunnel: what goes through, and what is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import websockets

from moim.edge import Settings, Target
from moim.edge.settings import LimitSettings

from .conftest import House, Upstream

HOST = b"edge.moim.test:18443"


def request(
    start: bytes = b"GET / HTTP/1.1", *fields: bytes, body: bytes = b"", host: bytes = HOST, close: bool = True
) -> bytes:
    lines = [start, b"Host: " + host, *fields, *([b"Connection: close"] if close else [])]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture
async def web(house: House, upstream: Upstream) -> House:
    """A started house whose web target is ``upstream``."""
    house.targets["web"] = house.targets["xmpp-websocket"] = Target(path=upstream.path)
    await house.start()
    return house


@pytest.fixture
async def strict(make_house: Callable[..., House], upstream: Upstream) -> AsyncIterator[House]:
    """The same with limits that a test can reach."""
    limits = LimitSettings(
        body_bytes=1000, head_s=0.3, keepalive_s=0.3, body_s=0.3, upstream_s=0.3, connections_per_client=3
    )
    house = make_house(Settings(limits=limits))
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    yield house
    await house.stop()


SMUGGLING = {
    "both lengths": request(b"POST / HTTP/1.1", b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "two lengths": request(b"POST / HTTP/1.1", b"Content-Length: 4", b"Content-Length: 5", body=b"abcde"),
    "same length twice": request(b"POST / HTTP/1.1", b"Content-Length: 4", b"Content-Length: 4", body=b"abcd"),
    "length list": request(b"POST / HTTP/1.1", b"Content-Length: 4, 4", body=b"abcd"),
    "signed length": request(b"POST / HTTP/1.1", b"Content-Length: +4", body=b"abcd"),
    "hex length": request(b"POST / HTTP/1.1", b"Content-Length: 0x4", body=b"abcd"),
    "huge length": request(b"POST / HTTP/1.1", b"Content-Length: 99999999999999999999", body=b"abcd"),
    "odd coding": request(b"POST / HTTP/1.1", b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "two codings": request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "coding twice": request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    "coding of 1.0": request(b"POST / HTTP/1.0", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "space before colon": request(b"POST / HTTP/1.1", b"Content-Length : 4", body=b"abcd"),
    "folded line": request(b"GET / HTTP/1.1", b"X-A: b\r\n c"),
    "folded coding": request(b"POST / HTTP/1.1", b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "bare LF": request(b"GET / HTTP/1.1", b"X-A: b\nX-B: c"),
    "bare CR": request(b"GET / HTTP/1.1", b"X-A: b\rX-B: c"),
    "only LF": request().replace(b"\r\n", b"\n"),
    "NUL": request(b"GET / HTTP/1.1", b"X-A: b\0c"),
    "bad chunk": request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", body=b"zz\r\nabc\r\n0\r\n\r\n"),
    "chunk with LF": request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", body=b"3\r\nabcd0\r\n\r\n"),
    "no host": b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    "two hosts": request(b"GET / HTTP/1.1", b"Host: edge.moim.test"),
    "host with path": request(host=b"edge.moim.test/x"),
    "host with user": request(host=b"a@edge.moim.test"),
    "absolute elsewhere": request(b"GET https://evil.example/ HTTP/1.1"),
    "absolute no host": request(b"GET https:///x HTTP/1.1"),
    "authority form": request(b"GET edge.moim.test:443 HTTP/1.1"),
    "asterisk": request(b"OPTIONS * HTTP/1.1"),
    "dot segments": request(b"GET /a/../b HTTP/1.1"),
    "encoded dots": request(b"GET /a/%2e%2e/b HTTP/1.1"),
    "encoded slash": request(b"GET /a%2fb HTTP/1.1"),
    "backslash": request(b"GET /a\\b HTTP/1.1"),
    "fragment": request(b"GET /a#b HTTP/1.1"),
    "two queries": request(b"GET /a?b#c HTTP/1.1"),
    "not HTTP": b"\x16\x03\x01\x00\xa5\x01\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version 0.9": b"GET /\r\n\r\n",
}


@pytest.mark.parametrize("sent", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_doubtful_requests_are_refused_and_go_nowhere(web: House, upstream: Upstream, sent: bytes) -> None:
    answer = await web.raw(sent)
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 405, 501, 505), answer
    assert len(re.findall(rb"^HTTP/1.1 \d", answer, re.MULTILINE)) == 1
    assert b"connection: close" in answer.lower()
    assert web.edge._refusals.list()[0].listener == "edge-https"
    # A chunk that breaks is seen only after the head went on; its body never arrives whole.
    assert not upstream.bodies
    assert not upstream.heads or b"\r\n\r\nzz" in sent or b"abcd0" in sent


async def test_a_smuggled_second_request_stays_a_body(web: House, upstream: Upstream) -> None:
    inner = b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"
    sent = request(b"POST / HTTP/1.1", b"Content-Length: %d" % len(inner), body=inner)
    assert (await web.raw(sent)).startswith(b"HTTP/1.1 200 ")
    assert upstream.bodies == [inner]
    assert len(upstream.heads) == 1


@pytest.mark.parametrize("host", [b"evil.example", b"edge.moim.test.evil.example", b"10.0.0.1", b"[::1]"])
async def test_other_hosts_are_misdirected(web: House, upstream: Upstream, host: bytes) -> None:
    assert (await web.raw(request(host=host))).startswith(b"HTTP/1.1 421 ")
    assert not upstream.heads


@pytest.mark.parametrize("host", [b"edge.moim.test", b"EDGE.Moim.Test.:443", b"moim.test"])
async def test_own_hosts_are_answered(web: House, host: bytes) -> None:
    assert (await web.raw(request(host=host))).startswith(b"HTTP/1.1 200 ")
    assert (await web.raw(request(host=web.edge_address.encode()))).startswith(b"HTTP/1.1 200 ")


async def test_an_absolute_url_of_this_host_becomes_a_path(web: House, upstream: Upstream) -> None:
    sent = request(b"GET https://edge.moim.test:18443/a?b=1 HTTP/1.1")
    assert (await web.raw(sent)).startswith(b"HTTP/1.1 200 ")
    assert upstream.heads[0].startswith(b"GET /a?b=1 HTTP/1.1\r\n")


async def test_clients_cannot_say_who_they_are(web: House, upstream: Upstream) -> None:
    spoofed = (
        *(b"X-Forwarded-For: 10.9.9.9", b"X-Forwarded-Proto: http", b"Forwarded: for=10.9.9.9", b"X-Real-IP: 10.9.9.9"),
        *(b"X-Forwarded-Host: evil", b"X_Forwarded_For: 10.9.9.9", b"Proxy: http://evil/", b"X-Mine: hop"),
        *(b"Proxy-Authorization: Basic x", b"TE: trailers", b"Keep-Alive: 5", b"Connection: x-mine"),
    )
    await web.raw(request(b"GET / HTTP/1.1", *spoofed, b"X-Kept: yes", b"Cookie: a=b", b"Via: 1.0 other"))
    head = upstream.heads[0].decode().lower()
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    assert "10.9.9.9" not in head
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert (fields["x-forwarded-proto"], fields["x-forwarded-host"]) == ("https", HOST.decode())
    assert (fields["x-kept"], fields["cookie"], fields["via"]) == ("yes", "a=b", "1.0 other, 1.1 moim-edge")
    assert not {"proxy", "x-mine", "te", "keep-alive", "connection", "proxy-authorization"} & fields.keys()
    assert fields["host"] == HOST.decode()


async def test_hop_by_hop_fields_of_the_answer_end_here(web: House, upstream: Upstream) -> None:
    upstream.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nConnection: x-inner\r\nX-Inner: 1\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok"
    )
    answer = (await web.raw(request())).lower()
    assert b"keep-alive" not in answer
    assert b"x-inner" not in answer
    assert answer.count(b"set-cookie: ") == 2


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"PATCH / HTTP/1.1", 405),
        (b"OPTIONS / HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
        (b"CONNECT edge.moim.test:443 HTTP/1.1", 405),
        (b"DELETE / HTTP/1.1", 200),
    ],
)
async def test_methods_follow_the_rules(web: House, start: bytes, status: int) -> None:
    answer = await web.raw(request(start))
    assert int(answer.split(b" ")[1]) == status
    assert status == 200 or b"allow: " in answer.lower()


async def test_what_no_rule_covers_is_not_found(web: House, upstream: Upstream) -> None:
    desired = web.inside.desired()
    web.edge._proxy.apply(desired.model_copy(update={"http": ()}))
    assert (await web.raw(request(b"GET /x HTTP/1.1"))).startswith(b"HTTP/1.1 404 ")
    assert "no rule covers https '/x'" in web.edge._refusals.list()[0].reason
    assert not upstream.heads


async def test_requests_follow_each_other_on_one_connection(web: House, upstream: Upstream) -> None:
    reader, writer = await web.connect()
    writer.write(request(b"GET /1 HTTP/1.1", close=False) + request(b"GET /2 HTTP/1.1", close=False))
    writer.write(b"\r\n" + request(b"POST /3 HTTP/1.1", b"Content-Length: 3", body=b"abc"))
    assert (await reader.read()).count(b"hello") == 3
    writer.close()
    assert [head.split(b" ")[1] for head in upstream.heads] == [b"/1", b"/2", b"/3"]
    assert upstream.bodies[2] == b"abc"


async def test_connections_to_targets_are_used_again(web: House, upstream: Upstream) -> None:
    for _ in range(3):
        await web.raw(request())
    assert (upstream.connections, len(upstream.heads)) == (1, 3)


async def test_a_kept_connection_that_ended_is_replaced(web: House, upstream: Upstream) -> None:
    await web.raw(request())
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbye"
    assert b"bye" in await web.raw(request())
    assert b"bye" in await web.raw(request())
    assert upstream.connections == 2


async def test_bytes_after_an_answer_reach_nobody_else(web: House, upstream: Upstream) -> None:
    poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + poison
    first = await web.raw(request())
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"
    second = await web.raw(request())
    assert b"poison" not in first + second
    assert second.endswith(b"mine")


async def test_bodies_stream_both_ways(house: House, tmp_path: Path) -> None:
    size = 8 * 1024 * 1024
    received = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d" % size in head.lower()
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while received < size:
            data = await reader.read(65536)
            received += len(data)
        for _ in range(size // 65536):
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    path = tmp_path / "big"
    async with await asyncio.start_unix_server(serve, str(path)):
        house.targets["web"] = Target(path=path)
        await house.start()
        reader, writer = await house.connect()
        writer.write(request(b"PUT /big HTTP/1.1", b"Content-Length: %d" % size))

        async def send() -> None:
            for _ in range(size // 65536):
                writer.write(bytes(65536))
                await writer.drain()

        sending = asyncio.create_task(send())
        answer = await reader.read()
        await sending
        writer.close()
    assert received == size
    assert len(answer) > size


async def test_chunked_requests_are_framed_anew(web: House, upstream: Upstream) -> None:
    body = b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    assert b"hello" in await web.raw(request(b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", body=body))
    assert upstream.bodies == [b"abcde"]


async def test_a_client_that_waits_for_100_gets_it(web: House, upstream: Upstream) -> None:
    reader, writer = await web.connect()
    writer.write(request(b"POST / HTTP/1.1", b"Content-Length: 4", b"Expect: 100-continue"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(b"abcd")
    assert b"hello" in await reader.read()
    writer.close()
    assert upstream.bodies == [b"abcd"]
    assert b"expect" not in upstream.heads[0].lower()


@pytest.mark.parametrize(
    ("start", "inner", "ends"),
    [
        (b"HEAD / HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", b"\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 204 No Content\r\n\r\n", b"\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b"\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (
            b"GET / HTTP/1.0",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"\r\n\r\nok",
        ),
        (
            b"GET / HTTP/1.1",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"2\r\nok\r\n0\r\n\r\n",
        ),
    ],
    ids=["HEAD", "204", "304", "103", "HTTP/1.0", "two framings"],
)
async def test_kinds_of_answers(web: House, upstream: Upstream, start: bytes, inner: bytes, ends: bytes) -> None:
    upstream.answer = inner
    answer = await web.raw(request(start))
    assert answer.endswith(ends)
    assert b"content-length: 9" not in answer.lower()


async def test_an_answer_that_breaks_off_is_not_made_whole(web: House, tmp_path: Path, upstream: Upstream) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.close()

    path = tmp_path / "half"
    async with await asyncio.start_unix_server(serve, str(path)):
        web.inside._targets["web"] = Target(path=path)
        with contextlib.suppress(OSError):
            assert b"\r\n0\r\n" not in await web.raw(request())


@pytest.mark.parametrize(
    "inner", [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"]
)
async def test_a_target_that_answers_rubbish_is_a_bad_gateway(web: House, tmp_path: Path, inner: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(inner)
        writer.close()

    path = tmp_path / "bad"
    async with await asyncio.start_unix_server(serve, str(path)):
        web.inside._targets["web"] = Target(path=path)
        assert (await web.raw(request())).startswith(b"HTTP/1.1 502 ")


async def test_a_target_that_is_not_there_is_unavailable(web: House, tmp_path: Path) -> None:
    web.inside._targets["web"] = Target(path=tmp_path / "nobody")
    answer = await web.raw(request())
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"'web' does not answer" in answer


async def test_a_target_that_keeps_silent_times_out(strict: House, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    path = tmp_path / "silent"
    async with await asyncio.start_unix_server(serve, str(path)):
        strict.inside._targets["web"] = Target(path=path)
        assert (await strict.raw(request())).startswith(b"HTTP/1.1 504 ")


async def test_slow_heads_and_bodies_time_out(strict: House, upstream: Upstream) -> None:
    assert (await strict.raw(b"GET / HT")).startswith(b"HTTP/1.1 408 ")
    assert (await strict.raw(b"")) == b""
    assert (await strict.raw(request(b"POST / HTTP/1.1", b"Content-Length: 9", body=b"a"))).startswith(b"HTTP/1.1 408 ")


async def test_bodies_over_the_limit_are_refused(strict: House, upstream: Upstream) -> None:
    declared = request(b"POST / HTTP/1.1", b"Content-Length: 1001", body=bytes(1001))
    assert (await strict.raw(declared)).startswith(b"HTTP/1.1 413 ")
    chunked = request(
        b"POST / HTTP/1.1", b"Transfer-Encoding: chunked", body=b"7d0\r\n" + bytes(2000) + b"\r\n0\r\n\r\n"
    )
    assert (await strict.raw(chunked)).startswith(b"HTTP/1.1 413 ")
    assert not any(upstream.bodies)


async def test_heads_have_bounds(web: House, upstream: Upstream) -> None:
    many = [b"X-%d: y" % number for number in range(200)]
    assert (await web.raw(request(b"GET / HTTP/1.1", *many))).startswith(b"HTTP/1.1 431 ")
    assert (await web.raw(request(b"GET / HTTP/1.1", b"X: " + b"y" * 40_000))).startswith(b"HTTP/1.1 431 ")
    assert (await web.raw(request(b"GET /" + b"a" * 9000 + b" HTTP/1.1"))).startswith(b"HTTP/1.1 414 ")
    assert not upstream.heads


async def test_connections_of_one_client_have_a_limit(strict: House) -> None:
    held = [await strict.connect() for _ in range(3)]
    with pytest.raises(OSError):
        await strict.connect()
    assert any("3 connections" in refusal.reason for refusal in strict.edge._refusals.list())
    for _, writer in held:
        writer.close()


async def test_requests_of_one_client_have_a_rate(make_house: Callable[..., House], upstream: Upstream) -> None:
    house = make_house(Settings(limits=LimitSettings(requests_per_s=0.001, requests_burst=2)))
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    statuses = [(await house.raw(request())).split(b" ")[1] for _ in range(3)]
    await house.stop()
    assert statuses == [b"200", b"200", b"429"]


async def test_websocket_goes_through_as_it_is(house: House) -> None:
    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0, subprotocols=[websockets.Subprotocol("xmpp")]) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        house.targets["xmpp-websocket"] = Target(host="127.0.0.1", port=port)
        await house.start()
        async with websockets.connect(
            f"wss://edge.moim.test:{house.https_port}/xmpp-websocket",
            host=house.edge_address,
            ssl=house.tls(),
            subprotocols=[websockets.Subprotocol("xmpp")],
            proxy=None,
        ) as client:
            assert client.subprotocol == "xmpp"
            for message in ("안녕 🎉", b"\x00\xff", "x" * 300_000):
                await client.send(message)
                assert await client.recv() == message
    assert house.edge._proxy.counters["websockets"] == 1


HANDSHAKE = (b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")


@pytest.mark.parametrize(
    ("start", "fields", "status"),
    [
        (b"POST /xmpp-websocket HTTP/1.1", (b"Connection: Upgrade", *HANDSHAKE), 400),
        (b"GET /xmpp-websocket HTTP/1.1", HANDSHAKE, 400),
        (b"GET /xmpp-websocket HTTP/1.1", (b"Connection: Upgrade", *HANDSHAKE, b"Content-Length: 4"), 400),
        (b"GET /xmpp-websocket HTTP/1.1", (b"Connection: Upgrade", *HANDSHAKE[:2]), 400),
        (b"GET / HTTP/1.1", (b"Connection: Upgrade", b"Upgrade: websocket, h2c", *HANDSHAKE[1:]), 400),
        (b"GET / HTTP/1.1", (b"Connection: Upgrade", HANDSHAKE[0], HANDSHAKE[2], b"Sec-WebSocket-Version: 8"), 426),
    ],
)
async def test_other_handshakes_are_refused(
    web: House, upstream: Upstream, start: bytes, fields: tuple[bytes, ...], status: int
) -> None:
    answer = await web.raw(request(start, *fields, close=False))
    assert int(answer.split(b" ")[1]) == status
    assert not upstream.heads


async def test_a_refused_handshake_is_passed_on(web: House, upstream: Upstream) -> None:
    upstream.answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    answer = await web.raw(request(b"GET /xmpp-websocket HTTP/1.1", b"Connection: Upgrade", *HANDSHAKE, close=False))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"upgrade: websocket" in upstream.heads[0].lower()


async def test_upgrades_to_other_protocols_are_dropped(web: House, upstream: Upstream) -> None:
    fields = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    assert b"hello" in await web.raw(request(b"GET / HTTP/1.1", *fields, b"Connection: close", close=False))
    assert b"h2c" not in upstream.heads[0].lower()
    assert b"http2-settings" not in upstream.heads[0].lower()


async def test_the_end_of_the_tunnel_ends_websockets(house: House) -> None:
    async def echo(connection: websockets.ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        house.targets["web"] = Target(host="127.0.0.1", port=port)
        await house.start()
        async with websockets.connect(
            f"wss://edge.moim.test:{house.https_port}/meet/ws", host=house.edge_address, ssl=house.tls(), proxy=None
        ) as client:
            await client.send("x")
            assert await client.recv() == "x"
            house.inside._dialer._drop()
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
