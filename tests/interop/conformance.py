"""Which conformance suites pass, for Moim and its peers: ``make conformance``.

Every server runs in a host of its own (network and mount namespaces): this needs root, or a kernel that lets users make
them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from interop import aioxmpp_suite, slixmpp_suite, smack_suite
from interop.suite_servers import SERVERS, Result
from private_host import run_alone

SUITES = {
    "slixmpp": slixmpp_suite.run,
    "aioxmpp": aioxmpp_suite.run,
    "smack": smack_suite.run,
    "interop": smack_suite.run_interop,
}
DOMAIN = "prosody"  # slixmpp's test of components takes this name for granted


def inside(server: str, suite: str, folder: Path) -> None:
    """Runs one suite against one server of this host; leaves ``result.json``."""
    with SERVERS[server](folder, DOMAIN, suite == "slixmpp") as place:
        result = SUITES[suite](place, folder)
    (folder / "report.txt").write_text(result.report)
    found = {"tests": result.tests, "failed": result.failed, "impossible": result.impossible}
    (folder / "result.json").write_text(json.dumps(found))


def outside(server: str, suite: str, folder: Path) -> Result:
    """Runs one suite against one server in a host of its own."""
    done = run_alone(
        folder,
        [sys.executable, "-m", "interop.conformance", "--inside", server, suite, str(folder)],
        environment={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=1800,
        hosts=f"127.0.0.1 {DOMAIN} rooms.{DOMAIN} upload.{DOMAIN}\n",
    )
    try:
        found = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        raise SystemExit(f"{suite} against {server} did not end well:\n{done.stdout}{done.stderr}") from None
    report = (folder / "report.txt").read_text()
    return Result(found["tests"], tuple(found["failed"]), report, tuple(found["impossible"]))


def main() -> None:
    """Parses the options, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this server")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this suite")
    parser.add_argument("--keep", type=Path, help="keep reports and logs in this folder")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        server, suite, folder = options.inside
        inside(server, suite, Path(folder))
        return
    worst = 0
    for suite in options.suite or SUITES:
        if suite == "interop" and not smack_suite.INTEROP.is_dir():
            print(f"interop  not run: its released jar is not in {smack_suite.INTEROP} (see docs/conformance.md)")
            continue
        for server in options.server or SERVERS:
            with tempfile.TemporaryDirectory(prefix="moim-conformance-") as temporary:
                folder = options.keep / f"{suite}-{server}" if options.keep else Path(temporary)
                folder.mkdir(parents=True, exist_ok=True)
                result = outside(server, suite, folder)
            passed = result.tests - len(result.failed)
            print(f"{suite:8} {server:9} {passed:3} of {result.tests} passed, {len(result.impossible)} not possible")
            for name in result.failed:
                print(f"         not passed: {name}")
            for name in result.impossible:
                print(f"         not possible: {name}")
            sys.stdout.flush()
            worst = max(worst, len(result.failed) if server == "moim" else 0)
    sys.exit(min(worst, 1))


if __name__ == "__main__":
    os.umask(0o022)
    main()
