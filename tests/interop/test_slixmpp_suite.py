"""slixmpp's own integration tests, from its source distribution, against a site of ours: all of them pass."""

from __future__ import annotations

import re
import sys
import tarfile
from pathlib import Path

import pytest

from private_host import python, run_alone

HERE = Path(__file__).parent


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_the_whole_suite_passes(tmp_path: Path) -> None:
    (archive,) = (Path(sys.prefix) / "peers").glob("slixmpp-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("slixmpp-*")
    # The tests are to use the installed library, not the sources beside them, whose Rust part is not built.
    (unpacked / "slixmpp").rename(unpacked / "sources")
    done = run_alone(
        tmp_path,
        [*python(HERE / "slixmpp_suite.py"), str(tmp_path), str(unpacked)],
        environment={},
        timeout=280,
        hosts="127.0.0.1 prosody\n",
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    ran = re.search(r"^Ran (\d+) tests", report, re.MULTILINE)
    assert ran, report
    assert int(ran[1]) >= 39, report
    assert "skipped" not in report, report
