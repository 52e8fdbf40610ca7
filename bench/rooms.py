"""What one large room costs one server: everybody enters, then some speak and all hear; per stanza delivered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import xmpp
from bench.measure import Figure, cost, cpu_of
from bench.subjects import Subject, run
from bench.xmpp import Account, Session

_MUC = "http://jabber.org/protocol/muc"
_BODY = "x" * 60
_SPEAKERS = 20  # one person alone would be held back by servers that limit how fast one may speak
_BURST = 10


@dataclass(frozen=True)
class Load:
    """How many enter, and how many messages are said."""

    accounts: Sequence[Account]
    occupants: int
    messages: int


async def _fill(sessions: Sequence[Session], room: str) -> None:
    """The first makes the room and opens it; the others enter."""
    owner = sessions[0]
    owner.writer.write(f"<presence to='{room}/n0'><x xmlns='{_MUC}'/></presence>".encode())
    form = "<x xmlns='jabber:x:data' type='submit'/>"
    owner.writer.write(f"<iq type='set' id='o' to='{room}'><query xmlns='{_MUC}#owner'>{form}</query></iq>".encode())
    await xmpp.settle([owner])
    for number, session in enumerate(sessions[1:], 1):
        session.writer.write(f"<presence to='{room}/n{number}'><x xmlns='{_MUC}'/></presence>".encode())
    await asyncio.gather(*(_see(session, len(sessions)) for session in sessions[1:]))


async def _see(session: Session, count: int) -> None:
    """Waits for that many presences: a server may answer a ping before its room has worked off who enters."""
    seen, rest = 0, b""
    while seen < count:
        chunk = await asyncio.wait_for(session.reader.read(1 << 18), 60)
        session.take(chunk)
        seen += (rest + chunk).count(b"<presence")
        rest = chunk[-8:]  # shorter than the word, so that none is counted twice


async def _hear(session: Session, count: int) -> None:
    while session.received < count:
        session.received += session.take(await asyncio.wait_for(session.reader.read(1 << 18), 60))


async def _talk(sessions: Sequence[Session], room: str, messages: int) -> None:
    """Says ``messages``, a few at a time, each few after everybody heard the ones before."""
    for session in sessions:
        session.received = 0
    said = 0
    while said < messages:
        now = min(_BURST, messages - said)
        for number in range(now):
            speaker = sessions[(said + number) % _SPEAKERS]
            text = f"<message type='groupchat' id='g{said + number}' to='{room}'><body>{_BODY}</body></message>"
            speaker.writer.write(text.encode())
        said += now
        await asyncio.gather(*(_hear(session, said) for session in sessions))


def figures(subject: Subject, load: Load) -> list[Figure]:
    """The cost of presence while the room fills, and of messages once it is full."""
    room, size = f"hall@rooms.{subject.domain}", load.occupants

    async def whole() -> list[Figure]:
        accounts = load.accounts[:size]
        sessions = await xmpp.login_all(
            subject.host, subject.port, subject.domain, accounts, xmpp.insecure_context(), "bare"
        )
        await xmpp.settle(sessions)
        cpu = cpu_of([subject.pid])
        await _fill(sessions, room)
        # Each hears of all who are there already, and all who are there already hear of each.
        entering = (cpu_of([subject.pid]) - cpu) / (size * size)
        await _talk(sessions, room, load.messages // 4)
        await xmpp.settle(sessions)
        cpu, began = cpu_of([subject.pid]), time.monotonic()
        await _talk(sessions, room, load.messages)
        heard = load.messages * size
        used, rate = (cpu_of([subject.pid]) - cpu) / heard, heard / (time.monotonic() - began)
        await xmpp.close_all(sessions)
        who, note = subject.name, f"{size} occupants"
        return [
            cost("room: presence of somebody who enters, per occupant", who, entering, "µs CPU", note),
            cost("room: message, per occupant", who, used, "µs CPU", f"{note}, {rate:.0f}/s"),
        ]

    return run(whole())
