"""What discovery remembers between starts: name server answers with their lifetime, and what was typed last (D1, D2).

An answer is used without asking while its DNS time to live runs. Later it is asked for again, and the old one is used
only when no name server answers at all, for a week at most, and the step says so. Answers belong to the name servers
that gave them: another network asks anew. No password is ever stored.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moim.discovery.actions import Addresses, Nothing, Records, Srv

STALE_LIMIT = 7 * 86400.0
"""Seconds after which an old answer is not used even when no name server answers."""

_VERSION = 1
_MAX_FILE = 1 << 20
_MAX_ANSWERS = 256
_MAX_TTL = 86400

Answer = Records | Addresses | Nothing


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer with the wall-clock second at which it was given."""

    answer: Answer
    at: float

    def left(self, wall: float) -> float:
        """Seconds of its DNS lifetime that are left; a clock that was set back ends it."""
        return self.at + min(self.answer.ttl, _MAX_TTL) - wall if wall >= self.at else 0.0

    def age(self, wall: float) -> float:
        """Seconds since it was given."""
        return abs(wall - self.at)


@dataclass(slots=True)
class Memory:
    """Answers by (name servers, question), newest last. ``scope`` names the name servers in use."""

    scope: str = ""
    last: str = ""
    answers: dict[tuple[str, str], Kept] = field(default_factory=dict)
    changed: bool = False

    def fresh(self, question: str, wall: float) -> Kept | None:
        """The answer to ``question`` (``SRV name`` or ``A host``) while its lifetime runs."""
        kept = self.answers.get((self.scope, question))
        return kept if kept is not None and kept.left(wall) > 0 else None

    def stale(self, question: str, wall: float) -> Kept | None:
        """The last positive answer, for when nobody can be asked."""
        kept = self.answers.get((self.scope, question))
        if kept is None or isinstance(kept.answer, Nothing) or kept.age(wall) > STALE_LIMIT:
            return None
        return kept

    def keep(self, question: str, answer: Answer, wall: float) -> None:
        """Remembers an answer that was just given."""
        key = (self.scope, question)
        self.answers.pop(key, None)
        self.answers[key] = Kept(answer, wall)
        while len(self.answers) > _MAX_ANSWERS:
            del self.answers[next(iter(self.answers))]
        self.changed = True

    def forget(self) -> None:
        """Drops every answer of the name servers in use."""
        self.answers = {key: kept for key, kept in self.answers.items() if key[0] != self.scope}
        self.changed = True


def default_path() -> Path:
    """``$XDG_CACHE_HOME/moim/discovery.json``, or below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "moim" / "discovery.json"


def load(path: Path, scope: str) -> Memory:
    """Reads the file. One that is missing, damaged, too big or of another version is an empty memory."""
    memory = Memory(scope)
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_FILE + 1)
        document = json.loads(raw) if len(raw) <= _MAX_FILE else {}
        if document["version"] != _VERSION:
            return memory
        memory.last = _text(document["last"])
        for entry in document["answers"][-_MAX_ANSWERS:]:
            kept = Kept(_answer(entry), float(entry["at"]))
            memory.answers[(_text(entry["scope"]), _text(entry["question"]))] = kept
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Memory(scope)
    return memory


def last_target(path: Path) -> str:
    """The address or link of the last discovery that this file remembers; empty when there is none."""
    return load(path, "").last


def save(memory: Memory, path: Path) -> None:
    """Replaces the file in one step, mode 0600. Raises OSError."""
    answers = [
        {"scope": scope, "question": question, "at": kept.at, "kind": type(kept.answer).__name__, **asdict(kept.answer)}
        for (scope, question), kept in memory.answers.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".discovery-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"version": _VERSION, "last": memory.last, "answers": answers}, file, ensure_ascii=False)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
    memory.changed = False


def _answer(entry: Any) -> Answer:
    ttl, server = _number(entry["ttl"], 0x7FFF_FFFF), _text(entry["server"])
    match entry["kind"]:
        case "Records":
            records = tuple(_record(record) for record in entry["records"][:64])
            return Records(records, ttl, server)
        case "Addresses":
            return Addresses(tuple(_text(text) for text in entry["addresses"][:64]), ttl, server)
        case "Nothing":
            return Nothing(bool(entry["exists"]), ttl, server)
    raise ValueError("unknown kind of answer")


def _record(record: Any) -> Srv:
    priority, weight, port = (_number(record[key], 65535) for key in ("priority", "weight", "port"))
    return Srv(priority, weight, port, _text(record["target"]))


def _number(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("not a number in range")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise ValueError("not a text")
    return value
