"""A site directory with an authority, and a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from moim import settings, trust
from moim.bus import Bus
from moim.model import CertificateChanged


class Clock:
    """Time that stands still until told to go on."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(tmp_path: Path) -> settings.Site:
    (tmp_path / "moim.toml").write_text('domain = "example.com"\n[trust]\ncheck_seconds = 3600\n')
    trust.create_authority(tmp_path, "example.com")
    return settings.load(tmp_path, {"trust": trust.Settings})


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def facts(bus: Bus) -> list[str]:
    """The purposes that CertificateChanged named so far."""
    seen: list[str] = []

    async def note(fact: CertificateChanged) -> None:
        seen.append(fact.purpose)

    bus.subscribe(CertificateChanged, note)
    return seen


@pytest.fixture
def service(site: settings.Site, bus: Bus, clock: Clock) -> trust.Service:
    return trust.Service(site, bus, now=clock)
