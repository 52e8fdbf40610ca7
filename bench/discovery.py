"""Discovery as a client does it, start to signed in, against a site's inside or outside name server."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from bench.moim_site import MoimSite
from moim.discovery import discover


def times(site: MoimSite, view: str, runs: int) -> list[float]:
    """Milliseconds of ``runs`` discoveries with nothing remembered, after one that does not count."""
    person = json.loads((site.root / "demo-users.json").read_text())[0]
    host, _, port = site.status["dns"][view].rpartition(":")

    async def once() -> float:
        began = time.perf_counter()
        outcome = await discover(
            person["address"], password=person["password"], dns=[(host, int(port))], ca=Path(site.status["ca"])
        )
        if not outcome.signed_in or outcome.location != view:
            raise RuntimeError(f"discovery from {view} ended {outcome.location}: {outcome.error}")
        return (time.perf_counter() - began) * 1e3

    async def all_of_them() -> list[float]:
        await once()
        return [await once() for _ in range(runs)]

    return asyncio.run(all_of_them())
