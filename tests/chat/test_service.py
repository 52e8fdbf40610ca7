"""The service as a part of a node: start, stop, names, tables."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from moim import chat, settings
from moim.chat import tables
from moim.chat.service import web_origins
from moim.errors import Unavailable, UsageError
from moim.proto.xmpp import ns


async def test_a_domain_beyond_ascii(new_house: Any) -> None:
    house = await new_house(domain="모임.test")
    alice, bob = await house.online("alice", "a"), await house.online("bob", "b")
    assert alice.jid == "alice@모임.test/a"
    assert (await alice.receive()).get("from") == "bob@모임.test/b"
    punycode = "모임".encode("idna").decode()
    alice.send(f"<message to='bob@{punycode}.test' type='chat'><body>x</body></message>")
    assert (await bob.receive()).get("from") == "alice@모임.test/a"
    info = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="모임.test")
    assert info.get("type") == "result"


async def test_a_taken_port_is_named_and_nothing_stays_behind(new_house: Any) -> None:
    house = await new_house()
    address, port = house.place("xmpp-websocket")
    await house.service.stop()
    with socket.create_server((address, port)):
        with pytest.raises(Unavailable, match=str(port)):
            await house.service.start()
        assert house.service.health() == []
        for name in (15222, 15223):
            with pytest.raises(OSError):
                await asyncio.open_connection(address, name)
    await house.service.start()
    await (await house.client("alice").connect()).sync()


async def test_it_runs_once(new_house: Any) -> None:
    house = await new_house()
    with pytest.raises(UsageError):
        await house.service.start()
    await (await house.client("alice").connect()).sync()
    await house.service.stop()
    await house.service.stop()
    with pytest.raises(UsageError):
        await house.service.listen_edge(house.root / "x", house.root / "w")
    assert house.service.stats() == {}
    await house.service.start()


async def test_what_cannot_be_read_any_more_is_dropped_with_a_word(house: Any, caplog: Any) -> None:
    alice = await house.client("alice").connect()
    for number in (1, 2):
        alice.send(f"<message to='bob@chat.test' type='chat'><body>{number}</body></message>")
    await alice.sync()
    await house.restart()
    broken = sa.update(tables.offline).where(tables.offline.c.id == 1).values(stanza="<broken")
    await house.store.write(lambda connection: connection.execute(broken))
    bob = await house.client("bob").connect()
    bob.send("<presence/>")
    assert (await bob.receive()).find("body").text == "2"
    assert "message 1 for bob@chat.test cannot be read any more" in caplog.text


def test_migrations_make_the_tables(new_house: Any, tmp_path: Any) -> None:
    from pathlib import Path

    from moim.store import migrate
    from moim.store.engine import make_engine

    path = tmp_path / "x.db"
    path.touch()
    migrate(path, [Path(chat.__file__).parent / "migrations"])
    engine = make_engine(path)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: name != "alembic_version"}
        )
        assert compare_metadata(context, tables.metadata) == []
    engine.dispose()


def test_the_web_apps_origins(tmp_path: Any) -> None:
    (tmp_path / "moim.toml").write_text(
        'domain = "x.test"\n[nodes]\nedge = {address = "127.0.0.2", public_address = "203.0.113.7"}\n'
    )
    origins = web_origins(settings.load(tmp_path, {"chat": chat.Settings}))
    assert {"http://127.0.0.1:18080", "http://localhost:18080", "https://edge.x.test:18443"} <= set(origins)
    assert "https://203.0.113.7:10443" in origins
    (tmp_path / "moim.toml").write_text(
        'domain = "x.test"\nports = {profile = "standard"}\n[nodes]\ninside = {address = "192.0.2.1"}\n'
    )
    origins = web_origins(settings.load(tmp_path, {"chat": chat.Settings}))
    assert {"https://inside.x.test", "https://192.0.2.1", "https://edge.x.test", "https://edge.x.test:8443"} <= set(
        origins
    )
    assert not [origin for origin in origins if origin.startswith("http:")]
