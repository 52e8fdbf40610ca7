"""Discovery as a sans-I/O machine: requests out, results in, with ``now``; steps and at last the outcome as events.

The flow itself is written as generators (``flow.py`` and its neighbours) that yield a ``Wait`` for one or several
requests at once and are resumed with the answers. This file runs them: numbers the requests, keeps their deadlines and
the deadline of the whole, cancels what is no longer needed. The driver's loop is that of ``moim.machine``.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from moim.discovery.actions import AskPassword, Failed, Request, Result
from moim.discovery.flow import discover_flow
from moim.discovery.memory import Memory
from moim.discovery.outcome import Failure, Outcome, Step
from moim.discovery.run import Answered, Flow, Run, Stop, Wait
from moim.discovery.target import Target
from moim.errors import UsageError

DEFAULT_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """Output: begin ``request`` and hand its result to ``receive`` as ``(number, result)``."""

    number: int
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """Output: the result of this request is no longer wanted."""

    number: int


Output = Start | Cancel
Event = Step | Outcome


@dataclass(slots=True)
class _Open:
    index: int
    request: Request
    since: float


class Discovery:
    """One discovery. Call ``begin`` once, then drive it as any machine; the last event is an Outcome.

    ``memory`` holds what earlier starts learnt and takes what this one learns. ``wall`` is the wall clock (seconds
    since 1970) at ``begin``. ``timeout`` bounds the whole in seconds, without the time that a person takes to type a
    password. ``pick`` draws from [0, 1) for the weighted choice of RFC 2782. ``sign_in`` False stops before the
    sign-in.
    """

    def __init__(
        self,
        target: Target,
        *,
        memory: Memory | None = None,
        wall: float = 0.0,
        timeout: float = DEFAULT_TIMEOUT,
        pick: Callable[[], float] = random.random,
        sign_in: bool = True,
    ) -> None:
        self.target = target
        self.memory = memory if memory is not None else Memory()
        self._wall = wall
        self._timeout = timeout
        self._pick = pick
        self._sign_in = sign_in
        self._run: Run | None = None
        self._flow: Flow[None] | None = None
        self._wait: Wait | None = None
        self._answers: list[Answered | None] = []
        self._open: dict[int, _Open] = {}
        self._numbers = 0
        self._grace: float | None = None
        self._limit = 0.0
        self._began = 0.0
        self._events: deque[Event] = deque()
        self._output: deque[Output] = deque()
        self._over = False

    def begin(self, now: float) -> None:
        """Starts. ``now`` is seconds on the monotonic scale that all later calls use."""
        if self._run is not None:
            raise UsageError("this discovery has begun already")
        self._began = now
        self._limit = now + self._timeout
        self._run = Run(
            self.target,
            self.memory,
            wall=self._wall - now,
            pick=self._pick,
            sign_in=self._sign_in,
            tell=self._events.append,
        )
        self._run.now = now
        self._flow = discover_flow(self._run)
        self._resume(None, now)

    def receive(self, data: tuple[int, Result], now: float) -> None:
        """The result of one request. Late results of cancelled requests are ignored."""
        number, result = data
        done = self._open.pop(number, None)
        if done is None or self._over:
            return
        if isinstance(done.request, AskPassword):
            self._limit += now - done.since  # people may take their time
            self._began += now - done.since
        self._answers[done.index] = Answered(result, max(0.0, now - done.since))
        self._proceed(now)

    def tick(self, now: float) -> None:
        """Ends requests that took too long, and the whole when its time is over."""
        if self._over:
            return
        if not self._asking() and now >= self._limit:
            self._cancel_open()
            self._resume(Stop(Failure.of("out-of-time", "network", seconds=round(self._timeout))), now)
            return
        late = [number for number, one in self._open.items() if now >= one.since + one.request.timeout]
        for number in late:
            one = self._open.pop(number)
            self._output.append(Cancel(number))
            self._answers[one.index] = Answered(Failed("timeout"), now - one.since)
        if late or (self._grace is not None and now >= self._grace):
            self._proceed(now)

    def next_event(self) -> Event | None:
        """The oldest Step, or at the end the Outcome."""
        return self._events.popleft() if self._events else None

    def next_output(self) -> Output | None:
        """The oldest Start or Cancel."""
        return self._output.popleft() if self._output else None

    def deadline(self) -> float | None:
        """When ``tick`` is due."""
        if self._over:
            return None
        ends = [one.since + one.request.timeout for one in self._open.values()]
        if not self._asking():
            ends.append(self._limit)
        if self._grace is not None:
            ends.append(self._grace)
        nearest = min(ends, default=self._limit)
        return nearest if nearest != float("inf") else None

    def _asking(self) -> bool:
        return any(isinstance(one.request, AskPassword) for one in self._open.values())

    def _proceed(self, now: float) -> None:
        wait = self._wait
        assert wait is not None
        if self._grace is None and wait.enough is not None and wait.enough(self._answers):
            self._grace = now + wait.grace
        if all(answer is not None for answer in self._answers) or (self._grace is not None and now >= self._grace):
            self._cancel_open()
            self._resume(None, now)

    def _cancel_open(self) -> None:
        self._output.extend(Cancel(number) for number in self._open)
        self._open.clear()

    def _resume(self, stop: Stop | None, now: float) -> None:
        assert self._flow is not None
        assert self._run is not None
        self._run.now = now
        try:
            if stop is not None:
                wait = self._flow.throw(stop)
            elif self._wait is None:
                wait = next(self._flow)
            else:
                wait = self._flow.send(tuple(self._answers))
        except StopIteration:
            self._finish(now)
            return
        self._wait = wait
        self._grace = None
        self._answers = [None] * len(wait.requests)
        for index, request in enumerate(wait.requests):
            self._numbers += 1
            self._open[self._numbers] = _Open(index, request, now)
            self._output.append(Start(self._numbers, request))

    def _finish(self, now: float) -> None:
        assert self._run is not None
        self._over = True
        self.memory.last = self.target.text
        self.memory.changed = True
        self._events.append(self._run.outcome((now - self._began) * 1000))
