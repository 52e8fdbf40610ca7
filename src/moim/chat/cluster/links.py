"""The links to all other nodes, over the bus: what is said in one turn of the event loop goes out as one message each.

What comes is worked on in order, one item after the other, per node; an item that fails is logged and passed over. The
other node hears that it may forget a message when nobody here has what came of it in custody any more: until then it
finds another way for it should this node die.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from moim.bus import Bus, BusChanged
from moim.chat.cluster import codec
from moim.chat.cluster.link import Began, Item, Link, Received, Slot, read
from moim.chat.custody import Custody, working_on
from moim.errors import MoimError

_TICK_SECONDS = 0.5
_SILENT_SECONDS = 5.0
_MAX_INBOX = 100_000

Handler = Callable[[str, Item], Awaitable[None] | None]

_log = logging.getLogger("moim.chat.cluster")


class Links:
    """``handle(node, item)`` takes every item, ``began(node, undelivered)`` hears of every new life of another node."""

    def __init__(
        self,
        node: str,
        peers: Sequence[str],
        *,
        bus: Bus,
        handle: Handler,
        began: Callable[[str, Sequence[Item]], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        self._node = node
        self._peers = tuple(peers)
        self._bus = bus
        self._handle = handle
        self._on_began = began
        self._clock = clock
        self._links: dict[str, Link] = {}
        self._inboxes: dict[str, asyncio.Queue[tuple[Link, Began | Received]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cancels: list[Callable[[], None]] = []
        self._flush_due = False
        self._idle = asyncio.Event()

    def start(self, epoch: int) -> None:
        """Begins to speak as the node's life of this epoch."""
        for peer in self._peers:
            self._links[peer] = Link(self._node, peer, epoch)
            self._inboxes[peer] = asyncio.Queue()
            self._tasks.append(asyncio.create_task(self._work(peer), name=f"chat:from-{peer}"))
        self._cancels = [
            self._bus.listen(f"chat.{self._node}", self._message),
            self._bus.subscribe(BusChanged, self._bus_changed),
        ]
        self._tasks.append(asyncio.create_task(self._run(), name="chat:links"))

    async def stop(self, patience: float) -> None:
        """Returns when everything said was dealt with, or after so many seconds."""
        self._idle.clear()
        self.flush()
        if self._bus.connected and self._waits():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), patience)
        for cancel in self._cancels:
            cancel()
        self._cancels = []
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    def renew(self, epoch: int) -> list[tuple[str, Sequence[Item]]]:
        """This node begins a new life, and has to tell the others everything; gives what each has not dealt with."""
        left: list[tuple[str, Sequence[Item]]] = []
        for peer, link in self._links.items():
            new, undelivered = link.anew(epoch)
            self._links[peer] = new
            if new.begun:
                self._inboxes[peer].put_nowait((new, Began(())))
                left.append((peer, undelivered))
        return left

    def bury(self, peer: str) -> Sequence[Item]:
        """Another node's life is over; gives what it has not dealt with."""
        return self._links[peer].bury()

    def there(self) -> list[str]:
        """The nodes that can be spoken to."""
        return sorted(self.lives())

    def lives(self) -> dict[str, int]:
        """The nodes that can be spoken to, each with the epoch of its life."""
        return {node: link.theirs for node, link in self._links.items() if link.begun}

    def heard(self, node: str) -> float:
        """When the bus last carried a node's voice."""
        link = self._links.get(node)
        return link.heard_at if link is not None else float("-inf")

    def silent(self) -> Iterable[tuple[str, bool]]:
        """Every other node, and whether it has not been heard for a while."""
        now = self._clock()
        return [(node, now - link.heard_at >= _SILENT_SECONDS) for node, link in self._links.items()]

    # --- sending ------------------------------------------------------------------------------------------------

    def tell(self, node: str, item: Item) -> bool:
        """Sends an item to one node; False when that node is not there, or too much waits for it."""
        link = self._links.get(node)
        if link is None or not link.send(item):
            return False
        self._flush_soon()
        return True

    def reserve(self, node: str) -> Slot | None:
        """Keeps a place on the way to a node; everything told to it from now on waits until ``fill``. None when it is
        not there."""
        link = self._links.get(node)
        return link.reserve() if link is not None else None

    def fill(self, node: str, slot: Slot, items: Iterable[Item]) -> bool:
        """Puts items into the place; False when the node's life has ended, and they go nowhere."""
        filled = self._links[node].fill(slot, items)
        self._flush_soon()
        return filled

    def tell_all(self, item: Item) -> None:
        """Sends an item to every node that is there."""
        for node in self._links:
            self.tell(node, item)

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Sends what was said."""
        self._flush_due = False
        now = self._clock()
        for node, link in self._links.items():
            link.flush(now)
            while link.output:
                self._bus.send(f"chat.{node}", link.output.popleft())

    async def _run(self) -> None:
        while True:
            now = self._clock()
            for link in self._links.values():
                link.tick(now)
            self.flush()
            await asyncio.sleep(_TICK_SECONDS)

    async def _bus_changed(self, fact: BusChanged) -> None:
        if fact.up:
            now = self._clock()
            for link in self._links.values():
                link.repeat(now)
            self.flush()

    def _waits(self) -> bool:
        return any(not link.idle for link in self._links.values() if link.begun)

    # --- receiving ----------------------------------------------------------------------------------------------

    def _message(self, body: bytes) -> None:
        try:
            document = read(body)
            link = self._links.get(document["from"])
            if link is None:
                raise ValueError("it comes from no node of this site")
            inbox = self._inboxes[link.peer]
            if inbox.qsize() >= _MAX_INBOX:
                return  # it comes again
            events = link.receive(document, self._clock())
        except (ValueError, RecursionError) as error:
            _log.warning("something came over the bus that is no message of a node, and was dropped: %s", error)
            return
        if not self._waits():
            self._idle.set()
        for event in events:
            inbox.put_nowait((link, event))
        self._flush_soon()

    async def _work(self, peer: str) -> None:
        inbox = self._inboxes[peer]
        while True:
            link, event = await inbox.get()
            if isinstance(event, Began):
                try:
                    await self._on_began(peer, event.undelivered)
                except Exception:
                    _log.exception("the node %s is there, and could not be told everything", peer)
                continue
            held = Custody(partial(self._dealt_with, link, event))
            for item in event.items:
                if event.epoch != self._links[peer].theirs and item[0] in codec.OF_A_LIFE:
                    continue
                try:
                    with working_on(held):
                        work = self._handle(peer, item)
                        if work is not None:
                            await work
                except (MoimError, ValueError) as error:
                    _log.error("'%s' of the node %s could not be handled: %s", str(item[0])[:32], peer, error)
                except Exception:
                    _log.exception("'%s' of the node %s could not be handled", str(item[0])[:32], peer)
            held.release()

    def _dealt_with(self, link: Link, received: Received, _kept: bool) -> None:
        link.done(received)
        self._flush_soon()
