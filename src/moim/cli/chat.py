"""``moim chat``: people and all they have, from other XMPP servers and to them (XEP-0227); which policies there are."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from moim.chat.moving.reading import Export, Piece, Skipped, UserBegins, UserEnds
from moim.cli import admin
from moim.cli.output import DEFAULT_SITE, JsonOption, SiteOption, err, out, print_json, table
from moim.errors import Unavailable, UsageError

cli = typer.Typer(
    help="Chat: policies; move people in from another XMPP server, or out to one.",
    add_completion=False,
    no_args_is_help=True,
)

_BATCH_BYTES = 1_500_000
_BATCH_PIECES = 1000
_REPORTED = 10_000


@dataclass(slots=True)
class _Batch:
    """Pieces of one user for one request. ``first``: nothing of the user was sent before."""

    user: str
    password: str | None = field(repr=False)
    first: bool = True
    pieces: list[str] = field(default_factory=list)
    size: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def body(self, *, dry_run: bool) -> dict[str, Any]:
        """The JSON of the request."""
        given: dict[str, Any] = {"user": self.user, "pieces": self.pieces, "first": self.first, "dry_run": dry_run}
        return given | ({"password": self.password} if self.first and self.password is not None else {})


def _batches(export: Export) -> Iterator[_Batch]:
    """The users of an export, in requests of bounded size."""
    batch: _Batch | None = None
    stray: Counter[str] = Counter()
    for event in export.read():
        if isinstance(event, UserBegins):
            batch = _Batch(f"{event.name}@{event.host}", event.password)
        elif isinstance(event, Piece) and batch is not None:
            text = event.element.to_xml("")
            if batch.size + len(text) > _BATCH_BYTES or len(batch.pieces) >= _BATCH_PIECES:
                yield batch
                batch = _Batch(batch.user, batch.password, first=False)
            batch.pieces.append(text)
            batch.size += len(text.encode())
        elif isinstance(event, Skipped):
            (stray if batch is None else batch.skipped)[f"{event.what}: {event.reason}"] += 1
        elif isinstance(event, UserEnds) and batch is not None:
            yield batch
            batch = None
    if stray:
        yield _Batch("", None, first=False, skipped=stray)


@dataclass(slots=True)
class _Report:
    """What came of an import."""

    people: Counter[str] = field(default_factory=Counter)
    new: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    rows: list[dict[str, str]] = field(default_factory=list)
    more: int = 0

    def tell(self, user: str, kind: str, what: str) -> None:
        if len(self.rows) < _REPORTED:
            self.rows.append({"user": user, "kind": kind, "what": what})
        else:
            self.more += 1

    def take(self, batch: _Batch, answer: dict[str, Any]) -> None:
        if account := answer["account"]:
            self.people[account] += 1
            if account == "other-password":
                self.tell(batch.user, "conflict", "the account exists already; it keeps the password that it has here")
        self.new.update(answer["new"])
        self.same.update(answer["same"])
        for sentence in answer["conflicts"]:
            self.tell(batch.user, "conflict", sentence)
        for what, number in answer["left"].items():
            if what != "conflicts":
                self.tell(batch.user, "left behind", f"{what} ({number})")
            elif number > len(answer["conflicts"]):
                self.tell(batch.user, "conflict", f"and {number - len(answer['conflicts'])} more")

    def skip(self, batch: _Batch) -> None:
        for what, number in batch.skipped.items():
            self.tell(batch.user, "left behind", f"{what} ({number})")

    def to_json(self, *, dry_run: bool) -> dict[str, Any]:
        return {
            "dry_run": dry_run,
            "people": dict(self.people),
            "new": {kind: number for kind, number in self.new.items() if number},
            "same": {kind: number for kind, number in self.same.items() if number},
            "report": self.rows,
            "more": self.more,
        }


@cli.command(name="import")
def import_people(
    files: Annotated[
        list[Path],
        typer.Argument(help="The export: its first file (the one that includes the others), or one per user."),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Takes people over from another XMPP server: passwords, contacts, block lists, vCards, messages, archives.

    The files are those of XEP-0227. ejabberd writes them with 'ejabberdctl export_piefxis DIRECTORY', Prosody with
    'prosody-migrator' and the output type xep0227. The domain of the people has to be this site's.

    What is here already stays as it is and is listed at the end; running the import again changes nothing, so one that
    broke off is simply run again. The site may run meanwhile. Exit code 0 only when nothing was refused or in conflict.
    """
    report = _Report()

    async def work(client: httpx.AsyncClient) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, disable=as_json) as progress:
            total = sum(file.stat().st_size for file in files if file.is_file())
            task, before = progress.add_task("importing", total=total), 0
            for file in files:
                export, refused = Export(file), ""
                for batch in _batches(export):
                    report.skip(batch)
                    if batch.user and batch.user != refused:
                        answer = await client.post("/chat/import", json=batch.body(dry_run=dry_run))
                        if answer.is_success:
                            report.take(batch, answer.json())
                        elif isinstance(error := admin.error_of(answer), UsageError):
                            refused = batch.user
                            report.people["refused"] += 1
                            report.tell(batch.user, "refused", error.message)
                        else:
                            raise error
                    progress.update(task, completed=before + export.position, total=max(total, before + export.size))
                before += export.position

    admin.run(root, work)
    if as_json:
        print_json(report.to_json(dry_run=dry_run))
    else:
        _show(report, dry_run=dry_run)
    if report.people["refused"] or any(row["kind"] == "conflict" for row in report.rows):
        raise typer.Exit(1)


