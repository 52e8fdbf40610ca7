"""Logging: one line a record, with the session it belongs to, and secrets taken out before anything is written."""

from __future__ import annotations

import logging
import re
import sys
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
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


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
        handler = RotatingFileHandler(path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8")
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
