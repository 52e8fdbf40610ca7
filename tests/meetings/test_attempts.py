"""Guessing becomes slow, and only for who guesses."""

from __future__ import annotations

from moim.meetings.attempts import Attempts


def test_a_few_mistakes_cost_nothing_then_each_costs_more() -> None:
    attempts = Attempts()
    waits = []
    now = 0.0
    for _ in range(9):
        waits.append(attempts.wait("c", "1", now))
        now += waits[-1]
        attempts.failed("c", "1", now)
    assert waits == [0, 0, 0, 0, 0, 0, 1, 2, 4]
    assert attempts.wait("c", "1", now + 400) == 0


def test_a_hundred_thousand_clients_get_few_guesses_at_one_call() -> None:
    attempts = Attempts()
    now, guesses, day = 0.0, 0, 86_400.0
    while now < day:
        client = f"c{guesses % 100_000}"
        if wait := attempts.wait(client, "1", now):
            now += wait
            continue
        attempts.failed(client, "1", now)
        guesses += 1
    assert guesses < 2_000


def test_others_and_other_calls_are_not_held_up() -> None:
    attempts = Attempts()
    for _ in range(12):
        attempts.failed("c", "1", 0)
    assert attempts.wait("c", "1", 0) > 0
    assert attempts.wait("c", "2", 0) == 0
    assert attempts.wait("d", "1", 0) == 0


def test_a_client_that_tries_many_calls_is_slowed_down() -> None:
    attempts = Attempts()
    for number in range(30):
        attempts.failed("c", str(number), 0)
    assert attempts.wait("c", "new", 0) > 0
    assert attempts.wait_with_secret("c", 0) > 0


def test_many_clients_at_one_call_slow_passcodes_down_but_not_links() -> None:
    attempts = Attempts()
    for number in range(80):
        attempts.failed(f"c{number}", "1", 0)
    assert 0 < attempts.wait("fresh", "1", 0) <= 60
    assert attempts.wait_with_secret("fresh", 0) == 0


def test_success_clears_the_slate() -> None:
    attempts = Attempts()
    for _ in range(8):
        attempts.failed("c", "1", 0)
    attempts.succeeded("c", "1")
    assert attempts.wait("c", "1", 0) == 0


def test_tables_stay_bounded() -> None:
    attempts = Attempts()
    for number in range(25_000):
        attempts.failed(f"c{number}", f"{number}", 0)
    assert len(attempts._pair._counts) == 20_000
