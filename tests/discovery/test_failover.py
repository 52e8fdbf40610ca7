"""A client whose server goes away: the wait, the order of attempts, and when it stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.discovery.failover import (
    Attempt,
    Failover,
    Find,
    Found,
    Limits,
    Lost,
    Refused,
    Rejoin,
    SignIn,
    Succeeded,
)
from moim.errors import UsageError

NEW = Found("imp2.example.com", "imp1.example.com")


def outputs(machine: Failover) -> list[object]:
    found: list[object] = []
    while (output := machine.next_output()) is not None:
        found.append(output)
    return found


def states(machine: Failover) -> list[str]:
    found: list[str] = []
    while (state := machine.next_event()) is not None:
        found.append(state)
    return found


def lost(*, soap: bool = False) -> Failover:
    """A machine whose wait is over."""
    machine = Failover("imp1.example.com", "imp2.example.com", Limits(), soap=soap, draw=lambda: 0.0)
    machine.receive(Lost(), 0.0)
    assert outputs(machine) == []
    machine.tick(119.9)
    assert outputs(machine) == []
    machine.tick(120.0)
    assert outputs(machine) == [Find()]
    return machine


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 1000), st.integers(0, 1000))
def test_the_wait_lies_between_the_limits(drawn: float, lower: int, more: int) -> None:
    machine = Failover("a", "b", Limits(lower, lower + more), draw=lambda: drawn)
    machine.receive(Lost(), 50.0)
    deadline = machine.deadline()
    assert deadline is not None
    assert lower <= deadline - 50 <= lower + more
    machine.receive(Lost(), 60.0)  # told twice, it waits no longer
    assert machine.deadline() == deadline


def test_the_servers_are_looked_for_again_and_rooms_entered_again() -> None:
    machine = lost()
    machine.receive(NEW, 121.0)
    assert outputs(machine) == [Attempt("XMPPCONNECT_P", "imp2.example.com")]
    machine.receive(Succeeded(), 122.0)
    assert outputs(machine) == [Rejoin()]
    assert states(machine) == ["FAILOVER", "XMPPCONNECT_P", "XMPPCONNECTED"]
    assert machine.deadline() is None
    machine.receive(Lost(), 500.0)
    assert states(machine) == ["FAILOVER"]


def test_after_both_have_failed_it_waits_for_the_person() -> None:
    machine = lost()
    machine.receive(Refused(), 121.0)  # nobody could say where they are now: the known ones are tried
    assert outputs(machine) == [Attempt("XMPPCONNECT_P", "imp1.example.com")]
    machine.receive(Refused(), 122.0)
    assert outputs(machine) == [Attempt("XMPPCONNECT_S", "imp2.example.com")]
    machine.receive(Refused(), 123.0)
    assert states(machine)[-1] == "DISCONNECTED"
    machine.tick(100_000.0)
    assert (outputs(machine), machine.deadline()) == ([], None)
    machine.receive(SignIn(), 100_001.0)
    assert outputs(machine) == [Find()]
    machine.receive(NEW, 100_002.0)
    machine.receive(Refused(), 100_003.0)
    machine.receive(Succeeded(), 100_004.0)
    assert machine.state == "XMPPCONNECTED"


def test_the_person_need_not_wait() -> None:
    machine = Failover("a", "", Limits())
    machine.receive(Lost(), 0.0)
    machine.receive(SignIn(), 1.0)
    assert outputs(machine) == [Find()]
    assert machine.deadline() is None
    machine.receive(Refused(), 2.0)
    assert outputs(machine) == [Attempt("XMPPCONNECT_P", "a")]
    machine.receive(Refused(), 3.0)
    assert machine.state == "DISCONNECTED"


def test_the_session_service_comes_first_where_there_is_one() -> None:
    machine = lost(soap=True)
    machine.receive(NEW, 121.0)
    tried = []
    for _ in range(3):
        (attempt,) = outputs(machine)
        assert isinstance(attempt, Attempt)
        tried.append(attempt)
        machine.receive(Refused(), 122.0)
    assert outputs(machine) == [Attempt("SOAPCONNECT_S", "imp1.example.com")]
    assert [attempt.state for attempt in tried] == ["SOAPCONNECT_SESSION_P", "SOAPCONNECT_SESSION_S", "SOAPCONNECT_P"]
    machine.receive(Succeeded(), 123.0)
    assert [machine.state] == ["SOAPCONNECTED"]
    assert outputs(machine) == [Find()]
    machine.receive(Found("now.example.com", ""), 124.0)
    assert outputs(machine) == [Attempt("XMPPCONNECT_P", "now.example.com")]
    machine.receive(Refused(), 125.0)
    assert machine.state == "DISCONNECTED"


def test_answers_that_nobody_waits_for_are_refused() -> None:
    machine = Failover("a", "b", Limits())
    for answer in (Succeeded(), Refused(), NEW):
        with pytest.raises(UsageError):
            machine.receive(answer, 0.0)


@pytest.mark.parametrize(
    ("lower", "upper", "limits"),
    [
        ("60", "90", Limits(60, 90)),
        ("", "", Limits(120, 537)),
        ("-1", "many", Limits(120, 537)),
        ("600", "", Limits(600, 600)),
        ("99999999", "1", Limits(86_400, 86_400)),
        ("٣", "²", Limits(120, 537)),
    ],
)
def test_limits_of_a_configuration(lower: str, upper: str, limits: Limits) -> None:
    configuration = {
        "IMandPresence/ClientReLoginLowerLimit": lower,
        "IMandPresence/ClientReLoginUpperLimit": upper,
    }
    assert Limits.of(configuration) == limits
    assert Limits.of({}) == Limits(120, 537)
