"""The commands' way to the admin API: over the network when the site runs, else served by this process itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from moim import app, supervisor
from moim.console import read_token
from moim.errors import Conflict, Forbidden, LimitExceeded, MoimError, NotFound, Unavailable, UsageError
from moim.net.tls import client_context
from moim.settings import Site

Result = TypeVar("Result")

_ERRORS: dict[str, type[MoimError]] = {
    "usage-error": UsageError,
    "not-found": NotFound,
    "conflict": Conflict,
    "limit-exceeded": LimitExceeded,
    "forbidden": Forbidden,
    "unavailable": Unavailable,
}


@asynccontextmanager
async def connect(root: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose base is the site's ``/api/v1``. Raises ConfigError without a site, Unavailable without its API."""
    site = app.open_site(root)
    running = supervisor.query(site.root)
    if running is None:
        async with app.offline_admin(site) as base, _client(site, base) as client:
            yield client
        return
    service = next((s for s in running["services"] if s["name"] == "admin" and s["state"] == "running"), None)
    if service is None:
        raise Unavailable("the site is starting, or its inside node is down", hint="look at: moim status")
    base = f"{service['transport']}://{service['address']}:{service['port']}"
    async with _client(site, base) as client:
        yield client


def _client(site: Site, base: str) -> httpx.AsyncClient:
    verify: ssl.SSLContext | bool = client_context(site.ca_file) if base.startswith("https") else False
    return httpx.AsyncClient(
        base_url=f"{base}/api/v1",
        headers={"Authorization": f"Bearer {read_token(site.root)}"},
        verify=verify,
        trust_env=False,
        timeout=httpx.Timeout(10, read=120),
    )


def check(answer: httpx.Response) -> Any:
    """The JSON of a good answer (None when empty); a bad one becomes the error of the tree that it carries."""
    if answer.is_success:
        return answer.json() if answer.content else None
    raise error_of(answer)


def error_of(answer: httpx.Response) -> MoimError:
    """The error that an answer carries."""
    try:
        said = answer.json()["error"]
        kind = _ERRORS.get(said["code"], MoimError)
        return kind(said["message"], hint=said["hint"])
    except (ValueError, KeyError, TypeError):
        return MoimError(f"the site answered HTTP {answer.status_code}", hint="look into log/inside.log")


def run(root: Path, work: Callable[[httpx.AsyncClient], Awaitable[Result]]) -> Result:
    """Runs ``work`` with a connected client, from ordinary code."""

    async def whole() -> Result:
        async with connect(root) as client:
            try:
                return await work(client)
            except httpx.TransportError as error:
                raise Unavailable(f"the site's admin API broke off: {error}", hint="look at: moim status") from error

    return asyncio.run(whole())
