"""Fixtures for every test: whole sites, started as a user starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import databases
from leftovers import pytest_configure as pytest_configure
from moim.store import Where
from postgres import PrivatePostgres
from running_site import RunningSite, loopback_pair


def _new_site(folder: Path) -> Iterator[RunningSite]:
    site = RunningSite(folder / "site")
    inside, edge = loopback_pair()
    site.start("--demo", "--inside", inside, "--edge", edge)
    yield site
    if site.process is not None and site.process.poll() is None:
        site.stop()


settings.register_profile("moim", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("moim")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    """One running demo site for all tests of a worker that do not break it."""
    yield from _new_site(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[RunningSite]:
    """A running demo site that the test may break."""
    yield from _new_site(tmp_path)


@pytest.fixture(scope="session")
def postgres() -> PrivatePostgres:
    """A PostgreSQL server for all tests of a worker that do not stop it."""
    return databases.server()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Where:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return tmp_path / "moim.db"
    server: PrivatePostgres = request.getfixturevalue("postgres")
    return server.database()
