"""The bus over NATS: facts and messages between nodes, a server that dies and comes back, who may connect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from moim.bus import Bus, BusChanged, NatsBus, Settings
from moim.bus.facts import dump, load
from moim.errors import ConfigError, NotFound, PeerTimeout, PeerUnreachable
from moim.model import Address, CertificateChanged, UserChanged, UserRemoved
from nats_server import PrivateNats

ALICE = Address("alice", "example.com")


@pytest.fixture
def server() -> Iterator[PrivateNats]:
    server = PrivateNats()
    server.start()
    yield server
    server.remove()


def made(server: PrivateNats, node: str, **options: Any) -> NatsBus:
    return NatsBus(Settings(url=server.url, **options), root=server.home, domain="example.com", node=node)


@pytest.fixture
async def two(server: PrivateNats) -> AsyncIterator[tuple[NatsBus, NatsBus]]:
    buses = made(server, "inside"), made(server, "inside2")
    for bus in buses:
        await bus.start()
    yield buses
    for bus in buses:
        await bus.stop()


def collected(bus: Bus, kind: type[Any]) -> asyncio.Queue[Any]:
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def note(fact: Any) -> None:
        seen.put_nowait(fact)

    bus.subscribe(kind, note)
    return seen


async def test_facts_reach_both_nodes_once_and_in_order(two: tuple[NatsBus, NatsBus]) -> None:
    here, there = two
    mine, theirs = collected(here, UserChanged), collected(there, UserChanged)
    facts = [UserChanged(Address(f"u{n}", "example.com"), password_changed=n % 2 == 0) for n in range(50)]
    for fact in facts:
        await here.publish(fact)
    assert [await theirs.get() for _ in facts] == facts
    assert [mine.get_nowait() for _ in facts] == facts
    assert mine.empty()


async def test_facts_of_one_node_stay_there(two: tuple[NatsBus, NatsBus]) -> None:
    here, there = two
    mine, certificates, users = (
        collected(here, CertificateChanged),
        collected(there, CertificateChanged),
        collected(there, UserRemoved),
    )
    await here.publish(CertificateChanged("cup-xmpp"))
    await here.publish(UserRemoved(ALICE))
    assert await users.get() == UserRemoved(ALICE)
    assert mine.get_nowait() == CertificateChanged("cup-xmpp")
    assert certificates.empty()


async def test_messages_keep_their_order(two: tuple[NatsBus, NatsBus]) -> None:
    here, there = two
    got: asyncio.Queue[bytes] = asyncio.Queue()
    there.listen("chat.inside2", got.put_nowait)
    await there.settled()
    for n in range(500):
        assert here.send("chat.inside2", b"%d" % n)
    assert [int(await got.get()) for _ in range(500)] == list(range(500))


async def test_requests_are_answered_or_not(two: tuple[NatsBus, NatsBus]) -> None:
    here, there = two

    async def shout(body: bytes) -> bytes:
        return body.upper()

    async def fails(_: bytes) -> bytes:
        raise RuntimeError("no")

    there.answer("shout", shout)
    there.answer("fails", fails)
    await there.settled()
    assert await here.request("shout", b"a") == b"A"
    assert await there.request("shout", b"b") == b"B"
    with pytest.raises(NotFound):
        await here.request("nobody", b"")
    with pytest.raises(PeerTimeout):
        await here.request("fails", b"", within=0.2)


async def test_a_server_that_dies_and_comes_back(two: tuple[NatsBus, NatsBus], server: PrivateNats) -> None:
    here, there = two
    mine, theirs = collected(here, BusChanged), collected(there, BusChanged)
    users, own = collected(there, UserRemoved), collected(here, UserRemoved)
    got: asyncio.Queue[bytes] = asyncio.Queue()
    there.listen("x", got.put_nowait)
    await there.settled()
    server.kill()
    assert [await mine.get(), await theirs.get()] == [BusChanged(up=False)] * 2
    assert not here.send("x", b"lost")
    await here.publish(UserRemoved(ALICE))
    assert own.get_nowait() == UserRemoved(ALICE)  # local traffic goes on
    with pytest.raises(PeerUnreachable):
        await here.request("x", b"")
    assert here.health()[0].state == "degraded"
    server.start()
    assert [await mine.get(), await theirs.get()] == [BusChanged(up=True)] * 2
    await here.publish(UserRemoved(ALICE))
    assert await users.get() == UserRemoved(ALICE)
    assert here.send("x", b"back")
    assert await got.get() == b"back"
    assert here.health()[0].state == "running"


async def test_a_node_starts_without_a_server_and_finds_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moim.bus.nats._FIRST_WAIT", 0.05)
    server = PrivateNats()
    bus = made(server, "inside")
    seen = collected(bus, BusChanged)
    await bus.start()
    assert not bus.connected
    server.start()
    assert await seen.get() == BusChanged(up=True)
    await bus.stop()
    server.remove()


async def test_who_begins_to_listen_while_it_connects_is_heard(
    server: PrivateNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = made(server, "inside"), made(server, "inside2")
    got: asyncio.Queue[bytes] = asyncio.Queue()
    flush, subjects = there._client.flush, ["a", "b", "c"]

    async def slowly(timeout: int = 10) -> None:
        if subjects:
            there.listen(subjects.pop(), got.put_nowait)
        await flush(timeout)

    monkeypatch.setattr(there._client, "flush", slowly)
    for bus in (here, there):
        await bus.start()
    for subject in ("a", "b", "c"):
        assert here.send(subject, subject.encode())
        assert await got.get() == subject.encode()
    for bus in (here, there):
        await bus.stop()


async def test_only_who_knows_the_password_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moim.bus.nats._FIRST_WAIT", 0.3)
    server = PrivateNats(lines='authorization { user: moim, password: "s3cret" }')
    server.start()
    secret = server.home / "password"
    secret.touch(mode=0o600)
    secret.write_text("wrong")
    stranger = made(server, "inside", user="moim", password_file="password")
    await stranger.start()
    assert not stranger.connected
    await stranger.stop()
    secret.write_text("s3cret")
    member = made(server, "inside", user="moim", password_file="password")
    await member.start()
    assert member.connected
    await member.stop()
    server.remove()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://127.0.0.1:1"},
        {"url": "nats://10.0.0.1:4222"},
        {"url": "tls://user:secret@nats.example.com"},
        {"url": "tls://nats.example.com", "user": "moim"},
        {"url": "tls://nats.example.com", "key_file": "k"},
    ],
)
def test_settings_that_are_not_safe_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Settings(**options)  # type: ignore[arg-type]


def test_settings_that_are_meant(tmp_path: Path) -> None:
    assert Settings(url="nats://10.0.0.1:4222", plain=True).urls == ["nats://10.0.0.1:4222"]
    assert Settings(url="nats://localhost, nats://127.0.0.3:4222").tls(tmp_path) is None
    assert Settings(url="tls://nats.example.com").tls(tmp_path) is not None
    with pytest.raises(ConfigError):
        Settings(url="tls://nats.example.com", ca_file="missing.pem").tls(tmp_path)


def test_facts_are_read_as_they_were_written() -> None:
    for fact in (UserChanged(ALICE, password_changed=True), UserRemoved(ALICE)):
        assert load(dump(fact)) == fact


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 5000,
        b"x" * 70_000,
        b'{"v":2,"fact":"UserRemoved","data":{}}',
        b'{"v":1,"fact":"Bus","data":{}}',
        b'{"v":1,"fact":"UserRemoved","data":{"address":3}}',
        b'{"v":1,"fact":"UserRemoved","data":null}',
    ],
)
def test_what_is_no_fact_is_dropped(body: bytes) -> None:
    assert load(body) is None
