"""slixmpp's own integration tests, from its source distribution, against a site of ours: all of them pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.conformance import outside


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_the_whole_suite_passes(tmp_path: Path) -> None:
    tests, failed = outside("moim", "slixmpp", tmp_path)
    report = (tmp_path / "report.txt").read_text()
    assert tests >= 39, report
    assert not failed, report
