"""What stands in for the other rooms when the web app is tested alone: users, discovery, spaces, and a meeting server.

The meeting server speaks the signalling of docs/architecture.md; its media side is ``mixer.js`` in a browser page.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from moim.errors import AuthError, LimitExceeded
from moim.model import Address
from moim.portal import Sessions

MIXER = Path(__file__).with_name("mixer.js")


@dataclass(frozen=True)
class Person:
    """A user as the portal sees one."""

    address: Address
    name: str


class People:
    """Users with their passwords in the clear; locks an account after five wrong ones."""

    def __init__(self, domain: str, people: Mapping[str, tuple[str, str]]) -> None:
        self._domain = domain
        self._people = people
        self._wrong = 0

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        if self._wrong >= 5:
            raise LimitExceeded("too many failed sign-ins", hint="try again in 60 seconds")
        local, _, domain = address.rpartition("@")
        right = domain == self._domain and local in self._people and self._people[local][1] == password
        self._wrong += not right
        return right

    async def profile(self, address: Address) -> Person | None:
        if address.domain != self._domain or address.local not in self._people:
            return None
        return Person(address, self._people[address.local][0])


async def discover(address: Address, *, outside: bool) -> AsyncIterator[dict[str, Any]]:
    """What the engine tells about a site that has everything."""
    domain, where = address.domain, "127.0.0.2:10053" if outside else "127.0.0.1:10053"
    found, absent = {"result": "ok"}, {"result": "none"}
    yield {"kind": "input", "what": str(address), "where": "", "detail": "An address.", "elapsed_ms": 0.1, **found}
    for name, here in (
        ("_cisco-uds._tcp", not outside),
        ("_cuplogin._tcp", not outside),
        ("_collab-edge._tls", outside),
    ):
        yield {
            "kind": "srv", "what": f"{name}.{domain}", "where": where, "elapsed_ms": 1.8,
            "detail": "One record." if here else "There is no such name.", **(found if here else absent),
        }  # fmt: skip
        await asyncio.sleep(0)
    location = "outside" if outside else "inside"
    yield {
        "kind": "decision",
        "what": location,
        "where": "",
        "detail": f"You are {location}.",
        "elapsed_ms": 0.0,
        **found,
    }
    kind, host = ("edge", f"edge.{domain}:18443") if outside else ("uds", f"inside.{domain}:18443")
    yield {
        "kind": kind,
        "what": "GET /cucm-uds/clusterUser",
        "where": host,
        "detail": "It answered.",
        "elapsed_ms": 12.4,
        **found,
    }
    yield {"location": location, "domain": domain, "services": [], "elapsed_ms": 16.2, "steps": []}


@dataclass
class _Member:
    id: str
    name: str
    guest: bool
    socket: WebSocket
    audio: bool = True
    video: bool = True
    seq: int = 0
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    dirty: asyncio.Event = field(default_factory=asyncio.Event)

    def public(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "guest": self.guest, "audio": self.audio, "video": self.video}


class Meetings:
    """Spaces of the signed-in, and one meeting for each call ID. ``mixer`` is the page that carries the media."""

    def __init__(self, sessions: Sessions, origin: str) -> None:
        self.mixer: Page | None = None
        self._sessions = sessions
        self._origin = origin
        self._numbers = itertools.count(1)
        self._spaces: list[dict[str, str]] = []
        self._members: dict[str, _Member] = {}
        self.add_space("주간 회의")

    def add_space(self, name: str) -> dict[str, str]:
        call_id = str(700_100_200 + next(self._numbers))
        link = f"{self._origin}/meeting/{call_id}?secret=s{call_id}"
        space = {"id": call_id, "name": name, "callId": call_id, "passcode": "4821", "link": link}
        self._spaces.insert(0, space)
        return space

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/api/spaces", self._list, methods=["GET"]),
            Route("/api/spaces", self._create, methods=["POST"]),
            WebSocketRoute("/meet/ws", self._meet),
        ]

    def drop_all(self) -> None:
        """Cuts every meeting socket, as a server that goes away does."""
        for member in tuple(self._members.values()):
            member.dirty.set()
            asyncio.get_running_loop().create_task(member.socket.close(1011))

    def _check(self, request: Request) -> None:
        if self._sessions.user_for(request.headers.get("authorization", "").removeprefix("Bearer ")) is None:
            raise AuthError("sign in first")

    async def _list(self, request: Request) -> Response:
        self._check(request)
        return JSONResponse(self._spaces)

    async def _create(self, request: Request) -> Response:
        self._check(request)
        return JSONResponse(self.add_space((await request.json())["name"]), status_code=201)

    async def _meet(self, socket: WebSocket) -> None:
        await socket.accept()
        join = await socket.receive_json()
        space = next((s for s in self._spaces if s["callId"] == join["callId"]), None)
        wrong = None
        if space is None:
            wrong = "not-found"
        elif join.get("secret") != f"s{space['callId']}" and join.get("passcode") != space["passcode"]:
            wrong = "wrong-passcode"
        if space is None or wrong:
            await socket.send_json({"type": "error", "code": wrong, "message": "no"})
            await socket.close()
            return
        guest = self._sessions.user_for(join.get("token", "")) is None
        member = _Member(f"p{next(self._numbers)}", join.get("name", "?"), guest, socket)
        await self._stay(member, space)

    async def _stay(self, member: _Member, space: Mapping[str, str]) -> None:
        assert self.mixer is not None
        await self.mixer.evaluate("id => begin(id)", member.id)
        others = [other.public() for other in self._members.values()]
        self._members[member.id] = member
        await member.socket.send_json(
            {
                "type": "joined", "participantId": member.id, "iceServers": [], "participants": others,
                "space": {"name": space["name"], "callId": space["callId"]},
            }
        )  # fmt: skip
        await self._tell("joined", member)
        self._all_dirty()
        offering = asyncio.create_task(self._offer(member))
        try:
            await self._listen(member)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            offering.cancel()
            del self._members[member.id]
            with contextlib.suppress(PlaywrightError):  # the test may have closed the browser
                await self.mixer.evaluate("id => end(id)", member.id)
            await self._tell("left", member)
            self._all_dirty()

    async def _listen(self, member: _Member) -> None:
        assert self.mixer is not None
        while True:
            message = json.loads(await member.socket.receive_text())
            if message["type"] == "answer":
                assert message["seq"] == member.seq
                await self.mixer.evaluate("([id, sdp]) => answer(id, sdp)", [member.id, message["sdp"]])
                member.answered.set()
            elif message["type"] == "state":
                member.audio, member.video = message["audio"], message["video"]
                await self._tell("updated", member)
            elif message["type"] == "leave":
                await member.socket.close()
                return

    async def _offer(self, member: _Member) -> None:
        assert self.mixer is not None
        while True:
            await member.dirty.wait()
            member.dirty.clear()
            member.answered.clear()
            member.seq += 1
            offer = await self.mixer.evaluate("id => offer(id)", member.id)
            await member.socket.send_json({"type": "offer", "seq": member.seq, **offer})
            await member.answered.wait()

    async def _tell(self, event: str, about: _Member) -> None:
        for member in tuple(self._members.values()):
            if member is not about:
                with contextlib.suppress(RuntimeError, WebSocketDisconnect):
                    await member.socket.send_json(
                        {"type": "participant", "event": event, "participant": about.public()}
                    )

    def _all_dirty(self) -> None:
        for member in self._members.values():
            member.dirty.set()
