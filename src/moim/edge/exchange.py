"""One HTTP exchange at the edge: reads a request from a client, carries it to its target, brings the answer back.

A request is judged whole (``requests``), routed, then written anew for the target: nothing of its framing is copied.
Bodies stream both ways with back-pressure. Everything that is turned away is answered with a sentence and reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from http import HTTPStatus
from typing import Protocol

import h11

from moim.edge import pages, requests
from moim.edge.refusals import Refusals
from moim.edge.requests import MAX_HEAD, Rejected, RequestHead
from moim.edge.rules import Rule
from moim.edge.settings import LimitSettings
from moim.edge.upstream import Pool, Upstream
from moim.errors import MoimError
from moim.net.streams import CHUNK, SocketStream, relay

RETRY = ("Retry-After", "5")
_VIA = b"1.1 moim-edge"
_SAFE_TO_REPEAT = ("GET", "HEAD", "OPTIONS")
_LONGEST_S = 86400.0  # where another clock is running already
_LINGER_S = 1.0
_LINGER_BYTES = 1 << 20
_log = logging.getLogger("moim.edge.proxy")


class _ClientGone(Exception):
    """The client's connection ended or stalled; there is nobody to answer."""


class _Stale(Exception):
    """A connection that was kept for reuse ended before it answered."""


