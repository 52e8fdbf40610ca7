"""Back-off on a clock of its own."""

from __future__ import annotations

from moim.directory.rate import Backoff, SignInGate


def test_wait_doubles_up_to_the_longest() -> None:
    backoff = Backoff(free=3, longest=4, forget=1e9)
    waits = []
    for _ in range(6):
        backoff.failed(("a",), 100.0)
        waits.append(backoff.wait(("a",), 100.0))
    assert waits == [0, 0, 1, 2, 4, 4]
    assert backoff.wait(("a",), 103.0) == 1
    assert backoff.wait(("a",), 200.0) == 0
    assert backoff.wait(("b",), 100.0) == 0


def test_failures_are_forgotten_one_by_one() -> None:
    backoff = Backoff(free=3, longest=900, forget=60)
    for _ in range(3):
        backoff.failed(("a",), 0.0)
    backoff.failed(("a",), 130.0)  # two are forgotten
    assert backoff.wait(("a",), 130.0) == 0
    backoff.failed(("a",), 130.0)
    assert backoff.wait(("a",), 130.0) == 1


def test_tables_stay_bounded() -> None:
    backoff = Backoff(free=1, longest=900, forget=60)
    for number in range(30_000):
        backoff.failed((str(number),), 0.0)
    assert len(backoff._counts) == 20_000


def test_parallel_guesses_count_before_they_are_answered() -> None:
    gate = SignInGate()
    waits = [gate.begin("alice", "192.0.2.1", 0.0) for _ in range(6)]
    assert waits == [0, 0, 0, 0, 0, 1]
    assert gate.begin("alice", "192.0.2.2", 0.0) == 0
    gate.succeeded("alice", "192.0.2.1")
    assert gate.begin("alice", "192.0.2.1", 0.0) == 0


def test_many_sources_on_one_account_are_slowed_down() -> None:
    gate = SignInGate()
    for number in range(100):
        assert gate.begin("alice", str(number), 0.0) == 0
        gate.failed("alice", str(number), 0.0)
    assert gate.begin("alice", "fresh", 0.0) > 0
    assert gate.begin("bob", "fresh", 0.0) == 0


def test_one_source_on_many_accounts_is_slowed_down() -> None:
    gate = SignInGate()
    for number in range(200):
        assert gate.begin(str(number), "192.0.2.1", 0.0) == 0
        gate.failed(str(number), "192.0.2.1", 0.0)
    assert gate.begin("alice", "192.0.2.1", 0.0) > 0
    assert gate.begin("alice", "192.0.2.2", 0.0) == 0
