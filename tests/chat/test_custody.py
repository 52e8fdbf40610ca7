"""When a message that Python handles is acknowledged: not before it is on disk, under way, or refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chat.conftest import PEOPLE, House
from moim import chat
from moim.chat import custody, stream_management
from moim.chat.custody import Custody, Word, hold, hold_until, working_on
from moim.errors import Unavailable
from moim.proto.xmpp import Element, ns
from raw_xmpp import RawXmpp
from stanza_parts import child

SECRET = PEOPLE["bob"]
ENABLE = f"<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.SM}' resume='true'/></bind>"
R = f"<r xmlns='{ns.SM}'/>"


def test_a_message_is_dealt_with_when_nobody_holds_it() -> None:
    over: list[bool] = []
    message = Custody(over.append)
    with working_on(message):
        first, second = hold(), hold()
        with working_on(None):
            assert hold() is None
    assert hold() is None
    assert first is not None
    assert second is not None
    message.release()
    first.release()
    assert not over
    second.release()
    assert over == [True]
    with working_on(message):
        assert hold() is None, "what somebody does later has nothing to do with it"


def test_a_message_that_cannot_be_kept_is_refused_once() -> None:
    over: list[bool] = []
    message = Custody(over.append)
    message.hold()
    message.refuse()
    message.release()
    message.release()
    assert over == [False]


async def test_tasks_hold_what_their_maker_works_on() -> None:
    over: list[bool] = []
    message = Custody(over.append)
    done = asyncio.Event()
    with working_on(message):
        task = asyncio.create_task(done.wait())
        hold_until(task)
    message.release()
    await asyncio.sleep(0)
    assert not over
    done.set()
    await task
    await asyncio.sleep(0)
    assert over == [True]


async def test_the_plane_hears_in_one_word_what_comes_together() -> None:
    heard: list[Any] = []
    word = Word(heard.append)
    word.done(1, 1)
    word.done(2, 1)
    await asyncio.sleep(0)
    word.done(1, 2)
    word.say()
    await asyncio.sleep(0)
    assert heard == [[(1, 1), (2, 1)], [(1, 2)]]


# --- with a service ---------------------------------------------------------------------------------------------------


class Disk:
    """A store whose writes wait while ``free`` is not set, and fail while ``full``."""

    def __init__(self, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = asyncio.Event()
        self.full = False
        self._write = store.write
        monkeypatch.setattr(store, "write", self._held)

    async def _held(self, work: Any) -> Any:
        await self.free.wait()
        if self.full:
            raise Unavailable("the database did not take it")
        return await self._write(work)


class Sender(RawXmpp):
    """Bob, who counts."""

    session = ""

    async def sign_in(self) -> Sender:
        success = await self.scram("bob", SECRET, ENABLE)
        self.session = child(success, ("bound", ns.BIND2), ("enabled", ns.SM)).get("id") or ""
        return self

    async def count(self) -> int:
        """The next count that the server tells."""
        while (element := await self.element()).name != "a":
            pass
        return int(element.get("h") or -1)

    async def asks(self) -> int:
        self.say(R)
        return await self.count()


async def sender(house: Any) -> Sender:
    raw: Any = await Sender.open(house.place("xmpp-client-tls"), "chat.test", house.tls)
    assert isinstance(raw, Sender)
    return raw


def message(to: str, text: str = "x", kind: str = "chat") -> str:
    return f"<message to='{to}' type='{kind}' id='{text}'><body>{text}</body></message>"


@pytest.mark.parametrize("archive", [True, False])
async def test_a_message_for_somebody_who_is_away(
    new_house: Any, monkeypatch: pytest.MonkeyPatch, archive: bool
) -> None:
    house = await new_house(default_contacts=False, archive=archive)
    bob = await (await sender(house)).sign_in()
    before = await bob.asks()
    disk = Disk(house.store, monkeypatch)
    bob.say(message("carol@chat.test"))
    assert await bob.asks() == before
    disk.free.set()
    assert await bob.count() == before + 1
    carol = await house.client("carol", "late").connect()
    carol.send("<presence/>")
    while (stanza := await carol.receive()).name != "message":
        pass
    assert stanza.get("id") == "x"


async def test_what_is_said_in_a_room(new_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await new_house(default_contacts=False, rooms_persistent=True)
    alice = await house.online("alice", "desk")
    room = "hall@rooms.chat.test"
    bob = await (await sender(house)).sign_in()
    for client, nick in ((alice.send, "alice"), (bob.say, "bob")):
        client(f"<presence to='{room}/{nick}'><x xmlns='{ns.MUC}'/></presence>")
        await alice.receive()
        form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'/>"
        await alice.request(f"<query xmlns='{ns.MUC_OWNER}'>{form}</query>", kind="set", to=room)
    before = await bob.asks()
    disk = Disk(house.store, monkeypatch)
    bob.say(message(room, "aloud", "groupchat"))
    assert await bob.asks() == before
    disk.free.set()
    assert await bob.count() == before + 1
    disk.full = True
    bob.say(message(room, "not kept", "groupchat"))
    bob.say(R)
    while (element := await bob.element()).get("type") != "error":
        assert (element.name, element.get("h")) != ("a", str(before + 2))
    assert (element.get("id"), element.get("from")) == ("not kept", room)
    assert await bob.count() == before + 2


async def test_what_the_plane_delivers_for_python_waits_for_its_record(
    new_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await new_house(default_contacts=False)
    alice = await house.online("alice", "desk")
    bob = await (await sender(house)).sign_in()
    before = await bob.asks()
    parts = house.service._parts
    for session in parts.sessions.here():
        parts.plane.tap(session.sid, True, "test")
    disk = Disk(house.store, monkeypatch)
    bob.say(message("alice@chat.test"))
    assert (await alice.receive()).get("id") == "x"
    assert await bob.asks() == before
    disk.free.set()
    assert await bob.count() == before + 1


async def test_a_client_that_comes_back_is_told_what_is_on_disk(
    new_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_management, "_PATIENCE", 0.2)
    house = await new_house(default_contacts=False)
    bob = await (await sender(house)).sign_in()
    before = await bob.asks()
    disk = Disk(house.store, monkeypatch)
    bob.say(message("carol@chat.test"))
    assert await bob.asks() == before
    await bob.close()
    again = await sender(house)
    resume = f"<resume xmlns='{ns.SM}' previd='{bob.session}' h='0'/>"
    success = await again.scram("bob", SECRET, resume)
    assert child(success, ("resumed", ns.SM)).get("h") == str(before)
    again.say(message("carol@chat.test", "again"))
    disk.free.set()
    assert await again.asks() == before + 1
    await again.close()


class Elsewhere:
    """The way to other domains, where a stream is not open yet."""

    def __init__(self) -> None:
        self.chat: chat.Service
        self.waiting: list[Callable[[], None] | None] = []

    def send(self, stanza: Element) -> None:
        if stanza.name == "message":
            self.waiting.append(self.chat.hold())


async def test_a_message_that_waits_for_a_stream_is_not_acknowledged(tmp_path: Path) -> None:
    elsewhere = Elsewhere()

    class Federated(House):
        def _service(self) -> chat.Service:
            elsewhere.chat = chat.Service(
                self.site, self.store, self.bus, users=self.users, credential=lambda _: self.files, federation=elsewhere
            )
            return elsewhere.chat

    house = Federated(tmp_path, people=PEOPLE)
    await house.service.start()
    try:
        bob = await (await sender(house)).sign_in()
        before = await bob.asks()
        bob.say(message("romeo@far.test", "1") + message("juliet@far.test", "2"))
        assert await bob.asks() == before
        first, second = elsewhere.waiting
        assert first is not None
        assert second is not None
        second()
        bob.say("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
        assert await bob.asks() == before, "what came first is not under way"
        first()
        assert await bob.count() == before + 3
        await bob.close()
    finally:
        await house.stop()


async def test_what_another_server_sent_is_dealt_with_when_it_is_on_disk(
    new_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await new_house(default_contacts=False, strangers_per_minute=0)
    over: asyncio.Queue[bool] = asyncio.Queue()
    disk = Disk(house.store, monkeypatch)
    stanza = Element.parse(
        f"<message xmlns='{ns.CLIENT}' from='r@far.test/x' to='carol@chat.test'><body>x</body></message>"
    )
    house.service.remote_stanza(stanza, over.put_nowait)
    alice = await house.online("alice", "desk")
    await alice.sync()
    assert over.empty()
    disk.free.set()
    assert await asyncio.wait_for(over.get(), 20)
    assert custody.hold() is None
