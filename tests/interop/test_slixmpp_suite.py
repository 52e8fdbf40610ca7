"""slixmpp's own integration tests, from its source distribution, against a site of ours: all of them pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.conformance import outside


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_the_whole_suite_passes(tmp_path: Path) -> None:
    result = outside("moim", "slixmpp", tmp_path)
    assert result.tests >= 39, result.report
    assert not result.failed, result.report
