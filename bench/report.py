"""The figures as a table: a row per unit of work, Moim beside its peers and what it is to reach."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.measure import Figure

_WIDTH = 150  # when the output is no terminal
TARGETS = {
    "login, SCRAM-SHA-1, TLS 1.3": 0.6,
    "delivered message, saturated": 12,
    "delivered message, paced": 40,
    "with carbons, acks, CSI, PEP, saturated": 18,
    "these and a durable archive, saturated": 40,
    "delivered message, half load, delivery, p99": 5,
    "with carbons, acks, CSI, PEP, half load, delivery, p99": 5,
    "these and a durable archive, half load, delivery, p99": 5,
    "idle TLS connection, resident": 16,
    "room: message, per occupant": 4,
    "archive: page of 50, slowest of all": 5,
}
"""What Moim is to reach at the most, in the unit of the figure."""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _target(own: Figure | None) -> str:
    if own is None or (most := TARGETS.get(own.what)) is None:
        return ""
    return f"{most:g} {'✓' if own.value <= most else '✗'}"


def table(figures: Sequence[Figure]) -> Table:
    """A row per figure. Python and Rust are parts of Moim's CPU; ``times`` is the best peer's figure over Moim's."""
    peers = [name for name in dict.fromkeys(f.subject for f in figures) if name != "Moim"]
    found = Table(title="Cost per unit", box=None, header_style="bold", title_justify="left", pad_edge=False)
    found.add_column("what")
    found.add_column("unit")
    for name in ("target", "Moim", "Python", "Rust", *peers, "times"):
        found.add_column(name, justify="right", no_wrap=True)
    for what in dict.fromkeys(f.what for f in figures):
        row = {f.subject: f for f in figures if f.what == what}
        own, others = row.get("Moim"), [f.value for name, f in row.items() if name != "Moim" and f.value]
        ratio = f"{min(others) / own.value:.1f}" if own and own.value and others else ""
        parts = (own.python, own.rust) if own else (None, None)
        values = [_number(row[name].value) if name in row else "" for name in peers]
        unit = next(iter(row.values())).unit
        found.add_row(
            what, unit, _target(own), _number(own.value if own else None), *map(_number, parts), *values, ratio
        )
    return found


def show(figures: Sequence[Figure], heading: str) -> None:
    """Prints the table, then how much of what each figure was measured with."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    out.print(heading, style="dim")
    out.print(table(figures))
    out.print()
    for what in dict.fromkeys(f.what for f in figures if f.note):
        notes = "; ".join(f"{f.subject} {f.note}" for f in figures if f.what == what and f.note)
        out.print(f"{what}: {notes}", style="dim", soft_wrap=True)
