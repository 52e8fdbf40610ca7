"""``python -m bench``: discovery time, login, message, TURN packet and idle connection, for Moim and its peers.

Servers run on one processor, the load on the other; CPU is what the whole server process used, by the scheduler's
count. Figures of one run are comparable with each other, not with those of another machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import discovery, turn, xmpp
from bench.measure import Figure, cpu_seconds, pin, resident
from bench.moim_site import MoimSite, moim_site
from bench.prosody import prosody

SERVER_CPU, LOAD_CPU = 0, 1
_err = Console(stderr=True)
_out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


def xmpp_figures(
    subject: str, pid: int, host: str, port: int, domain: str, accounts: list[xmpp.Account], each: int
) -> list[Figure]:
    """Login, message and idle memory of one server."""
    context = xmpp.insecure_context()
    figures: list[Figure] = []

    async def whole() -> None:
        pairs = accounts[:200]
        warm = await xmpp.login_all(host, port, domain, pairs[:20], context)
        await xmpp.settle(warm)
        await xmpp.close_all(warm)

        cpu, began = cpu_seconds([pid]), time.monotonic()
        sessions = await xmpp.login_all(host, port, domain, pairs, context)
        await xmpp.settle(sessions)
        wall = time.monotonic() - began
        figures.append(
            Figure("login, SCRAM-SHA-1, TLS 1.3", subject, (cpu_seconds([pid]) - cpu) * 1e3 / len(pairs), "ms CPU")
        )
        figures.append(Figure("login rate", subject, len(pairs) / wall, "per s", "20 at a time"))

        for _ in range(2):  # the second pass is the figure: caches warm, allocators grown
            cpu = cpu_seconds([pid])
            count = await xmpp.exchange(sessions, each, burst=20)
            saturated = (cpu_seconds([pid]) - cpu) * 1e6 / count
        figures.append(Figure("delivered message, saturated", subject, saturated, "µs CPU"))

        cpu, began = cpu_seconds([pid]), time.monotonic()
        count = await xmpp.exchange(sessions, max(each // 10, 20), burst=1, pause=len(sessions) / 2000)
        rate = count / (time.monotonic() - began)
        figures.append(
            Figure(
                "delivered message, paced", subject, (cpu_seconds([pid]) - cpu) * 1e6 / count, "µs CPU", f"{rate:.0f}/s"
            )
        )
        await xmpp.close_all(sessions)

        before = resident([pid])
        idle = await xmpp.login_all(host, port, domain, accounts, context)
        await xmpp.settle(idle)
        figures.append(Figure("idle TLS connection", subject, (resident([pid]) - before) / len(idle) / 1e3, "kB"))
        await xmpp.close_all(idle)

    asyncio.run(whole())
    return figures


def turn_figures(subject: str, pid: int, server: tuple[str, int], messages: int) -> list[Figure]:
    """CPU per relayed packet of one server."""
    with turn.echo_peer() as peer:
        turn.relay(server, peer, clients=2, messages=50)
        cpu = cpu_seconds([pid])
        relayed = turn.relay(server, peer, messages=messages)
    used = (cpu_seconds([pid]) - cpu) * 1e6 / relayed.packets
    return [Figure("TURN, relayed packet", subject, used, "µs CPU", f"{relayed.lost} of {relayed.packets} lost")]


@contextmanager
def _on_one_cpu(pids: list[int]) -> Iterator[None]:
    everything = os.sched_getaffinity(0)
    if len(everything) > 1:
        pin(pids, SERVER_CPU)
        os.sched_setaffinity(0, {LOAD_CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, everything)


def measure(folder: Path, quick: bool) -> list[Figure]:
    """Runs everything; progress goes to standard error."""
    accounts = [xmpp.Account(f"user{number:05}", f"password-{number:05}") for number in range(300 if quick else 2000)]
    each, packets = (100, 500) if quick else (500, 4000)
    figures: list[Figure] = []

    def step(text: str, work: Callable[[], list[Figure]]) -> None:
        _err.print(f"measuring {text} …", style="dim")
        figures.extend(work())

    with moim_site(folder, accounts) as site:
        step("discovery", lambda: _discovery(site, quick))
        with _on_one_cpu([site.pid("inside"), site.pid("edge")]):
            host, port = site.place("xmpp-client-tls")
            inside = site.pid("inside")
            step("chat: Moim", lambda: xmpp_figures("Moim", inside, host, port, site.domain, accounts, each))
            edge, server = site.pid("edge"), site.place("turn")
            step("TURN: Moim", lambda: turn_figures("Moim", edge, server, packets))
    peer_folder = folder / "prosody"
    peer_folder.mkdir()
    with prosody(peer_folder, "bench.test", accounts) as (pid, port), _on_one_cpu([pid]):
        step("chat: Prosody", lambda: xmpp_figures("Prosody", pid, "127.0.0.1", port, "bench.test", accounts, each))
    with turn.coturn() as (pid, port), _on_one_cpu([pid]):
        step("TURN: coturn", lambda: turn_figures("coturn", pid, ("127.0.0.1", port), packets))
    return figures


def _discovery(site: MoimSite, quick: bool) -> list[Figure]:
    figures = []
    for view in ("inside", "outside"):
        times = discovery.times(site, view, 5 if quick else 30)
        note = f"{len(times)} runs, {min(times):.0f} to {max(times):.0f}"
        figures.append(Figure(f"discovery and sign-in, {view}", "Moim", statistics.median(times), "ms", note))
    return figures


def show(figures: list[Figure]) -> None:
    """A row per figure, Moim beside its peer."""
    table = Table(title="Cost per unit", box=None, header_style="bold", title_justify="left")
    for column in ("what", "unit", "Moim", "peer", "times better", "notes"):
        table.add_column(column, justify="right" if column in {"Moim", "peer", "times better"} else "left")
    for what in dict.fromkeys(f.what for f in figures):
        own = next((f for f in figures if f.what == what and f.subject == "Moim"), None)
        peer = next((f for f in figures if f.what == what and f.subject != "Moim"), None)
        ratio = ""
        if own and peer and own.value and peer.value:
            more_is_better = own.unit.startswith("per")
            ratio = f"{own.value / peer.value if more_is_better else peer.value / own.value:.1f}"
        notes = "; ".join(f"{f.subject}: {f.note}" for f in (own, peer) if f and f.note)
        table.add_row(
            what, (own or peer or figures[0]).unit, f"{own.value:.1f}" if own else "",
            f"{peer.value:.1f} ({peer.subject})" if peer else "", ratio, notes,
        )  # fmt: skip
    _out.print(table)


def main() -> None:
    """Parses the options, measures, prints."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few accounts and messages, under a minute: does it run?")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moim-bench-") as folder:
        figures = measure(Path(folder), options.quick)
    if options.json:
        json.dump([asdict(f) for f in figures], sys.stdout, indent=2)
    else:
        load = os.getloadavg()[0]
        Console().print(
            f"{os.cpu_count()} processors, load {load:.1f}; servers on one, the load on the other", style="dim"
        )
        show(figures)


if __name__ == "__main__":
    main()
