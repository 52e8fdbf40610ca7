"""``moim space``: meeting spaces of a site."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from moim.cli import admin
from moim.cli.output import DEFAULT_SITE, JsonOption, SiteOption, out, print_json, table

cli = typer.Typer(help="Meeting spaces: create, list, remove.", add_completion=False, no_args_is_help=True)


@cli.command()
def create(
    name: Annotated[str, typer.Argument(help="What people see as the meeting's name.")],
    owner: Annotated[str, typer.Option("--owner", help="Address of the person it belongs to.")] = "",
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Makes a space and prints its call ID, passcode and the link to hand to guests."""

    async def work(client: httpx.AsyncClient) -> Any:
        return admin.check(await client.post("/spaces", json={"name": name} | ({"owner": owner} if owner else {})))

    space = admin.run(root, work)
    if as_json:
        print_json(space)
        return
    out.print(f"{space['name']}", style="bold", markup=False)
    out.print(f"  call ID   {space['callId']}\n  passcode  {space['passcode']}", markup=False)
    out.print(f"  link      {space['link']}", markup=False, soft_wrap=True)


@cli.command(name="list")
def list_spaces(root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Lists the spaces."""

    async def work(client: httpx.AsyncClient) -> Any:
        return admin.check(await client.get("/spaces"))

    spaces = admin.run(root, work)["spaces"]
    if as_json:
        print_json(spaces)
    else:
        table(
            ("call ID", "name", "passcode", "link"),
            ([s["callId"], s["name"], s["passcode"], s["link"]] for s in spaces),
        )


@cli.command()
def remove(
    call_id: Annotated[str, typer.Argument(help="The call ID.")],
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Removes a space; a meeting in it ends."""

    async def work(client: httpx.AsyncClient) -> None:
        admin.check(await client.delete(f"/spaces/{quote(call_id, safe='')}"))

    admin.run(root, work)
    if as_json:
        print_json({"callId": call_id, "removed": True})
    else:
        out.print(f"Removed the space {call_id}.", markup=False)
