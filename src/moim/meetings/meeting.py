"""One meeting that takes place: who is there, who receives whom, and what the others are to be told.

Pure state: every method gives what is to be done, and does nothing itself.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moim.errors import LimitExceeded
from moim.meetings.spaces import Space
from moim.model import Address

Kind = Literal["audio", "video"]
Change = Literal["joined", "left", "updated"]


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in a meeting. ``pid`` is the media plane's number; ``user`` is None for guests.

    ``audio`` and ``video`` are what the person has switched on.
    """

    pid: int
    name: str
    user: Address | None
    audio: bool = False
    video: bool = False
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))

    def as_json(self) -> dict[str, Any]:
        """As the others see the participant."""
        return {
            "id": self.id,
            "name": self.name,
            "guest": self.user is None,
            "audio": self.audio,
            "video": self.video,
        }


@dataclass(frozen=True, slots=True)
class Joined:
    """What follows from joining: who was there before, and (subscriber, publisher) pairs for the media plane."""

    others: tuple[Participant, ...]
    subscriptions: tuple[tuple[int, int], ...]


class Meeting:
    """A meeting in ``space`` with at most ``limit`` participants. Everybody receives everybody else."""

    def __init__(self, space: Space, limit: int) -> None:
        self.space = space
        self._limit = limit
        self._participants: dict[int, Participant] = {}

    @property
    def roster(self) -> tuple[Participant, ...]:
        """Everybody, in the order of joining."""
        return tuple(self._participants.values())

    def get(self, pid: int) -> Participant | None:
        """A participant as they are now."""
        return self._participants.get(pid)

    def join(self, participant: Participant) -> Joined:
        """Adds a participant. Raises LimitExceeded when the meeting is full."""
        if len(self._participants) >= self._limit:
            raise LimitExceeded("this meeting is full", hint=f"{self._limit} people are the limit")
        others = self.roster
        self._participants[participant.pid] = participant
        pairs = [pair for other in others for pair in ((participant.pid, other.pid), (other.pid, participant.pid))]
        return Joined(others, tuple(pairs))

    def leave(self, pid: int) -> Participant | None:
        """Takes a participant out; None when they were not there."""
        return self._participants.pop(pid, None)

    def update(self, pid: int, *, audio: bool, video: bool) -> Participant | None:
        """Notes what is switched on; None when that changes nothing."""
        before = self._participants.get(pid)
        if before is None or (before.audio, before.video) == (audio, video):
            return None
        after = replace(before, audio=audio, video=video)
        self._participants[pid] = after
        return after

    def tracks(self, layout: list[tuple[str, int, Kind]]) -> list[dict[str, str]]:
        """The plane's layout of an offer in the terms of the signalling; who has left meanwhile is left out."""
        return [
            {"mid": mid, "participantId": self._participants[pid].id, "kind": kind}
            for mid, pid, kind in layout
            if pid in self._participants
        ]
