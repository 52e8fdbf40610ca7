"""Reads files of XEP-0227 as a stream: one small piece of one user at a time, however large the files are.

What is hostile in a file stays in the file: there are no document types and no entities, tags and pieces have bounds,
and ``xi:include`` reaches files below the first one's folder alone, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote
from xml.parsers import expat

from moim.errors import MoimError, ProtocolError, UsageError
from moim.proto.xmpp import Element

PIE: Final = "urn:xmpp:pie:0"
MAM: Final = "urn:xmpp:pie:0#mam"
_OLD_PIE: Final = "http://www.xmpp.org/extensions/xep-0227.html#ns"
_XINCLUDE: Final = "http://www.w3.org/2001/XInclude"
_XML: Final = "http://www.w3.org/XML/1998/namespace"

_CHUNK: Final = 65_536
_MAX_TAG: Final = 1_048_576
_MAX_PIECE: Final = 245_760  # below what Element.parse takes, with its shell around it
_MAX_DEPTH: Final = 100
_MAX_ATTRIBUTES: Final = 100
_MAX_INCLUDES: Final = 4  # one in another
_COST: Final = 64  # what an element costs besides its text

# Elements of a user whose children are given one by one, each in a shell of its own.
_CONTAINERS: Final = {
    ("query", "jabber:iq:roster"): 1,
    ("query", "jabber:iq:private"): 1,
    ("offline-messages", PIE): 1,
    ("archive", MAM): 1,
    ("blocklist", "urn:xmpp:blocking"): 1,
    ("pubsub", "http://jabber.org/protocol/pubsub"): 2,
    ("pubsub", "http://jabber.org/protocol/pubsub#owner"): 1,
}


@dataclass(frozen=True, slots=True)
class UserBegins:
    """What follows is of this user, until ``UserEnds``. ``password`` is None when the file has none in plain words."""

    host: str
    name: str
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """Something of the user, small enough for one stanza: ``<query xmlns='jabber:iq:roster'><item …/></query>``."""

    element: Element


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that cannot be read: what, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class UserEnds:
    """The user is complete. ``position`` is the number of bytes read so far, of all files."""

    position: int


@dataclass(frozen=True, slots=True)
class _Include:
    href: str
    level: str
    host: str


Event = UserBegins | Piece | Skipped | UserEnds


class _Open:
    """An element whose end has not come."""

    __slots__ = ("attrs", "children", "name", "ns")

    def __init__(self, name: str, ns: str, attrs: dict[str, str]) -> None:
        self.name, self.ns, self.attrs = name, ns, attrs
        self.children: list[Element | str] = []

    def made(self) -> Element:
        return Element(self.name, self.ns, self.attrs, self.children)


class _Refused(Exception):
    """Leaves the parser's callbacks."""