class Proxy(Protocol):
    """What an exchange needs of the proxy it belongs to."""

    limits: LimitSettings
    refusals: Refusals
    counters: Counter[str]
    pool: Pool

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names that requests may be for; None for any."""
        ...

    def admit(self, peer: str) -> None:
        """Counts a request of a client. Raises Rejected (429)."""
        ...

    def route(self, head: RequestHead) -> Rule:
        """The row that allows a request. Raises Rejected."""
        ...


class Exchange:
    """One request and its answer on a client's connection."""

    def __init__(self, proxy: Proxy, stream: SocketStream, listener: str) -> None:
        self._proxy = proxy
        self._limits = proxy.limits
        self._stream = stream
        self._listener = listener
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._accept = b"*/*"
        self._language = b""
        self._answered = False

    async def run(self, left: bytes) -> tuple[bool, bytes]:
        """Reads a request (``left`` is what was read already) and answers it.

        Returns whether another may follow, and the bytes read beyond this one.
        """
        try:
            raw, body = await self._read_head(left)
            if not raw:
                return False, b""
            request = self._parse(raw)
            self._accept = requests.field(list(request.headers), b"accept")
            self._language = requests.field(list(request.headers), b"accept-language")
            self._proxy.admit(self._stream.peer[0])
            head = requests.read(request, self._proxy.hosts)
            if head.length is not None and head.length > self._limits.body_bytes:
                raise Rejected(413, f"the body of {head.length} bytes is over the limit of {self._limits.body_bytes}")
            rule = self._proxy.route(head)
            if body:
                self._http.receive_data(body)
            await self._forward(head, rule)
        except Rejected as refusal:
            await self._refuse(refusal)
            return False, b""
        except h11.RemoteProtocolError as error:
            await self._refuse(Rejected(error.error_status_hint, f"the request breaks HTTP: {error}"))
            return False, b""
        except _ClientGone:
            self._stream.abort()
            return False, b""
        again = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        return again, self._http.trailing_data[0] if again else b""

    # -- the request

    async def _read_head(self, left: bytes) -> tuple[bytes, bytes]:
        """The raw head with its empty line, and what follows; empty at the end of the connection."""
        loop = asyncio.get_running_loop()
        buffer = bytearray(left.removeprefix(b"\r\n"))  # RFC 9112 section 2.2: one empty line before is ignored
        deadline = loop.time() + (self._limits.head_s if buffer else self._limits.keepalive_s)
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            requests.check_bytes(bytes(buffer.rstrip(b"\r")))
            if len(buffer) > MAX_HEAD:
                raise Rejected(431, f"the head is longer than {MAX_HEAD} bytes")
            try:
                async with asyncio.timeout_at(deadline):
                    data = await self._stream.reader.read(CHUNK)
            except TimeoutError:
                if not buffer:
                    return b"", b""
                raise Rejected(408, "the head of the request did not arrive in time") from None
            if not data:
                return b"", b""
            if not buffer:
                deadline = loop.time() + self._limits.head_s
                data = data.removeprefix(b"\r\n")
            buffer += data
        if end > MAX_HEAD:
            raise Rejected(431, f"the head is longer than {MAX_HEAD} bytes")
        return bytes(buffer[: end + 4]), bytes(buffer[end + 4 :])

    def _parse(self, raw: bytes) -> h11.Request:
        requests.check_bytes(raw)
        self._http.receive_data(raw)
        event = self._http.next_event()
        if not isinstance(event, h11.Request):
            raise Rejected(400, "the head is not an HTTP request")
        return event

    def _outgoing(self, head: RequestHead) -> h11.Request:
        peer = self._stream.peer[0].encode()
        via = requests.field(head.headers, b"via")
        headers: requests.Headers = [(b"Host", head.authority.encode())]
        headers += [(name, value) for name, value in head.headers if name != b"via"]
        headers += [
            (b"Via", via + b", " + _VIA if via else _VIA),
            (b"X-Forwarded-For", peer),
            (b"X-Forwarded-Proto", b"https"),
            (b"X-Forwarded-Host", head.authority.encode()),
        ]
        if head.websocket:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        elif head.chunked:
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif head.length is not None:
            headers.append((b"Content-Length", str(head.length).encode()))
        return h11.Request(method=head.method, target=head.target, headers=headers)

    # -- there and back

    async def _forward(self, head: RequestHead, rule: Rule) -> None:
        # A kept connection may end just when it is used again: only what can be asked twice goes out on one.
        fresh = head.method not in _SAFE_TO_REPEAT or head.chunked or bool(head.length) or head.websocket
        while True:
            try:
                upstream = await self._proxy.pool.take(rule.target, self._stream.peer, fresh=fresh)
            except MoimError as error:
                raise Rejected(503, error.message, [RETRY]) from error
            try:
                return await self._carry(upstream, head, rule)
            except _Stale:
                fresh = True

    async def _carry(self, upstream: Upstream, head: RequestHead, rule: Rule) -> None:
        """One request over one connection. Raises Rejected (502, 504), _Stale, _ClientGone."""
        body: asyncio.Task[None] | None = None
        finished = False
        try:
            try:
                await upstream.send(self._outgoing(head))
                if head.chunked or head.length:
                    body = asyncio.get_running_loop().create_task(self._send_body(upstream))
                else:
                    await self._send_body(upstream)
                response = await self._response_head(upstream, body)
            except (OSError, h11.ProtocolError) as error:
                if upstream.reused:
                    raise _Stale from error
                if isinstance(error, TimeoutError):
                    raise Rejected(504, f"the target '{rule.target}' did not answer in time", [RETRY]) from error
                reason = f"the target '{rule.target}' broke the exchange: {error or type(error).__name__}"
                raise Rejected(502, reason, [RETRY]) from error
            if isinstance(response, h11.InformationalResponse):
                if not head.websocket:
                    raise Rejected(502, f"the target '{rule.target}' switched protocols unasked", [RETRY])
                await self._switch(upstream, response)
                return
            await self._answer(upstream, response)
            finished = True
        finally:
            if body is not None:
                body.cancel()
                await asyncio.gather(body, return_exceptions=True)
            if finished:
                self._proxy.pool.give(upstream)
            else:
                upstream.close()
        await self._linger()

    async def _response_head(
        self, upstream: Upstream, body: asyncio.Task[None] | None
    ) -> h11.Response | h11.InformationalResponse:
        """The head of the response; a target may answer before it has read the whole body, which goes on meanwhile."""
        if body is None:
            async with asyncio.timeout(self._limits.upstream_s):
                return await self._next_head(upstream)
        reply = asyncio.get_running_loop().create_task(self._next_head(upstream))
        try:
            await asyncio.wait((body, reply), return_when=asyncio.FIRST_COMPLETED)
            if not reply.done():
                with contextlib.suppress(OSError):  # it takes no more, but may have said why
                    body.result()
                await asyncio.wait((reply,), timeout=self._limits.upstream_s)
            if not reply.done():
                raise TimeoutError
            return reply.result()
        finally:
            reply.cancel()
            await asyncio.gather(reply, return_exceptions=True)

    async def _next_head(self, upstream: Upstream) -> h11.Response | h11.InformationalResponse:
        while True:
            event = await upstream.receive(_LONGEST_S)
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionResetError("the connection ended before the response")
            if event.status_code == 101:
                return event

    async def _send_body(self, upstream: Upstream) -> None:
        """Copies the request's body. Raises Rejected (400, 408, 413), or _ClientGone."""
        taken = 0
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Rejected(400, f"the body of the request breaks HTTP: {error}") from None
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
                self._http.receive_data(await self._read_body())
            elif isinstance(event, h11.Data):
                taken += len(event.data)
                if taken > self._limits.body_bytes:
                    raise Rejected(413, f"the body is over the limit of {self._limits.body_bytes} bytes")
                await upstream.send(h11.Data(data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await upstream.send(h11.EndOfMessage())
                return
            else:
                return  # paused: a handshake has no body

    async def _read_body(self) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_s):
                data = await self._stream.reader.read(CHUNK)
        except TimeoutError:
            raise Rejected(408, "the body of the request stopped arriving") from None
        except OSError:
            data = b""
        if not data:
            raise _ClientGone
        return data

    async def _answer(self, upstream: Upstream, response: h11.Response) -> None:
        fields = list(response.headers)
        headers = requests.passed_on(fields, from_outside=False)
        if requests.field(fields, b"transfer-encoding"):
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        via = requests.field(fields, b"via")
        headers = [(name, value) for name, value in headers if name != b"via"]
        headers.append((b"Via", via + b", " + _VIA if via else _VIA))
        if self._http.their_state is not h11.DONE:
            headers.append((b"Connection", b"close"))
        self._proxy.counters[f"responses.{response.status_code // 100}xx"] += 1
        self._answered = True
        await self._write(
            self._http.send(h11.Response(status_code=response.status_code, reason=response.reason, headers=headers))
        )
        try:
            while True:
                event = await upstream.receive(self._limits.upstream_s)
                if isinstance(event, h11.Data):
                    await self._write(self._http.send(h11.Data(data=event.data)))
                elif isinstance(event, h11.EndOfMessage):
                    await self._write(self._http.send(h11.EndOfMessage()))
                    return
                else:
                    raise ConnectionResetError("the response ended early")
        except (OSError, h11.RemoteProtocolError) as error:
            # The head is out: cutting the connection is the only way left to say that the body is not whole.
            _log.info("an answer to %s broke off: %s", self._stream.peer[0], error or type(error).__name__)
            self._stream.abort()
            raise _ClientGone from error

    async def _switch(self, upstream: Upstream, response: h11.InformationalResponse) -> None:
        headers = requests.passed_on(list(response.headers), from_outside=False)
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
        data = self._http.send(h11.InformationalResponse(status_code=101, headers=headers, reason=response.reason))
        await self._write(data or b"")
        self._answered = True
        self._proxy.counters["websockets"] += 1
        early = self._http.trailing_data[0]
        if early:
            upstream.stream.write(early)
        first = upstream.http.trailing_data[0]
        if first:
            self._stream.write(first)
        moved = await relay(self._stream, upstream.stream, idle_s=self._limits.stream_idle_s)
        self._proxy.counters["websocket.bytes_in"] += moved.forward
        self._proxy.counters["websocket.bytes_out"] += moved.backward

    # -- writing

    async def _write(self, data: bytes | None) -> None:
        if not data:
            return
        self._stream.write(data)
        try:
            async with asyncio.timeout(self._limits.body_s):
                await self._stream.drain()
        except TimeoutError:
            self._stream.abort()
            raise _ClientGone from None
        except OSError:
            raise _ClientGone from None

    async def _refuse(self, refusal: Rejected) -> None:
        self._proxy.refusals.add(self._stream.peer[0], self._listener, refusal.message)
        self._proxy.counters[f"responses.{refusal.status // 100}xx"] += 1
        if self._answered:
            self._stream.abort()
            return
        headers, body = pages.page(
            refusal.status, refusal.message, accept=self._accept, language=self._language, extra=refusal.headers
        )
        phrase = HTTPStatus(refusal.status).phrase
        answer = h11.Response(status_code=refusal.status, reason=phrase, headers=[*headers, ("Connection", "close")])
        with contextlib.suppress(_ClientGone, h11.LocalProtocolError):
            await self._write(self._http.send(answer))
            await self._write(self._http.send(h11.Data(data=body)))
            await self._write(self._http.send(h11.EndOfMessage()))
            await self._linger()

    async def _linger(self) -> None:
        """Lets a client that is still sending read the answer: closing over unread bytes would reset it away."""
        taken = 0
        with contextlib.suppress(OSError, h11.RemoteProtocolError):
            async with asyncio.timeout(_LINGER_S):
                while taken < _LINGER_BYTES and self._http.their_state is h11.SEND_BODY:
                    event = self._http.next_event()
                    if event is h11.NEED_DATA:
                        data = await self._stream.reader.read(CHUNK)
                        taken += len(data)
                        self._http.receive_data(data)
                    elif isinstance(event, type):
                        return
