"""Who may be talked to, and how: settings, what admins set, patterns, and what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from moim import federation
from moim.errors import NotFound, UsageError
from moim.federation.policies import PROBER, Override, Policies
from moim.federation.settings import Settings
from moim.store import Store, migrate


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "moim.db"
    migrate(path, [Path(federation.__path__[0]) / "migrations"])
    made = Store(path)
    yield made
    made.close()


def policies(store: Store, **settings: Any) -> Policies:
    return Policies(Settings(**settings), store)


async def test_the_default_is_encrypted_and_open(store: Store) -> None:
    found = policies(store).of("other.example")
    assert (found.tls, found.certificates, found.dialback, found.refusal) == ("required", "optional", True, "")


async def test_lists_and_patterns(store: Store) -> None:
    p = policies(store, mode="allow-list", allow=("a.example", "*.b.example"), deny=("x.b.example",))
    assert not p.of("a.example").refusal
    assert not p.of("rooms.b.example").refusal
    assert "exchanges nothing with x.b.example" in p.of("x.b.example").refusal
    for name in ("b.example", "aa.example", "b.example.org", "evil-b.example"):
        assert "not on this site's list" in p.of(name).refusal, name
    prober = p.of(PROBER)
    assert (prober.refusal, prober.dialback, prober.certificates) == ("", False, "off"), "it is let in, to nothing"
    assert p.of("not a domain").refusal


async def test_what_admins_set_wins_and_lasts(store: Store) -> None:
    p = policies(store, deny=("a.example",))
    assert await p.put("A.Example", Override(access="allow", tls="optional")) == "a.example"
    await p.put("*.a.example", Override(certificates="required"))
    await p.put("bücher.example", Override(access="deny"))
    for again in (p, policies(store, deny=("a.example",))):
        await again.load()
        assert (again.of("a.example").tls, again.of("a.example").refusal) == ("optional", "")
        assert again.of("rooms.a.example").certificates == "required"
        assert again.of("rooms.a.example").tls == "required"
        assert again.of("xn--bcher-kva.example").refusal
        assert again.of("bücher.example").refusal
    await p.put("a.example", Override())
    assert p.of("a.example").refusal
    await p.delete("*.a.example")
    with pytest.raises(NotFound):
        await p.delete("*.a.example")


@pytest.mark.parametrize(
    "override",
    [
        Override(certificates="off", dialback=False),
        Override(tls="off", certificates="required"),
        Override(tls="off", dialback=False),
    ],
)
async def test_policies_that_nobody_can_fulfil(store: Store, override: Override) -> None:
    with pytest.raises(UsageError):
        await policies(store).put("a.example", override)


@pytest.mark.parametrize("given", [{"tsl": "off"}, {"tls": "maybe"}, {"dialback": "yes"}, {"access": 1}])
def test_json_that_is_no_policy(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Override.read(given)


@pytest.mark.parametrize(
    "given",
    [
        {"certificates": "off", "dialback": False},
        {"resolvers": ["x"]},
        {"target_networks": ["10.0.0.1/8"]},
        {"allow": ["*"]},
        {"advertised_host": "a b"},
        {"mode": "closed"},
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, UsageError)):
        Settings(**given)


async def test_the_secret_of_keys_is_the_sites(store: Store) -> None:
    one, other = await policies(store).keys(), await policies(store).keys()
    key = one.key(receiving="a", originating="b", stream_id="c")
    assert other.check(key, receiving="a", originating="b", stream_id="c")
