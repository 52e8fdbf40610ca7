"""Who hears the same: looked up once, and again when that stopped being true."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moim.chat.audience import Audience
from moim.proto.xmpp import Jid

PEOPLE = [Jid("p", "x.test", str(number)) for number in range(6)]
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "say", "move"]), st.sampled_from(PEOPLE), st.sets(st.sampled_from(PEOPLE))
    ),
    max_size=40,
)


@given(steps)
def test_everybody_is_reached_once_and_nobody_else(sequence: list[tuple[str, Jid, set[Jid]]]) -> None:
    audience, members, stamp = Audience(), dict[Jid, None](), 0
    numbers: dict[Jid, int] = {PEOPLE[0]: 10, PEOPLE[1]: 11, PEOPLE[2]: 12}
    looked_up: list[Jid] = []

    def find(jid: Jid) -> int | None:
        looked_up.append(jid)
        return numbers.get(jid)

    for what, jid, skip in sequence:
        if what == "add":
            audience.add(jid)
            members[jid] = None
        elif what == "discard":
            audience.discard(jid)
            members.pop(jid, None)
        elif what == "move":
            stamp += 1
            numbers[jid] = 20 + stamp
        else:
            near, far = audience.reach(stamp, find, skip)
            heard = [member for member in members if member not in skip]
            assert sorted(near) == sorted(numbers[member] for member in heard if member in numbers)
            assert sorted(far, key=str) == sorted((member for member in heard if member not in numbers), key=str)
            looked_up.clear()
            audience.reach(stamp, find)
            assert not looked_up, "nothing changed"
        assert set(audience) == set(members)
        assert len(audience) == len(members)
