"""Appendix A of RFC 6121, row by row, and what holds of two accounts that follow it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.chat.subscriptions import (
    BOTH,
    FROM,
    FROM_OUT,
    IN,
    NONE,
    OUT,
    OUT_IN,
    STATES,
    TO,
    TO_IN,
    Action,
    State,
    inbound,
    outbound,
)

ORDER = (NONE, OUT, IN, OUT_IN, TO, TO_IN, FROM, FROM_OUT, BOTH)

# New states in the order of the RFC's tables; None is "no state change".
A_2: dict[Action, tuple[State | None, ...]] = {
    "subscribe": (OUT, None, OUT_IN, None, None, None, FROM_OUT, None, None),
    "unsubscribe": (None, NONE, None, IN, NONE, IN, None, FROM, FROM),
    "subscribed": (None, None, FROM, FROM_OUT, None, BOTH, None, None, None),
    "unsubscribed": (None, None, NONE, OUT, None, TO, NONE, OUT, TO),
}
A_3: dict[Action, tuple[State | None, ...]] = {
    "subscribe": (IN, OUT_IN, None, None, TO_IN, None, None, None, None),
    "unsubscribe": (None, None, NONE, OUT, None, TO, NONE, OUT, TO),
    "subscribed": (None, TO, None, TO_IN, None, None, None, BOTH, None),
    "unsubscribed": (None, NONE, None, IN, NONE, IN, None, FROM, FROM),
}
ACTIONS: tuple[Action, ...] = ("subscribe", "subscribed", "unsubscribe", "unsubscribed")

# How one comes to a state: who says what, me (>) or them (<).
WAYS: dict[State, str] = {
    NONE: "",
    OUT: ">subscribe",
    IN: "<subscribe",
    OUT_IN: ">subscribe <subscribe",
    TO: ">subscribe <subscribed",
    TO_IN: ">subscribe <subscribed <subscribe",
    FROM: "<subscribe >subscribed",
    FROM_OUT: "<subscribe >subscribed >subscribe",
    BOTH: ">subscribe <subscribed <subscribe >subscribed",
}
MIRRORED = dict(zip(ORDER, (NONE, IN, OUT, OUT_IN, FROM, FROM_OUT, TO, TO_IN, BOTH), strict=True))


@pytest.mark.parametrize("action", ACTIONS)
def test_outbound_table(action: Action) -> None:
    for before, after in zip(ORDER, A_2[action], strict=True):
        state, routed = outbound(before, action)
        assert state == (after or before), (before, action)
        assert routed == (action in ("subscribe", "unsubscribe") or after is not None)


@pytest.mark.parametrize("action", ACTIONS)
def test_inbound_table(action: Action) -> None:
    for before, after in zip(ORDER, A_3[action], strict=True):
        assert inbound(before, action) == (after or before, after is not None), (before, action)


def test_all_states_are_reachable_and_closed() -> None:
    assert set(STATES) == set(ORDER)
    seen = {NONE}
    frontier = [NONE]
    while frontier:
        state = frontier.pop()
        for action in ACTIONS:
            for after in (outbound(state, action)[0], inbound(state, action)[0]):
                if after not in seen:
                    seen.add(after)
                    frontier.append(after)
    assert seen == set(STATES)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(ACTIONS)), max_size=30))
def test_two_sides_agree_after_every_exchange(steps: list[tuple[bool, Action]]) -> None:
    sides = [NONE, NONE]
    for which, action in steps:
        me, other = int(which), 1 - int(which)
        sides[me], routed = outbound(sides[me], action)
        if routed:
            before = sides[other]
            sides[other], _ = inbound(before, action)
            if action == "subscribe" and before.seen:
                sides[me], _ = inbound(sides[me], "subscribed")
        assert sides[0].sees == sides[1].seen
        assert sides[1].sees == sides[0].seen
        assert sides[0].pending_out == sides[1].pending_in
        assert sides[1].pending_out == sides[0].pending_in


@pytest.mark.parametrize("action", ACTIONS)
async def test_the_service_does_what_the_tables_say(action: Action, new_house: Any) -> None:
    people = {f"{who}{n}": "secret" for who in ("me", "them") for n in range(9)}
    house = await new_house(people=people, default_contacts=False)
    rosters = house.service._parts.rosters
    for number, before in enumerate(ORDER):
        me, them = await house.online(f"me{number}"), await house.online(f"them{number}")
        mine, theirs = f"me{number}@chat.test", f"them{number}@chat.test"

        async def states(mine: str = mine, theirs: str = theirs) -> tuple[State, State]:
            return (await rosters.get(mine)).item(theirs).state, (await rosters.get(theirs)).item(mine).state

        for step in WAYS[before].split():
            sender, to = (me, theirs) if step[0] == ">" else (them, mine)
            sender.send(f"<presence to='{to}' type='{step[1:]}'/>")
            await sender.sync()
        assert await states() == (before, MIRRORED[before]), before
        await them.sync()
        while not them.inbox.empty():
            them.inbox.get_nowait()

        after = A_2[action][number] or before
        routed = A_2[action][number] is not None or action in ("subscribe", "unsubscribe")
        told = A_3[action][ORDER.index(MIRRORED[before])] if routed else None
        me.send(f"<presence to='{theirs}' type='{action}'/>")
        await me.sync()
        assert await states() == (after, told or MIRRORED[before]), (before, action)
        await them.sync()
        heard = [them.inbox.get_nowait() for _ in range(them.inbox.qsize())]
        said = [stanza for stanza in heard if stanza.name == "presence" and stanza.get("from") == mine]
        assert [stanza.get("type") for stanza in said] == ([action] if told is not None else []), (before, action)
        pushes = [stanza for stanza in heard if stanza.name == "iq"]
        if pushes:
            assert heard.index(said[0]) < heard.index(pushes[0]), "the stanza explains the push"
