"""People move in from real exports of ejabberd and Prosody, keep their passwords, and can move out again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from moim import chat, console, directory, settings
from moim.chat.moving.reading import PIE, Export
from moim.cli import main
from moim.cli.chat import _batches
from moim.console import write_token
from moim.proto.xmpp import make_verifier, ns
from moim.store import migrate

DOMAIN = "old.test"
_SITE = """
domain = "old.test"
[chat]
default_contacts = false
allow_plain = false
"""
_EJABBERD = """
hosts: ["old.test"]
auth_method: internal
auth_password_format: scram
auth_scram_hash: sha256
listen: []
modules: {mod_roster: {}, mod_offline: {}, mod_vcard: {}, mod_private: {}, mod_privacy: {}, mod_blocking: {}}
"""
_FILL = """
ejabberd_auth:try_register(<<"alice">>, <<"old.test">>, <<"wonder land">>).
ejabberd_auth:try_register(<<"bob">>, <<"old.test">>, <<"b">>).
Alice = jid:make(<<"alice">>, <<"old.test">>).
Bob = jid:make(<<"bob">>, <<"old.test">>).
Xml = fun(T) -> fxml_stream:parse_element(T) end.
Iq = fun(T) -> xmpp:set_from_to(xmpp:decode(Xml(T), <<"jabber:client">>, []), Alice, Alice) end.
mod_roster:set_items(<<"alice">>, <<"old.test">>, xmpp:decode(Xml(<<"<query xmlns='jabber:iq:roster'>"
  "<item jid='bob@old.test' name='Bob B.' subscription='both'><group>Work</group></item>"
  "<item jid='far@away.test' subscription='to'/></query>">>))).
mod_private:process_sm_iq(Iq(<<"<iq xmlns='jabber:client' type='set' id='1'><query xmlns='jabber:iq:private'>"
  "<notes xmlns='test:notes'>kept</notes></query></iq>">>)).
mod_vcard:process_sm_iq(Iq(<<"<iq xmlns='jabber:client' type='set' id='1'><vCard xmlns='vcard-temp'>"
  "<FN>Alice Liddell</FN></vCard></iq>">>)).
Msg = xmpp:set_from_to(xmpp:decode(Xml(<<"<message xmlns='jabber:client' type='chat' id='m1' from='bob@old.test/x' "
  "to='alice@old.test'><body>while you were out</body></message>">>), <<"jabber:client">>, []), Bob, Alice).
mod_offline:store_packet({bounce, Msg}).
mod_blocking:process_iq(Iq(<<"<iq xmlns='jabber:client' type='set' id='2'><block xmlns='urn:xmpp:blocking'>"
  "<item jid='pest@bad.test'/></block></iq>">>)).
timer:sleep(300).
ejabberd_piefxis:export_server(<<"@ROOT@/out">>).
file:write_file("@ROOT@/done", <<"done">>).
halt().
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    (root / "moim.toml").write_text(_SITE)
    (root / "inside").mkdir()
    write_token(root)
    return root


