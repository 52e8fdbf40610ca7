"""From a domain to an open stream: find its servers, connect to the first that accepts, negotiate, else the next.

Connecting is happy eyeballs (RFC 8305) over the plane's single attempts: each begins a moment after the one before, and
the first that is up is used. Targets of a worse priority have to wait longer: they are for when the better ones are
down (RFC 2782), and not for when they are far away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from moim.errors import NotFound, PeerError, PeerTimeout, PeerUnreachable
from moim.federation.locating import Endpoint, Locator
from moim.federation.policies import Policy
from moim.federation.stream import Stream, StreamFailed
from moim.proto.xmpp import s2s

_STAGGER = 0.25
_WORSE_STAGGER = 3.0
_MAX_NEGOTIATIONS = 4


class Dialler(Protocol):
    """Makes outgoing streams."""

    def dial(self, endpoint: Endpoint, machine: s2s.Outgoing) -> Stream:
        """Begins to connect to one address."""
        ...


class Connector:
    """``keys`` are dialback's; ``policy`` is asked for each attempt, since it may change; times are seconds."""

    def __init__(
        self,
        locator: Locator,
        dialler: Dialler,
        keys: s2s.Keys,
        policy: Callable[[str], Policy],
        *,
        handshake_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._locator = locator
        self._dialler = dialler
        self._keys = keys
        self._policy = policy
        self._handshake = handshake_seconds
        self._clock = clock

    async def connect(self, local: str, remote: str, *, verify_only: bool = False, external: bool = True) -> Stream:
        """An open stream, or with ``verify_only`` one that keys can be put to; without ``external`` by dialback.

        Raises NotFound when the DNS knows no server, PeerUnreachable, PeerTimeout or StreamFailed with a sentence.
        """
        located = await self._locator.locate(remote, self._policy(remote).tls)
        where = await self._locator.endpoints(located, remote)
        if where.absent:
            raise NotFound("; ".join(where.problems))
        rest, problems = where.found, where.problems
        final, condition = False, ""
        for _ in range(_MAX_NEGOTIATIONS):
            if not rest:
                break
            try:
                stream, endpoint = await self._first(rest, local, remote, external, verify_only=verify_only)
            except PeerError as error:
                problems.append(error.message)
                break
            try:
                await self._negotiate(stream, verify_only)
                return stream
            except PeerError as error:
                problems.append(error.message)
                if isinstance(stream.machine, s2s.Outgoing) and stream.machine.external_failed and external:
                    external = False  # once more, without the certificate that it did not like
                    continue
                if isinstance(error, StreamFailed):
                    final, condition = error.final, error.condition
                if final:
                    break
                if condition != "reset":  # which means: the same once more, the policy may have changed
                    rest = [one for one in rest if one != endpoint]
        said = "; ".join(dict.fromkeys(problems)) or f"{remote} has no server"
        raise StreamFailed(said, final=final, condition=condition)

    async def _negotiate(self, stream: Stream, verify_only: bool) -> None:
        stream.start()
        if verify_only:
            return
        try:
            async with asyncio.timeout(self._handshake + 5):
                await asyncio.shield(stream.ready)
        except TimeoutError:
            stream.close("the negotiation took too long")
            raise PeerTimeout(f"{stream.host}: the negotiation took too long") from None
        except asyncio.CancelledError:
            stream.close("nobody waits for it any more")
            raise

    async def _first(
        self,
        endpoints: Sequence[Endpoint],
        local: str,
        remote: str,
        external: bool,
        *,
        verify_only: bool,
    ) -> tuple[Stream, Endpoint]:
        queue = list(endpoints)
        trying: dict[asyncio.Future[None], tuple[Stream, Endpoint]] = {}
        problems: list[str] = []
        won: Stream | None = None
        try:
            while queue or trying:
                if queue:
                    endpoint, policy = queue.pop(0), self._policy(remote)
                    if policy.refusal:
                        raise StreamFailed(policy.refusal, final=True)
                    machine = s2s.Outgoing(
                        local,
                        remote,
                        policy.rules,
                        self._keys,
                        now=self._clock(),
                        secure=endpoint.direct,
                        external=external,
                        verify_only=verify_only,
                        timeout=self._handshake,
                    )
                    stream = self._dialler.dial(endpoint, machine)
                    trying[stream.connected] = (stream, endpoint)
                pause = None
                if queue:
                    pause = _STAGGER if queue[0].priority == endpoint.priority else _WORSE_STAGGER
                done, _ = await asyncio.wait(trying, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    stream, endpoint = trying.pop(future)
                    if (error := future.exception()) is None:
                        won = stream
                        return stream, endpoint
                    if isinstance(error, StreamFailed) and error.condition == "reset":
                        queue.append(endpoint)  # the policy changed before it was up
                    problems.append(error.message if isinstance(error, PeerError) else str(error))
        finally:
            for stream, _ in trying.values():
                if stream is not won:
                    stream.close("another address was faster")
        raise PeerUnreachable("; ".join(dict.fromkeys(problems)))
