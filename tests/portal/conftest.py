"""A portal on a free loopback port, with users and discovery made up for the tests, and an HTTP client to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from moim.bus import Bus
from moim.errors import LimitExceeded
from moim.model import Address
from moim.portal import Service, Settings
from moim.settings import Site, SiteSettings

DOMAIN = "example.test"


@dataclass(frozen=True)
class Person:
    address: Address
    name: str


@dataclass
class People:
    """Users by address, with passwords; ``asked`` holds who was asked for from where."""

    passwords: dict[str, str] = field(default_factory=lambda: {f"alice@{DOMAIN}": "right", f"bob@{DOMAIN}": "bobs"})
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        self.asked.append((address, source))
        if len(self.asked) > 20:
            raise LimitExceeded("too many failed sign-ins", hint="try again in 9 seconds")
        return self.passwords.get(address) == password

    async def profile(self, address: Address) -> Person | None:
        return Person(address, address.local.title()) if str(address) in self.passwords else None


async def discover(address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]:
    yield {"kind": "input", "what": str(address), "result": "ok"}
    yield {"location": "outside" if outside else "inside", "steps": ["…"], "elapsed_ms": 1.0}


@dataclass
class Portal:
    """A running portal: ``http`` speaks to its listener, ``through_the_edge`` to the application as the edge does."""

    service: Service
    bus: Bus
    people: People
    http: httpx.AsyncClient
    through_the_edge: httpx.AsyncClient


def built(root: Path) -> Path:
    """What a build of the web app leaves, in small."""
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><title>Moim</title>")
    (root / "assets" / "index-abc123.js").write_text("export const x = 1;\n" * 200)
    (root / "icon.svg").write_text("<svg/>")
    return root


def as_from_outside(app: Any) -> Any:
    """What the listener behind the edge's tunnel does: marks every request."""

    async def marked(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["outside"] = True
        await app(scope, receive, send)

    return marked


StartPortal = Callable[..., Awaitable[Portal]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartPortal]:
    """``await start(discover=…, extra_routes=…, **[portal] keys)`` → a Portal that runs until the test ends."""
    async with AsyncExitStack() as stack:

        async def begin(
            *,
            discover: Any = discover,
            extra_routes: Any = (),
            assets: Path | None = None,
            hosted: tuple[str, ...] = (),
            **settings: object,
        ) -> Portal:
            site = Site(
                tmp_path,
                SiteSettings(domain=DOMAIN, hosted_domains=hosted),
                {"portal": Settings.model_validate(settings)},
            )
            bus, people = Bus(), People()
            service = Service(
                site,
                bus,
                users=people,
                discover=discover,
                websocket_url="ws://127.0.0.1:15280/xmpp-websocket",
                credential=_no_credential,
                extra_routes=extra_routes,
                assets=assets if assets is not None else built(tmp_path / "static"),
                port=0,
            )
            await service.start()
            stack.push_async_callback(service.stop)
            inside = await stack.enter_async_context(httpx.AsyncClient(base_url=service.url))
            outside = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(as_from_outside(service.asgi), client=("127.0.0.9", 1)),
                    base_url="https://edge.example.test:18443",
                    headers={"X-Forwarded-For": "203.0.113.7"},
                )
            )
            return Portal(service, bus, people, inside, outside)

        yield begin


@pytest.fixture
async def portal(start: StartPortal) -> Portal:
    """A running portal with default settings."""
    return await start()


def _no_credential(purpose: str) -> Any:
    raise AssertionError(f"loopback needs no certificate for {purpose}")
