"""``moim federation``: other domains: who there is a stream with, what counts for whom, and what is wrong with one."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from moim.cli import admin
from moim.cli.output import DEFAULT_SITE, JsonOption, SiteOption, err, out, print_json, table

cli = typer.Typer(
    help="Messages with other domains: status, policies, and a check of a domain.",
    add_completion=False,
    no_args_is_help=True,
)
policy_cli = typer.Typer(help="What counts for single domains.", add_completion=False, no_args_is_help=True)
cli.add_typer(policy_cli, name="policy")


class Use(StrEnum):
    """How much something is insisted on."""

    off = "off"
    optional = "optional"
    required = "required"


class Access(StrEnum):
    """Whether anything is exchanged."""

    allow = "allow"
    deny = "deny"


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


DomainArgument = Annotated[str, typer.Argument(help="The other domain; *.example.com for all below it.")]

_MARKS = {"ok": ("ok", "green"), "warning": ("!!", "yellow"), "failed": ("no", "red"), "unknown": ("??", "dim")}


@cli.command()
def status(
    domain: Annotated[str, typer.Argument(help="One domain; all when left out.")] = "",
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Shows the streams with other domains: direction, encryption, how each was authenticated, errors, queues."""

    async def work(client: httpx.AsyncClient) -> Any:
        overview = admin.check(await client.get("/federation"))
        if domain:
            peer = admin.check(await client.get(f"/federation/peers/{quote(domain, safe='')}"))
            return overview | {"missing": peer.pop("missing"), "peers": [peer]}
        return overview | admin.check(await client.get("/federation/peers"))

    found = admin.run(root, work)
    if as_json:
        print_json(found)
        return
    if not found["running"]:
        out.print("Federation is switched off." if not found["enabled"] else "The site does not run.", markup=False)
        return
    rules = found["defaults"]
    out.print(
        f"{', '.join(found['domains'])}: {found['mode']}, TLS {rules['tls']}, certificates {rules['certificates']}, "
        f"dialback {'on' if rules['dialback'] else 'off'}",
        markup=False,
    )
    rows = [row for peer in found["peers"] for row in _rows(peer)]
    table(("domain", "node", "direction", "address", "TLS", "authenticated", "since", "queue", "last error"), rows)
    _tell_missing(found["missing"])


def _tell_missing(nodes: list[str]) -> None:
    for node in nodes:
        err.print(f"The node {node} does not answer: what it has is not among this.", markup=False)


def _rows(peer: dict[str, Any]) -> list[tuple[str, ...]]:
    error = peer.get("lastError", "")
    if error and peer.get("retryInSeconds"):
        error += f" (tried again in {peer['retryInSeconds']} s at the earliest)"
    last = (str(peer["queue"]), error)
    rows: list[tuple[str, ...]] = []
    for stream in peer["streams"]:
        tls = stream["tls"]
        proof = stream["certificate"]
        how = stream["authenticatedBy"] or stream["state"]
        rows.append(
            (
                peer["domain"],
                stream["node"],
                stream["direction"],
                f"{stream['address']}:{stream['port']}",
                tls["version"] if tls else "none",
                how if proof == "not proven" else f"{how} ({proof})",
                stream["since"],
                *last,
            )
        )
    return rows or [(peer["domain"], "-", "-", "-", "-", "-", "-", *last)]


