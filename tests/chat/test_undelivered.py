"""What becomes of stanzas whose session ended before its client had them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from moim._native import ArchiveIds
from moim.chat.undelivered import Undelivered
from moim.proto.xmpp import Element, Jid, StanzaError, ns

BOB = "bob@chat.test/gone"


class Account:
    def __init__(self, *sessions: Session) -> None:
        self.sessions = {session.resource: session for session in sessions}

    def receiving(self) -> list[Session]:
        return list(self.sessions.values())


class Session:
    def __init__(self, sid: int, resource: str, *, leaving: bool = False) -> None:
        self.sid, self.resource, self.leaving = sid, resource, leaving


class World:
    """Accounts, plane and offline messages at once: who is there, and what went where."""

    def __init__(self, *there: Session) -> None:
        self.account = Account(*there)
        self.sent: list[tuple[int, Element]] = []
        self.kept: list[tuple[str, Element, bool]] = []
        self.since: list[datetime | None] = []
        self.refused: list[tuple[Element, str]] = []
        self.archive_ids = ArchiveIds(bytes(16))
        this: Any = self
        self.undelivered = Undelivered("chat.test", accounts=this, plane=this, offline=this, refuse=self.refuse)

    def __iter__(self) -> Iterator[Account]:
        return iter([self.account])

    def session(self, jid: Jid) -> Session | None:
        return self.account.sessions.get(jid.resource)

    def get(self, bare: str) -> Account | None:
        return self.account if bare == "bob@chat.test" else None

    def send(self, sid: int, stanzas: list[Element]) -> None:
        self.sent += [(sid, stanza) for stanza in stanzas]

    def send_many(self, batch: list[tuple[int, Element]]) -> None:
        self.sent += batch

    def keep(self, owner: str, message: Element, *, archived: bool, since: datetime | None) -> None:
        assert since is not None or not archived
        self.since.append(since)
        self.kept.append((owner, message, archived))

    def refuse(self, stanza: Element, error: StanzaError) -> None:
        self.refused.append((stanza, error.condition))


def message(kind: str = "chat", to: str = BOB, *children: Element) -> Element:
    attrs = {"from": "alice@chat.test/a", "to": to, "type": kind}
    return Element("message", ns.CLIENT, attrs, (Element("body", ns.CLIENT, {}, ("hello",)), *children))


def test_the_next_session_with_the_same_address_gets_it() -> None:
    world = World(Session(7, "gone"), Session(8, "other"))
    world.undelivered.take([message(), message("groupchat"), message("headline")])
    assert [sid for sid, _ in world.sent] == [7, 7, 7]


def test_others_of_the_account_get_it_but_those_who_leave() -> None:
    world = World(Session(8, "one"), Session(9, "two"), Session(10, "three", leaving=True))
    world.undelivered.take([message()])
    assert [sid for sid, _ in world.sent] == [8, 9]
    assert all(stanza.find("delay", ns.DELAY) is None for _, stanza in world.sent), "nobody knows when it came"


def test_who_gets_it_later_learns_when_it_came() -> None:
    world = World(Session(8, "one"))
    identifier = world.archive_ids.write("bob@chat.test", 86_400_000 << 22)
    mark = Element("stanza-id", ns.STANZA_IDS, {"by": "bob@chat.test", "id": identifier})
    world.undelivered.take([message("chat", BOB, mark)])
    ((_, late),) = world.sent
    note = late.find("delay", ns.DELAY)
    assert note is not None
    assert note.attrs == {"from": "chat.test", "stamp": "2020-01-02T00:00:00.000Z"}


def test_what_says_already_when_it_came_does_not_say_so_twice() -> None:
    mark = Element(
        "stanza-id", ns.STANZA_IDS, {"by": "bob@chat.test", "id": ArchiveIds(bytes(16)).write("bob@chat.test", 1)}
    )
    told = Element("delay", ns.DELAY, {"from": "chat.test", "stamp": "2026-01-02T00:00:00.000Z"})
    world = World(Session(8, "one"))
    world.undelivered.take([message("chat", BOB, mark, told)])
    ((_, late),) = world.sent
    assert [child for child in late.elements() if child.name == "delay"] == [told]
    world = World()
    world.undelivered.take([message("chat", BOB, told)])
    assert world.since == [datetime(2026, 1, 2, tzinfo=UTC)]


def test_nobody_is_there_and_it_waits() -> None:
    world = World(Session(10, "gone", leaving=True))
    ours = Element(
        "stanza-id", ns.STANZA_IDS, {"by": "bob@chat.test", "id": world.archive_ids.write("bob@chat.test", 1)}
    )
    theirs = Element("stanza-id", ns.STANZA_IDS, {"by": "alice@chat.test", "id": "2"})
    world.undelivered.take([message("chat", BOB, ours), message("normal", BOB, theirs), message("headline")])
    assert [(owner, archived) for owner, _, archived in world.kept] == [
        ("bob@chat.test", True),
        ("bob@chat.test", False),
    ]
    assert world.sent == []


def test_rooms_and_those_who_asked_hear_of_it() -> None:
    world = World()
    request = Element("iq", ns.CLIENT, {"from": "a@b.test/c", "to": BOB, "type": "get", "id": "1"})
    presence = Element("presence", ns.CLIENT, {"from": "a@b.test/c", "to": BOB})
    world.undelivered.take([message("groupchat"), request, presence, message("error")])
    assert [condition for _, condition in world.refused] == ["recipient-unavailable", "service-unavailable"]
    assert world.kept == []


def test_what_is_left_at_the_end_waits_for_its_account() -> None:
    world = World()
    world.undelivered.keep([message(), message("groupchat"), message("chat", "someone@elsewhere.test/x")])
    assert [owner for owner, _, _ in world.kept] == ["bob@chat.test"]
