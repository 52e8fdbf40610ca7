"""The messages of a meeting's WebSocket, as docs/architecture.md has them under "Meeting signalling": text ⇄ values."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from moim.errors import Refused
from moim.meetings.spaces import clean_name

Code = Literal["bad-request", "not-found", "wrong-passcode", "unauthorized", "full", "rate-limited", "internal"]

MAX_JOIN = 8 * 1024
MAX_MESSAGE = 256 * 1024  # an answer for 64 people: some kilobytes for each of their sections
_SHORT = 128
_TOKEN = 1024
_NAME = 64
_MAX_SEQ = 2**53 - 1


class Refusal(Refused):
    """A message or a wish that is answered with an error; ``code`` is the signalling's word for it."""

    def __init__(self, code: Code, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code: Code = code


@dataclass(frozen=True, slots=True)
class Join:
    """The first message: which meeting, and what lets the client in."""

    call_id: str
    name: str = ""
    passcode: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The browser's side of offer ``seq``."""

    seq: int
    sdp: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class State:
    """What the participant has switched on."""

    audio: bool
    video: bool


@dataclass(frozen=True, slots=True)
class Leave:
    """The participant goes."""


Message = Join | Answer | State | Leave


def parse(text: str) -> Message:
    """Reads one message. Raises Refusal (``bad-request``) with what is wrong; unknown fields are ignored."""
    if len(text) > MAX_MESSAGE:
        raise Refusal("bad-request", f"a message of {len(text)} characters is too long")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal("bad-request", "a message is not JSON") from None
    if not isinstance(raw, dict):
        raise Refusal("bad-request", "a message is not an object")
    kind = raw.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise Refusal("bad-request", "a message has no type that is known here")
    return reader(raw)


def _text(raw: dict[str, Any], name: str, longest: int) -> str:
    value = raw.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > longest:
        raise Refusal("bad-request", f"'{name}' is not a text of at most {longest} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refusal("bad-request", f"'{name}' holds half a character") from None
    return value


def _join(raw: dict[str, Any]) -> Join:
    call_id = _text(raw, "callId", _SHORT).strip()
    if not call_id:
        raise Refusal("bad-request", "'callId' is missing")
    return Join(
        call_id=call_id,
        name=clean_name(_text(raw, "name", 4 * _SHORT), longest=_NAME),
        passcode="".join(_text(raw, "passcode", _SHORT).split()),
        secret=_text(raw, "secret", _SHORT).strip(),
        token=_text(raw, "token", _TOKEN),
    )


def _answer(raw: dict[str, Any]) -> Answer:
    seq, sdp = raw.get("seq"), _text(raw, "sdp", MAX_MESSAGE)
    if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= _MAX_SEQ:
        raise Refusal("bad-request", "'seq' is not the number of an offer")
    if not sdp:
        raise Refusal("bad-request", "'sdp' is missing")
    return Answer(seq, sdp)


def _state(raw: dict[str, Any]) -> State:
    audio, video = raw.get("audio"), raw.get("video")
    if not isinstance(audio, bool) or not isinstance(video, bool):
        raise Refusal("bad-request", "'audio' and 'video' are true or false")
    return State(audio, video)


def _leave(_raw: dict[str, Any]) -> Leave:
    return Leave()


_READERS: dict[str, Callable[[dict[str, Any]], Message]] = {
    "join": _join,
    "answer": _answer,
    "state": _state,
    "leave": _leave,
}
