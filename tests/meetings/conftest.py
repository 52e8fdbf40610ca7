"""Meetings over a fresh database, with the real media plane and a real web server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from moim import meetings, settings
from moim.bus import Bus
from moim.model import Address
from moim.net import http_errors
from moim.net.http_server import HttpServer
from moim.store import Store, Where, migrate

ALICE = Address("alice", "example.com")
BOB = Address("bob", "example.com")


@dataclass
class Sessions:
    """Web sessions by token."""

    users: dict[str, Address] = field(default_factory=lambda: {"token-of-alice": ALICE, "token-of-bob": BOB})

    def user_for(self, token: str) -> Address | None:
        return self.users.get(token)


@dataclass
class Ice:
    """Notes for whom relays were asked."""

    issued: list[tuple[str, bool]] = field(default_factory=list)

    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        self.issued.append((name, outside))
        return [{"urls": ["turn:127.0.0.2:13478?transport=udp"], "username": "u", "credential": "c"}] if outside else []


@dataclass
class Room:
    """The running room: ``http`` is the web app's base URL, ``ws`` the signalling's."""

    service: meetings.Service
    sessions: Sessions
    ice: Ice
    bus: Bus
    server: HttpServer

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/meet/ws"


@pytest.fixture
def options() -> dict[str, Any]:
    """The room's settings; tests override this fixture or change the dictionary before ``room`` is made."""
    return {}


@pytest.fixture
def site(tmp_path: Path, options: dict[str, Any]) -> settings.Site:
    lines = "".join(f"{key} = {value}\n" for key, value in options.items())
    (tmp_path / "moim.toml").write_text(f'domain = "example.com"\n[meetings]\n{lines}')
    return settings.load(tmp_path, {"meetings": meetings.Settings})


@pytest.fixture
def where(tmp_path: Path) -> Where:
    """Where the store is; tests of what is stored try both kinds of database."""
    return tmp_path / "inside" / "moim.db"


@pytest.fixture
def store(where: Where) -> Iterator[Store]:
    if isinstance(where, Path):
        where.parent.mkdir(exist_ok=True)
    migrate(where, [Path(meetings.__file__).with_name("migrations")])
    store = Store(where)
    yield store
    store.close()


@pytest.fixture
def extra_routes() -> list[BaseRoute]:
    """Served beside the room's own; tests override this fixture."""
    return []


@pytest.fixture
async def room(site: settings.Site, store: Store, extra_routes: list[BaseRoute]) -> AsyncIterator[Room]:
    """The room behind a web server."""
    bus, sessions, ice = Bus(), Sessions(), Ice()
    service = meetings.Service(
        site, store, bus, sessions=sessions, ice=ice, links=lambda: "https://edge.example.com/", port=0
    )
    await service.start()
    app = Starlette(
        routes=[*meetings.public_routes(service), *extra_routes], exception_handlers=dict(http_errors.HANDLERS)
    )
    server = HttpServer(app, address="127.0.0.1")
    await server.start()
    yield Room(service, sessions, ice, bus, server)
    await service.stop()
    await server.stop()
