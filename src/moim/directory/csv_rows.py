"""Reads the CSV of an import: a heading line in any order, one person a line, each row bounded, each fault located."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from moim.directory.profile import FIELDS
from moim.errors import UsageError

COLUMNS = ("address", "password", *FIELDS)
MAX_ROWS = 200_000
_ROW_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One person as written: ``line`` is the row's first line in the file, counted from 1."""

    line: int
    address: str
    password: str
    fields: dict[str, str]


@dataclass(frozen=True, slots=True)
class RowError:
    """A row that cannot be taken, and why."""

    line: int
    address: str
    reason: str


class _TooLong(Exception):
    """A row beyond the bound: its end cannot be found reliably."""


class _Lines:
    """Gives the reader decoded lines, and counts the bytes of the row that it is putting together."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0
        self.used = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._file.readline(_ROW_BYTES + 1)
        if not data:
            raise StopIteration
        self.number += 1
        self.used += len(data)
        if self.used > _ROW_BYTES:
            raise _TooLong
        return data.decode("utf-8-sig" if self.number == 1 else "utf-8")


def read_rows(file: BinaryIO) -> Iterator[Row | RowError]:
    """Rows and faults of a UTF-8 file (RFC 4180, with or without a byte order mark), in order, without blank lines.

    Raises UsageError when the heading cannot be used, and where reading cannot go on: a row longer than 16 KiB (a
    quote that is never closed) or more than 200,000 rows.
    """
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    heading = _heading(reader)
    rows = 0
    while True:
        first = lines.number + 1
        lines.used = 0
        try:
            values = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError:
            yield RowError(first, "", "the line is not UTF-8; save the file as 'CSV UTF-8'")
            reader = csv.reader(lines, strict=True)  # the old one holds half a row
            continue
        except csv.Error as error:
            yield RowError(first, "", f"the line is not CSV: {error}")
            reader = csv.reader(lines, strict=True)
            continue
        except _TooLong:
            raise UsageError(
                f"line {first}: the row is longer than {_ROW_BYTES} bytes", hint="look for a quote that is never closed"
            ) from None
        if not any(value.strip() for value in values):
            continue
        rows += 1
        if rows > MAX_ROWS:
            raise UsageError(f"the file has more than {MAX_ROWS} rows", hint="split it")
        yield _row(first, heading, values)


def _heading(reader: Iterator[list[str]]) -> list[str]:
    try:
        given = next(reader)
    except StopIteration:
        raise UsageError("the file is empty", hint=f"its first line is a heading: {','.join(COLUMNS)}") from None
    except UnicodeDecodeError:
        raise UsageError("the file is not UTF-8", hint="save it as 'CSV UTF-8'") from None
    except (csv.Error, _TooLong):
        raise UsageError("the first line is no heading", hint=f"columns: {', '.join(COLUMNS)}") from None
    names = [name.strip().lower() for name in given]
    if unknown := [name for name in names if name not in COLUMNS]:
        separated = " and separate them by commas" if any(";" in name or "\t" in name for name in unknown) else ""
        raise UsageError(
            f"the heading has a column '{unknown[0][:64]}' that is not known",
            hint=f"use {', '.join(COLUMNS)}{separated}",
        )
    if len(set(names)) != len(names):
        raise UsageError("the heading names a column twice")
    for needed in ("address", "password"):
        if needed not in names:
            raise UsageError(f"the heading has no column '{needed}'", hint=f"columns: {', '.join(COLUMNS)}")
    return names


def _row(line: int, heading: list[str], values: list[str]) -> Row | RowError:
    if len(values) != len(heading):
        address = values[0].strip()[:128] if heading[0] == "address" else ""
        return RowError(line, address, f"the row has {len(values)} columns, the heading {len(heading)}")
    named = dict(zip(heading, values, strict=True))
    address, password = named.pop("address").strip(), named.pop("password")
    return Row(line, address, password, named)
