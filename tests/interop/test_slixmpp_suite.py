"""slixmpp's own integration tests, from its source distribution, against a site of ours: all of them pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.conformance import outside

# Its second client may hear of the new nickname, as of somebody who goes, only after it began to wait for who leaves.
_RACING = ("test_nick_change_leave",)


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_the_whole_suite_passes(tmp_path: Path) -> None:
    result = outside("moim", "slixmpp", _made(tmp_path / "first"))
    if result.failed == _RACING:
        result = outside("moim", "slixmpp", _made(tmp_path / "second"))
    assert result.tests >= 39, result.report
    assert not result.failed, result.report


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
