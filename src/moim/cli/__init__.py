"""The ``moim`` command: one file per command, loaded when it is asked for; errors become sentences and exit codes."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from moim.cli.output import fail
from moim.errors import MoimError

_COMMANDS = ("up", "status", "discover", "chat", "federation", "user", "space")


class _Commands(TyperGroup):
    """Imports the file of a command when that command is looked up: each starts with what it needs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"moim.cli.{cmd_name}").cli)
        command.name = cmd_name
        return command


cli = typer.Typer(
    name="moim",
    cls=_Commands,
    help=(
        "Moim: chat, presence and meetings that your organisation hosts itself.\n\n"
        "Start with 'moim up --demo': it makes a site in ./site with demo users, runs it, and prints where to sign in. "
        "'moim status' shows what runs; 'moim discover ADDRESS' shows how a client finds its services."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@cli.callback()
def _moim() -> None:
    """Everything is in the commands, which say themselves what goes wrong: warnings are for a running site's log."""
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.ERROR)


def main() -> None:
    """Entry point of the installed command."""
    try:
        cli()
    except MoimError as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(130)
