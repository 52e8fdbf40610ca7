"""slixmpp's own integration tests, run against the server of this host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from interop.suite_servers import Place, Result

_LINE = re.compile(r"^(?P<name>\w+) \(itests\.(?P<where>[\w.]+)\)", re.MULTILINE)


def run(place: Place, folder: Path) -> Result:
    """Unpacks the suite into ``folder`` and runs it; every test that failed or was left out counts as not passed."""
    (archive,) = (Path(sys.prefix) / "peers").glob("slixmpp-*.tar.gz")
    shutil.unpack_archive(archive, folder)
    (unpacked,) = folder.glob("slixmpp-*/")
    # The tests are to use the installed library, not the sources beside them, whose Rust part is not built.
    (unpacked / "slixmpp").rename(unpacked / "sources")
    environment: Mapping[str, str] = os.environ | {
        "CI": "woodpecker",
        "CI_ACCOUNT1": f"alice@{place.domain}",
        "CI_ACCOUNT1_PASSWORD": place.passwords["alice"],
        "CI_ACCOUNT2": f"bob@{place.domain}",
        "CI_ACCOUNT2_PASSWORD": place.passwords["bob"],
        "CI_MUC_SERVER": place.rooms,
        "SSL_CERT_FILE": str(place.authority),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "run_integration_tests.py"],
        cwd=unpacked, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    if ran is None:
        raise RuntimeError(f"the suite did not run: {done.stdout}{done.stderr}")
    bad = re.findall(r"^(?:ERROR|FAIL): (\w+) ", done.stderr, re.MULTILINE)
    skipped = re.findall(r"^(\w+) \([\w.]+\)\n.* \.\.\. skipped", done.stderr, re.MULTILINE)
    return Result(int(ran[1]), tuple(sorted({*bad, *skipped})), done.stdout + done.stderr)
