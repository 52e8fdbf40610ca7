"""``moim user``: add, list, change the password of, remove and import the people of a site; say what they may."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moim.cli import admin
from moim.cli.output import DEFAULT_SITE, JsonOption, SiteOption, err, out, print_json, table
from moim.errors import MoimError, UsageError

cli = typer.Typer(help="People: add, list, passwd, policy, remove, import.", add_completion=False, no_args_is_help=True)

AddressArgument = Annotated[str, typer.Argument(help="The address, like alice@example.com.")]
PasswordOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="Read the password from this file (first line; '-' is standard input)."),
]


def _password(file: Path | None) -> tuple[str, bool]:
    """The password, and whether it was made up here and has to be shown."""
    if file is not None:
        try:
            text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the password file cannot be read: {error}") from error
        first = text.split("\n", 1)[0].rstrip("\r")
        if not first:
            raise UsageError(f"the password file {file} is empty")
        return first, False
    if sys.stdin.isatty():
        typed: str = typer.prompt("Password (empty: make one)", hide_input=True, default="", show_default=False)
        if typed:
            if typer.prompt("Again", hide_input=True) != typed:
                raise UsageError("the two passwords differ")
            return typed, False
    return secrets.token_urlsafe(12), True


@cli.command()
def add(
    address: AddressArgument,
    password_file: PasswordOption = None,
    name: Annotated[str, typer.Option("--name", help="The name that others see.")] = "",
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Adds a person. Without a password file it asks, or makes a password and prints it."""
    password, made = _password(password_file)

    async def work(client: httpx.AsyncClient) -> Any:
        row = {"address": address, "password": password} | ({"display_name": name} if name else {})
        return admin.check(await client.post("/users", json=row))

    user = admin.run(root, work)
    shown = {"address": user["address"]} | ({"password": password} if made else {})
    if as_json:
        print_json(shown)
    else:
        out.print(f"Added {user['address']}." + (f" Password: {password}" if made else ""), markup=False)


@cli.command(name="list")
def list_users(root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Lists the people of the site."""

    async def work(client: httpx.AsyncClient) -> list[dict[str, Any]]:
        users: list[dict[str, Any]] = []
        while True:
            page = admin.check(await client.get("/users", params={"offset": len(users), "limit": 1000}))
            users += page["users"]
            if not page["users"] or len(users) >= page["total"]:
                return users

    users = admin.run(root, work)
    if as_json:
        print_json(users)
    else:
        rows = ((u["address"], u["display_name"], u["policy"], _state(u)) for u in users)
        table(("address", "name", "policy", "state"), rows)


def _state(user: dict[str, Any]) -> str:
    return "disabled" if user.get("disabled") else "active"


@cli.command()
def passwd(
    address: AddressArgument,
    password_file: PasswordOption = None,
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Changes a person's password and ends their sessions."""
    password, made = _password(password_file)

    async def work(client: httpx.AsyncClient) -> None:
        admin.check(await client.put(f"/users/{quote(address, safe='')}/password", json={"password": password}))

    admin.run(root, work)
    if as_json:
        print_json({"address": address} | ({"password": password} if made else {}))
    else:
        out.print(f"Changed the password of {address}." + (f" It is: {password}" if made else ""), markup=False)


@cli.command()
def policy(
    address: AddressArgument,
    name: Annotated[str, typer.Argument(help="The policy to give: its name in moim.toml. Without it: shows.")] = "",
    clear: Annotated[bool, typer.Option("--clear", help="Take the person's own policy away.")] = False,
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Shows what counts for a person in chat and why, or gives them a policy of ``[chat.policies]``, at once."""
    if name and clear:
        raise UsageError("a policy is given or taken away, not both", hint=f"leave out {name} or --clear")
    quoted = quote(address, safe="")

    async def work(client: httpx.AsyncClient) -> Any:
        if name or clear:
            admin.check(await client.patch(f"/users/{quoted}", json={"policy": name}))
        return admin.check(await client.get(f"/chat/limits/{quoted}"))

    found = admin.run(root, work)
    if as_json:
        print_json(found)
        return
    out.print(_which(found), markup=False, soft_wrap=True)
    if not (name or clear):
        rows = ((one["key"], json.dumps(one["value"]), one["from"]) for one in found["limits"])
        table(("limit", "value", "from"), rows)


def _which(found: dict[str, Any]) -> str:
    """Which policy a person has, in a sentence."""
    missing = f" moim.toml has no policy '{found['missing']}' any more." if found["missing"] else ""
    if not found["policy"]:
        return f"{found['address']} has no policy.{missing}"
    by = ", by department" if found["by"] == "department" else ""
    return f"{found['address']} has the policy '{found['policy']}'{by}.{missing}"


@cli.command()
def remove(address: AddressArgument, root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Removes a person, their contacts and waiting messages, and ends their sessions."""

    async def work(client: httpx.AsyncClient) -> None:
        admin.check(await client.delete(f"/users/{quote(address, safe='')}"))

    admin.run(root, work)
    if as_json:
        print_json({"address": address, "removed": True})
    else:
        out.print(f"Removed {address}.", markup=False)


@cli.command(name="import")
def import_users(
    file: Annotated[Path, typer.Argument(help="CSV with a heading line: address,password,display_name,…")],
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Adds many people from a CSV file; shows progress; tells each row that was refused and why.

    Exit code 0 only when every row was taken.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    total = max(data.count(b"\n") + (not data.endswith(b"\n")) - 1, 0)

    async def work(client: httpx.AsyncClient) -> dict[str, Any]:
        last: dict[str, Any] = {}
        headers = {"Content-Type": "text/csv; charset=utf-8"}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, disable=as_json) as progress:
            task = progress.add_task("importing", total=total)
            async with client.stream("POST", "/users/import", content=data, headers=headers) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise admin.error_of(answer)
                async for line in answer.aiter_lines():
                    last = json.loads(line)
                    if "error" in last:
                        raise MoimError(last["error"]["message"], hint=last["error"].get("hint", ""))
                    progress.update(task, completed=last.get("done", 0))
        return last

    report = admin.run(root, work)
    errors = report.get("errors", [])
    if as_json:
        print_json(report)
    else:
        for row in errors:
            err.print(f"line {row['line']}: {row['reason']}", markup=False)
        out.print(f"People: added {report.get('added', 0)}, refused {report.get('failed', len(errors))}.")
    if report.get("failed", len(errors)):
        raise typer.Exit(1)
