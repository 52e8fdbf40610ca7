"""Discovery on real sockets, where something is wrong: what it is called, and that it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from discovery_world import ALICE, DOMAIN, PASSWORD, Authority, Live, config_app, uds_app
from moim.discovery import discover
from moim.errors import ConfigError, UsageError


async def failing(live: Live, **options: Any) -> str:
    outcome = await live.discover(**options)
    assert outcome.error is not None
    assert not outcome.signed_in
    return outcome.error.code


async def test_a_certificate_for_another_name(live: Live) -> None:
    await live.names()
    await live.http(uds_app([]), live.inside, 18443, "other.example.test")
    assert await failing(live) == "server-tls-name"


async def test_a_certificate_that_has_expired(live: Live) -> None:
    await live.names()
    await live.http(uds_app([]), live.inside, 18443, f"inside.{DOMAIN}", days=-1)
    assert await failing(live) == "server-tls-expired"


async def test_a_certificate_of_nobody_we_know(live: Live, tmp_path: Path) -> None:
    await live.names()
    await live.http(uds_app([]), live.inside, 18443, f"inside.{DOMAIN}")
    (tmp_path / "else").mkdir()
    assert await failing(live, ca=Authority(tmp_path / "else").file) == "server-tls-untrusted"


async def test_a_server_that_speaks_no_tls(live: Live) -> None:
    await live.names()
    await live.http(uds_app([]), live.inside, 18443)
    assert await failing(live) == "server-tls-failed"


async def test_nothing_listens(live: Live) -> None:
    await live.names()
    assert await failing(live) == "server-refused"


async def raw_server(live: Live, port: int, talk: Callable[[Any, Any], Awaitable[None]], tls: bool = True) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    context = live.authority.issue(f"inside.{DOMAIN}", DOMAIN).context if tls else None
    server = await asyncio.start_server(serve, live.inside, port, ssl=context)
    live.stack.callback(server.close)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "server-closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "server-rubbish"),
        (b"\x00\x01\x02 nonsense\r\n\r\n", "server-rubbish"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n", "server-rubbish"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b" " * 3_000_000, "server-rubbish"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<a><b/>", "server-rubbish"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "server-status"),
    ],
)
async def test_a_server_that_answers_rubbish(live: Live, answer: bytes, code: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    await live.names()
    await raw_server(live, 18443, talk)
    assert await failing(live) == code


async def test_a_server_that_is_silent_does_not_hold_it_up_for_ever(live: Live) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    await live.names()
    await raw_server(live, 18443, talk, tls=False)
    assert await failing(live, timeout=0.3) == "out-of-time"


async def test_a_messaging_server_without_encryption_gets_no_password(live: Live) -> None:
    host = f"inside.{DOMAIN}"
    await live.names()
    await live.http(uds_app([]), live.inside, 18443, host)
    await live.http(config_app(), live.inside, 16972, host)
    await live.xmpp(live.inside, 15222, starttls=False)
    assert await failing(live) == "server-unencrypted"


async def test_no_such_domain_and_a_name_server_that_is_not_responsible(live: Live) -> None:
    await live.names()
    options: Any = {"password": PASSWORD, "dns": [live.dns["inside"]], "ca": live.authority.file}
    missing = await discover(f"alice@nowhere.{DOMAIN}", **options)
    assert missing.error is not None
    assert missing.error.code == "no-such-domain"
    foreign = await discover("alice@example.org", **options)
    assert foreign.error is not None
    assert foreign.error.code == "dns-refused"
    plain = await discover(f"alice@inside.{DOMAIN}", **options)
    assert plain.error is not None
    assert plain.error.code == "no-services"


async def test_no_name_server_there(live: Live) -> None:
    outcome = await discover(ALICE, password=PASSWORD, dns=[(live.inside, 1)], ca=live.authority.file)
    assert outcome.error is not None
    assert outcome.error.code == "dns-unreachable"


async def test_what_the_caller_got_wrong_is_raised(live: Live) -> None:
    with pytest.raises(UsageError):
        await discover("nobody")
    with pytest.raises(ConfigError):
        await discover(ALICE, ca=live.authority.root / "missing.pem")
