"""The bus: order, isolation of failing handlers, end of a subscription."""

from dataclasses import dataclass

from moim.bus import Bus


@dataclass(frozen=True)
class Happened:
    what: str


@dataclass(frozen=True)
class Other:
    what: str


async def test_facts_reach_their_subscribers_in_order() -> None:
    bus, seen = Bus(), []

    async def first(fact: Happened) -> None:
        seen.append(("first", fact.what))

    async def second(fact: Happened) -> None:
        seen.append(("second", fact.what))

    bus.subscribe(Happened, first)
    cancel = bus.subscribe(Happened, second)
    await bus.publish(Happened("a"))
    await bus.publish(Other("b"))
    cancel()
    await bus.publish(Happened("c"))
    assert seen == [("first", "a"), ("second", "a"), ("first", "c")]


async def test_a_failing_handler_keeps_nobody_from_the_fact() -> None:
    bus, seen = Bus(), []

    async def fails(_: Happened) -> None:
        raise RuntimeError

    async def works(fact: Happened) -> None:
        seen.append(fact.what)

    bus.subscribe(Happened, fails)
    bus.subscribe(Happened, works)
    await bus.publish(Happened("a"))
    assert seen == ["a"]
