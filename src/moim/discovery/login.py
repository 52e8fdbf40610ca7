"""One XMPP sign-in on a socket: drives ``moim.proto.xmpp.client`` over a stream and tells how it ended."""

from __future__ import annotations

import asyncio
import ssl

from moim.discovery.actions import Failed, LoggedIn, Reason, XmppLogin
from moim.errors import MoimError
from moim.net import dial
from moim.proto.xmpp.client import ClientLogin, SignedIn, StartTlsNow
from moim.proto.xmpp.client import Failed as LoginFailed

_READ = 16 * 1024
_REASONS: dict[str, Reason] = {
    "credentials": "credentials",
    "refused": "login-refused",
    "protocol": "rubbish",
    "timeout": "timeout",
    "closed": "closed",
    "unencrypted": "unencrypted",
}


async def xmpp_login(request: XmppLogin, tls: ssl.SSLContext) -> LoggedIn | Failed:
    """Signs in and out again. Raises what ``moim.net.dial`` raises."""
    domain = request.address.rpartition("@")[2]
    try:
        login = ClientLogin(
            request.address,
            request.password,
            username=request.username,
            tls="direct" if request.direct else "starttls",
            timeout=request.timeout,
        )
    except MoimError as error:
        return Failed("login-refused", error.message)
    reader, writer = await dial.connect(
        request.addresses, request.port, tls=tls if request.direct else None, name=domain, timeout=request.timeout
    )
    try:
        return await _drive(login, reader, writer, tls, domain)
    except OSError as error:
        return Failed("closed", error.strerror or "")
    finally:
        await dial.close(writer)


async def _drive(
    login: ClientLogin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext, domain: str
) -> LoggedIn | Failed:
    loop = asyncio.get_running_loop()
    peer = writer.get_extra_info("peername")
    login.start(loop.time())
    while True:
        _flush(login, writer)
        while (event := login.next_event()) is not None:
            if isinstance(event, StartTlsNow):
                await dial.start_tls(writer, tls, domain)
                login.tls_started(loop.time())
                _flush(login, writer)
            elif isinstance(event, SignedIn):
                login.finish()
                _flush(login, writer)
                return LoggedIn(str(event.jid), event.mechanism, str(peer[0]) if peer else "")
            elif isinstance(event, LoginFailed):
                _flush(login, writer)
                return Failed(_REASONS[event.kind], event.reason)
        await writer.drain()
        try:
            async with asyncio.timeout_at(login.deadline()):
                data = await reader.read(_READ)
        except TimeoutError:
            login.tick(loop.time())
            continue
        if data:
            login.receive(data, loop.time())
        else:
            login.closed(loop.time())


def _flush(login: ClientLogin, writer: asyncio.StreamWriter) -> None:
    while (data := login.next_output()) is not None:
        writer.write(data)
