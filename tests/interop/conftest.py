"""The lab of three domains, once for all tests of a worker: they share the group ``federation-lab``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from federation_lab import FederationLab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationLab]:
    """Moim, Prosody and ejabberd; a test leaves them as they were."""
    made = FederationLab(tmp_path_factory.mktemp("lab"))
    try:
        made.start()
        yield made
    finally:
        made.close()
