"""``moim discover``, as people run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from discovery_world import ALICE, DOMAIN, PASSWORD, Live


async def command(live: Live, *words: str, view: str = "inside") -> tuple[int, str, str]:
    host, port = live.dns[view]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("moim")), "discover", *words, "--dns", f"{host}:{port}",
        "--ca", str(live.authority.file), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"COLUMNS": "200", "XDG_CACHE_HOME": str(live.authority.root / "home")},
        cwd=live.authority.root,
    )  # fmt: skip
    out, err = await process.communicate()
    assert b"Traceback" not in out + err
    assert PASSWORD.encode() not in out + err
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_prints_the_decision_and_signs_in(live: Live) -> None:
    await live.furnish()
    secret = live.authority.root / "password"
    secret.write_text(PASSWORD + "\n")
    code, out, err = await command(live, ALICE, "--password-file", str(secret), "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert found["signed_in"] is True
    assert {"address", "domain", "location", "steps", "services", "authenticator", "product_mode", "elapsed_ms"} <= set(
        found
    )
    assert {"kind", "code", "what", "where", "result", "detail", "elapsed_ms", "why_next"} <= set(found["steps"][0])
    code, out, _ = await command(live, "--password-file", str(secret))
    assert code == 0
    assert "remembered" in out
    assert f"{ALICE}/desk" in out


async def test_the_command_ends_with_a_code_for_each_kind_of_failure(live: Live) -> None:
    await live.furnish()
    secret = live.authority.root / "password"
    secret.write_text("wrong")
    assert (await command(live, "nonsense"))[0] == 2
    assert (await command(live, ALICE, "--password-file", "/nonexistent"))[0] == 2
    assert (await command(live, "--no-cache"))[0] == 2
    code, _, err = await command(live, f"alice@inside.{DOMAIN}", "--no-cache")
    assert code == 3
    assert "error:" in err
    code, out, err = await command(live, ALICE, "--password-file", str(secret), "--json")
    assert code == 4
    assert json.loads(out)["error"]["code"] == "wrong-password"
    assert (await command(live, "alice@example.org"))[0] == 5
    code, out, _ = await command(live, ALICE)
    assert code == 0
    assert "no password" in out
