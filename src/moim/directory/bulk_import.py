"""Adds many people from a CSV file: in batches that are committed one by one, or all at once or not at all."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from moim.directory.csv_rows import Row, RowError, read_rows
from moim.directory.passwords import Hasher, check_policy
from moim.directory.profile import canonical
from moim.directory.users import NewUser, Users
from moim.errors import MoimError
from moim.model import Address

_BATCH = 128
_ERRORS = 1000

_log = logging.getLogger("moim.directory.import")


@dataclass(slots=True)
class Report:
    """How far an import is: rows looked at, added, refused; ``errors`` holds the first 1000 refusals."""

    total: int = 0
    done: int = 0
    added: int = 0
    failed: int = 0
    errors: list[RowError] = field(default_factory=list)

    def progress(self) -> dict[str, Any]:
        """``{"done","total","failed"}`` for a line of progress."""
        return {"done": self.done, "total": self.total, "failed": self.failed}

    def final(self) -> dict[str, Any]:
        """The whole report as JSON."""
        errors = [{"line": one.line, "address": one.address, "reason": one.reason} for one in self.errors]
        return self.progress() | {"added": self.added, "errors": errors}

    def refuse(self, error: RowError) -> None:
        """Counts one refused row."""
        self.failed += 1
        self.done += 1
        if len(self.errors) < _ERRORS:
            self.errors.append(error)


@dataclass(frozen=True, slots=True)
class _Person:
    row: Row
    address: Address
    fields: dict[str, str]


Progress = Callable[[Report], Awaitable[None]]


class Importer:
    """One import of a file that can be read twice. The row that names an address first is the one that counts."""

    def __init__(self, users: Users, hasher: Hasher, *, password_min_length: int) -> None:
        self._users = users
        self._hasher = hasher
        self._min_length = password_min_length

    async def run(
        self,
        file: BinaryIO,
        *,
        total: int | None = None,
        all_or_nothing: bool = False,
        progress: Progress | None = None,
    ) -> Report:
        """Imports ``file`` (UTF-8 CSV, see ``csv_rows``) and tells ``progress`` after every batch.

        Rows that cannot be taken stand in the report with line and reason; with ``all_or_nothing`` one of them keeps
        all out. ``total`` saves counting the rows again. Raises UsageError when the file cannot be read at all.
        """
        report = Report(total=count(file) if total is None else total)
        if all_or_nothing:
            await self._all_or_nothing(file, report, progress)
        else:
            await self._batches(file, report, progress)
        _log.info("import: %d added, %d refused of %d rows", report.added, report.failed, report.total)
        return report

    async def _batches(self, file: BinaryIO, report: Report, progress: Progress | None) -> None:
        seen: set[Address] = set()
        batch: list[_Person] = []
        for looked, item in enumerate(read_rows(file), 1):
            if (person := self._person(item, seen, report)) is not None:
                batch.append(person)
            if looked % _BATCH == 0:
                await self._store(batch, report)
                batch = []
                if progress is not None:
                    await progress(report)
        await self._store(batch, report)
        if progress is not None:
            await progress(report)

    async def _store(self, batch: Sequence[_Person], report: Report) -> None:
        if not batch:
            return
        taken = await self._users.taken([person.address for person in batch])
        free = [person for person in batch if person.address not in taken]
        derived = await self._hasher.derive_many([person.row.password for person in free])
        new = [NewUser(person.address, person.fields, one) for person, one in zip(free, derived, strict=True)]
        taken.update(await self._users.insert(new))
        for person in batch:
            if person.address in taken:
                report.refuse(_exists(person))
            else:
                report.added += 1
                report.done += 1

    async def _all_or_nothing(self, file: BinaryIO, report: Report, progress: Progress | None) -> None:
        seen: set[Address] = set()
        people = [found for item in read_rows(file) if (found := self._person(item, seen, report)) is not None]
        taken = await self._users.taken([person.address for person in people])
        for person in people:
            if person.address in taken:
                report.refuse(_exists(person))
        if report.failed:
            return
        new: list[NewUser] = []
        for start in range(0, len(people), _BATCH):
            part = people[start : start + _BATCH]
            derived = await self._hasher.derive_many([person.row.password for person in part])
            new += (NewUser(person.address, person.fields, one) for person, one in zip(part, derived, strict=True))
            report.done += len(part)
            if progress is not None:
                await progress(report)
        late = set(await self._users.insert(new, all_or_nothing=True))
        if not late:
            report.added = len(new)
            return
        report.done = 0
        for person in people:
            if person.address in late:
                report.refuse(_exists(person))

    def _person(self, item: Row | RowError, seen: set[Address], report: Report) -> _Person | None:
        if isinstance(item, RowError):
            report.refuse(item)
            return None
        try:
            address = canonical(item.address, self._users.domains)
            fields = self._users.checked(item.fields)
            check_policy(item.password, min_length=self._min_length)
        except MoimError as error:
            report.refuse(RowError(item.line, item.address[:128], error.message))
            return None
        if address in seen:
            report.refuse(RowError(item.line, str(address), "the address stands in an earlier row too"))
            return None
        seen.add(address)
        return _Person(item, address, fields)


def _exists(person: _Person) -> RowError:
    return RowError(person.row.line, str(person.address), "the address exists already")


def count(file: BinaryIO) -> int:
    """The rows of a file, which is then at its start again. Raises UsageError when it cannot be read."""
    rows = sum(1 for _ in read_rows(file))
    file.seek(0)
    return rows
