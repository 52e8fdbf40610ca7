"""The streams of every inside node: shown together and ended together, by requests over the bus.

Each node answers for its own. One that does not answer is named: what it has is not known, and goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from moim.bus import Bus
from moim.errors import MoimError

Row = dict[str, Any]
"""A peer as ``status.peers`` has it."""

_SECONDS: Final = 3.0
_PAGE_BYTES: Final = 256 * 1024
_MAX_PAGES: Final = 200
_SUMS: Final = ("queue", "queueBytes", "sent", "received", "returned")

_log = logging.getLogger("moim.federation")


class Nodes:
    """``here`` is this node, ``others`` the other inside nodes; ``rows`` and ``reset`` are this node's own."""

    def __init__(
        self,
        bus: Bus,
        here: str,
        others: Iterable[str],
        *,
        rows: Callable[[], list[Row]],
        reset: Callable[[str, str], Awaitable[int]],
    ) -> None:
        self._bus = bus
        self._here = here
        self._others = tuple(others)
        self._rows = rows
        self._reset = reset

    def start(self) -> Callable[[], None]:
        """Answers for this node from now on; the result ends it."""
        return self._bus.answer(_subject(self._here), self._answer)

    async def peers(self) -> tuple[list[Row], list[str]]:
        """A row per domain over all nodes, and the nodes that did not answer. Each stream says whose it is."""
        answers = await asyncio.gather(*(self._peers_of(node) for node in self._others))
        missing = [node for node, rows in zip(self._others, answers, strict=True) if rows is None]
        return merged([self._named(self._here, self._rows()), *(rows for rows in answers if rows is not None)]), missing

    async def reset(self, domain: str, reason: str) -> tuple[int, list[str]]:
        """Ends the streams with a domain on every node: how many, and the nodes that did not answer."""
        asked = {"ask": "reset", "domain": domain, "reason": reason}
        own, *answers = await asyncio.gather(
            self._reset(domain, reason), *(self._ask(node, asked) for node in self._others)
        )
        missing = [node for node, answer in zip(self._others, answers, strict=True) if answer is None]
        return own + sum(int(answer.get("streams", 0)) for answer in answers if answer is not None), missing

    async def _peers_of(self, node: str) -> list[Row] | None:
        found: list[Row] = []
        after = ""
        for _ in range(_MAX_PAGES):
            answer = await self._ask(node, {"ask": "peers", "after": after})
            if answer is None:
                return None
            found += answer.get("peers", ())
            after = answer.get("next", "")
            if not after:
                break
        return self._named(node, found)

    def _named(self, node: str, rows: list[Row]) -> list[Row]:
        return [row | {"streams": [{"node": node} | stream for stream in row["streams"]]} for row in rows]

    async def _ask(self, node: str, asked: dict[str, str]) -> dict[str, Any] | None:
        try:
            answer = json.loads(await self._bus.request(_subject(node), json.dumps(asked).encode(), within=_SECONDS))
        except MoimError as error:
            _log.warning("the node %s does not answer about its streams: %s", node, error.message)
            return None
        except (ValueError, RecursionError):
            _log.warning("the node %s answers about its streams with something that is no JSON", node)
            return None
        return answer if isinstance(answer, dict) else None

    async def _answer(self, body: bytes) -> bytes:
        match json.loads(body):
            case {"ask": "peers", "after": str(after)}:
                return b"".join(self._page(after))
            case {"ask": "reset", "domain": str(domain), "reason": str(reason)}:
                return json.dumps({"streams": await self._reset(domain, reason)}).encode()
        return b"{}"

    def _page(self, after: str) -> Iterator[bytes]:
        """Rows in order, as many as a message may carry; ``next`` says where the rest begins."""
        size, last = 0, ""
        yield b'{"peers":['
        for row in self._rows():
            if row["domain"] <= after:
                continue
            if size > _PAGE_BYTES:
                yield b'],"next":' + json.dumps(last).encode() + b"}"
                return
            piece = json.dumps(row).encode()
            yield b"," + piece if last else piece
            size, last = size + len(piece), row["domain"]
        yield b"]}"


def merged(nodes: Sequence[list[Row]]) -> list[Row]:
    """The rows of several nodes as one list: streams together, numbers added up, the latest error of any."""
    found: dict[str, Row] = {}
    for row in (row for rows in nodes for row in rows):
        known = found.get(row["domain"])
        if known is None:
            found[row["domain"]] = row
            continue
        later = max(known, row, key=lambda one: one.get("lastErrorAt") or "")
        both = known | row | {key: later[key] for key in ("lastError", "lastErrorAt", "retryInSeconds") if key in later}
        both |= {key: known.get(key, 0) + row.get(key, 0) for key in _SUMS}
        both |= {"streams": known["streams"] + row["streams"]}
        both |= {"opening": known.get("opening", False) or row.get("opening", False)}
        found[row["domain"]] = both
    return [found[domain] for domain in sorted(found)]


def _subject(node: str) -> str:
    return f"federation.{node}"
