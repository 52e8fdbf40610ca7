"""``moim up``: makes the site when there is none, runs it in the foreground, says where everything is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from enum import StrEnum
from shutil import which
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape

from moim import log
from moim.cli import status
from moim.cli.output import DEFAULT_SITE, SiteOption, err, out, warn_of_full_disk
from moim.errors import UsageError
from moim.model import NodeName
from moim.settings import Site, load_frame
from moim.supervisor import Supervisor


class PortProfile(StrEnum):
    """Which ports a new site binds."""

    dev = "dev"
    standard = "standard"


def up(
    root: SiteOption = DEFAULT_SITE,
    domain: Annotated[str, typer.Option("--domain", help="The domain of a new site.", show_default="moim.test")] = "",
    demo: Annotated[bool, typer.Option("--demo", help="Give a new site the users alice, bob and carol.")] = False,
    ports: Annotated[
        PortProfile | None,
        typer.Option("--ports", help="Ports of a new site: dev (+10000, no root) or standard.", show_default="dev"),
    ] = None,
    inside: Annotated[
        str, typer.Option("--inside", help="Address of a new site's inside node.", show_default="127.0.0.1")
    ] = "",
    edge: Annotated[
        str, typer.Option("--edge", help="Address of a new site's edge node.", show_default="127.0.0.2")
    ] = "",
    node: Annotated[
        list[str] | None,
        typer.Option("--node", help="Run only this node of the site, on this machine.", show_default="inside and edge"),
    ] = None,
) -> None:
    """Makes a site if there is none, starts it, and runs it until Ctrl-C.

    A site is a directory: moim.toml, its own certificate authority (ca.pem), the store and the secrets (mode 0600).
    The options about a new site are refused when they contradict a site that exists.
    """
    began = time.monotonic()
    os.umask(0o077)
    if (root / "moim.toml").exists():
        site = load_frame(root)
        _contradictions(site, domain, ports, inside, edge)
    else:
        with err.status("making the site: authority, keys, users"):
            from moim import app  # the rooms are needed to make a site, not to run one

            site = app.create_site(
                root,
                domain=domain or "moim.test",
                demo=demo,
                ports=(ports or PortProfile.dev).value,
                inside=inside or "127.0.0.1",
                edge_address=edge or "127.0.0.2",
            )
        out.print(f"Made a site for {site.domain} in {site.root}", markup=False)
    warn_of_full_disk(site.root)
    (site.root / "log").mkdir(mode=0o700, exist_ok=True)
    log.configure(site.settings.log.level, site.root / "log" / "supervisor.log")
    asyncio.run(_run(site, began, _nodes(site, node or [])))


def _nodes(site: Site, asked: list[str]) -> tuple[str, ...]:
    known = (*site.inside_nodes, "edge")
    for name in asked:
        if name not in known:
            raise UsageError(f"this site has no node '{name}'", hint=f"its moim.toml knows: {', '.join(known)}")
    return tuple(dict.fromkeys(asked)) or get_args(NodeName)


def _contradictions(site: Site, domain: str, ports: PortProfile | None, inside: str, edge: str) -> None:
    nodes = site.settings.nodes
    for option, said, real in (
        ("--domain", domain, site.domain),
        ("--ports", ports.value if ports else "", site.settings.ports.profile),
        ("--inside", inside, nodes.inside.address),
        ("--edge", edge, nodes.edge.address),
    ):
        if said and said != real:
            raise UsageError(
                f"{option} {said} contradicts the site in {site.root}, which has {real}",
                hint="edit its moim.toml, or name another directory with --site",
            )


async def _run(site: Site, began: float, nodes: tuple[str, ...]) -> None:
    view = _View(site, began)
    supervisor = Supervisor(site.root, nodes, lambda: view.changed(supervisor))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stop)
    err.print("starting …", style="dim")
    await supervisor.run()
    out.print("stopped.")


class _View:
    """Tells the person what changes: each node's state, each fault, and once the whole list of places."""

    def __init__(self, site: Site, began: float) -> None:
        self._site = site
        self._began = began
        self._told: dict[str, tuple[str, str]] = {}
        self._shown = False

    def changed(self, supervisor: Supervisor) -> None:
        for node in supervisor.nodes.values():
            said = (node.state, node.detail)
            if self._told.get(node.name) != said:
                self._told[node.name] = said
                style = "red" if node.state == "failed" else "dim"
                detail = f": {node.detail}" if node.detail else ""
                err.print(f"{node.name} node {node.state}{detail}", style=style, markup=False)
        if supervisor.ready and not self._shown:
            self._shown = True
            out.print(f"[bold green]ready[/] after {time.monotonic() - self._began:.1f} s\n")
            _summary(self._site, status.gather(self._site, supervisor.status()))


def _summary(site: Site, document: dict[str, Any]) -> None:
    place = {s["name"]: f"{s['address']}:{s['port']}" for s in document["services"]}

    def line(label: str, *found: tuple[str, str | None, str]) -> None:
        """What runs here of ``found``, each with words before and after the place."""
        if texts := [f"{before}{where}{after}" for before, where, after in found if where]:
            out.print(f"  [bold]{label:<12}[/] {escape(', '.join(texts))}", soft_wrap=True)

    line("Sign in", ("", document["web"], ""))
    line("From outside", ("https://", place.get("edge-web"), "/  (through the edge; trust the CA file first)"))
    demo_file = site.root / "demo-users.json"
    if demo_file.exists():
        for number, user in enumerate(json.loads(demo_file.read_text(encoding="utf-8"))):
            line("" if number else "Demo users", (f"{user['address']}  password ", user["password"], ""))
    line(
        "XMPP",
        ("", place.get("xmpp-client"), " (STARTTLS)"),
        ("", place.get("xmpp-client-tls"), " (TLS)"),
        ("outside ", place.get("edge-xmpp"), ""),
    )
    line("TURN", ("", place.get("turn"), " (UDP)"))
    line("DNS", ("inside ", document["dns"]["inside"], ""), ("outside ", document["dns"]["outside"], ""))
    line("CA file", ("", document["ca"], ""))
    path = "" if which("moim") else f"'. {escape(os.path.dirname(sys.argv[0]))}/activate', then "
    out.print(
        f"\n  Stop with Ctrl-C. In another terminal: {path}moim status, moim user add, moim discover, moim federation",
        soft_wrap=True,
    )


cli = typer.Typer(add_completion=False)
cli.command()(up)
