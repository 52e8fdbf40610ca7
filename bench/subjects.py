"""The servers that are compared, each running on a processor of its own with the load on another."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from bench.ejabberd import ejabberd
from bench.moim_site import moim_site
from bench.prosody import prosody
from bench.xmpp import Account, Profile

Result = TypeVar("Result")
NAMES = ("Moim", "Prosody", "ejabberd")
_DOMAIN = "bench.test"


@dataclass(frozen=True)
class Subject:
    """A running server: its name in the table, its process, and where its direct-TLS port is."""

    name: str
    pid: int
    host: str
    port: int
    domain: str


@contextmanager
def processors(server: int = 1) -> Iterator[tuple[set[int], set[int]]]:
    """Processors for a server, and for the load; this process has all of them again afterwards."""
    everything = os.sched_getaffinity(0)
    order = sorted(everything)
    try:
        yield set(order[:server]), set(order[-1:])
    finally:
        os.sched_setaffinity(0, everything)


@contextmanager
def subject(
    name: str, folder: Path, accounts: Sequence[Account], profile: Profile, *, more: str = "", on: int = 1
) -> Iterator[Subject]:
    """Starts a server on ``on`` processors, so that it makes no more threads than these need, and leaves the load on
    the last one. ``more`` is added to Moim's settings.
    """
    folder.mkdir()
    with processors(on) as (server, load):
        os.sched_setaffinity(0, server)
        if name == "Moim":
            with moim_site(folder, accounts, profile, more) as site:
                os.sched_setaffinity(0, load)
                yield Subject(name, site.pid("inside"), *site.place("xmpp-client-tls"), site.domain)
        else:
            run = {"Prosody": prosody, "ejabberd": ejabberd}[name]
            with run(folder, _DOMAIN, accounts, profile) as (pid, port):
                os.sched_setaffinity(0, load)
                yield Subject(name, pid, "127.0.0.1", port, _DOMAIN)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs a load to its end, in the quickest event loop there is."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def many_files() -> None:
    """Lets this process, and the servers that it starts, have as many connections as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, 65_536), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        except (ValueError, PermissionError):
            continue
        return
