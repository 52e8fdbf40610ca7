"""A directory over a fresh database, and its UDS over real HTTPS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from moim import directory, settings
from moim.bus import Bus
from moim.model import UserChanged, UserRemoved
from moim.store import Store, Where, migrate
from own_certificate import Files, write_certificate

PASSWORD = "correct horse"


@pytest.fixture
def site(tmp_path: Path) -> settings.Site:
    (tmp_path / "moim.toml").write_text('domain = "example.com"\n[directory]\nport = 0\n')
    return settings.load(tmp_path, {"directory": directory.Settings})


@pytest.fixture
def where(tmp_path: Path) -> Where:
    """Where the store is; tests of what is stored try both kinds of database."""
    return tmp_path / "inside" / "moim.db"


@pytest.fixture
def store(where: Where) -> Iterator[Store]:
    if isinstance(where, Path):
        where.parent.mkdir(exist_ok=True)
    migrate(where, [Path(directory.__file__).with_name("migrations")])
    store = Store(where)
    yield store
    store.close()


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def facts(bus: Bus) -> list[UserChanged | UserRemoved]:
    """What the bus has heard of users so far."""
    seen: list[UserChanged | UserRemoved] = []

    async def note(fact: UserChanged | UserRemoved) -> None:
        seen.append(fact)

    bus.subscribe(UserChanged, note)
    bus.subscribe(UserRemoved, note)
    return seen


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return write_certificate(tmp_path, "inside.example.com")


@pytest.fixture
async def service(site: settings.Site, store: Store, bus: Bus, files: Files) -> AsyncIterator[directory.Service]:
    service = directory.Service(site, store, bus, credential=lambda _purpose: files)
    yield service
    await service.stop()


@pytest.fixture
async def uds(service: directory.Service, files: Files) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running UDS that verifies its certificate by name."""
    await service.users.add(
        "alice@example.com", PASSWORD, display_name="Alice <& 김>", phone="+82 2 123", email="a.kim@example.com"
    )
    await service.users.add("bob@example.com", PASSWORD, first_name="Bob", last_name="Park")
    await service.start()
    context = ssl.create_default_context(cafile=str(files.chain))
    async with httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{service.port}",
        verify=context,
        headers={"Host": f"inside.example.com:{service.port}"},
        trust_env=False,
    ) as client:
        client.event_hooks["request"] = [_by_name]
        yield client


async def _by_name(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = "inside.example.com"