def _show(report: _Report, *, dry_run: bool) -> None:
    if report.rows:
        table(("user", "", "what"), ((row["user"], row["kind"], row["what"]) for row in report.rows))
    if report.more:
        out.print(f"and {report.more} more", markup=False)
    people = report.people
    here = people["same"] + people["other-password"]
    verb = "would add" if dry_run else "added"
    out.print(f"People: {verb} {people['added']}, {here} were here, {people['refused']} refused.", markup=False)
    for word, counted in (("new", report.new), ("here already", report.same)):
        if shown := ", ".join(f"{number} {kind}" for kind, number in counted.items() if number):
            out.print(f"{word}: {shown}", markup=False)


@cli.command(name="export")
def export_people(
    file: Annotated[
        Path, typer.Argument(help="Where to write; made for you alone (mode 0600). '-' is standard output.")
    ],
    user: Annotated[str, typer.Option("--user", help="Only this person, like alice@example.com.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file when it is there.")] = False,
    root: SiteOption = DEFAULT_SITE,
    as_json: JsonOption = False,
) -> None:
    """Writes people and all they have into a file of XEP-0227, which other XMPP servers read.

    The file has what is needed to check their passwords (SCRAM keys), and all their messages: keep it as you keep
    passwords. Rooms, uploaded files and settings of the site are not in it.
    """
    if str(file) != "-" and file.exists() and not force:
        raise UsageError(f"{file} is there already", hint="name another file, or use --force")

    async def work(client: httpx.AsyncClient) -> int:
        params = {"user": user} if user else {}
        async with client.stream("GET", "/chat/export", params=params) as answer:
            if not answer.is_success:
                await answer.aread()
                raise admin.error_of(answer)
            if str(file) == "-":
                return await _copy(answer, sys.stdout.buffer)
            part = file.with_name(f"{file.name}.part")
            try:
                with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as to:
                    os.fchmod(to.fileno(), 0o600)
                    size = await _copy(answer, to)
                    to.flush()
                    os.fsync(to.fileno())
                part.replace(file)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise UsageError(f"{file} cannot be written: {error.strerror}") from error
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            return size

    size = admin.run(root, work)
    if str(file) == "-":
        return
    if as_json:
        print_json({"file": str(file), "bytes": size})
    else:
        out.print(
            f"Wrote {file} ({size} bytes). It has credentials: keep it safe, and delete it afterwards.", markup=False
        )


async def _copy(answer: httpx.Response, to: Any) -> int:
    size, tail = 0, b""
    with Progress(TextColumn("writing"), DownloadColumn(), console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("writing", total=None)
        async for chunk in answer.aiter_bytes():
            to.write(chunk)
            size += len(chunk)
            tail = (tail + chunk)[-64:]
            progress.update(task, completed=size)
    if not tail.rstrip().endswith(b"</server-data>"):
        raise Unavailable("the export broke off", hint="look into log/inside.log")
    return size


@cli.command()
def policies(root: SiteOption = DEFAULT_SITE, as_json: JsonOption = False) -> None:
    """Lists the policies of moim.toml: who has them, and what they say. ``moim user policy`` gives one to a person."""

    async def work(client: httpx.AsyncClient) -> Any:
        return admin.check(await client.get("/chat/policies"))

    found = admin.run(root, work)
    if as_json:
        print_json(found)
        return
    if not found["policies"]:
        out.print("There are no policies. Write one into moim.toml: [chat.policies.NAME]", markup=False)
    else:
        rows = [
            (one["name"], str(one["people"]), ", ".join(one["departments"]), _said(one["limits"]))
            for one in found["policies"]
        ]
        table(("policy", "people", "departments", "limits"), rows)
    for one in found["missing"]:
        err.print(f"{one['people']} people have '{one['name']}', which moim.toml does not have.", markup=False)


def _said(limits: dict[str, Any]) -> str:
    return "  ".join(f"{key} = {json.dumps(value)}" for key, value in limits.items())
