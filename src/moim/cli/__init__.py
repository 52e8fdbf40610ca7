"""The ``moim`` command: one file per command; this one lists them and turns errors into sentences and exit codes."""

from __future__ import annotations

import sys

import typer

from moim.cli import discover, space, status, up, user
from moim.cli.output import fail
from moim.errors import MoimError

cli = typer.Typer(
    name="moim",
    help=(
        "Moim: chat, presence and meetings that your organisation hosts itself.\n\n"
        "Start with 'moim up --demo': it makes a site in ./site with demo users, runs it, and prints where to sign in. "
        "'moim status' shows what runs; 'moim discover ADDRESS' shows how a client finds its services."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli.command(name="up")(up.up)
cli.command(name="status")(status.status)
cli.command(name="discover")(discover.discover)
cli.add_typer(user.cli, name="user")
cli.add_typer(space.cli, name="space")


def main() -> None:
    """Entry point of the installed command."""
    try:
        cli()
    except MoimError as error:
        sys.exit(fail(error))
    except KeyboardInterrupt:
        sys.exit(130)
