"""Rows and pages of archives, against lists in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import databases
from moim import chat
from moim.chat.archive import ids, keeping
from moim.chat.archive.keeping import Selection
from moim.chat.archive.rows import rows
from moim.chat.archive.tables import entries, messages
from moim.proto.xmpp import Element
from moim.store import Store

OWNER, OTHERS, DEVICES = "a@x", ("b@x", "c@y", "a@x"), ("", "/1", "/2")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    lines = [Path(chat.__path__[0]) / "archive" / "migrations"]
    found = databases.opened(tmp_path_factory.mktemp("archive") / "test.db", lines)
    yield found
    databases.removed(found)


@dataclass(frozen=True)
class Said:
    id: int
    peer: str
    device: str
    out: bool

    @property
    def record(self) -> tuple[int, str, str, tuple[str, ...], Element]:
        mine, theirs = f"{OWNER}/m", f"{self.peer}{self.device}"
        sender, to = (mine, theirs) if self.out else (theirs, OWNER)
        owners = (OWNER,) if self.peer == OWNER else (OWNER, self.peer)
        body = Element("body", "jabber:client", {}, (f"{self.id}",))
        return self.id, sender, to, owners, Element("message", "jabber:client", {"from": sender, "to": to}, (body,))


@st.composite
def histories(draw: st.DrawFn) -> list[Said]:
    numbers = sorted(draw(st.sets(st.integers(1, 60), max_size=25)))
    return [
        Said(n, draw(st.sampled_from(OTHERS)), draw(st.sampled_from(DEVICES)), draw(st.booleans())) for n in numbers
    ]


def fill(connection: sa.Connection, history: list[Said]) -> None:
    connection.execute(sa.delete(entries))
    connection.execute(sa.delete(messages))
    for start in range(0, len(history), 7):
        keeping.add(connection, *rows([said.record for said in history[start : start + 7]]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data(), histories())
def test_pages_are_those_of_a_list(store: Store, data: st.DataObject, history: list[Said]) -> None:
    after, before = data.draw(st.integers(-1, 61)), data.draw(st.integers(0, 62))
    peer = data.draw(st.none() | st.sampled_from(OTHERS))
    device = data.draw(st.sampled_from(DEVICES)) if peer is not None else ""
    named = data.draw(st.none() | st.lists(st.integers(1, 60), max_size=8))
    most, backwards = data.draw(st.integers(1, 6)), data.draw(st.booleans())
    matching = [
        said.id
        for said in history
        if after < said.id < before
        and (peer is None or said.peer == peer)
        and (not device or said.device == device)
        and (named is None or said.id in named)
    ]
    if peer == OWNER and device:
        return  # which of one's own devices is meant depends on the direction
    chosen = Selection(
        ids.key(OWNER),
        after,
        before,
        ids.key(peer) if peer is not None else None,
        ids.key(f"{peer}{device}") if device else None,
        tuple(named) if named is not None else None,
    )
    with store.engine.connect() as connection:
        fill(connection, history)
        page = keeping.page(connection, chosen, most=most, most_bytes=1 << 20, backwards=backwards)
        expected = matching[-most:] if backwards else matching[:most]
        assert [found.id for found in page.found] == expected
        assert page.complete == (len(matching) <= most)
        assert keeping.count(connection, chosen) == len(matching)
        assert keeping.ends(connection, chosen) == ((matching[0], matching[-1]) if matching else None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(histories(), st.integers(0, 60), st.integers(1, 4))
def test_a_message_goes_with_the_last_archive_that_has_it(
    store: Store, history: list[Said], upto: int, step: int
) -> None:
    with store.engine.connect() as connection:
        fill(connection, history)
        while keeping.drop(connection, ids.key(OWNER), upto, step):
            pass
        left = set(connection.execute(sa.select(messages.c.id)).scalars())
        assert left == {said.id for said in history if said.id > upto or said.peer != OWNER}
        for other in OTHERS[:2]:
            while keeping.drop(connection, ids.key(other), ids.MAX, step):
                pass
        left = set(connection.execute(sa.select(messages.c.id)).scalars())
        assert left == {said.id for said in history if said.id > upto}


def test_a_batch_may_be_written_again(store: Store) -> None:
    history = [Said(n, "b@x", "", True) for n in range(1, 230)]
    with store.engine.connect() as connection:
        fill(connection, history)
        fill_again = rows([said.record for said in history])
        keeping.add(connection, *fill_again)
        assert keeping.count(connection, Selection(ids.key(OWNER))) == 229
        assert keeping.count(connection, Selection(ids.key("b@x"))) == 229


def test_large_messages_make_small_pages(store: Store) -> None:
    history = [Said(n, "b@x", "", True) for n in range(1, 30)]
    with store.engine.connect() as connection:
        fill(connection, history)
        size = connection.execute(sa.select(entries.c.size).limit(1)).scalar_one()
        chosen = Selection(ids.key(OWNER))
        page = keeping.page(connection, chosen, most=20, most_bytes=size * 5 + 8, backwards=True)
        assert [found.id for found in page.found] == [25, 26, 27, 28, 29]
        assert not page.complete
        assert len(keeping.page(connection, chosen, most=20, most_bytes=0, backwards=False).found) == 1


def test_what_is_too_much(store: Store) -> None:
    history = [Said(n, "b@x", "", True) for n in range(1, 30)]
    with store.engine.connect() as connection:
        fill(connection, history)
        owner = ids.key(OWNER)
        whole = connection.execute(sa.select(sa.func.sum(entries.c.size)).where(entries.c.owner == owner)).scalar_one()
        assert keeping.excess(connection, owner, messages_kept=29, bytes_kept=whole, step=4) == 0
        assert keeping.excess(connection, owner, messages_kept=20, bytes_kept=whole, step=4) == 9
        assert keeping.excess(connection, owner, messages_kept=100, bytes_kept=whole - 1, step=4) == 1
        assert keeping.excess(connection, owner, messages_kept=0, bytes_kept=0, step=100) == 29


@pytest.mark.parametrize("peer", [None, "b@x"])
def test_pages_come_from_an_index(store: Store, peer: str | None) -> None:
    """However many messages others, or other conversations, have."""
    chosen = Selection(1, peer=ids.key(peer) if peer else None)
    query = sa.select(entries.c.id, entries.c.size).where(keeping._matching(chosen)).order_by(entries.c.id.desc())
    with store.engine.connect() as connection:
        text = str(query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            plan = str(connection.exec_driver_sql("EXPLAIN " + text).all())
            assert ("archive_entries_peer" if peer else "archive_entries_pkey") in plan
            assert "Sort" not in plan
            return
        plan = str(connection.exec_driver_sql("EXPLAIN QUERY PLAN " + text).all())
    assert ("COVERING INDEX archive_entries_peer (owner=? AND peer=?" if peer else "PRIMARY KEY (owner=?") in plan
    assert "TEMP B-TREE" not in plan


_FIRST, _LAST = datetime.fromisoformat("2020-01-01"), datetime.fromisoformat("2060-01-01")


@given(st.datetimes(_FIRST, _LAST), st.integers(0, (1 << 22) - 1))
def test_times_of_ids(moment: datetime, low: int) -> None:
    moment = moment.replace(tzinfo=UTC)
    first, after = ids.first_at(moment), ids.first_after(moment)
    assert moment <= ids.time_of(first | low) < moment + timedelta(milliseconds=1)
    assert ids.time_of(after | low) > moment
    assert ids.time_of(after - 1) <= moment


def test_times_that_no_id_has() -> None:
    assert ids.first_at(datetime(1970, 1, 1, tzinfo=UTC)) == 0
    assert ids.first_at(datetime(9999, 1, 1, tzinfo=UTC)) <= ids.MAX
