"""What is remembered between starts, and that its lifetime is honest."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moim.discovery import Memory
from moim.discovery.actions import Addresses, Failed, Nothing, QueryAddress, QuerySrv, Records, Srv
from moim.discovery.memory import last_target, load, save

World = Any
NAMES = ("_cisco-uds._tcp", "_cuplogin._tcp", "_collab-edge._tls")


def codes(outcome: Any) -> list[str]:
    return [step.code for step in outcome.steps]


def again(world: World, seconds: float) -> Any:
    world.wall += seconds
    world.asked.clear()
    world.passwords[:] = ["secret"]
    return world.run()


def test_while_the_answers_live_nobody_is_asked(world: World) -> None:
    world.inside()
    assert world.run().signed_in
    outcome = again(world, 20)
    assert outcome.signed_in
    assert not [r for r in world.asked if isinstance(r, QuerySrv | QueryAddress)]
    assert codes(outcome)[1] == "srv-remembered"


def test_when_they_have_died_everything_is_asked_again(world: World) -> None:
    world.inside()
    world.run()
    outcome = again(world, 61)
    assert outcome.signed_in
    assert len([r for r in world.asked if isinstance(r, QuerySrv)]) == 3


def test_that_there_is_nothing_is_remembered_as_briefly_as_the_name_server_says(world: World) -> None:
    world.edge()
    world.run()
    again(world, 20)
    assert not [r for r in world.asked if isinstance(r, QuerySrv)]
    again(world, 20)
    asked = [r.name for r in world.asked if isinstance(r, QuerySrv)]
    assert asked == ["_cisco-uds._tcp.example.com", "_cuplogin._tcp.example.com"]


def test_when_no_name_server_answers_the_last_result_is_used_and_said(world: World) -> None:
    world.inside()
    world.run()
    for name in NAMES:
        world.srv[f"{name}.example.com"] = None
    world.hosts.clear()
    world.hosts["cucm.example.com"] = Failed("timeout")
    outcome = again(world, 7200)
    assert outcome.signed_in
    assert {"srv-stale", "address-stale"} <= set(codes(outcome))
    assert "120 min" in next(step.detail for step in outcome.steps if step.code == "srv-stale")


def test_a_result_older_than_a_week_is_not_used(world: World) -> None:
    world.inside()
    world.run()
    for name in NAMES:
        world.srv[f"{name}.example.com"] = Failed("timeout")
    assert again(world, 8 * 86400).error.code == "dns-timeout"


def test_what_was_remembered_and_leads_nowhere_is_asked_for_again(world: World) -> None:
    world.inside()
    world.run()
    world.pages.clear()
    world.uds("new.example.com")
    world.service("_cisco-uds._tcp.example.com", (0, 0, 8443, "new.example.com"))
    world.pages["cucm.example.com", 8443, "/cucm-uds/clusterUser"] = Failed("refused")
    outcome = again(world, 5)
    assert outcome.signed_in
    assert "memory-wrong" in codes(outcome)
    assert outcome.home_cluster == "new.example.com"


def test_answers_of_one_network_are_not_used_in_another(world: World) -> None:
    world.inside()
    world.memory.scope = "192.0.2.1:53"
    world.run()
    world.memory.scope = "198.51.100.1:53"
    again(world, 1)
    assert len([r for r in world.asked if isinstance(r, QuerySrv)]) == 3


def test_the_file_comes_back_as_it_was(world: World, tmp_path: Path) -> None:
    world.edge()
    world.memory.scope = "ns"
    world.run()
    path = tmp_path / "deep" / "cache.json"
    save(world.memory, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "secret" not in path.read_text()
    back = load(path, "ns")
    assert back.answers == world.memory.answers
    assert back.last == last_target(path) == "alice@example.com"
    assert list(path.parent.iterdir()) == [path]


def test_the_memory_is_bounded() -> None:
    memory = Memory("ns")
    for number in range(1000):
        memory.keep(f"A h{number}", Addresses(("192.0.2.1",), 60, "ns"), 0.0)
    assert len(memory.answers) == 256
    assert memory.fresh("A h999", 1.0) is not None


def test_a_clock_that_was_set_back_ends_the_lifetime() -> None:
    memory = Memory("ns")
    memory.keep("SRV x", Records((Srv(0, 0, 1, "h"),), 60, "ns"), 1000.0)
    assert memory.fresh("SRV x", 1059.0) is not None
    assert memory.fresh("SRV x", 1060.0) is None
    assert memory.fresh("SRV x", 999.0) is None
    memory.keep("SRV y", Nothing(True, 60, "ns"), 1000.0)
    assert memory.stale("SRV y", 1001.0) is None


def test_a_missing_or_damaged_file_is_an_empty_memory(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    assert load(path, "ns").answers == {}
    good = {"version": 1, "last": "x", "answers": []}
    entry = {"scope": "ns", "question": "SRV x", "at": 1.0, "ttl": 5, "server": "s"}
    for document in (
        "",
        "[]",
        "{}",
        "null",
        "[" * 5000,
        json.dumps({**good, "version": 2}),
        json.dumps({**good, "answers": [entry]}),
        json.dumps({**good, "answers": [{**entry, "kind": "Records", "records": [{"priority": "1"}]}]}),
        json.dumps({**good, "answers": [{**entry, "kind": "Addresses", "addresses": [7]}]}),
        json.dumps({**good, "answers": [{**entry, "kind": "Addresses", "addresses": ["a"], "ttl": -1}]}),
        json.dumps({**good, "last": 7}),
        " " * (1 << 20) + json.dumps(good),
    ):
        path.write_text(document)
        assert load(path, "ns") == Memory("ns"), document[:80]


KEYS = st.sampled_from(["version", "last", "answers", "kind", "ttl", "at", "scope", "question", "server", "records"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS)
def test_any_document_is_read_or_ignored(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "cache.json"
    path.write_text(json.dumps(document))
    load(path, "ns")
