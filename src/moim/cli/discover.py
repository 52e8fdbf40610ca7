"""``moim discover``: finds a person's services as a client does, and shows every question, answer and reason."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from moim.cli.output import DEFAULT_SITE, err, out, print_json, table
from moim.discovery import (
    AskPassword,
    Credentials,
    Outcome,
    Step,
    Target,
    default_path,
    last_target,
    parse_target,
)
from moim.discovery import discover as run_discovery
from moim.errors import ConfigError, UsageError
from moim.net.resolver import Server, parse_server

EXIT_CODES = {"usage": 2, "manual": 3, "credentials": 4, "network": 5, "trust": 6, "rubbish": 7, "refused": 8}
"""By ``Failure.kind``."""

_DNS_PORT = 53
_MAX_PASSWORD = 4096
_MARKS = {"ok": ("✓", "green"), "none": ("·", "yellow"), "failed": ("✗", "red"), "skipped": ("-", "dim")}


def discover(
    address: Annotated[str, typer.Argument(help="Address or configuration link; the last one when left out.")] = "",
    dns: Annotated[str, typer.Option("--dns", metavar="HOST:PORT", help="Name server to ask, else the system's.")] = "",
    ca: Annotated[Path | None, typer.Option("--ca", help="Trusted authorities in PEM, else the system's.")] = None,
    user: Annotated[str, typer.Option("--user", help="Who signs in, when a link names only the domain.")] = "",
    password_file: Annotated[Path | None, typer.Option("--password-file", help="File with the password.")] = None,
    cache: Annotated[Path | None, typer.Option("--cache", help="File to remember answers in.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Remember nothing, use nothing remembered.")] = False,
    site: Annotated[Path | None, typer.Option("--site", help="Use this site's name server and authority.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find the services of ADDRESS as a client does, and sign in.

    ADDRESS is like alice@example.com, or a configuration link (moim: or
    ciscojabber:). Each question is shown with where it went, what came back,
    how long it took and why the next step was chosen. Without a password it
    goes as far as it can and says so.

    Beside a site (./site) of the address's domain, that site's name server and
    authority are used unless --dns and --ca say otherwise.

    Exit codes:
    0 done
    2 the address, the link or an option is wrong
    3 nothing can be discovered: manual settings are needed
    4 wrong password or unknown user
    5 a name or a server cannot be reached
    6 a certificate is not trusted
    7 a server answered rubbish
    8 a server refused
    """
    try:
        path = None if no_cache else cache or default_path()
        target = _target(address, user, path)
        servers, authority = _surroundings(target, dns, ca, site)
        password = _read_password(password_file) if password_file is not None else None
        with _terminal_kept():
            outcome = asyncio.run(
                run_discovery(
                    target,
                    password=password,
                    ask=_prompt if password is None and sys.stdin.isatty() else None,
                    dns=servers,
                    ca=authority,
                    cache=path,
                    on_step=None if as_json else _show_step,
                )
            )
    except (UsageError, ConfigError) as error:
        if as_json:
            said = {"code": "usage", "kind": "usage", "message": error.message, "hint": error.hint, "params": {}}
            print_json({"address": address, "error": said})
        _say("error: ", error.message, error.hint)
        raise typer.Exit(EXIT_CODES["usage"]) from None
    if as_json:
        print_json(outcome.to_json())
    else:
        _show_outcome(outcome)
    if outcome.error is not None:
        if as_json:
            _say("error: ", outcome.error.message, outcome.error.hint)
        raise typer.Exit(EXIT_CODES[outcome.error.kind])


def _target(text: str, user: str, cache: Path | None) -> Target:
    if not text and cache is not None:
        text = last_target(cache)
    if not text:
        raise UsageError("no address is given and none is remembered", hint="write: moim discover alice@example.com")
    return parse_target(text, user=user)


