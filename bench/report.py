"""The figures as a table: a row per unit of work, Moim beside its peers and what it is to reach.

``python -m bench.report FILE`` prints what ``--json`` left in FILE as Markdown, for ``docs/benchmarks.md``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

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


def _rows(figures: Sequence[Figure]) -> tuple[list[str], list[list[str]]]:
    """The headings and the cells. Python and Rust are parts of Moim's CPU; ``times`` is the best peer's over Moim's."""
    peers = [name for name in dict.fromkeys(f.subject for f in figures) if name != "Moim"]
    rows = []
    for what in dict.fromkeys(f.what for f in figures):
        row = {f.subject: f for f in figures if f.what == what}
        own, others = row.get("Moim"), [f.value for name, f in row.items() if name != "Moim" and f.value]
        ratio = f"{min(others) / own.value:.1f}" if own and own.value and others else ""
        numbers = (own.value, own.python, own.rust) if own else (None, None, None)
        values = [_number(row[name].value) if name in row else "" for name in peers]
        rows.append([what, next(iter(row.values())).unit, _target(own), *map(_number, numbers), *values, ratio])
    return ["what", "unit", "target", "Moim", "Python", "Rust", *peers, "times"], rows


def table(figures: Sequence[Figure]) -> Table:
    """A row per figure, for a terminal."""
    headings, rows = _rows(figures)
    found = Table(title="Cost per unit", box=None, header_style="bold", title_justify="left", pad_edge=False)
    for index, heading in enumerate(headings):
        found.add_column(heading, justify="left" if index < 2 else "right", no_wrap=index > 1)
    for row in rows:
        found.add_row(*row)
    return found


def markdown(figures: Sequence[Figure]) -> str:
    """The same for a document."""
    headings, rows = _rows(figures)
    rule = ["---"] * 2 + ["--:"] * (len(headings) - 2)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows))


def show(figures: Sequence[Figure], heading: str) -> None:
    """Prints the table, then how much of what each figure was measured with."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)
    out.print(heading, style="dim")
    out.print(table(figures))
    out.print()
    for what in dict.fromkeys(f.what for f in figures if f.note):
        notes = "; ".join(f"{f.subject} {f.note}" for f in figures if f.what == what and f.note)
        out.print(f"{what}: {notes}", style="dim", soft_wrap=True)


if __name__ == "__main__":
    document = json.loads(Path(sys.argv[1]).read_text())
    print(document["heading"], markdown([Figure(**fields) for fields in document["figures"]]), sep="\n\n")
