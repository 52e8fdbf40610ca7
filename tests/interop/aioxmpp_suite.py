"""aioxmpp's end-to-end tests (LGPL, as Debian's source package has them), run against the server of this host."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from slixmpp import ClientXMPP
from slixmpp.stanza import Iq

from interop.suite_servers import Place, Result

HOME = Path(sys.prefix) / "peers" / "aioxmpp"
"""A virtual environment with the library, and beside its ``bin`` the archive of its sources."""
_LINE = re.compile(r"^(tests/\S+?\.py::\S+) (PASSED|FAILED|ERROR|SKIPPED)", re.MULTILINE)


_ACCOUNTS = 5
"""What the most demanding test needs."""


def run(place: Place, folder: Path) -> Result:
    """Unpacks the tests into ``folder`` and runs them with the installed library; what it skips, the server lacks.

    Tests leave traces in their accounts (nodes, avatars) that the next ones may trip over: who fails is tried once more
    with new accounts.
    """
    (archive,) = HOME.glob("*.orig.tar.gz")
    shutil.unpack_archive(archive, folder / "aioxmpp-source")
    unpacked = folder / "aioxmpp-source"
    tests = sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("test_e2e.py"))
    ends, report = _pytest(place, folder, tests)
    for name in [name for name, end in ends.items() if end in ("FAILED", "ERROR")]:
        again, said = _pytest(place, folder, [name])
        ends |= again
        report += said
    impossible = sorted(name for name, end in ends.items() if end == "SKIPPED")
    failed = sorted(name for name, end in ends.items() if end in ("FAILED", "ERROR"))
    return Result(len(ends) - len(impossible), tuple(failed), report, tuple(impossible))


def _pytest(place: Place, folder: Path, tests: list[str]) -> tuple[dict[str, str], str]:
    """How each test ended, run with new accounts, and what was said."""
    provisioner = "aioxmpp.e2etest.provision.StaticPasswordProvisioner"
    settings = folder / "e2etest.ini"
    settings.write_text(
        f"[global]\nprovisioner={provisioner}\n[{provisioner}]\nhost={place.domain}\nport=5222\nno_verify=true\n"
        f'accounts={asyncio.run(_make_accounts(place))!r}\nquirks=["#no-adhoc-ping"]\n'
    )
    done = subprocess.run(
        [str(HOME / "bin" / "python"), "-W", "ignore", "-m", "pytest", "-p", "aioxmpp.e2etest", "-v", "--tb=short",
         "--e2etest-config", str(settings), "--e2etest-only", *tests],
        cwd=folder / "aioxmpp-source", env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    report = done.stdout + done.stderr
    ends = dict(_LINE.findall(report))
    if not ends:
        raise RuntimeError(f"the suite did not run: {report[-4000:]}")
    return ends, report


async def _make_accounts(place: Place) -> list[tuple[str, str]]:
    """Names and passwords of new accounts, which alice makes (XEP-0133)."""
    alice = ClientXMPP(f"alice@{place.domain}", place.passwords["alice"])
    alice.ca_certs = str(place.authority)
    alice.connect(place.domain, 5222)
    await alice.wait_until("session_start", 60)
    made = [(f"aioxmpp-{secrets.token_hex(4)}", secrets.token_urlsafe(9)) for _ in range(_ACCOUNTS)]
    for name, password in made:
        (begun,) = (await _command(alice, place.domain, {})).xml.iter("{http://jabber.org/protocol/commands}command")
        filled = {"accountjid": f"{name}@{place.domain}", "password": password, "password-verify": password}
        await _command(alice, place.domain, filled, begun.get("sessionid", ""))
    await alice.disconnect()
    return made


async def _command(alice: ClientXMPP, domain: str, filled: Mapping[str, str], session: str = "") -> Iq:
    iq = alice.make_iq_set(ito=domain)
    command = ElementTree.SubElement(
        iq.xml, "{http://jabber.org/protocol/commands}command", {"node": "http://jabber.org/protocol/admin#add-user"}
    )
    if session:
        command.set("sessionid", session)
        form = ElementTree.SubElement(command, "{jabber:x:data}x", {"type": "submit"})
        for var, value in {"FORM_TYPE": "http://jabber.org/protocol/admin", **filled}.items():
            field = ElementTree.SubElement(form, "{jabber:x:data}field", {"var": var})
            ElementTree.SubElement(field, "{jabber:x:data}value").text = value
    return await iq.send(timeout=60)
