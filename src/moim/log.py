"""Logging: one line a record, with the session it belongs to, and secrets taken out before anything is written."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path

_FILE_BYTES = 10_000_000
_FILES = 4

session_id: ContextVar[str] = ContextVar("session_id", default="-")

_SECRETS = re.compile(
    r"(?P<key>\b(?:password|passwd|passcode|secret|token|authorization|x-auth|cookie)\b[\"']?\s*[=:]\s*)"
    r"(?P<scheme>(?:basic|bearer)\s+)?(?P<quote>[\"']?)[^\s\"',;&}]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Replaces the values of passwords, tokens, secrets and cookies by ``[hidden]``."""
    return _SECRETS.sub(lambda m: f"{m['key']}{m['scheme'] or ''}{m['quote']}[hidden]", text)


class _Formatter(logging.Formatter):
    def __init__(self, form: str) -> None:
        super().__init__(form)
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = (second, text)
        return f"{text},{int(record.msecs):03d}"


class _File(RotatingFileHandler):
    """Rotates by what it has written itself: asking the file system before each line costs more than the line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8")
        self._size = path.stat().st_size

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            size = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
            if self._size + size > self.maxBytes:
                self.doRollover()
                self._size = 0
            if self.stream is not None:
                self.stream.write(line)
                self.stream.flush()
                self._size += size
        except Exception:
            self.handleError(record)


class _Session(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.session = session_id.get()
        return True


@contextmanager
def session(identifier: str) -> Iterator[None]:
    """Marks every record logged inside with a session's identifier."""
    token = session_id.set(identifier)
    try:
        yield
    finally:
        session_id.reset(token)


def configure(level: str = "INFO", path: Path | None = None) -> None:
    """Sends this process's log to ``path`` (rotated by size) or standard error, in place of earlier configuration."""
    handler: logging.Handler
    if path:
        handler = _File(path)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s [%(session)s] %(message)s"))
    handler.addFilter(_Session())
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("asyncssh", "httpx", "httpcore", "uvicorn", "alembic", "websockets"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