class _Parser:
    """One file. ``level`` is what its root may be inside of: nothing, ``server-data`` or ``host``."""

    def __init__(self, level: str, host: str) -> None:
        self.events: list[Event | _Include] = []
        self._levels = [level]
        self._host = host
        self._shells: list[_Open] = []
        self._stack: list[_Open] = []
        self._size = 0
        self._splits = 0
        self._ignored = 0
        self._fed = 0
        self._expat = parser = expat.ParserCreate("UTF-8", "\n")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text

    def feed(self, data: bytes, *, last: bool) -> list[Event | _Include]:
        """What ``data`` completes. Raises ProtocolError."""
        try:
            self._expat.Parse(data, last)
        except expat.ExpatError as error:
            raise ProtocolError(f"this is not well-formed XML: {error}") from None
        except _Refused as error:
            raise ProtocolError(f"line {self._expat.CurrentLineNumber}: {error}") from None
        self._fed += len(data)
        if self._fed - max(self._expat.CurrentByteIndex, 0) > _MAX_TAG and not last:
            raise ProtocolError(f"line {self._expat.CurrentLineNumber}: a tag is longer than {_MAX_TAG} bytes")
        events, self.events = self.events, []
        return events

    def _doctype(self, *_: object) -> None:
        raise _Refused("document types are not taken")

    def _start(self, full: str, given: dict[str, str]) -> None:
        ns, _, name = full.rpartition("\n")
        if self._ignored:
            self._ignored += 1
            return
        if len(given) > _MAX_ATTRIBUTES:
            raise _Refused(f"<{name[:100]}> has more than {_MAX_ATTRIBUTES} attributes")
        attrs = {_attribute(key): value for key, value in given.items()}
        ns = PIE if ns == _OLD_PIE else ns
        level = self._levels[-1]
        if level == "user":
            self._inside(name, ns, attrs)
        elif (name, ns) == ("include", _XINCLUDE) and level in ("server-data", "host"):
            if {"xpointer", "accept", "encoding"} & attrs.keys() or attrs.get("parse", "xml") != "xml":
                raise _Refused("only plain xi:include with a relative href is followed")
            self.events.append(_Include(attrs.get("href", ""), level, self._host))
            self._ignored = 1
        elif (name, ns) == ("server-data", PIE) and level == "":
            self._levels.append("server-data")
        elif (name, ns) == ("host", PIE) and level == "server-data" and "jid" in attrs:
            self._host = attrs["jid"]
            self._levels.append("host")
        elif (name, ns) == ("user", PIE) and level == "host" and "name" in attrs:
            self.events.append(UserBegins(self._host, attrs["name"], attrs.get("password")))
            self._levels.append("user")
        elif level == "":
            raise _Refused(f"<{name[:100]}> is not the beginning of an export (<server-data xmlns='{PIE}'>)")
        else:
            self.events.append(Skipped(f"<{name[:100]} xmlns='{ns[:200]}'>", f"not known inside <{level}>"))
            self._ignored = 1

    def _inside(self, name: str, ns: str, attrs: dict[str, str]) -> None:
        if not self._stack:
            if not self._shells:
                self._splits = _CONTAINERS.get((name, ns), 0)
                self._size = 0
            if self._splits > len(self._shells):
                if len(str(attrs)) > 8192:
                    raise _Refused(f"<{name}> has too long attributes")
                self._shells.append(_Open(name, ns, attrs))
                return
            self._size = 0
        if len(self._stack) >= _MAX_DEPTH:
            raise _Refused(f"elements are nested deeper than {_MAX_DEPTH}")
        self._size += len(name) + len(ns) + _COST + sum(len(k) + len(v.encode()) + 6 for k, v in attrs.items())
        self._stack.append(_Open(name, ns, attrs))
        self._check_size()

    def _check_size(self) -> None:
        if self._size > _MAX_PIECE:
            top = self._shells[-1] if self._shells else self._stack[0]
            self.events.append(Skipped(f"<{top.name} xmlns='{top.ns}'>", "larger than the server takes"))
            self._ignored = len(self._stack)
            self._stack.clear()

    def _text(self, data: str) -> None:
        if self._stack and not self._ignored:
            self._size += len(data.encode())
            self._stack[-1].children.append(data)
            self._check_size()

    def _end(self, _full: str) -> None:
        if self._ignored:
            self._ignored -= 1
        elif self._stack:
            self._close()
        elif self._shells:
            self._shells.pop()
            if not self._shells:
                self._splits = 0
        else:
            level = self._levels.pop()
            if level == "user":
                self.events.append(UserEnds(0))

    def _close(self) -> None:
        closed = self._stack.pop()
        try:
            element = closed.made()
            if self._stack:
                self._stack[-1].children.append(element)
                return
            for shell in reversed(self._shells):
                element = Element(shell.name, shell.ns, shell.attrs, (element,))
        except (MoimError, ValueError) as error:
            self.events.append(Skipped(f"<{closed.name[:100]}>", str(error)[:200]))
            self._ignored = len(self._stack)
            self._stack.clear()
            return
        self.events.append(Piece(element))


def _attribute(key: str) -> str:
    ns, _, name = key.rpartition("\n")
    if ns == _XML:
        return f"xml:{name}"
    return f"{{{ns}}}{name}" if ns else name


class Export:
    """An export: its first file and those that it includes. ``position`` counts bytes read, ``size`` those known."""

    def __init__(self, path: Path) -> None:
        self._folder = path.parent.resolve()
        self._seen: set[Path] = set()
        self._first = path
        self.position = 0
        self.size = 0

    def read(self) -> Iterator[Event]:
        """Everything in it, in order. Raises UsageError naming the file that cannot be used."""
        yield from self._file(self._first.resolve(), "", "", 0)

    def _file(self, path: Path, level: str, host: str, depth: int) -> Iterator[Event]:
        if path in self._seen:
            raise UsageError(f"{path} is included twice")
        self._seen.add(path)
        parser = _Parser(level, host)
        try:
            with path.open("rb") as file:
                self.size += path.stat().st_size
                while True:
                    data = file.read(_CHUNK)
                    self.position += len(data)
                    for event in parser.feed(data, last=not data):
                        if isinstance(event, _Include):
                            yield from self._file(self._place(event.href, depth), event.level, event.host, depth + 1)
                        else:
                            yield UserEnds(self.position) if isinstance(event, UserEnds) else event
                    if not data:
                        return
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
        except ProtocolError as error:
            raise UsageError(f"{path}: {error.message}") from error

    def _place(self, href: str, depth: int) -> Path:
        plain = unquote(href)
        parts = plain.split("/")
        if depth >= _MAX_INCLUDES:
            raise UsageError("files include each other too deeply")
        if not plain or len(plain) > 1000 or ":" in parts[0] or "\\" in plain or "\0" in plain or "#" in plain:
            raise UsageError(f"the include of '{href[:200]}' is no relative path")
        if plain.startswith("/") or ".." in parts:
            raise UsageError(f"the include of '{href[:200]}' leads out of the export's folder")
        path = (self._folder / plain).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise UsageError(f"the include of '{href[:200]}' is no file in the export's folder")
        return path
