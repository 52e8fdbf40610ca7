"""A small XMPP load: logs accounts in over direct TLS and SCRAM-SHA-1, pairs them, and sends prepared messages.

Written against the wire, not a library, so that the same bytes go to every server and the load costs little itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

_BODY = 147  # bytes of one <message/> as sent
_NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"


@dataclass(frozen=True)
class Account:
    """Who signs in."""

    local: str
    password: str


@dataclass
class Session:
    """One signed-in connection."""

    jid: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)


async def _until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    return await asyncio.wait_for(reader.readuntil(mark), 20)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def insecure_context() -> ssl.SSLContext:
    """TLS 1.3 without verification: the benchmark's own loopback servers, self-signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def login(host: str, port: int, domain: str, account: Account, context: ssl.SSLContext) -> Session:
    """Direct TLS, SCRAM-SHA-1, bind, initial presence."""
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=domain, limit=1 << 20)
    header = (
        f"<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' "
        "xmlns:stream='http://etherx.jabber.org/streams'>"
    ).encode()
    writer.write(header)
    await _until(reader, b"</stream:features>")
    nonce = _b64(os.urandom(18))
    bare = f"n={account.local},r={nonce}"
    first = _b64(f"n,,{bare}".encode())
    writer.write(f"<auth xmlns='{_NS_SASL}' mechanism='SCRAM-SHA-1'>{first}</auth>".encode())
    challenge = base64.b64decode(_text(await _until(reader, b"</challenge>"))).decode()
    fields = dict(part.split("=", 1) for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac("sha1", account.password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha1")
    final = f"c=biws,r={fields['r']}"
    message = f"{bare},{challenge},{final}".encode()
    signature = hmac.digest(hashlib.sha1(client_key).digest(), message, "sha1")
    proof = _b64(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))
    writer.write(f"<response xmlns='{_NS_SASL}'>{_b64(f'{final},p={proof}'.encode())}</response>".encode())
    await _until(reader, b"success")
    await _until(reader, b">") if not reader.at_eof() else b""
    writer.write(header)
    await _until(reader, b"</stream:features>")
    writer.write(b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    answer = await _until(reader, b"</iq>")
    found = re.search(rb"<jid>([^<]+)</jid>", answer)
    assert found, answer
    writer.write(b"<presence/>")
    return Session(found[1].decode(), reader, writer)


def _text(element: bytes) -> bytes:
    return re.sub(rb"<[^>]+>", b"", element[element.rindex(b"<challenge") :])


async def login_all(
    host: str, port: int, domain: str, accounts: Sequence[Account], context: ssl.SSLContext, width: int = 20
) -> list[Session]:
    """Signs every account in, ``width`` at a time."""
    gate = asyncio.Semaphore(width)

    async def one(account: Account) -> Session:
        async with gate:
            return await login(host, port, domain, account, context)

    return list(await asyncio.gather(*(one(a) for a in accounts)))


async def settle(sessions: Sequence[Session]) -> None:
    """Waits until the server has answered everything before this point on every session."""

    async def one(session: Session) -> None:
        session.writer.write(b"<iq type='get' id='settled'><ping xmlns='urn:xmpp:ping'/></iq>")
        seen = b""
        while b"settled" not in seen:
            seen = seen[-16:] + await asyncio.wait_for(session.reader.read(1 << 16), 20)

    await asyncio.gather(*(one(s) for s in sessions))


def message_to(jid: str) -> bytes:
    """A chat message of 147 bytes to ``jid``."""
    shell = f"<message type='chat' id='m' to='{jid}'><body></body></message>"
    return f"<message type='chat' id='m' to='{jid}'><body>{'x' * max(_BODY - len(shell), 1)}</body></message>".encode()


async def exchange(sessions: Sequence[Session], each: int, burst: int, pause: float = 0.0) -> int:
    """Every session sends its partner ``each`` messages, ``burst`` in flight; gives the number delivered."""

    async def receive(session: Session) -> None:
        session.received, rest = 0, b""
        while session.received < each:
            rest += await asyncio.wait_for(session.reader.read(1 << 18), 60)
            session.received += rest.count(b"</message>")
            session.progress.set()
            rest = rest[rest.rfind(b"</message>") + 10 :] if b"</message>" in rest else rest

    async def send(session: Session, partner: Session) -> None:
        message, sent = message_to(partner.jid), 0
        while sent < each:
            now = min(burst, each - sent)
            session.writer.write(message * now)
            await session.writer.drain()
            sent += now
            while partner.received < sent - burst:
                partner.progress.clear()
                await partner.progress.wait()
            if pause:
                await asyncio.sleep(pause)

    pairs = [(a, b) for a, b in zip(sessions[::2], sessions[1::2], strict=True)]
    both = [*pairs, *((b, a) for a, b in pairs)]
    await asyncio.gather(*(receive(s) for s in sessions), *(send(a, b) for a, b in both))
    return each * len(sessions)


async def close_all(sessions: Sequence[Session]) -> None:
    """Ends every session."""
    for session in sessions:
        session.writer.write(b"</stream:stream>")
        session.writer.close()
    await asyncio.gather(*(s.writer.wait_closed() for s in sessions), return_exceptions=True)
