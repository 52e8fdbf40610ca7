"""A whole chat service in this process, over a real store and the engine of ``engine.py``; and what must hold of it.

Whatever people, other domains and occupants of rooms send, ``Findings`` collects what must not happen.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self
from unittest import mock

import moim.chat.plane
from chat.conftest import House, parse
from hostile.engine import Engine
from hostile.grammar import Grammar
from hostile.vocabulary import Key
from moim import chat
from moim.proto.xmpp import Element, Jid, ns

PEOPLE = {"alice": "wonder land", "bob": "b secret", "carol": "c secret", "root": "r secret", "dave": "d secret"}
PRESENT = (("alice", "one"), ("alice", "two"), ("bob", "one"), ("carol", "x y"), ("root", "one"), ("dave", "one"))
FAR = ("romeo@far.test/orchard", "montague@far.test/1", "far.test", "push.far.test", "romeo@far.test")
OPTIONS: dict[str, Any] = {
    "allow_plain": True, "default_contacts": False, "admins": ["root@chat.test"], "registration": True,
    "registrations_per_hour": 1e6, "strangers_per_minute": 0, "rooms_stanzas_per_second": 1e6,
    "rooms_stanzas_burst": 1_000_000, "uploads_per_minute": 100_000, "rooms_persistent": True,
    "auth_failures_per_address": 1_000_000, "auth_failures_per_account": 1_000_000, "rooms_per_user": 10_000,
    "abuse_addresses": ["xmpp:root@chat.test"], "bosh": False, "push_per_minute": 1000,
    "shared_block_lists": ["xmpp:lists.test?node=spam"], "max_sessions_per_user": 100,
    "uploads_free_bytes": 0,
}  # fmt: skip
_ADDRESSED = ("alice@chat.test", "chat.test", "stage@rooms.chat.test", "rooms.chat.test")
_PATIENCE = 15.0
_SLOW = 2.0
_MOST_OUT = 3000
_MOST_BYTES = 8 << 20
_ONE_STANZA = 600_000


class Findings(logging.Handler):
    """What must not happen, in sentences."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.all: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "moim.chat.cluster" and record.exc_info is None:
            return  # a word about what another node said
        self.all.append(f"logged as an error: {self.format(record)}")

    def loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the event loop has to say."""
        error = context.get("exception")
        self.all.append(f"nobody took an exception: {context['message']} {error!r}")


class Far:
    """Other domains: keeps what is sent there."""

    def __init__(self) -> None:
        self.got: list[Element] = []

    def send(self, stanza: Element) -> None:
        self.got.append(stanza)


class Relays:
    """TURN servers that there are not."""

    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        return [{"urls": ["turn:turn.test:3478?transport=udp"], "username": name, "credential": "x"}]


class World(House):
    """A running service with people in it, a room with occupants, and somebody elsewhere."""

    def __init__(self, root: Path, seed: str, **options: Any) -> None:
        self.far = Far()
        self.findings = Findings()
        super().__init__(root, people=PEOPLE, domain="chat.test", **OPTIONS, **options)
        self.rng = random.Random(seed)
        self.sids: dict[str, int] = {}
        """Sessions by full JID."""
        self.counts: Counter[str] = Counter()
        self._next_sid = 0
        self._next_id = 0
        self._heard_messages = 0
        self._calm: set[asyncio.Task[Any]] = set()
        self._taken = self._far_taken = 0
        self._ended = 0
        self._asked: set[str] = set()
        self._heard: set[str] = set()
        self._away: set[int] = set()
        self.engine: Engine
        self.grammar: Grammar
        self.last = ""
        """What was done last, for whoever wants to see it again."""

    def _service(self) -> chat.Service:
        return chat.Service(
            self.site, self.store, self.bus, users=self.users, credential=lambda _: self.files, federation=self.far,
            relays=Relays(), web_base=lambda: "http://web.test", registrar=self.users,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        made: list[Engine] = []

        def make(domain: str, **options: Any) -> Any:
            made.append(Engine(domain, **options))
            return made[-1]

        with mock.patch.object(moim.chat.plane, "XmppServer", make):
            await self.service.start()
        self.engine = made[0]
        asyncio.get_running_loop().set_exception_handler(self.findings.loop)
        logging.getLogger("moim").addHandler(self.findings)
        self._calm = asyncio.all_tasks()
        self.grammar = Grammar(self.rng, _requests(self.service))
        for name, resource in PRESENT:
            await self.sign_in(name, resource)
        await self._furnish()
        assert not self.findings.all, self.findings.all
        return self

    async def __aexit__(self, *_: object) -> None:
        logging.getLogger("moim").removeHandler(self.findings)
        await self.stop()

    # --- people -----------------------------------------------------------------------------------------------------

    async def connection(self) -> int:
        """A connection whose stream is open, before any sign-in."""
        self._next_sid += 1
        sid = self._next_sid
        listener = next(status for status in self.service._listeners if status.name == "xmpp-client-tls")
        self.engine.emit("connected", sid, listener.number, f"192.0.2.{sid % 250}", 4000, True)
        self.engine.emit("tls", sid, {"version": "TLSv1.3", "cipher": "", "sni": None, "alpn": None, "chain": []})
        self._open(sid)
        await self.settle()
        return sid

    def _open(self, sid: int) -> None:
        self.engine.emit("open", sid, {"to": "chat.test", "version": "1.0", "xmlns": ns.CLIENT})

    async def sign_in(self, name: str, resource: str) -> int:
        """A bound session that asked for its roster and is available."""
        sid = await self.connection()
        secret = base64.b64encode(f"\0{name}\0{self.users.passwords.get(name, '')}".encode()).decode()
        self.engine.emit("stanza", sid, Element("auth", ns.SASL, {"mechanism": "PLAIN"}, (secret,)))
        await self.settle()
        self._open(sid)
        bind = f"<bind xmlns='{ns.BIND}'><resource>{resource}</resource></bind>"
        self.engine.emit("stanza", sid, parse(f"<iq type='set' id='b'>{bind}</iq>"))
        await self.settle()
        self._learn()
        if sid in self.engine.names:
            self.say(sid, parse(f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq>"))
            self.say(sid, parse("<presence/>"))
            await self.settle()
        return sid

    def _learn(self) -> None:
        gone = self._away | set(self.engine.closed)
        self.sids = {full: sid for full, sid in self.engine.rows.items() if sid not in gone}

    async def _furnish(self) -> None:
        """A room with people in it, one of them from elsewhere; contacts, items, messages."""
        muc = f"<x xmlns='{ns.MUC}'/>"
        for full, nick in (("alice@chat.test/one", "Alice"), ("bob@chat.test/one", "Bob"), ("root@chat.test/one", "R")):
            for room in ("stage", "spare"):
                self.say(self.sids[full], parse(f"<presence to='{room}@rooms.chat.test/{nick}'>{muc}</presence>"))
                await self.settle()
        self.hear(parse(f"<presence to='stage@rooms.chat.test/Romeo'>{muc}</presence>"), FAR[0])
        owner, other = self.sids["alice@chat.test/one"], self.sids["bob@chat.test/one"]
        for stanza in (
            "<presence to='bob@chat.test' type='subscribe'/>",
            "<presence to='romeo@far.test' type='subscribe'/>",
            "<message to='bob@chat.test' type='chat' id='m1'><body>hello</body></message>",
            "<message to='stage@rooms.chat.test' type='groupchat' id='m2'><body>hello all</body></message>",
        ):
            self.say(owner, parse(stanza))
            await self.settle()
        self.say(other, parse("<presence to='alice@chat.test' type='subscribed'/>"))
        self.hear(parse("<presence to='alice@chat.test' type='subscribed'/>"), "romeo@far.test")
        await self.settle()

    def say(self, sid: int, stanza: Element) -> None:
        """A bound session sends; the engine stamps what it sends."""
        full = self.engine.names.get(sid)
        self._asked.add(stanza.get("to") or "")
        if stanza.ns == ns.CLIENT and full is not None:
            stanza = stanza.with_attrs({"from": full})
        self.engine.emit("stanza", sid, stanza)

    def hear(self, stanza: Element, sender: str) -> None:
        """Somebody of another domain sends; the stream it comes on has shown that it speaks for the sender's domain."""
        speaker = Jid.parse(sender)
        self._heard |= {str(speaker), str(speaker.bare)}
        if stanza.name != "message":
            self.service.remote_stanza(stanza.with_attrs({"from": sender}))
            return
        self._heard_messages += 1
        number = (-1, self._heard_messages)
        self.engine.undone.add(number)
        self.service.remote_stanza(stanza.with_attrs({"from": sender}), lambda kept: self.engine.undone.discard(number))

    # --- until nothing moves ------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Returns when nothing is being worked on any more."""
        deadline = time.monotonic() + _PATIENCE
        current = asyncio.current_task()
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0)
            busy = [task for task in asyncio.all_tasks() - self._calm if task is not current and not _resting(task)]
            waits = self.engine.tickets or self.engine.undone
            if not busy and self.engine.idle and not waits:
                await self.store.write(lambda connection: None)
                quiet += 1
                continue
            if waits and (parts := self.service._parts) is not None and parts.archive is not None:
                await parts.archive.settled()
            quiet = 0
            if time.monotonic() > deadline:
                self.findings.all.append(f"work that does not end: {busy} {waits}")
                self._calm.update(busy)
                self.engine.tickets.clear()
                self.engine.undone.clear()
                return
            if busy:
                await asyncio.wait(busy, timeout=0.05)

    # --- one step -----------------------------------------------------------------------------------------------------

    async def step(self) -> None:
        """Something happens: a stanza of somebody, an attempt to sign in, a broken connection."""
        rng = self.rng
        choice = rng.random()
        if choice < 0.7:
            await self._client()
        elif choice < 0.9:
            await self._peer()
        elif choice < 0.97:
            await self._stranger()
        else:
            await self._connection_lost()
        if len(self.sids) < 6 or rng.random() < 0.01:
            name, resource = rng.choice([who for who in PRESENT if who[0] in self.users.passwords] or [("eve", "1")])
            self.last = f"{name} signs in"
            self.users.passwords.setdefault(name, PEOPLE.get(name, "e secret"))
            await self.sign_in(name, resource)
            self._judge()

    async def _client(self) -> None:
        full = self.rng.choice(sorted(self.sids))
        await self.from_client(full, self._numbered(self.grammar.stanza()))

    async def from_client(self, full: str, stanza: Element) -> None:
        """A bound session sends a stanza, and everybody who is asked something for it answers."""
        sid = self.sids[full]
        self.last = f"{full} sends {stanza.to_xml()}"
        asks = _asks(stanza)
        identifier = stanza.get("id") if asks else None
        start = time.process_time()
        mark = len(self.engine.sent)
        self.say(sid, stanza)
        await self.settle()
        if (took := time.process_time() - start) > _SLOW:
            self.findings.all.append(f"{took:.1f} s of work for one stanza")
        await self._answer()
        answers = [said for to, said in self.engine.sent[mark:] if to == sid and _answers(said, identifier)]
        if identifier and sid not in self.engine.closed and len(answers) != 1 and identifier.startswith("f"):
            self.findings.all.append(f"{len(answers)} answers to a request")
        self._judge()

    async def _peer(self) -> None:
        sender = self.rng.choice(FAR)
        await self.from_peer(sender, self._numbered(self.grammar.stanza()))

    async def from_peer(self, sender: str, stanza: Element) -> None:
        """Somebody elsewhere sends a stanza to somebody here."""
        stanza = stanza if stanza.name in ("iq", "message", "presence") else stanza.with_attrs({"type": None})
        try:
            to = Jid.parse(stanza.get("to") or "")
        except Exception:
            to = Jid.parse("alice@chat.test")
        if to.domain not in ("chat.test", "rooms.chat.test", "upload.chat.test"):
            to = Jid.parse(self.rng.choice(_ADDRESSED))
        stanza = stanza.with_attrs({"to": str(to)})
        self.last = f"{sender} sends {stanza.to_xml()}"
        asks = _asks(stanza)
        identifier = stanza.get("id") if asks else None
        mark = len(self.far.got)
        self.hear(stanza, sender)
        await self.settle()
        await self._answer()
        answers = [said for said in self.far.got[mark:] if _answers(said, identifier)]
        if identifier and identifier.startswith("f") and len(answers) != 1:
            self.findings.all.append(f"{len(answers)} answers to a request from elsewhere")
        self._judge()

    async def _stranger(self) -> None:
        """A connection that has not signed in says a few things."""
        sid = await self.connection()
        said = [self.grammar.entry() for _ in range(self.rng.randint(1, 5))]
        self.last = "a connection says " + "".join(element.to_xml() for element in said)
        for element in said:
            self.say(sid, element)
            await self.settle()
            if sid not in self.engine.closed and sid not in self.engine.opened:
                self._open(sid)
                await self.settle()
        self.engine.emit("close", sid)
        await self.settle()
        self._judge()

    async def _connection_lost(self) -> None:
        full = self.rng.choice(sorted(self.sids))
        sid = self.sids[full]
        self.last = f"{full} is cut off"
        if self.rng.random() < 0.5:
            self.engine.emit("close", sid)
        else:
            self.engine.emit("detached", sid, "", [])
            self._away.add(sid)
        await self.settle()
        self._judge()

    def _numbered(self, stanza: Element) -> Element:
        identifier = stanza.get("id")
        if identifier is not None and not identifier.strip():
            return stanza
        self._next_id += 1
        return stanza.with_attrs({"id": f"f{self._next_id}"})

    async def _answer(self) -> None:
        """Clients here and elsewhere answer what they are asked, each once."""
        for _ in range(3):
            asked = [(sid, said) for sid, said in self.engine.sent[self._taken :] if _asks(said)]
            outside = [said for said in self.far.got[self._far_taken :] if _asks(said)]
            self._take()
            if not asked and not outside:
                return
            for sid, request in asked:
                if sid in self.engine.names:
                    self.say(sid, self.grammar.answer(request).with_attrs({"to": request.get("from")}))
            for request in outside:
                answer = self.grammar.answer(request).with_attrs({"to": request.get("from")})
                self.hear(answer, request.get("to") or "far.test")
            await self.settle()

    # --- what must hold -----------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Looks at everything that was said since the last time."""
        said = [element for _, element in self.engine.sent[self._taken :]] + self.far.got[self._far_taken :]
        if len(said) > _MOST_OUT or sum(len(element.to_xml()) for element in said[:_MOST_OUT]) > _MOST_BYTES:
            self.findings.all.append(f"{len(said)} stanzas for one")
        for element in said[:_MOST_OUT]:
            self.counts["said"] += 1
            self._look(element)
        for element in self.far.got[self._far_taken :]:
            if (element.get("to") or "").partition("@")[2].partition("/")[0] in ("chat.test", "rooms.chat.test"):
                self.findings.all.append(f"sent to others, though it is for us: {element.to_xml()[:500]}")
            if not element.get("from") or not element.get("to"):
                self.findings.all.append(f"sent to others without an address: {element.to_xml()[:500]}")
        self.grammar.seen = [*self.grammar.seen[-60:], *(e for e in said[:20] if e.name == "iq" and e.elements())]
        self._taken, self._far_taken = len(self.engine.sent), len(self.far.got)

    def _look(self, element: Element) -> None:
        text = element.to_xml()
        if len(text) > _ONE_STANZA:
            self.findings.all.append(f"a stanza of {len(text)} bytes: {text[:300]}")
        if element.name not in ("iq", "message", "presence") or element.ns != ns.CLIENT:
            return
        error = element.find("error")
        inner = error.elements()[0].name if error is not None and error.elements() else ""
        if inner == "internal-server-error" and element.get("type") == "error":
            self.findings.all.append(f"an internal error: {text[:500]}")
        self._attribute(element, text)

    def _attribute(self, element: Element, text: str) -> None:
        """Nobody speaks under a name that is not theirs."""
        sender = element.get("from")
        if sender is None or (element.get("type") == "error" and sender in self._asked):
            return
        try:
            jid = Jid.parse(sender)
        except Exception:
            self.findings.all.append(f"from nobody: {text[:500]}")
            return
        local = jid.domain == "chat.test"
        if local and jid.resource and jid.local and sender not in self.engine.ever:
            self.findings.all.append(f"from a session that never was: {text[:500]}")
        elif not local and jid.domain not in ("rooms.chat.test", "upload.chat.test") and str(jid) not in self._heard:
            self.findings.all.append(f"from an address that is nobody's here: {text[:500]}")

    def _judge(self) -> None:
        self._learn()
        self._take()
        for error in list(self.engine.closed.values())[self._ended :]:
            conditions = [child.name for child in error.elements()] if error is not None else []
            if "internal-server-error" in conditions:
                self.findings.all.append("a stream ended with internal-server-error")
        self._ended = len(self.engine.closed)
        self.engine.sent.clear()
        self.far.got.clear()
        self._asked.clear()
        self._taken = self._far_taken = 0
        if self.findings.all:
            found = "\n".join(dict.fromkeys(self.findings.all))
            self.findings.all.clear()
            raise AssertionError(f"{self.last[:3000]}\n{found}")


def _resting(task: asyncio.Task[Any]) -> bool:
    """Whether it only waits to be woken, or for its next turn."""
    return getattr(task.get_coro(), "__qualname__", "") in ("Event.wait", "sleep")


def _asks(stanza: Element) -> bool:
    return (stanza.name, stanza.ns) == ("iq", ns.CLIENT) and stanza.get("type") in ("get", "set")


def _answers(stanza: Element, identifier: str | None) -> bool:
    return stanza.name == "iq" and stanza.get("type") in ("result", "error") and stanza.get("id") == identifier


def _requests(service: chat.Service) -> list[Key]:
    parts = service._parts
    assert parts is not None
    return [key for feature in parts.features for table in (feature.server_iq, feature.account_iq) for key in table]
