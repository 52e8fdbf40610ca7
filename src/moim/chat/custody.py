"""What the server has in its custody: messages whose senders are acknowledged when nobody here holds them any more.

The plane acknowledges (XEP-0198) what its table delivered by itself. A message that comes up waits for a word from
here: whoever is not done with it when a call returns, because it has to be written or waits for a stream, holds it
until then. The message that is being worked on is that of the context, which tasks inherit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any


class Custody:
    """One message. ``over(kept)`` is called once, when it is dealt with: False when its sender must not believe so.

    Who makes it holds it, and calls ``release`` in the end; everybody else asks for a ``hold``.
    """

    __slots__ = ("_holders", "_over")

    def __init__(self, over: Callable[[bool], None]) -> None:
        self._over: Callable[[bool], None] | None = over
        self._holders = 1

    def hold(self) -> Custody | None:
        """The same message, held once more; None when it is dealt with already."""
        if self._over is None:
            return None
        self._holders += 1
        return self

    def release(self) -> None:
        """One holder is done with it: it is where it belongs, or its sender was told that it is not."""
        self._holders -= 1
        if not self._holders:
            self._end(True)

    def refuse(self) -> None:
        """It cannot be kept, and it is too late to tell its sender otherwise than by ending the stream."""
        self._end(False)

    def _end(self, kept: bool) -> None:
        over, self._over = self._over, None
        if over is not None:
            over(kept)


class Word:
    """Tells the plane what is dealt with, by session and number; what comes together in one call."""

    def __init__(self, say: Callable[[Sequence[tuple[int, int]]], None]) -> None:
        self._say = say
        self._done: list[tuple[int, int]] = []

    def done(self, sid: int, number: int) -> None:
        """The message that came up with this number is."""
        if not self._done:
            asyncio.get_running_loop().call_soon(self.say)
        self._done.append((sid, number))

    def say(self) -> None:
        """Tells it now."""
        if self._done:
            done, self._done = self._done, []
            self._say(done)


_current: ContextVar[Custody | None] = ContextVar("custody", default=None)


def hold() -> Custody | None:
    """The message that is being worked on, held; None when nobody waits for it."""
    current = _current.get()
    return current.hold() if current is not None else None


def hold_until(task: asyncio.Future[Any]) -> None:
    """Holds the message that is being worked on until a task is over."""
    held = hold()
    if held is not None:
        task.add_done_callback(lambda _: held.release())


class working_on:  # noqa: N801 - reads as the statement that it is
    """What is held within is this message."""

    __slots__ = ("_message", "_token")

    def __init__(self, message: Custody | None) -> None:
        self._message = message

    def __enter__(self) -> None:
        self._token = _current.set(self._message)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
