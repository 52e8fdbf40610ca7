"""Suites made with Smack's framework for integration tests (Java programs), run against the server of this host.

Smack's own come from Maven Central by ``scripts/setup conformance``. Those of the XMPP Interop Testing project, which
add tests that read a specification sentence by sentence to those of Smack, are not in any registry: they run if their
released jar (``smack-sint-server-extensions-…-jar-with-dependencies.jar``, Apache 2.0) is in the folder of ``INTEROP``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from interop.suite_servers import Place, Result

SMACK = Path(sys.prefix) / "peers" / "smack"
INTEROP = Path(sys.prefix) / "peers" / "xmpp-interop"
_STARTED = re.compile(r"^INFO: (\w+\.\w+) \(\w+(?:, \w+)?\) Start", re.MULTILINE)
_END = re.compile(r"finished: (\d+)/(\d+) \[")
_FAILED = re.compile(r"^SEVERE: (\w+\.\w+) \(\w+(?:, \w+)?\) Failed", re.MULTILINE)
_IMPOSSIBLE = re.compile(r"^INFO: (\w+\.\w+) \(\w+(?:, \w+)?\) is not possible", re.MULTILINE)
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
    trust.unlink(missing_ok=True)
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
    tests, failed, given_up, impossible, report = _whole(libraries, options, folder)
    if failed:
        # Some tests lose races inside the suite's own program (see docs/conformance.md): what fails twice is counted.
        again = _java(libraries, options | {"sinttest.enabledTests": ",".join(sorted(failed))}, folder)
        failed &= _named(_FAILED, again) | (failed - _named(_STARTED, again))
        report += again
    failed |= given_up
    return Result(tests, tuple(sorted(failed)), report, tuple(sorted(impossible)))


def _whole(libraries: Path, options: dict[str, str], folder: Path) -> tuple[int, set[str], set[str], set[str], str]:
    """How many tests there were; those that failed, that ended a run, that the suite cannot make; and what it said."""
    report, given_up = _to_the_end(libraries, options, folder)
    tests, failed, impossible = _count(report) + len(given_up), _named(_FAILED, report), _named(_IMPOSSIBLE, report)
    # Newer versions leave out the whole class of a test that they are to leave out: its other tests are made by name.
    for lost in {name.split(".")[0] for name in given_up} - {name.split(".")[0] for name in _named(_STARTED, report)}:
        left, wanted = "", _methods(libraries, lost) - given_up
        while wanted and not _END.search(left):
            left = _java(libraries, options | {"sinttest.enabledTests": ",".join(sorted(wanted))}, folder)
            if not _END.search(left):
                begun = _STARTED.findall(left)
                if not begun:
                    break  # the class has no other test
                given_up.add(begun[-1])
                wanted.remove(begun[-1])
                tests += 1
        tests += _count(left)
        failed |= _named(_FAILED, left)
        impossible |= _named(_IMPOSSIBLE, left)
        report += left
    return tests - len(impossible), failed, given_up, impossible, report


def _to_the_end(libraries: Path, options: dict[str, str], folder: Path) -> tuple[str, set[str]]:
    """What the suite said of a whole run, and the tests without which it came to its end."""
    given_up: set[str] = set()
    while True:
        without = {"sinttest.disabledTests": ",".join(sorted(given_up))} if given_up else {}
        report = _java(libraries, options | without, folder)
        if _END.search(report):
            return report, given_up
        # A test that meets what it never expected ends the whole run: it counts as not passed, and the others go on.
        begun = _STARTED.findall(report)
        if not begun or begun[-1] in given_up or len(given_up) > 20:
            raise RuntimeError(f"the suite did not run to its end: {report[-4000:]}")
        given_up.add(begun[-1])


def _count(report: str) -> int:
    end = _END.search(report)
    return int(end[2]) if end is not None else 0


def _methods(libraries: Path, name: str) -> set[str]:
    """``name.word`` for every word in a class's constants: its tests are among them, and what is no test is ignored."""
    for jar in libraries.glob("*.jar"):
        with zipfile.ZipFile(jar) as file:
            for entry in file.namelist():
                if entry.endswith(f"/{name}.class"):
                    words = re.findall(rb"\x01\x00(.)(\w+)", file.read(entry), re.DOTALL)
                    return {f"{name}.{word.decode()}" for size, word in words if size[0] == len(word)}
    return set()


def _named(line: re.Pattern[str], report: str) -> set[str]:
    return set(line.findall(report))


def _java(libraries: Path, options: Mapping[str, str], folder: Path) -> str:
    log = folder / "suite.log"
    with log.open("w") as said:
        subprocess.run(
            ["java", *(f"-D{key}={value}" for key, value in options.items()), "-cp", f"{libraries}/*",
             "org.igniterealtime.smack.inttest.SmackIntegrationTestFramework"],
            stdout=said, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
    return log.read_text(errors="replace")
