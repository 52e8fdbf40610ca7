"""What several nodes say of their peers, as one list; and more of it than one message carries."""

from __future__ import annotations

from typing import Any

from moim.bus import Bus, Hub
from moim.federation.nodes import Nodes, merged


def row(domain: str, **more: Any) -> dict[str, Any]:
    return {"domain": domain, "streams": [], "queue": 1, "queueBytes": 10} | more


def test_rows_of_a_domain_become_one() -> None:
    early = {"lastError": "early", "lastErrorAt": "2026-01-01T00:00:00+00:00", "retryInSeconds": 0, "opening": True}
    late = {"lastError": "late", "lastErrorAt": "2026-01-02T00:00:00+00:00", "retryInSeconds": 9, "opening": False}
    for first, second in ((early, late), (late, early)):
        rows = merged([[row("b.example", sent=2, **first)], [row("a.example"), row("b.example", sent=3, **second)]])
        assert [one["domain"] for one in rows] == ["a.example", "b.example"]
        both = rows[1]
        assert (both["lastError"], both["retryInSeconds"], both["opening"]) == ("late", 9, True)
        assert (both["queue"], both["queueBytes"], both["sent"]) == (2, 20, 5)


async def test_more_peers_than_one_message_carries() -> None:
    async def reset(domain: str, reason: str) -> int:
        return 0

    many = [row(f"{number:05}.example", streams=[{"note": "x" * 1000}]) for number in range(1000)]
    hub = Hub()
    asking = Nodes(Bus(hub), "one", ["two"], rows=list, reset=reset)
    Nodes(Bus(hub), "two", ["one"], rows=lambda: many, reset=reset).start()
    rows, missing = await asking.peers()
    assert not missing
    assert [one["domain"] for one in rows] == [one["domain"] for one in many]
    assert all(one["streams"][0]["node"] == "two" for one in rows)


async def test_a_node_that_answers_nonsense_is_missing() -> None:
    async def reset(domain: str, reason: str) -> int:
        return 2

    async def nonsense(body: bytes) -> bytes:
        return b"[" if b"reset" in body else b"[]"

    hub = Hub()
    Bus(hub).answer("federation.two", nonsense)
    nodes = Nodes(Bus(hub), "one", ["two"], rows=list, reset=reset)
    assert await nodes.peers() == ([], ["two"])
    assert await nodes.reset("b.example", "why") == (2, ["two"])