@cli.command()
def reset(domain: DomainArgument, root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Ends the streams with a domain and lets it be tried again at once."""

    async def work(client: httpx.AsyncClient) -> Any:
        return admin.check(await client.delete(f"/federation/peers/{quote(domain, safe='')}"))

    found = admin.run(root, work)
    if as_json:
        print_json(found)
    else:
        out.print(f"Ended {found['streams']} streams with {found['domain']}.", markup=False)
        _tell_missing(found["missing"])


@policy_cli.command(name="list")
def list_policies(root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Lists what is set for single domains, and the defaults."""

    async def work(client: httpx.AsyncClient) -> Any:
        return admin.check(await client.get("/federation/policies"))

    found = admin.run(root, work)
    if as_json:
        print_json(found)
        return
    rows = [_policy_row("(all others)", found["defaults"])]
    table(
        ("domain", "access", "TLS", "certificates", "dialback", "server-only certificates"),
        [*(_policy_row(one["domain"], one["counts"]) for one in found["policies"]), *rows],
    )


def _policy_row(domain: str, counts: dict[str, Any]) -> tuple[str, ...]:
    dialback, server_only = ("on" if counts[key] else "off" for key in ("dialback", "server_auth_only"))
    return domain, counts["access"], counts["tls"], counts["certificates"], dialback, server_only


@policy_cli.command(name="show")
def show_policy(domain: DomainArgument, root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Shows what counts for a domain."""

    async def work(client: httpx.AsyncClient) -> Any:
        return admin.check(await client.get(f"/federation/policies/{quote(domain, safe='')}"))

    _print_policy(admin.run(root, work), as_json)


@policy_cli.command(name="set")
def set_policy(
    domain: DomainArgument,
    access: Annotated[Access | None, typer.Option(help="Whether anything is exchanged.")] = None,
    tls: Annotated[Use | None, typer.Option(help="Encryption.")] = None,
    certificates: Annotated[Use | None, typer.Option(help="Certificates of the other server.")] = None,
    dialback: Annotated[Switch | None, typer.Option(help="Whether dialback is enough.")] = None,
    server_auth_only: Annotated[Switch | None, typer.Option(help="Whether certificates for servers alone do.")] = None,
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Sets what counts for a domain; what is not named stays as it was set. Its streams end, so that it counts now."""
    given: dict[str, Any] = {
        "access": access.value if access else None,
        "tls": tls.value if tls else None,
        "certificates": certificates.value if certificates else None,
        "dialback": None if dialback is None else dialback is Switch.on,
        "server_auth_only": None if server_auth_only is None else server_auth_only is Switch.on,
    }

    async def work(client: httpx.AsyncClient) -> Any:
        path = f"/federation/policies/{quote(domain, safe='')}"
        before = admin.check(await client.get(path))["set"]
        wanted = before | {key: value for key, value in given.items() if value is not None}
        return admin.check(await client.put(path, json=wanted))

    _print_policy(admin.run(root, work), as_json)


@policy_cli.command(name="remove")
def remove_policy(domain: DomainArgument, root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Leaves a domain to the defaults again."""

    async def work(client: httpx.AsyncClient) -> None:
        admin.check(await client.delete(f"/federation/policies/{quote(domain, safe='')}"))

    admin.run(root, work)
    if as_json:
        print_json({"domain": domain, "removed": True})
    else:
        out.print(f"{domain} is left to the defaults.", markup=False)


def _print_policy(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    table(
        ("domain", "access", "TLS", "certificates", "dialback", "server-only certificates"),
        [_policy_row(found["domain"], found["counts"])],
    )
    if found["counts"]["refusal"]:
        out.print(found["counts"]["refusal"], markup=False)


@cli.command()
def check(
    domain: DomainArgument,
    sender: Annotated[
        str, typer.Option("--from", help="The domain of this site to check it for.", show_default="the service domain")
    ] = "",
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Finds out why nothing comes or goes: names, ports, encryption, certificates, dialback; and says what to do next.

    The exit code is 0 when messages can go both ways as far as can be told from here, else 1.
    """

    async def work(client: httpx.AsyncClient) -> dict[str, Any]:
        async with client.stream("POST", "/federation/check", json={"domain": domain, "from": sender}) as answer:
            if not answer.is_success:
                await answer.aread()
                raise admin.error_of(answer)
            verdict: dict[str, Any] = {}
            async for line in answer.aiter_lines():
                if not line:
                    continue
                told = json.loads(line)
                if "verdict" in told:
                    verdict = told
                elif not as_json:
                    _print_step(told)
            return verdict

    found = admin.run(root, work)
    if as_json:
        print_json(found)
    elif found:
        out.print()
        out.print(found["verdict"], style="bold", markup=False, soft_wrap=True)
        if found["next"]:
            out.print(f"Next step: {found['next']}", markup=False, soft_wrap=True)
    else:
        err.print("the check broke off; look into log/inside.log", markup=False)
    raise typer.Exit(0 if found.get("ok") else 1)


def _print_step(step: dict[str, Any]) -> None:
    mark, style = _MARKS.get(step["state"], ("??", "dim"))
    out.print(f"[{style}]{mark}[/]", end="  ")
    out.print(step["text"], markup=False, soft_wrap=True)
