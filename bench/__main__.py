"""``python -m bench``: sign-in, message, room, archive, idle connection, TURN packet; for Moim and its peers.

Servers run on one processor, the load on the other; CPU is what the whole server process used, by the scheduler's
count. Figures of one run are comparable with each other, not with those of another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from bench import archive, chat, discovery, report, rooms, scale, turn, xmpp
from bench.measure import Figure, cost, cpu_of, pin
from bench.moim_site import MoimSite, moim_site
from bench.subjects import NAMES, many_files, processors, subject
from bench.xmpp import Account, Profile

PARTS = ("discovery", "chat", "idle", "users", "cores", "archive", "rooms", "turn", "uptime")
_PROFILES: tuple[Profile, ...] = ("bare", "features", "archive")
_err = Console(stderr=True)


@dataclass
class Run:
    """What one run measures into: a folder for servers, the accounts of all of them, and how much of everything."""

    folder: Path
    accounts: Sequence[Account]
    quick: bool
    failed: bool = False

    def few(self, whole: int, quick: int) -> int:
        """An amount."""
        return quick if self.quick else whole

    def said(self, text: str, work: Callable[[], list[Figure]]) -> list[Figure]:
        """Does ``work``, telling standard error of it. What fails leaves its figures out, and the others go on."""
        began = time.monotonic()
        _err.print(f"measuring {text} …", style="dim", end=" ")
        try:
            figures = work()
        except Exception:
            self.failed = True
            _err.print_exception()
            return []
        _err.print(f"{time.monotonic() - began:.0f} s", style="dim")
        return figures

    def chat(self) -> list[Figure]:
        """Sign-in and messages of each server, in each profile."""
        pairs = self.few(100, 20)
        load = chat.Load(self.accounts[: 2 * pairs + 2], pairs, each=0, seconds=self.few(8, 1))
        # As many as take a few seconds: a durable archive costs the peers a millisecond a message.
        each = {
            "Moim": {"bare": 2000, "features": 2000, "archive": 400},
            "peer": {"bare": 300, "features": 150, "archive": 20},
        }
        figures = []
        for profile in _PROFILES:
            for name in NAMES:
                amount = each["Moim" if name == "Moim" else "peer"][profile]
                own = replace(load, each=self.few(amount, min(amount, 40)))

                def work(name: str = name, profile: Profile = profile, own: chat.Load = own) -> list[Figure]:
                    with subject(name, self.folder / f"{name}-{profile}", load.accounts, profile) as found:
                        return chat.figures(found, own, profile)

                figures += self.said(f"chat, {profile}: {name}", work)
        return figures

    def rooms(self) -> list[Figure]:
        """One large room of each server."""
        size = self.few(500, 50)
        load = rooms.Load(self.accounts, occupants=size, messages=self.few(200, 50))
        figures = []
        for name in NAMES:

            def work(name: str = name) -> list[Figure]:
                with subject(name, self.folder / f"{name}-rooms", self.accounts[:size], "bare") as found:
                    return rooms.figures(found, load)

            figures += self.said(f"a room of {size}: {name}", work)
        return figures

    def idle(self) -> list[Figure]:
        """Memory of idle connections of each server."""
        figures = []
        for name in NAMES:
            figures += self.said(f"idle: {name}", lambda n=name: scale.idle(self.folder, self.accounts, (n,)))  # type: ignore[misc]
        return figures

    def users(self) -> list[Figure]:
        """More and more users."""
        return self.said("users", lambda: scale.users(self.folder, self.accounts, self.few(4000, 200)))

    def cores(self) -> list[Figure]:
        """One processor and two."""
        load = self.accounts[: self.few(200, 40)]
        return self.said("cores", lambda: scale.cores(self.folder, load, self.few(2000, 40)))

    def uptime(self) -> list[Figure]:
        """Very many sign-ins."""
        load = self.accounts[: self.few(200, 40)]
        sign_ins, each = self.few(100_000, 400), self.few(2000, 40)
        return self.said("uptime", lambda: scale.uptime(self.folder, load, sign_ins, each))

    def archive(self) -> list[Figure]:
        """The archive without clients."""
        (folder := self.folder / "archive").mkdir()
        return self.said("the archive", lambda: archive.measure(folder, quick=self.quick))

    def discovery(self) -> list[Figure]:
        """From the first DNS question to a bound session."""
        with moim_site(_made(self.folder / "discovery"), self.accounts[:100]) as site:
            return self.said("discovery", lambda: _discovery(site, self.few(30, 5)))

    def turn(self) -> list[Figure]:
        """Relayed packets of Moim and coturn."""
        packets = self.few(4000, 500)
        with moim_site(_made(self.folder / "turn"), self.accounts[:10]) as site, processors() as (server, load):
            edge = site.pid("edge")
            pin([edge], server)
            os.sched_setaffinity(0, load)
            figures = self.said("TURN: Moim", lambda: _turn("Moim", edge, site.place("turn"), packets))
        with turn.coturn() as (pid, port), processors() as (server, load):
            pin([pid], server)
            os.sched_setaffinity(0, load)
            return figures + self.said("TURN: coturn", lambda: _turn("coturn", pid, ("127.0.0.1", port), packets))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _turn(name: str, pid: int, server: tuple[str, int], messages: int) -> list[Figure]:
    with turn.echo_peer() as peer:
        turn.relay(server, peer, clients=2, messages=50)
        cpu = cpu_of([pid])
        relayed = turn.relay(server, peer, messages=messages)
    used = (cpu_of([pid]) - cpu) / relayed.packets
    return [cost("TURN, relayed packet", name, used, "µs CPU", f"{relayed.lost} of {relayed.packets} lost")]


def _discovery(site: MoimSite, runs: int) -> list[Figure]:
    figures = []
    for view in ("inside", "outside"):
        times = discovery.times(site, view, runs)
        note = f"{len(times)} runs, {min(times):.0f} to {max(times):.0f}"
        figures.append(Figure(f"discovery and sign-in, {view}", "Moim", statistics.median(times), "ms", note))
    return figures


def main() -> None:
    """Parses the options, measures, prints."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few accounts and messages: does it run?")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"what to measure: {', '.join(PARTS)}; all")
    options = parser.parse_args()
    many_files()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before it was done"))  # servers end with it
    number = 300 if options.quick else 10_000
    accounts = [xmpp.Account(f"user{index:05}", f"password-{index:05}") for index in range(number)]
    figures: list[Figure] = []
    began, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="moim-bench-") as folder:
        run = Run(Path(folder), accounts, options.quick)
        for part in options.parts or PARTS:
            figures += getattr(run, part)()
    heading = (
        f"{os.cpu_count()} processors, load average {load:.1f} before; servers on one, the load on the other; "
        f"{(time.monotonic() - began) / 60:.0f} minutes"
    )
    if options.json:
        json.dump({"heading": heading, "figures": [asdict(f) for f in figures]}, sys.stdout, indent=2)
    else:
        report.show(figures, heading)
    if run.failed:
        sys.exit("some of it failed: see above")


if __name__ == "__main__":
    main()
