"""``python -m bench``: discovery time, login, message, TURN packet and idle connection, for Moim and its peers.

Servers run on one processor, the load on the other; CPU is what the whole server process used, by the scheduler's
count. Figures of one run are comparable with each other, not with those of another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import archive, chat, discovery, rooms, turn, xmpp
from bench.ejabberd import ejabberd
from bench.measure import Figure, cpu_seconds, pin
from bench.moim_site import MoimSite, moim_site
from bench.prosody import prosody
from bench.xmpp import Profile

PARTS = ("discovery", "chat", "archive", "rooms", "turn")
SERVER_CPU, LOAD_CPU = 0, 1
_err = Console(stderr=True)
_out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


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


def measure(folder: Path, quick: bool, parts: Sequence[str]) -> list[Figure]:
    """Runs ``parts``; progress goes to standard error."""
    number = 300 if quick else 10_000
    accounts = [xmpp.Account(f"user{index:05}", f"password-{index:05}") for index in range(number)]
    few = accounts[: min(number, 2000)]
    load = chat.Load(accounts, pairs=20 if quick else 100, each=100 if quick else 500, idle=number)
    packets = 500 if quick else 4000
    figures: list[Figure] = []

    def step(text: str, work: Callable[[], list[Figure]]) -> None:
        _err.print(f"measuring {text} …", style="dim")
        figures.extend(work())

    def measure_chat(subject: chat.Subject, load: chat.Load, profile: Profile) -> None:
        step(f"chat, {profile}: {subject.name}", lambda: chat.figures(subject, load, profile))

    profiles: tuple[Profile, ...] = ("bare", "features", "archive") if "chat" in parts else ()
    if "discovery" in parts or "turn" in parts:
        with moim_site(_made(folder / "moim"), few) as site:
            if "discovery" in parts:
                step("discovery", lambda: _discovery(site, quick))
            if "turn" in parts:
                edge, server = site.pid("edge"), site.place("turn")
                with _on_one_cpu([edge]):
                    step("TURN: Moim", lambda: turn_figures("Moim", edge, server, packets))
    for profile in profiles:
        with moim_site(_made(folder / f"moim-{profile}"), accounts if profile == "bare" else few, profile) as site:
            inside = site.pid("inside")
            subject = chat.Subject("Moim", inside, *site.place("xmpp-client-tls"), site.domain)
            with _on_one_cpu([inside, site.pid("edge")]):
                measure_chat(subject, load, profile)
    for profile in profiles:
        for name, peer in (("Prosody", prosody), ("ejabberd", ejabberd)):
            with peer(_made(folder / f"{name}-{profile}"), "bench.test", few, profile) as (pid, port):
                subject = chat.Subject(name, pid, "127.0.0.1", port, "bench.test")
                # A durable archive costs these a millisecond a message: a tenth of the messages is long enough.
                each = load.each // 10 if profile == "archive" else load.each
                smaller = replace(load, accounts=few, idle=len(few), each=each)
                with _on_one_cpu([pid]):
                    measure_chat(subject, smaller, profile)
    if "archive" in parts:
        step("the archive", lambda: archive.measure(_made(folder / "archive"), quick=quick))
    if "rooms" in parts:
        figures += _rooms(folder, few, quick)
    if "turn" in parts:
        with turn.coturn() as (pid, port), _on_one_cpu([pid]):
            step("TURN: coturn", lambda: turn_figures("coturn", pid, ("127.0.0.1", port), packets))
    return figures


def _rooms(folder: Path, accounts: Sequence[xmpp.Account], quick: bool) -> list[Figure]:
    load = rooms.Load(accounts, occupants=50 if quick else 500, messages=50 if quick else 200)
    _err.print("measuring rooms: Moim …", style="dim")
    with moim_site(_made(folder / "moim-rooms"), accounts[: load.occupants], "bare") as site:
        inside = site.pid("inside")
        subject = chat.Subject("Moim", inside, *site.place("xmpp-client-tls"), site.domain)
        with _on_one_cpu([inside, site.pid("edge")]):
            figures = rooms.figures(subject, load)
    for name, peer in (("Prosody", prosody), ("ejabberd", ejabberd)):
        _err.print(f"measuring rooms: {name} …", style="dim")
        running = peer(_made(folder / f"{name}-rooms"), "bench.test", accounts[: load.occupants], "bare")
        with running as (pid, port), _on_one_cpu([pid]):
            figures += rooms.figures(chat.Subject(name, pid, "127.0.0.1", port, "bench.test"), load)
    return figures


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _discovery(site: MoimSite, quick: bool) -> list[Figure]:
    figures = []
    for view in ("inside", "outside"):
        times = discovery.times(site, view, 5 if quick else 30)
        note = f"{len(times)} runs, {min(times):.0f} to {max(times):.0f}"
        figures.append(Figure(f"discovery and sign-in, {view}", "Moim", statistics.median(times), "ms", note))
    return figures


def show(figures: list[Figure]) -> None:
    """A row per figure, Moim beside its peers."""
    peers = [name for name in dict.fromkeys(f.subject for f in figures) if name != "Moim"]
    table = Table(title="Cost per unit", box=None, header_style="bold", title_justify="left")
    table.add_column("what")
    table.add_column("unit")
    for name in ("Moim", *peers, "times better"):
        table.add_column(name, justify="right")
    table.add_column("notes")
    for what in dict.fromkeys(f.what for f in figures):
        row = {f.subject: f for f in figures if f.what == what}
        own, others = row.get("Moim"), [f.value for name, f in row.items() if name != "Moim" and f.value]
        unit = next(iter(row.values())).unit
        ratio = ""
        if own and own.value and others:
            ratio = f"{own.value / max(others) if unit.startswith('per') else min(others) / own.value:.1f}"
        notes = "; ".join(f"{name}: {f.note}" for name, f in row.items() if f.note)
        values = [f"{row[name].value:.1f}" if name in row else "" for name in ("Moim", *peers)]
        table.add_row(what, unit, *values, ratio, notes)
    _out.print(table)


def main() -> None:
    """Parses the options, measures, prints."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few accounts and messages: does it run?")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"what to measure: {', '.join(PARTS)}; all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moim-bench-") as folder:
        figures = measure(Path(folder), options.quick, options.parts or PARTS)
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