def _surroundings(
    target: Target, dns: str, ca: Path | None, site: Path | None
) -> tuple[list[Server] | None, Path | None]:
    """Name servers and authority as given, else of the site that is named, or that is here and has this domain."""
    servers: list[Server] | None = None
    if dns:
        try:
            servers = [parse_server(dns)]
        except ValueError:
            raise UsageError(f"'{dns}' is not a name server", hint="write it like 192.0.2.53:53") from None
    if ca is not None and not ca.is_file():
        raise UsageError(f"there is no file {ca}", hint="--ca names a file with certificates in PEM")
    root = site or DEFAULT_SITE
    if (servers is not None and ca is not None) or (site is None and not (root / "moim.toml").is_file()):
        return servers, ca
    from moim.app import open_site

    found = open_site(root)
    if site is None and not {target.domain, target.voice_domain} & {*found.domains}:
        return servers, ca
    if servers is None:
        port = found.settings.ports.bind(_DNS_PORT)
        servers = [(node.address, port) for node in found.inside_nodes.values()]
    if ca is None and found.ca_file.is_file():
        ca = found.ca_file
    return servers, ca


def _read_password(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MAX_PASSWORD + 1)
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"the password file {path} cannot be read: {said}") from None
    password = text.partition("\n")[0].rstrip("\r")
    if not password or len(text) > _MAX_PASSWORD:
        raise UsageError(f"the password file {path} holds no password", hint="it has the password in its first line")
    return password


async def _prompt(request: AskPassword) -> Credentials | None:
    if request.again:
        err.print("  The password was not accepted.", style="yellow")
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[Credentials | None] = loop.create_future()

    def hand_over(credentials: Credentials | None) -> None:
        if not typed.done():
            typed.set_result(credentials)

    def read() -> None:
        credentials = _prompt_now(request.address, request.domain)
        with contextlib.suppress(RuntimeError):  # the command may have ended meanwhile
            loop.call_soon_threadsafe(hand_over, credentials)

    # A daemon thread: Ctrl-C ends the command at once, not when somebody has pressed Enter.
    threading.Thread(target=read, daemon=True).start()
    return await typed


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Puts the terminal back as it was: a password prompt that is interrupted leaves it without echo."""
    try:
        before = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
    except (termios.error, ValueError):
        before = None
    try:
        yield
    finally:
        if before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _prompt_now(address: str, domain: str) -> Credentials | None:
    try:
        user = "" if address else input(f"  User name at {domain}: ").strip()
        password = getpass.getpass(f"  Password of {address or user} (empty: go on without): ")
    except (EOFError, OSError):
        return None
    return Credentials(user, password) if password and (user or address) else None


def _show_step(step: Step) -> None:
    mark, style = _MARKS[step.result]
    out.print(Text.assemble((f"{mark} ", style), step.detail))
    if step.where or step.elapsed_ms:
        asked = " → ".join(part for part in (step.what, step.where) if part)
        took = f"{step.elapsed_ms:g} ms" if step.elapsed_ms else ""
        out.print(Text("    " + ", ".join(part for part in (asked, took) if part), "dim"))
    if step.why_next:
        out.print(Text(f"    ⤷ {step.why_next}", "cyan"))


def _show_outcome(outcome: Outcome) -> None:
    out.print()
    if outcome.services:
        rows = [
            (s.name, f"{s.host}:{s.port}", ", ".join(s.addresses), s.transport, "used" if s.used else "")
            for s in outcome.services
        ]
        table(("Service", "Server", "Address", "Transport", ""), rows)
        out.print()
    facts = (
        ("Address", outcome.address),
        ("Domain", outcome.domain),
        ("Location", outcome.location),
        ("Home cluster", f"{outcome.home_cluster} {outcome.server_version}".strip()),
        ("Name", outcome.display_name),
        ("Devices", ", ".join(device.name for device in outcome.devices)),
        ("Authenticator", outcome.authenticator or ""),
        ("Product mode", outcome.product_mode or ""),
        ("Signed in", (outcome.jid or "yes") if outcome.signed_in else "no"),
        ("Time", f"{outcome.elapsed_ms:g} ms"),
    )
    table(("Outcome", ""), [(name, value) for name, value in facts if value])
    if outcome.error is not None:
        _say("\nerror: ", outcome.error.message, outcome.error.hint)


def _say(label: str, message: str, hint: str) -> None:
    err.print(Text.assemble((label, "bold red"), message, f"\n       {hint}" if hint else ""))


cli = typer.Typer(add_completion=False)
cli.command()(discover)
