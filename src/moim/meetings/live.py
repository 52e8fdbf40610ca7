"""The meetings that take place now: people on one side, the media plane on the other.

People come and go through ``enter`` and ``leave``; what the plane reports comes in ``handle``. Each change is told to
the others in the same step, so that everybody sees the same order of things.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from moim.errors import LimitExceeded, MoimError, ProtocolError, UsageError
from moim.meetings.admission import Admitted
from moim.meetings.meeting import Change, Kind, Meeting, Participant
from moim.meetings.messages import Code, Refusal
from moim.model import Address

_log = logging.getLogger("moim.meetings")

Event = tuple[Any, ...]

_NEVER_CONNECTED = "audio and video could not be connected: no path for UDP was found"
_BROKE = "the connection of audio and video broke"
# After these the same client may come back at once, and find what it needs.
_PASSING = frozenset({"lost", "closed", "fault"})


class Engine(Protocol):
    """The media plane; ``moim._native.Sfu`` is one."""

    def add_participant(self, pid: int) -> None: ...
    def remove_participant(self, pid: int) -> None: ...
    def subscribe(self, pid: int, publisher: int) -> None: ...
    def republish(self, pid: int) -> None: ...
    def offer(self, pid: int) -> tuple[int, str, Any] | None: ...
    def answer(self, pid: int, seq: int, sdp: str) -> None: ...
    def stats(self) -> dict[str, Any]: ...


class Member(Protocol):
    """A participant's way to be told things. Neither method waits."""

    def send(self, message: Mapping[str, Any]) -> None:
        """Tells one thing."""
        ...

    def end(self, code: Code | Literal["restart"], message: str) -> None:
        """Tells why it is over, and hangs up; ``restart`` is no error but asks the client to join again."""
        ...


class IceServers(Protocol):
    """Relays for participants; the edge has them."""

    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        """RTCIceServer dictionaries for a participant inside or outside."""
        ...


@dataclass(slots=True, eq=False)
class _Seat:
    meeting: Meeting
    member: Member
    published: set[Kind] = field(default_factory=set)
    answered: bool = False


