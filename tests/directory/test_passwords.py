"""Verifiers: what is kept, how it is checked, what an import leaves for later."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from moim import directory
from moim.directory.passwords import Hasher, check_policy
from moim.directory.tables import credentials
from moim.errors import UsageError
from moim.proto.xmpp.scram import make_verifier
from moim.store import Store

PASSWORD = "correct horse"


@pytest.fixture
def hasher() -> Hasher:
    return Hasher(scram_iterations=4096, argon2_memory_kib=7168, argon2_passes=1)


async def test_derive_and_check(hasher: Hasher) -> None:
    kept = await hasher.derive(PASSWORD)
    assert kept.argon2.startswith("$argon2id$v=19$m=7168,t=1,p=1$")
    assert kept.scram_sha256.startswith("SCRAM-SHA-256$4096:")
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-1"):
        verifier = kept.scram(mechanism)
        assert verifier is not None
        assert verifier == make_verifier(mechanism, PASSWORD, verifier.salt, 4096)
    assert (await hasher.check(kept, PASSWORD)).ok
    for wrong in ("", "correct horsf", "x" * 5000, "\ud800", "\0"):
        assert not (await hasher.check(kept, wrong)).ok
    assert not (await hasher.check(None, PASSWORD)).ok


async def test_two_derivations_share_nothing(hasher: Hasher) -> None:
    one, other = await hasher.derive_many([PASSWORD, PASSWORD])
    assert one.scram_sha256 != other.scram_sha256
    assert one.scram_sha1 != other.scram_sha1


async def test_other_parameters_are_taken_over_at_the_next_check(hasher: Hasher) -> None:
    kept = await hasher.derive(PASSWORD)
    stronger = Hasher(scram_iterations=4096, argon2_memory_kib=7168, argon2_passes=2)
    checked = await stronger.check(kept, PASSWORD)
    assert checked.ok
    assert checked.better is not None
    assert "t=2" in checked.better.argon2
    assert (await stronger.check(kept, "wrong password")).better is None


async def test_import_leaves_argon2_to_the_first_sign_in(service: directory.Service, store: Store) -> None:
    import io

    report = await service.importer().run(io.BytesIO(b"address,password\nalice@example.com,correct horse\n"))
    assert report.added == 1

    async def argon2() -> str | None:
        return await store.read(lambda connection: connection.scalar(sa.select(credentials.c.argon2)))

    assert await argon2() == ""
    assert not await service.users.verify_password("alice@example.com", "wrong password")
    assert await argon2() == ""
    assert await service.users.verify_password("alice@example.com", PASSWORD)
    assert (await argon2() or "").startswith("$argon2id$")
    assert await service.users.verify_password("alice@example.com", PASSWORD)
    assert not await service.users.verify_password("alice@example.com", "wrong password")


async def test_same_password_at_once_is_one_attempt(service: directory.Service) -> None:
    await service.users.add("alice@example.com", PASSWORD)
    asked = [service.users.verify_password("alice@example.com", PASSWORD, source="192.0.2.1") for _ in range(20)]
    assert await asyncio.gather(*asked) == [True] * 20


@settings(deadline=None)
@given(st.text(max_size=40))
def test_policy_either_refuses_or_the_password_can_be_kept(password: str) -> None:
    try:
        check_policy(password, min_length=8)
    except UsageError:
        return
    make_verifier("SCRAM-SHA-256", password, b"salt", 1)
