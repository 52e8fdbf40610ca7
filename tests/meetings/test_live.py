"""Live meetings with a plane that only notes: order of messages, refusals, ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from moim.errors import ProtocolError, Unavailable, UsageError
from moim.meetings.admission import Admitted
from moim.meetings.live import Live
from moim.meetings.messages import Refusal
from moim.meetings.spaces import Space
from moim.model import Address

ALICE = Address("alice", "example.com")
SPACE = Space("id", "Planning", "123456789", "1111", "secret", ALICE, 0)


@dataclass
class Plane:
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    present: set[int] = field(default_factory=set)
    full: bool = False
    bad_answers: bool = False

    def add_participant(self, pid: int) -> None:
        if self.full:
            raise Unavailable("full")
        self.present.add(pid)

    def remove_participant(self, pid: int) -> None:
        self.present.discard(pid)

    def subscribe(self, pid: int, publisher: int) -> None:
        self.calls.append(("subscribe", pid, publisher))

    def republish(self, pid: int) -> None:
        self.calls.append(("republish", pid))

    def offer(self, pid: int) -> tuple[int, str, Any] | None:
        if pid not in self.present:
            raise UsageError("gone")
        others = [(f"m{other}", other, "video") for other in sorted(self.present) if other != pid]
        return 1, "v=0", {"publish": {"audio": "a", "video": "v"}, "tracks": others}

    def answer(self, pid: int, seq: int, sdp: str) -> None:
        if self.bad_answers:
            raise ProtocolError("no answer")
        if pid not in self.present:
            raise UsageError("gone")

    def stats(self) -> dict[str, Any]:
        return {"participants": {pid: {"connected": True} for pid in self.present}}


@dataclass
class Phone:
    heard: list[Mapping[str, Any]] = field(default_factory=list)
    ended: tuple[str, str] | None = None

    def send(self, message: Mapping[str, Any]) -> None:
        self.heard.append(message)

    def end(self, code: str, message: str) -> None:
        self.ended = (code, message)

    @property
    def why(self) -> str:
        """The code it ended with; nothing while it goes on."""
        return self.ended[0] if self.ended is not None else ""

    def types(self) -> list[str]:
        return [str(message.get("event", message["type"])) for message in self.heard]


class NoIce:
    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        return [{"urls": [f"turn:{name}"]}] if outside else []


@pytest.fixture
def plane() -> Plane:
    return Plane()


@pytest.fixture
def live(plane: Plane) -> Live:
    return Live(plane, NoIce(), max_meeting=3, max_participants=4)


def enter(live: Live, name: str, *, user: Address | None = None, space: Space = SPACE) -> tuple[int, Phone]:
    phone = Phone()
    return live.enter(Admitted(space, name, user), phone, outside=False), phone


def test_everybody_hears_of_everybody_in_order(live: Live, plane: Plane) -> None:
    one, first = enter(live, "one", user=ALICE)
    two, second = enter(live, "two")
    assert first.types() == ["joined", "joined"]
    assert second.heard[0]["participants"][0]["name"] == "one"
    assert second.heard[0]["participants"][0]["guest"] is False
    assert second.heard[0]["space"] == {"name": "Planning", "callId": "123456789"}
    assert plane.calls == [("subscribe", two, one), ("subscribe", one, two)]
    live.handle([("negotiate", two), ("connected", two), ("track", two, "audio", True)])
    offer = second.heard[-1]
    assert offer["publish"] == {"audio": "a", "video": "v"}
    assert offer["tracks"] == [{"mid": f"m{one}", "participantId": first.heard[0]["participantId"], "kind": "video"}]
    live.state(one, audio=True, video=True)
    live.state(one, audio=True, video=True)
    assert second.types()[-1:] == ["updated"]
    live.leave(one)
    live.leave(one)
    assert second.types()[-2:] == ["updated", "left"]
    assert plane.present == {two}
    live.leave(two)
    assert list(live.snapshot()) == []
    assert len(live) == 0


def test_a_full_meeting_and_a_full_server_say_so(live: Live, plane: Plane) -> None:
    for name in "abc":
        enter(live, name)
    with pytest.raises(Refusal) as refusal:
        enter(live, "d")
    assert refusal.value.code == "full"
    other = Space("other", "Other", "987654321", "1111", "secret", None, 0)
    enter(live, "d", space=other)
    with pytest.raises(Refusal):
        enter(live, "e", space=other)
    assert len(plane.present) == 4


def test_a_plane_that_takes_nobody_leaves_no_traces(live: Live, plane: Plane) -> None:
    plane.full = True
    with pytest.raises(Refusal):
        enter(live, "a")
    assert list(live.snapshot()) == []
    plane.full = False
    _, phone = enter(live, "b")
    assert phone.heard[0]["participants"] == []


def test_media_that_is_lost_ends_the_stay(live: Live, plane: Plane) -> None:
    one, first = enter(live, "one")
    two, second = enter(live, "two")
    live.handle([("disconnected", one, "never-connected"), ("negotiate", one), ("disconnected", 99, "lost")])
    assert first.ended is not None
    assert first.ended[0] == "internal"
    assert "UDP" in first.ended[1]
    assert second.types()[-1] == "left"
    plane.present.clear()
    live.answer(two, 1, "v=0")
    assert second.ended is not None
    assert second.ended[0] == "restart"


@pytest.mark.parametrize(
    ("reason", "code"), [("lost", "restart"), ("closed", "restart"), ("fault", "restart"), ("protocol: x", "internal")]
)
def test_who_lost_the_path_may_come_back(live: Live, reason: str, code: str) -> None:
    one, first = enter(live, "one")
    live.handle([("disconnected", one, reason)])
    assert first.ended is not None
    assert first.ended[0] == code


def test_an_answer_that_cannot_be_used_ends_the_stay(live: Live, plane: Plane) -> None:
    one, first = enter(live, "one")
    plane.bad_answers = True
    live.answer(one, 1, "rubbish")
    assert first.ended is not None
    assert first.ended[0] == "bad-request"
    live.answer(one, 1, "rubbish")
    live.state(one, audio=True, video=True)


def test_a_camera_that_comes_later_is_invited_again(live: Live, plane: Plane) -> None:
    one, _ = enter(live, "one")
    live.state(one, audio=True, video=False)
    live.answer(one, 1, "v=0")
    live.handle([("track", one, "audio", True)])
    assert ("republish", one) not in plane.calls
    live.state(one, audio=True, video=True)
    assert plane.calls.count(("republish", one)) == 1
    live.handle([("track", one, "video", True)])
    live.state(one, audio=False, video=True)
    live.state(one, audio=True, video=True)
    assert plane.calls.count(("republish", one)) == 1


def test_a_removed_user_and_a_removed_space(live: Live) -> None:
    _, alice = enter(live, "alice", user=ALICE)
    _, guest = enter(live, "guest")
    live.end_user(ALICE)
    assert alice.why == "unauthorized"
    assert guest.ended is None
    live.end_space("id")
    live.end_space("id")
    assert guest.why == "not-found"
    _, last = enter(live, "last")
    live.end_all()
    assert last.ended is not None
    assert last.ended[0] == "restart"


def test_administrators_see_who_is_there(live: Live) -> None:
    one, _ = enter(live, "one", user=ALICE)
    (meeting,) = live.snapshot()
    assert meeting["callId"] == "123456789"
    assert meeting["participants"][0]["user"] == "alice@example.com"
    assert meeting["participants"][0]["media"] == {"connected": True}
    assert one