class Live:
    """All meetings of this node."""

    def __init__(self, engine: Engine, ice: IceServers, *, max_meeting: int, max_participants: int) -> None:
        self._engine = engine
        self._ice = ice
        self._max_meeting = max_meeting
        self._max_participants = max_participants
        self._meetings: dict[str, Meeting] = {}
        self._seats: dict[int, _Seat] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._seats)

    def enter(self, admitted: Admitted, member: Member, *, outside: bool) -> int:
        """Seats somebody, tells them and the others, and gives their number. Raises Refusal when there is no room."""
        if len(self._seats) >= self._max_participants:
            raise Refusal("full", "this server has no room for more people")
        space = admitted.space
        meeting = self._meetings.get(space.id) or Meeting(space, self._max_meeting)
        participant = Participant(next(self._numbers), admitted.name, admitted.user)
        try:
            joined = meeting.join(participant)
        except LimitExceeded as error:
            raise Refusal("full", error.message, hint=error.hint) from None
        try:
            self._engine.add_participant(participant.pid)
            for subscriber, publisher in joined.subscriptions:
                self._engine.subscribe(subscriber, publisher)
        except MoimError as error:
            meeting.leave(participant.pid)
            self._engine.remove_participant(participant.pid)
            _log.error("the media plane did not take a participant of %s: %s", space.call_id, error)
            raise Refusal("full", "the media server has no room for more people") from error
        self._meetings[space.id] = meeting
        self._seats[participant.pid] = _Seat(meeting, member)
        relay_name = str(participant.user) if participant.user is not None else f"guest-{participant.id}"
        member.send(
            {
                "type": "joined",
                "participantId": participant.id,
                "space": {"name": space.name, "callId": space.call_id},
                "iceServers": self._ice.issue(relay_name, outside),
                "participants": [one.as_json() for one in joined.others],
            }
        )
        self._tell(meeting, "joined", participant)
        _log.info("meeting %s: %s joined as %s", space.call_id, relay_name, participant.id)
        return participant.pid

    def leave(self, pid: int) -> None:
        """Takes somebody out and tells the others; unknown numbers are ignored. The last one ends the meeting."""
        seat = self._seats.pop(pid, None)
        if seat is None:
            return
        participant = seat.meeting.leave(pid)
        try:
            self._engine.remove_participant(pid)
        except UsageError:
            # The plane stopped before the people left.
            _log.debug("participant %d left after the media plane", pid)
        if not seat.meeting.roster:
            self._meetings.pop(seat.meeting.space.id, None)
        if participant is not None:
            self._tell(seat.meeting, "left", participant)
            _log.info("meeting %s: %s left", seat.meeting.space.call_id, participant.id)

    def answer(self, pid: int, seq: int, sdp: str) -> None:
        """Passes an answer on. One that cannot be used ends the participant's stay: their connection is undefined."""
        seat = self._seats.get(pid)
        if seat is None:
            return
        try:
            self._engine.answer(pid, seq, sdp)
            seat.answered = True
        except ProtocolError as error:
            _log.warning("meeting %s: an answer was refused: %s", seat.meeting.space.call_id, error)
            self._end(pid, "bad-request", f"the answer to offer {seq} cannot be used")
        except UsageError:
            self._end(pid, "restart", _BROKE)

    def state(self, pid: int, *, audio: bool, video: bool) -> None:
        """Notes what a participant has switched on, and tells the others when that changes something."""
        seat = self._seats.get(pid)
        changed = seat.meeting.update(pid, audio=audio, video=video) if seat is not None else None
        if seat is None or changed is None:
            return
        self._tell(seat.meeting, "updated", changed)
        wanted: set[Kind] = {kind for kind, on in (("audio", audio), ("video", video)) if on}  # type: ignore[misc]
        if seat.answered and not wanted <= seat.published:
            with suppress(UsageError):  # gone from the plane in this very moment; its event is on the way
                self._engine.republish(pid)

    def handle(self, events: Sequence[Event]) -> None:
        """Takes a batch of the plane's events."""
        for event in events:
            try:
                _HANDLERS[event[0]](self, *event[1:])
            except UsageError:
                # The participant left the plane in this very moment; the event that says so is on its way.
                _log.debug("%s came too late", event)

    def _negotiate(self, pid: int) -> None:
        seat = self._seats.get(pid)
        offer = self._engine.offer(pid) if seat is not None else None
        if seat is None or offer is None:
            return
        seq, sdp, layout = offer
        tracks = seat.meeting.tracks(layout["tracks"])
        seat.member.send({"type": "offer", "seq": seq, "sdp": sdp, "publish": layout["publish"], "tracks": tracks})

    def _connected(self, pid: int) -> None:
        if seat := self._seats.get(pid):
            _log.info("meeting %s: media of %s is connected", seat.meeting.space.call_id, _id(seat, pid))

    def _disconnected(self, pid: int, reason: str) -> None:
        seat = self._seats.get(pid)
        if seat is None:
            return
        _log.warning("meeting %s: media of %s ended (%s)", seat.meeting.space.call_id, _id(seat, pid), reason)
        if reason in _PASSING:
            self._end(pid, "restart", _BROKE)
        else:
            self._end(pid, "internal", _NEVER_CONNECTED if reason == "never-connected" else _BROKE)

    def _track(self, pid: int, kind: Kind, on: bool) -> None:
        if seat := self._seats.get(pid):
            (seat.published.add if on else seat.published.discard)(kind)

    def end_space(self, space_id: str) -> None:
        """Ends the meeting in a space that is gone."""
        if meeting := self._meetings.get(space_id):
            for participant in meeting.roster:
                self._end(participant.pid, "not-found", "the meeting was ended: its space was removed")

    def end_user(self, user: Address) -> None:
        """Takes a user who is gone out of every meeting."""
        for participant in [p for meeting in self._meetings.values() for p in meeting.roster if p.user == user]:
            self._end(participant.pid, "unauthorized", "this user was removed")

    def end_all(self) -> None:
        """Hangs up on everybody: the node stops, and people may come back at once."""
        for pid in tuple(self._seats):
            self._end(pid, "restart", "the server restarts")

    def _end(self, pid: int, code: Code | Literal["restart"], message: str) -> None:
        member = self._seats[pid].member
        self.leave(pid)
        member.end(code, message)

    def _tell(self, meeting: Meeting, change: Change, about: Participant) -> None:
        message = {"type": "participant", "event": change, "participant": about.as_json()}
        for other in meeting.roster:
            if other.pid != about.pid:
                self._seats[other.pid].member.send(message)

    def snapshot(self) -> Iterator[dict[str, Any]]:
        """The meetings for administrators, with each participant's media counters."""
        media = self._engine.stats()["participants"] if self._seats else {}
        for meeting in self._meetings.values():
            yield {
                "spaceId": meeting.space.id,
                "name": meeting.space.name,
                "callId": meeting.space.call_id,
                "participants": [
                    one.as_json() | {"user": str(one.user) if one.user else None, "media": media.get(one.pid)}
                    for one in meeting.roster
                ],
            }


def _id(seat: _Seat, pid: int) -> str:
    participant = seat.meeting.get(pid)
    return participant.id if participant is not None else "?"


_HANDLERS: dict[str, Callable[..., None]] = {
    "negotiate": Live._negotiate,
    "connected": Live._connected,
    "disconnected": Live._disconnected,
    "track": Live._track,
}
