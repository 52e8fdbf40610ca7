"""Suites made with Smack's framework for integration tests (Java programs), run against the server of this host.

Smack's own come from Maven Central by ``scripts/setup conformance``. Those of the XMPP Interop Testing project, which
add tests that read a specification sentence by sentence to those of Smack, are not in any registry: they run if their
released jar (``smack-sint-server-extensions-…-jar-with-dependencies.jar``, Apache 2.0) is in the folder of ``INTEROP``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from interop.suite_servers import Place, Result

SMACK = Path(sys.prefix) / "peers" / "smack"
INTEROP = Path(sys.prefix) / "peers" / "xmpp-interop"
_STARTED = re.compile(r"^INFO: (\w+\.\w+) \(\w+(?:, \w+)?\) Start", re.MULTILINE)
_PASSWORD = "changeit"  # of the file of public certificates below, which Java wants to have one


def run(place: Place, folder: Path) -> Result:
    """Runs Smack's own tests."""
    return _run(SMACK, place, folder)


def run_interop(place: Place, folder: Path) -> Result:
    """Runs the tests of the XMPP Interop Testing project; what went over the wire is kept per test in ``wire``."""
    debugger = "org.igniterealtime.smack.inttest.util.ModifiedStandardSinttestDebuggerMetaFactory"
    return _run(INTEROP, place, folder, {"sinttest.debugger": debugger, "logDir": str(folder / "wire")})


def _run(libraries: Path, place: Place, folder: Path, further: Mapping[str, str] | None = None) -> Result:
    """Runs every test that its TCP client can run. alice administers: the suite makes its accounts by XEP-0133."""
    trust = folder / "trust.p12"
    subprocess.run(
        ["keytool", "-importcert", "-noprompt", "-alias", "authority", "-file", str(place.authority),
         "-keystore", str(trust), "-storepass", _PASSWORD, "-storetype", "PKCS12"],
        check=True, capture_output=True,
    )  # fmt: skip
    options = {
        "javax.net.ssl.trustStore": str(trust),
        "javax.net.ssl.trustStorePassword": _PASSWORD,
        "sinttest.service": place.domain,
        "sinttest.adminAccountUsername": "alice",
        "sinttest.adminAccountPassword": place.passwords["alice"],
        "sinttest.securityMode": "required",
        "sinttest.dnsResolver": "javax",
        "sinttest.replyTimeout": "5000",
        "sinttest.enabledConnections": "tcp",
        "sinttest.defaultConnection": "tcp",
    } | dict(further or {})
    tests, failed, report = _whole(libraries, options, folder)
    if failed:
        # Some tests lose races inside the suite's own program (see docs/conformance.md): what fails twice is counted.
        again = _java(libraries, options | {"sinttest.enabledTests": ",".join(sorted(failed))}, folder)
        failed &= _bad(again) | (failed - set(_STARTED.findall(again)))
        report += again
    return Result(tests, tuple(sorted(failed)), report)


def _whole(libraries: Path, options: dict[str, str], folder: Path) -> tuple[int, set[str], str]:
    """The number of tests, those that did not pass, and what the suite said."""
    given_up: list[str] = []
    while True:
        without = {"sinttest.disabledTests": ",".join(given_up)} if given_up else {}
        report = _java(libraries, options | without, folder)
        if end := re.search(r"finished: (\d+)/(\d+) \[", report):
            return int(end[2]) + len(given_up), _bad(report) | set(given_up), report
        # A test that meets what it never expected ends the whole run: it counts as not passed, and the others go on.
        begun = _STARTED.findall(report)
        if not begun or begun[-1] in given_up or len(given_up) > 20:
            raise RuntimeError(f"the suite did not run to its end: {report[-4000:]}")
        given_up.append(begun[-1])


def _bad(report: str) -> set[str]:
    failed = re.findall(r"^SEVERE: (\w+\.\w+) \(\w+(?:, \w+)?\) Failed", report, re.MULTILINE)
    impossible = re.findall(r"^INFO: (\w+\.\w+) \(\w+(?:, \w+)?\) is not possible", report, re.MULTILINE)
    return {*failed, *impossible}


def _java(libraries: Path, options: Mapping[str, str], folder: Path) -> str:
    log = folder / "suite.log"
    with log.open("w") as said:
        subprocess.run(
            ["java", *(f"-D{key}={value}" for key, value in options.items()), "-cp", f"{libraries}/*",
             "org.igniterealtime.smack.inttest.SmackIntegrationTestFramework"],
            stdout=said, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
    return log.read_text(errors="replace")
