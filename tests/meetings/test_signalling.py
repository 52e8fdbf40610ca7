"""Conversations over real WebSockets with the real room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from moim.model import Address, UserRemoved

_PATIENCE_S = 20


class Phone:
    """A client that says and hears JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self, kind: str | None = None) -> dict[str, Any]:
        """The next message; of one type, if given."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                message: dict[str, Any] = json.loads(await self.socket.recv())
                if kind is None or message["type"] == kind:
                    return message

    async def closed(self) -> int:
        """Waits for the end and gives its status."""
        async with asyncio.timeout(_PATIENCE_S):
            try:
                while True:
                    await self.socket.recv()
            except ConnectionClosed as end:
                return end.rcvd.code if end.rcvd is not None else 1006


@asynccontextmanager
async def phone(room: Any, **join: Any) -> AsyncIterator[Phone]:
    async with connect(room.ws, proxy=None, max_size=None) as socket:
        caller = Phone(socket)
        if join:
            await caller.say(type="join", **join)
        yield caller


async def refused(room: Any, code: str, **join: Any) -> dict[str, Any]:
    async with phone(room, **join) as caller:
        message = await caller.hear()
        assert (message["type"], message["code"]) == ("error", code)
        assert message["message"]
        await caller.closed()
        return message


async def test_a_guest_joins_by_link_and_by_passcode(room: Any) -> None:
    space = await room.service.spaces.create("Planning")
    async with phone(room, callId=space.call_id, secret=space.secret, name="하나") as one:
        joined = await one.hear()
        assert joined["type"] == "joined"
        assert joined["space"] == {"name": "Planning", "callId": space.call_id}
        assert joined["participants"] == []
        assert joined["iceServers"] == []
        offer = await one.hear()
        assert offer["type"] == "offer"
        assert offer["seq"] == 1
        assert set(offer["publish"]) == {"audio", "video"}
        assert f" {room.service.port} typ host" in offer["sdp"]
        async with phone(room, callId=f" {space.call_id} ", passcode=space.passcode) as two:
            seen = (await two.hear())["participants"]
            assert seen == [
                {"id": joined["participantId"], "name": "하나", "guest": True, "audio": False, "video": False}
            ]
            news = await one.hear()
            assert (news["event"], news["participant"]["name"]) == ("joined", "Guest")
            await two.say(type="state", audio=True, video=False)
            news = await one.hear()
            assert (news["event"], news["participant"]["audio"]) == ("updated", True)
        assert (await one.hear())["event"] == "left"
        assert len(room.service.live) == 1
    assert await _empty(room)


async def _empty(room: Any) -> bool:
    async with asyncio.timeout(_PATIENCE_S):
        while len(room.service.live):
            await asyncio.sleep(0.01)
    return True


async def test_users_enter_what_they_own_and_what_they_know(room: Any) -> None:
    own = await room.service.spaces.create("Alice's", owner=Address("alice", "example.com"))
    async with phone(room, callId=own.call_id, token="token-of-alice") as alice:
        assert (await alice.hear())["type"] == "joined"
        async with phone(room, callId=own.id, token="token-of-bob", secret=own.secret, name="Bob Park") as bob:
            await bob.hear("joined")
            person = (await alice.hear("participant"))["participant"]
            assert (person["name"], person["guest"]) == ("Bob Park", False)
    await refused(room, "wrong-passcode", callId=own.call_id, token="token-of-bob")
    await refused(room, "unauthorized", callId=own.call_id, token="stale", secret=own.secret)
    assert ("alice@example.com", False) in room.ice.issued


async def test_who_may_not_enter_is_told_why(room: Any) -> None:
    space = await room.service.spaces.create("Planning")
    await refused(room, "not-found", callId="999999999", secret="x")
    await refused(room, "wrong-passcode", callId=space.call_id)
    await refused(room, "wrong-passcode", callId=space.call_id, passcode="00000")
    await refused(room, "wrong-passcode", callId=space.call_id, secret="guess")
    assert len(room.service.live) == 0


async def test_guessing_is_slowed_down(room: Any) -> None:
    space = await room.service.spaces.create("Planning", passcode="123456")
    for guess in range(6):
        await refused(room, "wrong-passcode", callId=space.call_id, passcode=f"00000{guess}")
    answer = await refused(room, "rate-limited", callId=space.call_id, passcode="123456")
    assert "seconds" in answer["message"]
    async with phone(room, callId=space.call_id, secret=space.secret) as guest:
        assert (await guest.hear())["type"] == "joined"


@pytest.mark.parametrize(
    "first", ["nonsense", "[]", '{"type":"state","audio":true,"video":true}', '{"type":"join"}', '"' + "x" * 9000 + '"']
)
async def test_the_first_message_must_be_a_join(room: Any, first: str) -> None:
    async with phone(room) as caller:
        await caller.socket.send(first)
        message = await caller.hear()
        assert (message["type"], message["code"]) == ("error", "bad-request")
        assert await caller.closed() == 1008


async def test_binary_is_refused(room: Any) -> None:
    async with phone(room) as caller:
        await caller.socket.send(b"\x00\x01")
        assert (await caller.hear())["code"] == "bad-request"
        assert await caller.closed() == 1008


class TestNoPatience:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"join_timeout_s": 0.05}

    async def test_silence_is_not_waited_for(self, room: Any) -> None:
        async with phone(room) as caller:
            assert (await caller.hear())["code"] == "bad-request"
            assert await caller.closed() == 1008


class TestNarrow:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"messages_per_second": 2, "max_meeting": 2}

    async def test_haste_ends_the_stay(self, room: Any) -> None:
        space = await room.service.spaces.create("Planning")
        async with phone(room, callId=space.call_id, secret=space.secret) as caller:
            await caller.hear("offer")
            for number in range(12):
                await caller.say(type="state", audio=bool(number % 2), video=False)
            assert (await caller.hear("error"))["code"] == "rate-limited"
            await caller.closed()
        assert await _empty(room)

    async def test_a_full_meeting_is_full(self, room: Any) -> None:
        space = await room.service.spaces.create("Planning")
        async with (
            phone(room, callId=space.call_id, secret=space.secret) as one,
            phone(room, callId=space.call_id, secret=space.secret) as two,
        ):
            await one.hear("joined")
            await two.hear("joined")
            await refused(room, "full", callId=space.call_id, secret=space.secret)


class TestNoPath:
    @pytest.fixture
    def options(self) -> dict[str, Any]:
        return {"media_timeout_s": 1.1}

    async def test_media_that_never_connects_is_said(self, room: Any) -> None:
        space = await room.service.spaces.create("Planning")
        async with phone(room, callId=space.call_id, secret=space.secret) as caller:
            error = await caller.hear("error")
            assert error["code"] == "internal"
            assert "UDP" in error["message"]
            assert await caller.closed() == 1011


async def test_mistakes_after_joining_are_told_and_forgiven(room: Any) -> None:
    space = await room.service.spaces.create("Planning")
    async with phone(room, callId=space.call_id, secret=space.secret) as caller:
        await caller.hear("offer")
        await caller.socket.send("{")
        assert (await caller.hear())["code"] == "bad-request"
        await caller.say(type="join", callId=space.call_id)
        assert (await caller.hear())["code"] == "bad-request"
        await caller.say(type="leave")
        assert await caller.closed() == 1000
    assert await _empty(room)


async def test_a_rubbish_answer_ends_the_stay(room: Any) -> None:
    space = await room.service.spaces.create("Planning")
    async with phone(room, callId=space.call_id, secret=space.secret) as caller:
        offer = await caller.hear("offer")
        await caller.say(type="answer", seq=offer["seq"], sdp="v=0\r\n")
        assert (await caller.hear())["code"] == "bad-request"
        assert await caller.closed() == 1008
    assert await _empty(room)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda room, space: room.service.remove_space(space.id), "not-found"),
        (lambda room, space: room.bus.publish(UserRemoved(Address("alice", "example.com"))), "unauthorized"),
    ],
)
async def test_removal_ends_the_meeting(room: Any, end: Callable[[Any, Any], Any], code: str) -> None:
    space = await room.service.spaces.create("Alice's", owner=Address("alice", "example.com"))
    async with phone(room, callId=space.call_id, token="token-of-alice") as caller:
        await caller.hear("joined")
        await end(room, space)
        assert (await caller.hear("error"))["code"] == code
        await caller.closed()
    assert await room.service.spaces.find(space.id) is None
    assert await _empty(room)


async def test_a_restart_is_no_error(room: Any) -> None:
    space = await room.service.spaces.create("Planning")
    async with phone(room, callId=space.call_id, secret=space.secret) as inside, phone(room) as waiting:
        await inside.hear("offer")
        await room.service.stop()
        assert await inside.closed() == 1012
        assert await waiting.closed() == 1012


async def test_pages_of_other_origins_cannot_connect(room: Any) -> None:
    with pytest.raises(InvalidStatus):
        async with connect(room.ws, proxy=None, origin=Origin("https://evil.example")):
            pass
    async with connect(room.ws, proxy=None, origin=room.http) as socket:
        assert socket.response is not None


async def test_one_client_cannot_hold_all_connections(room: Any) -> None:
    waiting = [await connect(room.ws, proxy=None) for _ in range(64)]
    with pytest.raises(InvalidStatus):
        await connect(room.ws, proxy=None)
    await waiting[0].close()
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                again = await connect(room.ws, proxy=None)
            except InvalidStatus:
                continue
            break
    for socket in (*waiting, again):
        await socket.close()
