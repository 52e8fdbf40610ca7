"""The contract of a sans-I/O protocol machine, and the small pieces that most machines need."""

from __future__ import annotations

from typing import Protocol, TypeVar

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)
Event_co = TypeVar("Event_co", covariant=True)


class Machine(Protocol[In_contra, Event_co, Out_co]):
    """Takes input and ``now``; gives events, output and the next deadline. Never blocks, never looks at a clock.

    ``now`` is seconds on any monotonic scale, the same one throughout the machine's life. The driver's loop is:
    feed input, take every event, send every output, sleep until ``deadline()`` or new input, call ``tick``.
    """

    def receive(self, data: In_contra, now: float) -> None:
        """Takes one piece of input. Raises ProtocolError when the peer broke the protocol beyond repair."""
        ...

    def tick(self, now: float) -> None:
        """Runs whatever is due at ``now``; a call too early does nothing."""
        ...

    def next_event(self) -> Event_co | None:
        """The oldest event not yet taken, or None."""
        ...

    def next_output(self) -> Out_co | None:
        """The oldest output not yet taken, or None."""
        ...

    def deadline(self) -> float | None:
        """When ``tick`` wants to be called next, or None for never."""
        ...
