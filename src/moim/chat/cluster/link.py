"""The link to one other node, as a machine: what is sent arrives once and in order, whatever the bus loses.

Batches are numbered within a pair of lives (epochs) of the two nodes, repeated after a silence until they have arrived,
and kept until the other side has dealt with them: with all up to one number, and, said once, with some besides. When
either node begins a new life, both start over: what was not dealt with is given back. No I/O and no clock; ``output``
is what has to go over the bus.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

VERSION: Final = 1
MAX_BATCH: Final = 400_000
"""Bytes of items in one message; NATS takes 1 MiB."""
_MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
_REPEAT_SECONDS: Final = 1.0
_REPEATED: Final = 64  # batches that are repeated at once
_HELLO: Final = ',"hello":true'
_MAX_EARLY: Final = 1024
_MAX_BESIDES: Final = 1024  # numbers in one message
_MAX_OVERTAKING: Final = 100_000  # batches that are dealt with before an earlier one; then that one has to be

Item = list[Any]
"""A JSON array; its first element says what it is."""


@dataclass(frozen=True, slots=True)
class Received:
    """Items of the other node, in order: those of the batch ``number`` of its life ``epoch``."""

    items: tuple[Item, ...]
    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Began:
    """A new pair of lives: everything known of the other node is void, and it has to be told everything.

    ``undelivered`` are the items of the old pair that were not dealt with, in order.
    """

    undelivered: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class _Batch:
    number: int
    size: int
    text: str
    items: tuple[Item, ...]


class Slot:
    """A place among what is sent, for items that are not known yet: what is said later waits behind it."""

    __slots__ = ()


class Link:
    """One side. ``mine`` is this node's epoch; the other's is learnt from what it says."""

    def __init__(self, node: str, peer: str, mine: int) -> None:
        self.node = node
        self.peer = peer
        self.mine = mine
        self.theirs = 0
        self._opening = json.dumps({"v": VERSION, "from": node, "epoch": mine})[:-1]
        self.heard_at = float("-inf")
        self.output: deque[bytes] = deque()
        self._waiting: OrderedDict[int, _Batch] = OrderedDict()
        self._bytes = 0
        self._pending: list[tuple[Item, str, int] | Slot] = []
        self._sent = 0
        self._arrived = 0
        self._got = 0
        self._done = 0
        self._overtaking: set[int] = set()
        self._besides: list[int] = []
        self._early: dict[int, tuple[Item, ...]] = {}
        self._owes_ack = False
        self._repeat_at: float | None = None
        self._buried = 0

    # --- sending ------------------------------------------------------------------------------------------------

    @property
    def begun(self) -> bool:
        """Whether the other node's life is known: before, nothing can be sent."""
        return self.theirs != 0

    @property
    def room(self) -> bool:
        """Whether more may wait for the other node."""
        return self._bytes < _MAX_WAITING_BYTES

    @property
    def idle(self) -> bool:
        """Whether the other node has dealt with everything."""
        return not self._waiting and not self._pending

    def send(self, item: Item) -> bool:
        """Puts an item into the next batch; False when the other node is not known or too much waits for it."""
        if not self.begun or not self.room:
            return False
        self._pending.append(self._written(item))
        return True

    def _written(self, item: Item) -> tuple[Item, str, int]:
        text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
        self._bytes += size
        return item, text, size

    def reserve(self) -> Slot | None:
        """Keeps the place for items that follow; None when nothing can be sent now."""
        if not self.begun or not self.room:
            return None
        slot = Slot()
        self._pending.append(slot)
        return slot

    def fill(self, slot: Slot, items: Iterable[Item]) -> bool:
        """Puts items where place was kept; False when the other node began a new life meanwhile."""
        place = next((n for n, entry in enumerate(self._pending) if entry is slot), None)
        if place is None:
            return False
        self._pending[place : place + 1] = [self._written(item) for item in items]
        return True

    def flush(self, now: float) -> None:
        """Makes batches of what is pending up to the first open place, and confirms what came."""
        while chosen := self._next():
            del self._pending[: len(chosen)]
            size = sum(size for _, _, size in chosen)
            self._sent += 1
            text = ",".join(text for _, text, _ in chosen)
            batch = _Batch(self._sent, size, text, tuple(item for item, _, _ in chosen))
            self._waiting[batch.number] = batch
            self.output.append(self._carrying(batch))
            self._owes_ack = False
            if self._repeat_at is None:
                self._repeat_at = now + _REPEAT_SECONDS
        if self._owes_ack:
            self._owes_ack = False
            self.output.append(self._message())

    def _next(self) -> list[tuple[Item, str, int]]:
        size = 0
        chosen: list[tuple[Item, str, int]] = []
        for entry in self._pending:
            if isinstance(entry, Slot) or (chosen and size + entry[2] > MAX_BATCH):
                break
            size += entry[2]
            chosen.append(entry)
        return chosen

    def tick(self, now: float) -> None:
        """Once in a while: says that this node lives, and repeats what was not confirmed in time."""
        self.output.append(self._message(hello=not self.begun))
        if self._repeat_at is not None and now >= self._repeat_at:
            self.repeat(now)

    def repeat(self, now: float) -> None:
        """Sends again what may not have arrived."""
        for batch in islice((batch for n, batch in self._waiting.items() if n > self._arrived), _REPEATED):
            self.output.append(self._carrying(batch))
        self._repeat_at = now + _REPEAT_SECONDS if self._sent > self._arrived else None

    def _carrying(self, batch: _Batch) -> bytes:
        return f'{self._head()},"seq":{batch.number},"items":[{batch.text}]}}'.encode()

    def _message(self, *, hello: bool = False) -> bytes:
        return f"{self._head()}{_HELLO if hello else ''}}}".encode()

    def _head(self) -> str:
        """The beginning of a message, which says what has come; its brace is still open."""
        besides, self._besides = [number for number in self._besides if number > self._done], []
        more = f',"besides":{besides[:_MAX_BESIDES]}' if besides else ""
        return f'{self._opening},"to":{self.theirs},"got":{self._got},"done":{self._done}{more}'

    # --- receiving ----------------------------------------------------------------------------------------------

    def receive(self, document: dict[str, Any], now: float) -> list[Received | Began]:
        """One message of the other node. Raises ValueError for what no node says."""
        epoch, to, got, done = (_number(document, key) for key in ("epoch", "to", "got", "done"))
        events: list[Received | Began] = []
        if epoch < self.theirs or epoch <= self._buried:
            return events  # a voice from an earlier life
        self.heard_at = now
        if epoch > self.theirs:
            events.append(Began(self.reset(epoch)))
        if to != self.mine:
            # It does not know this life yet: until it does, its numbers mean nothing.
            self.output.append(self._message(hello=True))
            return events
        self._confirmed(got, done, _numbers(document, "besides"), now)
        if document.get("hello"):
            self.output.append(self._message())
        seq = document.get("seq")
        if seq is not None:
            events.extend(self._batch(_number(document, "seq"), document.get("items")))
        return events

    def _confirmed(self, got: int, done: int, besides: Sequence[int], now: float) -> None:
        while self._waiting and next(iter(self._waiting)) <= done:
            self._bytes -= self._waiting.popitem(last=False)[1].size
        for number in besides:
            if (batch := self._waiting.pop(number, None)) is not None:
                self._bytes -= batch.size
        if got > self._arrived:
            self._arrived = min(got, self._sent)
            self._repeat_at = now + _REPEAT_SECONDS if self._sent > self._arrived else None

    def _batch(self, seq: int, items: Any) -> list[Received | Began]:
        if not isinstance(items, list) or not all(isinstance(item, list) and item for item in items):
            raise ValueError("a batch is a list of items")
        events: list[Received | Began] = []
        if seq <= self._got:
            self._owes_ack = True
        elif seq == self._got + 1:
            found: tuple[Item, ...] | None = tuple(items)
            while found is not None:
                self._got += 1
                events.append(Received(found, self.theirs, self._got))
                found = self._early.pop(self._got + 1, None)
        elif seq > self._got + 1 and len(self._early) < _MAX_EARLY:
            self._early[seq] = tuple(items)
        return events

    def done(self, received: Received) -> None:
        """A batch is dealt with, and the other node may forget it."""
        if received.epoch != self.theirs:
            return
        self._owes_ack = True
        self._overtaking.add(received.number)
        self._besides.append(received.number)
        while self._done + 1 in self._overtaking or len(self._overtaking) > _MAX_OVERTAKING:
            self._done += 1
            self._overtaking.discard(self._done)

    def bury(self) -> tuple[Item, ...]:
        """The other node's life is over: nothing of it is heard any more. Gives what it has not dealt with."""
        self._buried = max(self._buried, self.theirs)
        return self.reset(0)

    def anew(self, mine: int) -> tuple[Link, tuple[Item, ...]]:
        """The link of a new life of this node, which the other node need not be waited for with; and what that has not
        dealt with."""
        link = Link(self.node, self.peer, mine)
        link.theirs, link.heard_at, link._buried = self.theirs, self.heard_at, self._buried
        return link, self.reset(0)

    def reset(self, theirs: int) -> tuple[Item, ...]:
        """Starts over with another life of the other node (0: none known); gives what was not dealt with."""
        undelivered = tuple(item for batch in self._waiting.values() for item in batch.items)
        undelivered += tuple(entry[0] for entry in self._pending if not isinstance(entry, Slot))
        self.theirs = theirs
        self._waiting.clear()
        self._pending.clear()
        self._early.clear()
        self._overtaking.clear()
        self._besides.clear()
        self._bytes = self._sent = self._arrived = self._got = self._done = 0
        self._owes_ack = False
        self._repeat_at = None
        return undelivered


def read(body: bytes) -> dict[str, Any]:
    """A message of a node. Raises ValueError for anything else."""
    if len(body) > 2 * 1024 * 1024:
        raise ValueError("it is too large")
    document = json.loads(body)
    if not isinstance(document, dict) or document.get("v") != VERSION or not isinstance(document.get("from"), str):
        raise ValueError("it is no message of a node, or of another version")
    return document


def _number(document: dict[str, Any], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"'{key}' is not a number")
    return value


def _numbers(document: dict[str, Any], key: str) -> list[int]:
    values = document.get(key, [])
    if not isinstance(values, list) or len(values) > _MAX_BESIDES:
        raise ValueError(f"'{key}' is no list of numbers")
    return [_number({key: value}, key) for value in values]
