"""A meeting as pure state."""

from __future__ import annotations

import pytest

from moim.errors import LimitExceeded
from moim.meetings.meeting import Meeting, Participant
from moim.meetings.spaces import Space
from moim.model import Address

SPACE = Space("id", "Planning", "123456789", "1111", "secret", None, 0)


def participant(pid: int, user: Address | None = None) -> Participant:
    return Participant(pid, f"p{pid}", user)


def test_everybody_is_subscribed_to_everybody() -> None:
    meeting = Meeting(SPACE, 10)
    pairs: set[tuple[int, int]] = set()
    for pid in (1, 2, 3):
        joined = meeting.join(participant(pid))
        assert [other.pid for other in joined.others] == list(range(1, pid))
        pairs |= set(joined.subscriptions)
    assert pairs == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}


def test_the_last_seat_is_the_last() -> None:
    meeting = Meeting(SPACE, 2)
    meeting.join(participant(1))
    meeting.join(participant(2))
    with pytest.raises(LimitExceeded):
        meeting.join(participant(3))
    assert meeting.leave(1) is not None
    assert meeting.leave(1) is None
    meeting.join(participant(3))
    assert [one.pid for one in meeting.roster] == [2, 3]


def test_only_changes_are_told() -> None:
    meeting = Meeting(SPACE, 2)
    meeting.join(participant(1))
    assert meeting.update(1, audio=False, video=False) is None
    changed = meeting.update(1, audio=True, video=False)
    assert changed is not None
    assert (changed.audio, changed.video) == (True, False)
    assert meeting.get(1) == changed
    assert meeting.update(1, audio=True, video=False) is None
    assert meeting.update(9, audio=True, video=True) is None


def test_layouts_name_people_by_their_public_identifier() -> None:
    meeting = Meeting(SPACE, 3)
    one = participant(1, Address("alice", "example.com"))
    meeting.join(one)
    meeting.join(participant(2))
    assert meeting.tracks([("m1", 1, "audio"), ("m2", 9, "video")]) == [
        {"mid": "m1", "participantId": one.id, "kind": "audio"}
    ]
    assert one.as_json() == {"id": one.id, "name": "p1", "guest": False, "audio": False, "video": False}
    assert participant(2).as_json()["guest"] is True