def moim(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """Runs a command in this process; the JSON that it prints."""
    before, sys.argv = sys.argv, ["moim", *words]
    try:
        main()
        ended = 0
    except SystemExit as left:
        ended = left.code if isinstance(left.code, int) else 0
    finally:
        sys.argv = before
    got = capsys.readouterr()
    assert ended == code, got
    return json.loads(got.out) if "--json" in words else got.out


@pytest.fixture(scope="module")
def ejabberd_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first file of what a real ejabberd exports."""
    root = tmp_path_factory.mktemp("ejabberd")
    (root / "out").mkdir()
    (root / "ejabberd.yml").write_text(_EJABBERD)
    (root / "fill.erl").write_text(_FILL.replace("@ROOT@", str(root)))
    done = subprocess.run(
        ["erl", "-noinput", "+S", "1:1", "-mnesia", "dir", f'"{root}/db"', "-s", "ejabberd",
         "-eval", f'R = file:eval("{root}/fill.erl"), io:format("~p~n", [R]), halt().'],
        env=os.environ | {
            "ERL_LIBS": "/usr/lib/x86_64-linux-gnu", "EJABBERD_CONFIG_PATH": str(root / "ejabberd.yml"),
            "EJABBERD_LOG_PATH": str(root / "log"), "ERL_CRASH_DUMP": str(root / "dump"), "HOME": str(root),
        },
        capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert (root / "done").exists(), done.stdout
    (first,) = [path for path in (root / "out").iterdir() if "old_test" not in path.name]
    return first


def test_from_ejabberd_while_the_site_is_stopped(
    ejabberd_export: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("chat", "import", str(ejabberd_export), "--site", str(site), "--json")
    tried = moim(capsys, *words, "--dry-run")
    assert tried["people"] == {"added": 2}
    report = moim(capsys, *words)
    assert report["people"] == {"added": 2}
    assert report["new"] == {"contacts": 2, "blocked": 1, "private": 1, "vCard": 1, "waiting": 1}
    assert report["report"] == []
    again = moim(capsys, *words)
    assert (again["people"], again["new"]) == ({"same": 2}, {})
    assert again["same"] == report["new"]
    out = tmp_path / "out.xml"
    moim(capsys, "chat", "export", str(out), "--site", str(site), "--json")
    assert out.stat().st_mode & 0o777 == 0o600
    moim(capsys, "chat", "export", str(out), "--site", str(site), code=2)  # it is there
    other = tmp_path / "other"
    (other / "inside").mkdir(parents=True)
    (other / "moim.toml").write_text(_SITE)
    write_token(other)
    moved = moim(capsys, "chat", "import", str(out), "--site", str(other), "--json")
    assert (moved["people"], moved["new"], moved["report"]) == ({"added": 2}, report["new"], [])
    other_password = tmp_path / "conflict.xml"
    other_password.write_text(
        f"<server-data xmlns='{PIE}'><host jid='old.test'><user name='bob' password='another'/></host>"
        "<host jid='else.test'><user name='eve' password='x'/></host></server-data>"
    )
    found = moim(capsys, "chat", "import", str(other_password), "--site", str(other), "--json", code=1)
    assert found["people"] == {"other-password": 1, "refused": 1}
    assert [row["kind"] for row in found["report"]] == ["conflict", "refused"]


class Running:
    """A running chat service over a real directory, and its admin API."""

    def __init__(self, house: Any, people: directory.Service) -> None:
        self.house = house
        self.people = people
        token = "t" * 40
        routes = chat.admin_routes(house.service, people.users)
        self.api = httpx.AsyncClient(
            transport=httpx.ASGITransport(console.admin_application(token, routes)),
            base_url="http://127.0.0.1/api/v1",
            headers={"Authorization": f"Bearer {token}"},
        )

    async def take(self, path: Path) -> list[dict[str, Any]]:
        """Imports a file as the command does; the answers."""
        answers = []
        for batch in _batches(Export(path)):
            assert not batch.skipped
            answer = await self.api.post("/chat/import", json=batch.body(dry_run=False))
            assert answer.is_success, answer.text
            answers.append(answer.json())
        return answers


@pytest.fixture
async def running(tmp_path: Path, house_class: Any) -> AsyncIterator[Running]:
    house = house_class(tmp_path / "running", people={}, domain=DOMAIN, default_contacts=False)
    lines = sorted(Path(chat.__file__).parent.glob("**/migrations"))
    migrate(house.store.where, [*lines, Path(directory.__file__).with_name("migrations")])
    people = directory.Service(
        settings.load(house.root, {"directory": directory.Settings, "chat": chat.Settings}),
        house.store,
        house.bus,
        credential=lambda _: house.files,
    )
    house.users = people.users
    house.service = house._service()
    await house.service.start()
    made = Running(house, people)
    yield made
    await made.api.aclose()
    await house.stop()
    await people.stop()


async def test_people_from_ejabberd_sign_in_with_their_passwords(ejabberd_export: Path, running: Running) -> None:
    for _ in range(2):
        await running.take(ejabberd_export)
    house = running.house
    with pytest.raises(AssertionError, match="not-authorized"):
        await house.client("alice", "x").connect(password="wrong")
    alice = await house.client("alice", "a").connect(password="wonder land")
    assert alice.mechanism.startswith("SCRAM-SHA-256")
    roster = (await alice.request(f"<query xmlns='{ns.ROSTER}'/>")).elements()[0]
    shown = {item.get("jid"): (item.get("name"), item.get("subscription")) for item in roster.elements()}
    assert shown == {"bob@old.test": ("Bob B.", "both"), "far@away.test": (None, "to")}
    blocked = (await alice.request(f"<blocklist xmlns='{ns.BLOCKING}'/>")).elements()[0]
    assert [item.get("jid") for item in blocked.elements()] == ["pest@bad.test"]
    alice.send("<presence/>")
    await alice.sync()
    stanzas = [alice.inbox.get_nowait() for _ in range(alice.inbox.qsize())]
    bodies = [body.text for s in stanzas if s.name == "message" and (body := s.find("body")) is not None]
    assert bodies == ["while you were out"]
    await running.take(ejabberd_export)  # what she has read does not come back
    await alice.quiet()


async def test_people_from_prosody(tmp_path: Path, running: Running) -> None:
    data, out = tmp_path / "data" / "old%2etest", tmp_path / "out"
    out.mkdir()
    salt, count = b"salt", 4096
    verifier = make_verifier("SCRAM-SHA-1", "carol's", salt, count)
    _dat(
        data / "accounts" / "carol.dat",
        f"""return {{ ["salt"] = "salt"; ["iteration_count"] = {count};
        ["stored_key"] = "{verifier.stored_key.hex()}"; ["server_key"] = "{verifier.server_key.hex()}"; }};""",
    )
    _dat(
        data / "roster" / "carol.dat",
        """return { [false] = { ["version"] = 2;
        ["pending"] = { ["new@far.test"] = true; }; };
        ["dave@old.test"] = { ["subscription"] = "both"; ["name"] = "Dave";
        ["groups"] = { ["Friends"] = true; }; }; };""",
    )
    _dat(
        data / "vcard" / "carol.dat",
        """return { ["name"] = "vCard"; ["attr"] = { ["xmlns"] = "vcard-temp"; };
        [1] = { ["name"] = "FN"; ["attr"] = {}; [1] = "Carol"; }; };""",
    )
    script = Path("/usr/bin/prosody-migrator").read_text()
    program = tmp_path / "migrator"
    script = script.replace("CFG_DATADIR='/var/lib/prosody'", f"CFG_DATADIR='{out}'")
    program.write_text(script.replace("startup.switch_user();", ""))  # as root it would lose the test's folder
    stores = '{ "accounts", "roster", "vcard" }'
    side = f'hosts = {{ ["old.test"] = {stores}; }}'
    (tmp_path / "migrator.cfg.lua").write_text(
        f'input {{ {side}; type = "internal"; path = "{data.parent}"; }}\noutput {{ {side}; type = "xep0227"; }}\n'
    )
    lua = shutil.which("lua5.4") or "lua"
    done = subprocess.run(
        [lua, str(program), f"--config={tmp_path}/migrator.cfg.lua", "input", "output"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    export = out / "carol@old.test.xml"
    assert export.exists(), done.stdout + done.stderr
    (answer,) = await running.take(export)
    assert answer["account"] == "added"
    assert answer["new"] == {"contacts": 1, "requests": 1, "vCard": 1}
    (again,) = await running.take(export)
    assert (again["account"], again["conflicts"]) == ("same", [])
    assert not any(again["new"].values())
    # Her password is known as SHA-1 alone: that is what is offered, until it is seen and known in every form.
    carol = await running.house.client("carol", "c").connect(password="carol's")
    assert carol.mechanism.startswith("SCRAM-SHA-1")
    roster = (await carol.request(f"<query xmlns='{ns.ROSTER}'/>")).elements()[0]
    assert [item.get("jid") for item in roster.elements()] == ["dave@old.test"]
    assert await running.people.users.verify_password("carol@old.test", "carol's")
    again_later = await running.house.client("carol", "d").connect(password="carol's")
    assert again_later.mechanism.startswith("SCRAM-SHA-256")


def _dat(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def test_nodes_and_archives_move_out_and_in(tmp_path: Path, running: Running) -> None:
    given = tmp_path / "given.xml"
    message = (
        "<message xmlns='jabber:client' from='a@far.test/x' to='erin@old.test' type='chat' id='{0}'>"
        "<body>{0}</body></message>"
    )
    results = "".join(
        f"<result xmlns='urn:xmpp:mam:2' id='{n}'><forwarded xmlns='urn:xmpp:forward:0'>"
        f"<delay xmlns='urn:xmpp:delay' stamp='{year}-01-02T03:04:05Z'/>{message.format(n)}</forwarded></result>"
        for n, year in enumerate((2015, 2021, 2021, 2021, 2022))
    )
    given.write_text(
        f"<server-data xmlns='{PIE}'><host jid='old.test'><user name='erin' password='short'>"
        f"<pubsub xmlns='{ns.PUBSUB_OWNER}'><configure node='n'><x xmlns='jabber:x:data' type='submit'>"
        "<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#node_config</value></field>"
        "<field var='pubsub#max_items'><value>2</value></field><field var='pubsub#strange'><value>1</value></field>"
        f"<field var='pubsub#access_model'><value>open</value></field></x></configure></pubsub>"
        f"<pubsub xmlns='{ns.PUBSUB}'><items node='n'>"
        + "".join(f"<item id='{n}'><p xmlns='test:p'>{n}</p></item>" for n in range(4))
        + f"</items></pubsub><archive xmlns='{PIE}#mam'>{results}</archive></user></host></server-data>"
    )
    for new in ({"nodes": 1, "items": 2, "archived": 5}, {}):
        (answer,) = await running.take(given)
        assert {kind: number for kind, number in answer["new"].items() if number} == new
        assert answer["conflicts"] == []
    exported = await running.api.get("/chat/export", params={"user": "erin@old.test"})
    out = tmp_path / "out.xml"
    out.write_bytes(exported.content)
    text = exported.text
    assert text.index("2015-01-02") < text.index("2021-01-02") < text.index("2022-01-02")
    assert [text.count(f"<body>{n}</body>") for n in range(5)] == [1] * 5
    assert text.index("<body>1</body>") < text.index("<body>2</body>") < text.index("<body>3</body>")
    (back,) = await running.take(out)
    assert back["account"] == "same"
    assert back["same"] == {"nodes": 1, "items": 2, "archived": 5}
    assert (await running.api.get("/chat/export", params={"user": "nobody@old.test"})).status_code == 404


async def test_bookmarks_in_personal_eventing_become_those_of_everybody(tmp_path: Path, running: Running) -> None:
    given = tmp_path / "given.xml"
    given.write_text(
        f"<server-data xmlns='{PIE}'><host jid='old.test'><user name='erin' password='long enough'>"
        f"<pubsub xmlns='{ns.PUBSUB}'><items node='{ns.STORAGE_BOOKMARKS}'><item id='current'>"
        f"<storage xmlns='{ns.STORAGE_BOOKMARKS}'><conference jid='a@rooms.old.test'/></storage></item></items>"
        "</pubsub></user></host></server-data>"
    )
    for new in ({"private": 1}, {}):
        (answer,) = await running.take(given)
        assert {kind: number for kind, number in answer["new"].items() if number} == new
        assert (answer["conflicts"], answer["left"]) == ([], {})
    exported = await running.api.get("/chat/export", params={"user": "erin@old.test"})
    assert f"<items node='{ns.BOOKMARKS}'><item id='a@rooms.old.test'>" in exported.text
