"""Carries out what the engine asks for, with asyncio: name servers, HTTPS, XMPP, the person and the memory file."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final

from moim.discovery.actions import (
    Addresses,
    AskPassword,
    Credentials,
    Failed,
    HttpGet,
    NoCredentials,
    Nothing,
    QueryAddress,
    QuerySrv,
    Reason,
    Records,
    Request,
    Response,
    Result,
    Srv,
    XmppLogin,
)
from moim.discovery.engine import Cancel, Discovery
from moim.discovery.login import xmpp_login
from moim.discovery.outcome import Outcome, Step
from moim.errors import MoimError, PeerTimeout, PeerUnreachable
from moim.net.dial import CertificateRefused, HungUp, NotListening
from moim.net.http_client import HttpClient
from moim.net.resolver import Answer, Resolver

Ask = Callable[[AskPassword], Awaitable[Credentials | None]]

_TLS_REASONS: Final[dict[str, Reason]] = {
    "name": "tls-name",
    "expired": "tls-expired",
    "untrusted": "tls-untrusted",
    "handshake": "tls-failed",
}


class Driver:
    """Drives discoveries with one resolver and one set of trusted authorities (see ``tls_context``)."""

    def __init__(self, resolver: Resolver, tls: ssl.SSLContext, ask: Ask) -> None:
        self._resolver = resolver
        self._tls = tls
        self._ask = ask
        self._http = HttpClient(tls)

    async def run(self, discovery: Discovery, on_step: Callable[[Step], None] | None = None) -> Outcome:
        """Runs one discovery to its outcome; ``on_step`` sees each step as it happens."""
        results: asyncio.Queue[tuple[int, Result]] = asyncio.Queue()
        tasks: dict[int, asyncio.Task[None]] = {}
        discovery.begin(time.monotonic())
        try:
            while True:
                while (output := discovery.next_output()) is not None:
                    if isinstance(output, Cancel):
                        if (task := tasks.pop(output.number, None)) is not None:
                            task.cancel()
                    else:
                        tasks[output.number] = asyncio.create_task(
                            self._carry_out(output.number, output.request, results)
                        )
                while (event := discovery.next_event()) is not None:
                    if isinstance(event, Outcome):
                        return event
                    if on_step is not None:
                        on_step(event)
                deadline = discovery.deadline()
                left = max(0.0, deadline - time.monotonic()) if deadline is not None else None
                try:
                    async with asyncio.timeout(left):
                        number, result = await results.get()
                except TimeoutError:
                    discovery.tick(time.monotonic())
                    continue
                tasks.pop(number, None)
                discovery.receive((number, result), time.monotonic())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def aclose(self) -> None:
        """Closes kept connections."""
        await self._http.aclose()

    async def _carry_out(self, number: int, request: Request, results: asyncio.Queue[tuple[int, Result]]) -> None:
        try:
            result = await self._result(request)
        except MoimError as error:
            result = failed(error, self._resolver.label if isinstance(request, QuerySrv | QueryAddress) else "")
        results.put_nowait((number, result))

    async def _result(self, request: Request) -> Result:
        match request:
            case QuerySrv(name):
                return _records(await self._resolver.services(name))
            case QueryAddress(host):
                return _addresses(await self._resolver.addresses(host))
            case HttpGet():
                reply = await self._http.get(
                    request.scheme,
                    request.host,
                    request.port,
                    request.path,
                    addresses=request.addresses,
                    headers=request.headers,
                    name=request.name,
                    timeout=request.timeout,
                )
                return Response(reply.status, reply.headers, reply.body, reply.address)
            case XmppLogin():
                return await xmpp_login(request, self._tls)
            case AskPassword():
                return await self._ask(request) or NoCredentials()


def failed(error: MoimError, server: str = "") -> Failed:
    """An error of ``moim.net`` as a result for the engine; ``server`` is the name server that was asked."""
    if isinstance(error, CertificateRefused):
        return Failed(_TLS_REASONS[error.reason], error.message)
    if isinstance(error, PeerTimeout):
        return Failed("timeout", error.message, server)
    if isinstance(error, NotListening):
        return Failed("refused", error.message)
    if isinstance(error, HungUp):
        return Failed("closed", error.message)
    if isinstance(error, PeerUnreachable):
        return Failed("unreachable", error.message, server)
    return Failed("rubbish", error.message, server)


def _records(answer: Answer) -> Result:
    if answer.status == "ok":
        records = tuple(Srv(r.priority, r.weight, r.port, r.target) for r in answer.services)
        return Records(records, answer.ttl, answer.server)
    return _no(answer)


def _addresses(answer: Answer) -> Result:
    if answer.status == "ok":
        return Addresses(answer.addresses, answer.ttl, answer.server)
    return _no(answer)


def _no(answer: Answer) -> Result:
    if answer.status == "refused":
        return Failed("dns-refused", answer.detail, answer.server)
    if answer.status == "failed":
        return Failed("dns-failed", answer.detail, answer.server)
    return Nothing(answer.status == "no-data", answer.ttl, answer.server)


def default_ask(password: str | None, user: str = "") -> Ask:
    """Answers the first question with ``password`` and no other: a wrong password is not tried twice."""
    left = [password] if password is not None else []

    async def ask(_: AskPassword) -> Credentials | None:
        return Credentials(user, left.pop()) if left else None

    return ask
