"""Logging: one line a record, with the session it belongs to, and secrets taken out before anything is written."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import time
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path

_FILE_BYTES = 10_000_000
_FILES = 4
_TOLD_AGAIN_S = 60.0

session_id: ContextVar[str] = ContextVar("session_id", default="-")

_SECRETS = re.compile(
    r"(?P<key>\b(?:password|passwd|passcode|secret|token|authorization|x-auth|cookie)\b[\"']?\s*[=:]\s*)"
    r"(?P<scheme>(?:basic|bearer)\s+)?(?P<quote>[\"']?)[^\s\"',;&}]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Replaces the values of passwords, tokens, secrets and cookies by ``[hidden]``."""
    if "=" not in text and ":" not in text:
        return text
    return _SECRETS.sub(lambda m: f"{m['key']}{m['scheme'] or ''}{m['quote']}[hidden]", text)


class _Formatter(logging.Formatter):
    """Time, level, logger, session, message; written out by hand, because servers write a line per sign-in."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        second, text = self._second
        if second != int(record.created):
            second = int(record.created)
            text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
            self._second = (second, text)
        message = record.getMessage()
        if record.exc_info:
            message += f"\n{self.formatException(record.exc_info)}"
        if record.stack_info:
            message += f"\n{self.formatStack(record.stack_info)}"
        place = f"{record.levelname} {record.name} [{session_id.get()}]"
        return f"{text},{int(record.msecs):03d} {place} {redact(message)}"


class _File(RotatingFileHandler):
    """Rotates by what it has written itself: asking the file system before each line costs more than the line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8")
        self._size = path.stat().st_size
        self._told = -_TOLD_AGAIN_S

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + self.terminator
            size = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
            if self._size + size > self.maxBytes:
                self.doRollover()
                self._size = 0
            if self.stream is None:
                self.stream = self._open()
            self.stream.write(line)
            self.stream.flush()
            self._size += size
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Says once in a while that the disk is full, in place of a traceback for each line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif (now := time.monotonic()) - self._told >= _TOLD_AGAIN_S:
            self._told = now
            with contextlib.suppress(OSError):
                print(f"error: {self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)


class session:  # noqa: N801
    """Marks every record logged inside (``with``) with a session's identifier."""

    __slots__ = ("_identifier", "_token")

    def __init__(self, identifier: str) -> None:
        self._identifier = identifier

    def __enter__(self) -> None:
        self._token = session_id.set(self._identifier)

    def __exit__(self, *_: object) -> None:
        session_id.reset(self._token)


def configure(level: str = "INFO", path: Path | None = None) -> None:
    """Sends this process's log to ``path`` (rotated by size) or standard error, in place of earlier configuration."""
    handler: logging.Handler
    if path:
        handler = _File(path)
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    # What no line shows need not be found out for each (the logging module's documented switches).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("asyncssh", "httpx", "httpcore", "uvicorn", "alembic", "websockets"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
