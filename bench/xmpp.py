"""A small XMPP load: logs accounts in over direct TLS and SCRAM-SHA-1, pairs them, and sends prepared messages.

Written against the wire, not a library, so that the same bytes go to every server and the load costs little itself.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import random
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

Profile = Literal["bare", "features", "archive"]
"""What is on: nothing besides routing; carbons, stream management and client state; these and a durable archive."""

_BODY = 147  # bytes of one <message/> as sent
_NS_SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
_STANZA_END = re.compile(rb"</(?:message|presence|iq)>|<(?:presence|iq)(?: [^<>]*)?/>")
_ASK_EVERY = 10  # messages after which a client with stream management asks for an acknowledgement
_PATIENCE = 300.0
ASK = b"<r xmlns='urn:xmpp:sm:3'/>"


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
    managed: bool = False
    handled: int = 0
    received: int = 0
    progress: asyncio.Event = field(default_factory=asyncio.Event)
    _rest: bytes = b""

    def take(self, chunk: bytes) -> int:
        """Counts what came, answers the server's questions for acknowledgement; gives the messages in it."""
        data = self._rest + chunk
        end = data.rfind(b">") + 1
        data, self._rest = data[:end], data[end:]
        if self.managed:
            self.handled += len(_STANZA_END.findall(data))
            if b"<r " in data or b"<r/" in data:
                self.writer.write(f"<a xmlns='urn:xmpp:sm:3' h='{self.handled}'/>".encode())
        return data.count(b"</message>")


async def _until(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    return await asyncio.wait_for(reader.readuntil(mark), 20)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@lru_cache(maxsize=20_000)
def _salted(password: str, salt: str, rounds: int) -> bytes:
    """What clients remember between two sign-ins (RFC 5802 section 5.1)."""
    return hashlib.pbkdf2_hmac("sha1", password.encode(), base64.b64decode(salt), rounds)


def insecure_context() -> ssl.SSLContext:
    """TLS 1.3 without verification: the benchmark's own loopback servers, self-signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def login(
    host: str, port: int, domain: str, account: Account, context: ssl.SSLContext, profile: Profile = "bare"
) -> Session:
    """Direct TLS, SCRAM-SHA-1, bind, what the profile switches on, initial presence."""
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
    salted = _salted(account.password, fields["s"], int(fields["i"]))
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
    session = Session(found[1].decode(), reader, writer)
    if profile != "bare":
        writer.write(b"<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>")
        assert b"result" in await _until(reader, b">")
        writer.write(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
        await _until(reader, b"<enabled")
        await _until(reader, b">")
        session.managed = True
    writer.write(b"<presence/>")
    return session


def _text(element: bytes) -> bytes:
    return re.sub(rb"<[^>]+>", b"", element[element.rindex(b"<challenge") :])


async def login_all(
    host: str,
    port: int,
    domain: str,
    accounts: Sequence[Account],
    context: ssl.SSLContext,
    profile: Profile = "bare",
    width: int = 20,
) -> list[Session]:
    """Signs every account in, ``width`` at a time."""
    gate = asyncio.Semaphore(width)

    async def one(account: Account) -> Session:
        async with gate:
            return await login(host, port, domain, account, context, profile)

    return list(await asyncio.gather(*(one(a) for a in accounts)))


async def settle(sessions: Sequence[Session]) -> None:
    """Waits until the server has answered everything before this point on every session."""

    async def one(session: Session) -> None:
        session.writer.write(b"<iq type='get' id='settled'><ping xmlns='urn:xmpp:ping'/></iq>")
        seen = b""
        while b"settled" not in seen:
            chunk = await asyncio.wait_for(session.reader.read(1 << 16), 20)
            session.take(chunk)
            seen = seen[-16:] + chunk

    await asyncio.gather(*(one(s) for s in sessions))


def message_to(jid: str) -> bytes:
    """A chat message of 147 bytes to ``jid``."""
    shell = f"<message type='chat' id='m' to='{jid}'><body></body></message>"
    return f"<message type='chat' id='m' to='{jid}'><body>{'x' * max(_BODY - len(shell), 1)}</body></message>".encode()


async def exchange(sessions: Sequence[Session], each: int, burst: int) -> int:
    """Every session sends its partner ``each`` messages, ``burst`` in flight; gives the number delivered."""

    async def receive(session: Session) -> None:
        session.received = 0
        while session.received < each:
            session.received += session.take(await asyncio.wait_for(session.reader.read(1 << 18), _PATIENCE))
            session.progress.set()

    async def send(session: Session, partner: Session) -> None:
        message, sent = message_to(partner.jid), 0
        while sent < each:
            now = min(burst, each - sent)
            session.writer.write(message * now)
            if session.managed and sent // _ASK_EVERY != (sent + now) // _ASK_EVERY:
                session.writer.write(ASK)
            await session.writer.drain()
            sent += now
            while partner.received < sent - burst:
                partner.progress.clear()
                await partner.progress.wait()

    work = []
    for a, b in zip(sessions[::2], sessions[1::2], strict=True):
        work += [receive(b), send(a, b), receive(a), send(b, a)]
    await asyncio.gather(*work)
    return each * len(sessions)


async def pace(sessions: Sequence[Session], rate: float, seconds: float, burst: int = 1) -> tuple[int, float]:
    """All sessions together send ``rate`` messages a second, ``burst`` at a time, each at moments of its own, whether
    the ones before have come or not; gives the number delivered and how long that took, in seconds.
    """
    draw = random.Random(11)
    every = len(sessions) * burst / rate
    sent = got = 0
    all_sent, all_got = False, asyncio.Event()
    began = time.perf_counter()

    async def receive(session: Session) -> None:
        nonlocal got
        while chunk := await session.reader.read(1 << 18):
            got += session.take(chunk)
            if all_sent and got >= sent:
                all_got.set()

    async def send(session: Session, partner: Session) -> None:
        nonlocal sent
        message, own = message_to(partner.jid) * burst, 0
        due = began + draw.uniform(0, every)
        while due < began + seconds:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            own += burst
            asks = session.managed and own // _ASK_EVERY != (own - burst) // _ASK_EVERY
            session.writer.write(message + ASK if asks else message)
            sent += burst
            due += draw.uniform(0, 2 * every)

    receiving = [asyncio.create_task(receive(session)) for session in sessions]
    pairs = zip(sessions[::2], sessions[1::2], strict=True)
    await asyncio.gather(*(send(*side) for a, b in pairs for side in ((a, b), (b, a))))
    all_sent = True
    if got < sent:
        await asyncio.wait_for(all_got.wait(), _PATIENCE)
    took = time.perf_counter() - began
    for task in receiving:
        task.cancel()
    await asyncio.gather(*receiving, return_exceptions=True)
    return got, took


async def close_all(sessions: Sequence[Session]) -> None:
    """Ends every session."""
    for session in sessions:
        session.writer.write(b"</stream:stream>")
        session.writer.close()
    await asyncio.gather(*(s.writer.wait_closed() for s in sessions), return_exceptions=True)
