"""People: add, find, change, remove; facts after the commit; sign-in by password and by SCRAM."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from moim import directory, settings
from moim.bus import Bus
from moim.directory.bulk_import import Importer
from moim.directory.users import Match
from moim.errors import Conflict, LimitExceeded, NotFound, UsageError
from moim.model import Address, UserChanged, UserRemoved
from moim.proto.xmpp.scram import Outcome, ScramClient, ScramServer
from moim.store import Store, Where, migrate

PASSWORD = "correct horse"
ALICE = Address("alice", "example.com")


@pytest.fixture
def where(database: Where) -> Where:
    return database


async def test_life_of_a_user(service: directory.Service, facts: list[UserChanged | UserRemoved]) -> None:
    users = service.users
    added = await users.add(" Alice@Example.COM", PASSWORD, display_name=" 김앨리스 ")
    assert added.address == ALICE
    assert added.display_name == added.name == "김앨리스"
    assert await users.verify_password("alice@example.com", PASSWORD)
    with pytest.raises(Conflict):
        await users.add(ALICE, PASSWORD)
    changed = await users.update(ALICE, {"title": "Engineer"})
    assert (changed.title, changed.display_name) == ("Engineer", "김앨리스")
    await users.set_password(ALICE, "another password")
    assert not await users.verify_password("alice@example.com", PASSWORD)
    assert await users.verify_password("alice@example.com", "another password")
    assert await users.addresses() == [ALICE]
    await users.remove(ALICE)
    assert await users.profile("alice@example.com") is None
    assert not await users.verify_password("alice@example.com", "another password")
    assert facts == [
        UserChanged(ALICE, password_changed=True),
        UserChanged(ALICE, password_changed=False),
        UserChanged(ALICE, password_changed=True),
        UserRemoved(ALICE),
    ]
    for work in (users.remove(ALICE), users.get(ALICE), users.update(ALICE, {}), users.set_password(ALICE, PASSWORD)):
        with pytest.raises(NotFound):
            await work


async def test_addresses_have_one_form(service: directory.Service) -> None:
    decomposed = "\u1100\u1161@example.com"  # 가 in two letters, as macOS writes it
    await service.users.add(decomposed, PASSWORD)
    with pytest.raises(Conflict):
        await service.users.add("가@example.com", PASSWORD)
    assert await service.users.verify_password("가@example.com", PASSWORD)
    with pytest.raises(UsageError, match="domain"):
        await service.users.add("carol@other.org", PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025, "가" * 400, "tab\tinside it"])
async def test_unusable_passwords_are_refused(service: directory.Service, password: str) -> None:
    with pytest.raises(UsageError):
        await service.users.add(ALICE, password)
    assert await service.users.profile("alice@example.com") is None


@pytest.mark.parametrize(
    "fields", [{"display_name": "x" * 256}, {"display_name": "a\nb"}, {"email": "nobody"}, {"shoe_size": "42"}]
)
async def test_unusable_fields_are_refused(service: directory.Service, fields: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        await service.users.add(ALICE, PASSWORD, **fields)


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
async def test_verifiers_take_a_real_exchange(service: directory.Service, mechanism: str) -> None:
    await service.users.add(ALICE, "비밀번호 열자리다")
    verifier = await service.users.scram("alice@example.com", mechanism)  # type: ignore[arg-type]
    assert verifier is not None
    client = ScramClient(mechanism, "alice", "비밀번호 열자리다", nonce="abc")  # type: ignore[arg-type]
    server = ScramServer(mechanism, nonce="def", plus=False, plus_offered=False, bindings={})  # type: ignore[arg-type]
    server.first(client.first())
    outcome, success = server.final(client.final(server.challenge(verifier)))
    assert outcome is Outcome.ACCEPTED
    client.verify(success)


async def test_who_cannot_sign_in_has_no_verifier(service: directory.Service) -> None:
    await service.users.add(ALICE, PASSWORD)
    await service.users.add("bob@example.com")
    assert await service.users.scram("nobody@example.com", "SCRAM-SHA-256") is None
    assert await service.users.scram("bob@example.com", "SCRAM-SHA-256") is None
    assert await service.users.scram("not an address@example.com", "SCRAM-SHA-256") is None
    await service.users.update(ALICE, {"disabled": True})
    assert await service.users.scram("alice@example.com", "SCRAM-SHA-256") is None
    assert not await service.users.verify_password("alice@example.com", PASSWORD)
    await service.users.update(ALICE, {"disabled": False})
    assert await service.users.verify_password("alice@example.com", PASSWORD)


async def test_guessing_is_slowed_down_and_logged(service: directory.Service, caplog: pytest.LogCaptureFixture) -> None:
    await service.users.add(ALICE, PASSWORD)
    for _ in range(5):
        assert not await service.users.verify_password("alice@example.com", "wrong password", source="192.0.2.1")
    with pytest.raises(LimitExceeded):
        await service.users.verify_password("alice@example.com", PASSWORD, source="192.0.2.1")
    assert await service.users.verify_password("alice@example.com", PASSWORD, source="192.0.2.2")
    assert caplog.text.count("wrong password") == 5
    assert "too many failures" in caplog.text
    assert PASSWORD not in caplog.text


async def test_change_by_another_fact_is_seen(service: directory.Service) -> None:
    await service.users.add(ALICE, PASSWORD)
    assert await service.users.verify_password("alice@example.com", PASSWORD)
    first = await service.users.scram("alice@example.com", "SCRAM-SHA-256")
    await service.users.set_password(ALICE, PASSWORD)
    assert await service.users.scram("alice@example.com", "SCRAM-SHA-256") != first


async def test_search(service: directory.Service) -> None:
    for local, name in (("a", "김철수"), ("b", "김영희"), ("c", "100% Cola_")):
        await service.users.add(f"{local}@example.com", display_name=name)

    async def names(how: str, text: str) -> list[str]:
        found, total = await service.users.page(matches=[Match(("display_name",), how, text)])
        assert total == len(found)
        return [one.address.local for one in found]

    assert await names("prefix", "김") == ["a", "b"]
    assert await names("part", "영") == ["b"]
    assert await names("part", "%") == ["c"]
    assert await names("suffix", "cola_") == ["c"]
    assert await names("whole", "김") == []
    page, total = await service.users.page(offset=1, limit=1)
    assert ([one.address.local for one in page], total) == (["b"], 3)


async def test_every_user_has_a_client(service: directory.Service) -> None:
    locals_ = ["alice", "kim.minsu", "kimminsu", "김민수", "averyveryverylongname", "averyveryverylongnam"]
    names = set()
    for local in locals_:
        profile = await service.users.add(f"{local}@example.com")
        (device,) = await service.users.devices(profile)
        names.add(device.name)
        assert len(device.name) <= 15
        assert device.name.isascii()
        found = await service.users.device_named(device.name)
        assert found is not None
        assert found[1].address == profile.address
    assert len(names) == len(locals_)
    assert {"CSFALICE", "CSFKIMMINSU"} <= names


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_tables_and_migration_agree(database: Where) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from moim.directory import tables

    migrate(database, [Path(directory.__file__).with_name("migrations")])
    store = Store(database)
    try:
        with store.engine.connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
        # Alembic's own table is nobody's metadata; SQLite does not tell of indexes over expressions.
        known = ("alembic_version", "ix_directory_users_email")
        assert [one for one in differences if not any(name in str(one) for name in known)] == []
    finally:
        store.close()


async def test_people_of_several_domains(store: Store, bus: Bus, files: Any, tmp_path: Path) -> None:
    (tmp_path / "moim.toml").write_text('domain = "example.com"\nhosted_domains = ["example.net"]\n')
    site = settings.load(tmp_path, {"directory": directory.Settings})
    users = directory.Service(site, store, bus, credential=lambda _: files).users
    here, there = await users.add("alice@example.com", PASSWORD), await users.add("Alice@Example.NET", "other horse")
    assert here.id != there.id
    for address, right in (("alice@example.com", PASSWORD), ("alice@example.net", "other horse")):
        assert await users.verify_password(address, right)
        assert not await users.verify_password(address, "other horse" if right == PASSWORD else PASSWORD)
        assert (found := await users.scram(address, "SCRAM-SHA-256")) is not None
        assert users.known_scram(address, "SCRAM-SHA-256") == found
    assert not await users.verify_password("alice", PASSWORD)
    assert not await users.verify_password("alice@example.org", PASSWORD)
    with pytest.raises(UsageError, match=r"bob@example\.org is not of a domain of this site") as caught:
        await users.add("bob@example.org", PASSWORD)
    assert caught.value.hint == "addresses here end in @example.com or @example.net"
    assert [str(address) for address in await users.addresses()] == ["alice@example.com", "alice@example.net"]
    assert [str(one.address) for one in (await users.page())[0]] == ["alice@example.com", "alice@example.net"]
    await users.remove("alice@example.com")
    assert await users.profile("alice@example.com") is None
    assert await users.verify_password("alice@example.net", "other horse")
    report = await Importer(users, users._hasher, password_min_length=8).run(
        io.BytesIO(b"address,password\nbob@example.net,long enough\nbob@example.org,long enough\n")
    )
    assert (report.added, [error.address for error in report.errors]) == (1, ["bob@example.org"])


async def test_a_policy_has_to_be_there_when_it_is_given(site: settings.Site, store: Store, bus: Bus) -> None:
    users = directory.Service(site, store, bus, credential=lambda _: None, policies=("sales", "영업")).users  # type: ignore[arg-type,return-value]
    await users.add(ALICE, PASSWORD, policy="sales")
    await users.add("bob@example.com", PASSWORD, department="Kitchen")
    await users.add("carol@example.com", PASSWORD)
    assert await users.policies(departments=False) == [(ALICE, "sales", "")]
    both = [(ALICE, "sales", ""), (Address("bob", "example.com"), "", "Kitchen")]
    assert sorted(await users.policies(departments=True)) == both
    for work in (users.update(ALICE, {"policy": "gone"}), users.add("dave@example.com", PASSWORD, policy="Sales")):
        with pytest.raises(UsageError, match="there is no policy") as caught:
            await work
        assert "there are: sales, 영업" in caught.value.hint
    assert (await users.get(ALICE)).policy == "sales"
    assert (await users.update(ALICE, {"policy": ""})).policy == ""
    without = directory.Service(site, store, bus, credential=lambda _: None).users  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="there is no policy 'sales'") as caught:
        await without.update(ALICE, {"policy": "sales"})
    assert "there is none yet" in caught.value.hint
    rows = b"address,password,policy\ne@example.com,long enough,sales\nf@example.com,long enough,gone\n"
    report = await Importer(users, users._hasher, password_min_length=8).run(io.BytesIO(rows))
    assert (report.added, [(one.line, one.reason) for one in report.errors]) == (1, [(3, "there is no policy 'gone'")])
    assert (await users.get("e@example.com")).policy == "sales"


async def test_nobodies_are_known_without_the_database(
    service: directory.Service, store: Store, monkeypatch: Any
) -> None:
    """So that a name takes as long as an account that is at hand, whoever asks: chat, the web app, or a token."""
    users = service.users
    await users.add("alice@example.com", PASSWORD)
    assert not users.nobody("nobody@example.com"), "nothing is known before the start"
    await users.read_ahead(alone=True)
    assert await users.verify_password("alice@example.com", PASSWORD)
    asked: list[object] = []
    read = store.read

    async def counted(work: Any) -> Any:
        asked.append(work)
        return await read(work)

    monkeypatch.setattr(store, "read", counted)
    for name in ("alice", "nobody"):
        address = f"{name}@example.com"
        assert users.nobody(address) == (name == "nobody")
        assert (await users.scram(address, "SCRAM-SHA-256") is None) == (name == "nobody")
        assert not await users.verify_password(address, "wrong horse")
    assert asked == []
    await users.add("nobody@example.com", PASSWORD)
    assert not users.nobody("nobody@example.com"), "the account is there as soon as it is made"
    assert await users.verify_password("nobody@example.com", PASSWORD)
    await users.remove("nobody@example.com")
    assert await users.scram("nobody@example.com", "SCRAM-SHA-256") is None
    assert users.nobody("nobody@example.com")
    await users.update("alice@example.com", {"last_name": "Kim"})
    assert not users.nobody("alice@example.com")
