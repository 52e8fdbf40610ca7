"""Client-side streams: connects to one of several addresses, over TCP or TLS, with reasons for what fails.

Connecting is a simple form of happy eyeballs (RFC 8305): addresses are tried in order, each a moment after the one
before, and the first that connects is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Literal

from moim.errors import PeerTimeout, PeerUnreachable, PeerUntrusted

_STAGGER = 0.25
_MAX_ADDRESSES = 8
_READ_LIMIT = 64 * 1024

TlsReason = Literal["name", "expired", "untrusted", "handshake"]
_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# X509_V_ERR_*: certificate has expired / is not yet valid; host name or address mismatch.
_EXPIRED = (9, 10)
_NAME = (62, 64)


class CertificateRefused(PeerUntrusted):
    """TLS could not be set up with the peer; ``reason`` says whether its name, its dates, its issuer or TLS itself."""

    def __init__(self, reason: TlsReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class HungUp(PeerUnreachable):
    """The peer ended the connection in the middle of an exchange."""


class NotListening(PeerUnreachable):
    """The address is there and nothing accepts connections on the port."""


async def connect(
    addresses: Sequence[str],
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    name: str = "",
    timeout: float = 10.0,  # noqa: ASYNC109
) -> _Stream:
    """A stream to the first of ``addresses`` that accepts. With ``tls`` the certificate must be for ``name``.

    Raises PeerTimeout (after ``timeout`` seconds for all of it), NotListening, PeerUnreachable, CertificateRefused.
    """
    where = f"{name or next(iter(addresses), 'the peer')}:{port}"
    if not addresses:
        raise PeerUnreachable(f"{where} has no address")
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _first(addresses[:_MAX_ADDRESSES], port, where)
            if tls is not None:
                await start_tls(writer, tls, name)
            return reader, writer
    except TimeoutError:
        raise PeerTimeout(f"{where} did not answer within {timeout:g} s") from None


async def start_tls(writer: asyncio.StreamWriter, tls: ssl.SSLContext, name: str) -> None:
    """TLS on a connected stream, for a peer whose certificate must be for ``name``. Closes the stream when it fails."""
    try:
        await writer.start_tls(tls, server_hostname=name)
    except BaseException as error:
        writer.transport.abort()
        if isinstance(error, ssl.SSLError | OSError):
            raise _refused(error, name) from None
        raise


async def close(writer: asyncio.StreamWriter) -> None:
    """Closes a stream and waits a moment for it."""
    writer.close()
    with contextlib.suppress(OSError, TimeoutError, ssl.SSLError):
        async with asyncio.timeout(0.5):
            await writer.wait_closed()


def _refused(error: OSError, name: str) -> CertificateRefused:
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        if error.verify_code in _NAME:
            return CertificateRefused("name", f"the certificate is not for {name}")
        if error.verify_code in _EXPIRED:
            return CertificateRefused("expired", f"the certificate is not valid now: {said}")
        return CertificateRefused("untrusted", f"the certificate is not trusted: {said}")
    said = (error.reason or "").replace("_", " ").lower() if isinstance(error, ssl.SSLError) else error.strerror or ""
    return CertificateRefused("handshake", f"TLS failed: {said or 'the peer ended it'}")


async def _first(addresses: Sequence[str], port: int, where: str) -> _Stream:
    queue = list(addresses)
    trying: set[asyncio.Task[_Stream]] = set()
    problems: list[OSError] = []
    try:
        while queue or trying:
            if queue:
                trying.add(asyncio.create_task(asyncio.open_connection(queue.pop(0), port, limit=_READ_LIMIT)))
            done, trying = await asyncio.wait(
                trying, timeout=_STAGGER if queue else None, return_when=asyncio.FIRST_COMPLETED
            )
            connected = [task.result() for task in done if task.exception() is None]
            for _, spare in connected[1:]:
                spare.transport.abort()
            if connected:
                return connected[0]
            for task in done:
                error = task.exception()
                if not isinstance(error, OSError):
                    raise error or AssertionError
                problems.append(error)
    finally:
        for task in trying:
            task.add_done_callback(_drop)
            task.cancel()
    if any(isinstance(error, ConnectionRefusedError) for error in problems):
        raise NotListening(f"nothing accepts connections at {where}")
    raise PeerUnreachable(f"{where} cannot be reached: {problems[-1].strerror or problems[-1]}")


def _drop(task: asyncio.Task[_Stream]) -> None:
    """Closes a connection that was made too late to be used."""
    if not task.cancelled() and task.exception() is None:
        task.result()[1].transport.abort()
