"""``moim status``: what runs, where it listens, and what is wrong."""

from __future__ import annotations

from typing import Any

import typer

from moim import supervisor
from moim.cli.output import DEFAULT_SITE, JsonOption, SiteOption, out, print_json, table, warn_of_full_disk
from moim.settings import Site, load_frame

_COLOURS = {"running": "green", "starting": "yellow", "degraded": "yellow", "failed": "red", "stopped": "dim"}


def gather(site: Site, running: dict[str, Any] | None) -> dict[str, Any]:
    """The document that ``moim status --json`` prints."""
    services = running["services"] if running else []
    place = {service["name"]: f"{service['address']}:{service['port']}" for service in services}
    scheme = next((s["transport"] for s in services if s["name"] == "web"), "http")
    return {
        "ready": bool(running and running["ready"]),
        "domain": site.domain,
        "domains": list(site.domains),
        "web": f"{scheme}://{place['web']}/" if "web" in place else None,
        "ca": str(site.ca_file),
        "dns": {"inside": place.get("dns-inside"), "outside": place.get("dns-outside")},
        "nodes": running["nodes"] if running else [],
        "services": services,
    }


def status(root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Shows the nodes and services of a site.

    Exit code 0 when the site's supervisor answered, 1 when the site does not run.
    """
    site = load_frame(root)
    warn_of_full_disk(site.root)
    running = supervisor.query(site.root)
    document = gather(site, running)
    if as_json:
        print_json(document)
    elif running is None:
        out.print(f"The site in {site.root} ({site.domain}) does not run. Start it with: moim up --site {root}")
    else:
        _show(document)
    if running is None:
        raise typer.Exit(1)


def _show(document: dict[str, Any]) -> None:
    word = "[green]ready[/]" if document["ready"] else "[yellow]not ready[/]"
    out.print(f"{document['domain']} is {word}. Sign in: {document['web'] or 'not up yet'}\n")
    table(
        ("node", "state", "process", "restarts", "detail"),
        (
            (n["name"], _coloured(n["state"]), str(n["pid"] or "-"), str(n["restarts"]), n["detail"])
            for n in document["nodes"]
        ),
    )
    out.print()
    table(
        ("service", "node", "transport", "address", "state", "detail"),
        (
            (s["name"], s["node"], s["transport"], _place(s), _coloured(s["state"]), s["detail"])
            for s in document["services"]
        ),
    )


def _place(service: dict[str, Any]) -> str:
    return f"{service['address']}:{service['port']}" if service["port"] else service["address"]


def _coloured(state: str) -> str:
    return f"[{_COLOURS.get(state, 'red')}]{state}[/]"


cli = typer.Typer(add_completion=False)
cli.command()(status)
