"""What every command shares: the ``--site`` and ``--json`` options, error sentences, tables and JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moim.errors import ConfigError, MoimError, NotFound, Unavailable, UsageError

SiteOption = Annotated[Path, typer.Option("--site", help="The site's directory.", show_default=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DEFAULT_SITE = Path("site")

_PIPED_COLUMNS = 160  # for files and pipes, where nobody's window sets a width

out = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_COLUMNS)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else _PIPED_COLUMNS)

_LOW_DISK_BYTES = 100_000_000

_CODES: tuple[tuple[type[MoimError], int], ...] = ((UsageError, 2), (ConfigError, 3), (NotFound, 4), (Unavailable, 5))


def fail(error: MoimError) -> int:
    """Prints an error as a sentence with its next step; gives the exit code for it."""
    err.print(f"[bold red]error:[/] {escape(error.message)}")
    if error.hint:
        err.print(f"       {error.hint}", markup=False)
    return next((code for kind, code in _CODES if isinstance(error, kind)), 1)


def warn_of_full_disk(root: Path) -> None:
    """Says so when next to nothing can be stored any more."""
    if (free := shutil.disk_usage(root).free) < _LOW_DISK_BYTES:
        err.print(f"[bold yellow]warning:[/] the disk of {escape(str(root))} is full: {free // 1_000_000} MB are left")


def print_json(value: Any) -> None:
    """One JSON document, readable, to standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under headings; without colour or frames when the output is not a terminal."""
    view = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*row)
    out.print(view)
