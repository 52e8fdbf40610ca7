"""Spaces: what they are given, how they are found, who is let in."""

from __future__ import annotations

import pytest

from moim.errors import LimitExceeded, NotFound, UsageError
from moim.meetings.spaces import Spaces, clean_name
from moim.model import Address
from moim.store import Store, Where

ALICE, BOB = Address("alice", "example.com"), Address("bob", "example.com")


@pytest.fixture
def where(database: Where) -> Where:
    return database


@pytest.fixture
def spaces(store: Store) -> Spaces:
    return Spaces(store, passcode_digits=6, per_owner=3, clock=lambda: 1_700_000_000.0)


async def test_a_new_space_has_all_that_lets_people_in(spaces: Spaces) -> None:
    space = await spaces.create("  주간 회의\n Weekly  🎉 ", owner=ALICE)
    assert space.name == "주간 회의 Weekly 🎉"
    assert len(space.call_id) == 9
    assert space.call_id.isdigit()
    assert space.call_id[0] != "0"
    assert len(space.passcode) == 6
    assert space.passcode.isdigit()
    assert len(space.secret) >= 20
    assert (space.owner, space.created_at) == (ALICE, 1_700_000_000)
    assert space.secret not in repr(space)
    assert space.passcode not in repr(space).replace(space.call_id, "")
    other = await spaces.create("Other")
    assert len({space.id, other.id, space.call_id, other.call_id, space.secret, other.secret}) == 6


async def test_people_write_call_ids_as_they_like(spaces: Spaces) -> None:
    space = await spaces.create("Planning")
    spoken = f"{space.call_id[:3]} {space.call_id[3:6]}-{space.call_id[6:]}"
    for reference in (space.call_id, space.id, spoken, space.id.upper()):
        assert await spaces.find(reference) == space
    for reference in ("", "000000000", "x" * 100, "'; drop table", "٣٤٥"):
        assert await spaces.find(reference) is None
        with pytest.raises(NotFound):
            await spaces.get(reference)


async def test_only_the_right_passcode_or_secret_admits(spaces: Spaces) -> None:
    space = await spaces.create("Planning", passcode="123456")
    assert space.admits(passcode="123456", secret="")
    assert space.admits(passcode="", secret=space.secret)
    assert space.admits(passcode="wrong", secret=space.secret)
    for passcode, secret in (("", ""), ("12345", ""), ("1234567", ""), (space.secret, "123456"), ("한글", "비밀")):
        assert not space.admits(passcode=passcode, secret=secret)


@pytest.mark.parametrize("name", ["", "   ", "\n\t", "\u202e", "\x00"])
async def test_a_space_needs_a_name(spaces: Spaces, name: str) -> None:
    with pytest.raises(UsageError):
        await spaces.create(name)


@pytest.mark.parametrize("passcode", ["", "123", "1234567890123", "12a4", "١٢٣٤"])
async def test_a_passcode_is_digits(spaces: Spaces, passcode: str) -> None:
    with pytest.raises(UsageError):
        await spaces.create("Planning", passcode=passcode)


def test_names_are_one_short_line() -> None:
    assert clean_name("a" * 300) == "a" * 255
    assert clean_name("👩\u200d💻 e\u0301") == "👩\u200d💻 é"
    assert clean_name("a\u202eb\x07c") == "a b c"
    assert clean_name("x " * 40, longest=4) == "x x"


async def test_pages_are_newest_first_and_by_owner(spaces: Spaces) -> None:
    for number in range(3):
        await spaces.create(f"Alice's {number}", owner=ALICE)
    await spaces.create("Bob's", owner=BOB)
    found, total = await spaces.page(owner=ALICE, limit=2)
    assert (len(found), total) == (2, 3)
    assert {space.owner for space in found} == {ALICE}
    found, total = await spaces.page(offset=3)
    assert (len(found), total) == (1, 4)
    with pytest.raises(UsageError):
        await spaces.page(limit=0)


async def test_an_owner_has_so_many_and_no_more(spaces: Spaces) -> None:
    for number in range(3):
        await spaces.create(f"Alice's {number}", owner=ALICE)
    with pytest.raises(LimitExceeded):
        await spaces.create("One more", owner=ALICE)
    assert len(await spaces.delete_owned(ALICE)) == 3
    assert await spaces.delete_owned(ALICE) == []
    await spaces.create("Again", owner=ALICE)


async def test_a_space_changes_and_goes(spaces: Spaces) -> None:
    space = await spaces.create("Planning")
    changed = await spaces.update(space.call_id, name="Retrospective", passcode="4321", regenerate_secret=True)
    assert (changed.name, changed.passcode, changed.id) == ("Retrospective", "4321", space.id)
    assert not changed.admits(passcode="", secret=space.secret)
    assert await spaces.update(space.id) == changed
    assert await spaces.delete(space.id) == changed
    for action in (spaces.delete(space.id), spaces.update(space.id, name="x")):
        with pytest.raises(NotFound):
            await action
