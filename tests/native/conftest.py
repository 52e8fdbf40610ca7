"""Two servers that a test joins as it likes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .xmpp_servers import A, B, Side, side


@pytest.fixture
def a() -> Iterator[Side]:
    with side(A) as made:
        yield made


@pytest.fixture
def b() -> Iterator[Side]:
    with side(B) as made:
        yield made
