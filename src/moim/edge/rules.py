"""The HTTP allow-list: which requests may go where, as rows. What no row covers is refused.

The same rows rule the edge's public listeners (path → named target) and the inside's proxy for clients (host, port and
path → inside server). A row can be written as one line of the CSV form ``Url,Deployment,HttpMethods,MatchType,
Description`` and read back.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from moim.errors import ProtocolError, UsageError

Scheme = Literal["https", "wss", "http"]
Match = Literal["exact", "prefix"]
METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH")
MAX_RULES = 2000

_COLUMNS = ("Url", "Deployment", "HttpMethods", "MatchType", "Description")
_DEFAULT_PORT = {"https": 443, "wss": 443, "http": 80}
_HOST = re.compile(r"\*|[a-z0-9_]([a-z0-9_.-]{0,251}[a-z0-9_])?|[0-9a-f:.]{2,45}", re.ASCII)
# RFC 3986 section 3.3: pchar and "/"; percent-encoding is judged apart.
_PATH = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*", re.ASCII)
# Encoded dot, slash, backslash, NUL and percent sign: what lets two parsers disagree about where a path leads.
_AMBIGUOUS = re.compile(r"%(?:2e|2f|5c|00|25)", re.IGNORECASE | re.ASCII)


def checked_path(path: str) -> str:
    """``path`` (without its query) when every parser must read it the same way.

    Raises ProtocolError for dot segments, empty segments, encoded separators and characters that no path may hold.
    """
    if len(path) > 4096 or not _PATH.fullmatch(path):
        raise ProtocolError("the path of the request has characters that no path may have, or is too long")
    if _AMBIGUOUS.search(path) or "//" in path or any(part in (".", "..") for part in path.split("/")):
        raise ProtocolError("the path of the request is ambiguous: dot segments, empty segments or encoded separators")
    return path


class Rule(BaseModel):
    """One row of an allow-list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme
    host: Annotated[str, Field(max_length=253)] = "*"
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    match: Match = "prefix"
    prefix: Annotated[str, Field(max_length=1024)]
    methods: Annotated[tuple[str, ...], Field(min_length=1, max_length=len(METHODS))]
    target: Annotated[str, Field(max_length=64)] = ""
    description: Annotated[str, Field(max_length=200)] = ""

    @field_validator("host")
    @classmethod
    def _host_is_name(cls, value: str) -> str:
        folded = value.lower().rstrip(".")
        if not _HOST.fullmatch(folded):
            raise ValueError(f"'{value}' is not a host name")
        return folded

    @field_validator("prefix")
    @classmethod
    def _prefix_is_path(cls, value: str) -> str:
        try:
            return checked_path(value)
        except ProtocolError as error:
            raise ValueError(error.message) from None

    @field_validator("methods")
    @classmethod
    def _methods_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [method for method in value if method not in METHODS]
        if unknown:
            raise ValueError(f"unknown HTTP method {unknown[0]!r}")
        return tuple(method for method in METHODS if method in value)

    def covers(self, scheme: str, host: str, port: int, path: str) -> bool:
        """Whether the row is about this place, whatever the method. ``*`` and port 0 stand for any."""
        return (
            self.scheme == scheme
            and self.host in ("*", host)
            and self.port in (0, port)
            and (path == self.prefix if self.match == "exact" else path.startswith(self.prefix))
        )

    @property
    def url(self) -> str:
        """The row as a URL; any host is written ``*``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{f':{self.port}' if self.port else ''}{self.prefix}"


class RuleTable:
    """Rows in the order they are tried: the most special first (exact, then the longer prefix, then a named host)."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(
            sorted(rules, key=lambda r: (len(r.prefix), r.match == "exact", r.host != "*", r.port != 0), reverse=True)
        )
        if len(self.rules) > MAX_RULES:
            raise UsageError(f"an allow-list has at most {MAX_RULES} rows")

    def find(self, scheme: str, host: str, port: int, path: str, method: str) -> Rule | None:
        """The row that allows a request, or None. ``path`` comes from ``checked_path``, ``host`` is lower case.

        The longest row that covers the place decides alone, so that a narrow row can take methods away; rows of the
        same place add up.
        """
        best: Rule | None = None
        for rule in self.rules:
            if best is not None and (len(rule.prefix), rule.match) != (len(best.prefix), best.match):
                return None
            if rule.covers(scheme, host, port, path):
                if method in rule.methods:
                    return rule
                best = best or rule
        return None

    def methods(self, scheme: str, host: str, port: int, path: str) -> tuple[str, ...]:
        """Methods that would be allowed at this place: for the Allow header of a 405."""
        return tuple(method for method in METHODS if self.find(scheme, host, port, path, method) is not None)


def write_csv(rules: Sequence[Rule]) -> str:
    """The rows in the CSV form, with its header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for rule in rules:
        writer.writerow((rule.url, rule.target, ",".join(rule.methods), rule.match, rule.description))
    return out.getvalue()


def read_csv(text: str) -> tuple[Rule, ...]:
    """Rows from the CSV form. Raises UsageError that names the line and what is wrong with it."""
    if len(text) > 1024 * 1024:
        raise UsageError("the allow-list is larger than 1 MiB")
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff")))
    rules: list[Rule] = []
    try:
        header = next(rows, [])
        if tuple(cell.strip() for cell in header) != _COLUMNS:
            raise UsageError(f"the first line of the allow-list must be {','.join(_COLUMNS)}")
        for row in rows:
            if any(cell.strip() for cell in row):
                rules.append(_read_row(row, rows.line_num))
            if len(rules) > MAX_RULES:
                raise UsageError(f"the allow-list has more than {MAX_RULES} rows")
    except csv.Error as error:
        raise UsageError(f"line {rows.line_num} of the allow-list is not CSV: {error}") from None
    return tuple(rules)


def _read_row(row: list[str], line: int) -> Rule:
    url, deployment, methods, match, description = [cell.strip() for cell in (*row, "", "", "", "", "")][:5]
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT.get(parts.scheme, 0)
        if parts.query or parts.fragment or parts.username or not parts.hostname:
            raise ValueError("the URL must be scheme://host[:port]/path and nothing more")
        return Rule.model_validate(
            {
                "scheme": parts.scheme,
                "host": parts.hostname,
                "port": 0 if parts.hostname == "*" and not parts.port else port,
                "match": match.lower() or "prefix",
                "prefix": parts.path or "/",
                "methods": tuple(item.strip().upper() for item in re.split(r"[,; ]+", methods) if item.strip()),
                "target": deployment,
                "description": description,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"line {line} of the allow-list: {where}: {first['msg']}") from None
    except ValueError as error:
        raise UsageError(f"line {line} of the allow-list: {error}") from None
