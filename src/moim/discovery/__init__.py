"""Finds a person's services from their address and signs them in. A client library: needs no server, store or bus.

    from moim.discovery import discover

    outcome = await discover("alice@example.com", password="…", on_step=lambda step: print(step.detail))
    outcome.location, outcome.authenticator, outcome.product_mode, outcome.signed_in, outcome.error

``Discovery`` is the machine inside, for programs with sockets of their own: see ``engine.py`` and ``actions.py``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moim.discovery.actions import AskPassword, Credentials
from moim.discovery.driver import Ask, Driver, default_ask
from moim.discovery.engine import DEFAULT_TIMEOUT, Cancel, Discovery, Start
from moim.discovery.memory import Memory, default_path, last_target, load, save
from moim.discovery.messages import TEXT
from moim.discovery.outcome import Device, Failure, Outcome, ServicePoint, Step
from moim.discovery.target import Target, parse_target
from moim.net.resolver import Resolver, Server
from moim.net.tls import client_context

__all__ = [
    "DEFAULT_TIMEOUT",
    "TEXT",
    "Ask",
    "AskPassword",
    "Cancel",
    "Credentials",
    "Device",
    "Discovery",
    "Driver",
    "Failure",
    "Memory",
    "Outcome",
    "ServicePoint",
    "Start",
    "Step",
    "Target",
    "default_path",
    "discover",
    "last_target",
    "parse_target",
]


async def discover(
    target: str | Target,
    *,
    password: str | None = None,
    ask: Ask | None = None,
    dns: Sequence[Server] | None = None,
    ca: Path | None = None,
    cache: Path | None = None,
    on_step: Callable[[Step], None] | None = None,
    sign_in: bool = True,
    timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109
) -> Outcome:
    """Finds the services of ``target`` (an address, a configuration link or a parsed Target) and signs in.

    ``password`` is used once; ``ask`` is called instead when a password is needed, and again after a wrong one. ``dns``
    are the (IP address, port) of the name servers to ask, else the system's. ``ca`` is a PEM file of trusted
    authorities, else the system's. ``cache`` is the file to remember answers in. Whatever goes wrong on the way is
    ``Outcome.error``; raised are only UsageError for a target that is none, and ConfigError for a ``ca`` that cannot
    be read.
    """
    parsed = parse_target(target) if isinstance(target, str) else target
    resolver = Resolver(dns)
    scope = ("" if dns is not None else "system ") + resolver.label
    memory = load(cache, scope) if cache is not None else Memory(scope)
    driver = Driver(resolver, client_context(ca), ask if ask is not None else default_ask(password))
    discovery = Discovery(parsed, memory=memory, wall=time.time(), sign_in=sign_in, timeout=timeout)
    try:
        outcome = await driver.run(discovery, on_step)
    finally:
        await driver.aclose()
    if cache is not None and memory.changed:
        with contextlib.suppress(OSError):  # what cannot be remembered is asked for again next time
            save(memory, cache)
    return outcome
