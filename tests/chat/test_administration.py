"""Administering the server from a client: who may, what the forms say, and that it happens."""

from __future__ import annotations

from typing import Any

import pytest

from moim.chat.commands import COMMANDS
from moim.proto.xmpp import ns
from moim.proto.xmpp.dataform import read_form
from stanza_parts import child

ADMIN = "http://jabber.org/protocol/admin"


@pytest.fixture
async def house(new_house: Any) -> Any:
    return await new_house(default_contacts=False, admins=["alice@chat.test"])


async def ask(client: Any, command: str, *, session: str = "", action: str = "", **values: Any) -> Any:
    """Sends one request of a command; gives the whole answer."""
    fields = "".join(
        f"<field var='{var.replace('password_', 'password-')}'>"
        + "".join(f"<value>{text}</value>" for text in ([value] if isinstance(value, str) else value))
        + "</field>"
        for var, value in values.items()
    )
    form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{fields}</x>" if values else ""
    attrs = (f" sessionid='{session}'" if session else "") + (f" action='{action}'" if action else "")
    return await client.request(
        f"<command xmlns='{COMMANDS}' node='{ADMIN}#{command}'{attrs}>{form}</command>", kind="set", to="chat.test"
    )


async def do(client: Any, command: str, **values: Any) -> Any:
    """Opens a command's form and submits it; gives the last ``command`` element."""
    begun = (await ask(client, command)).find("command", COMMANDS)
    answer = (await ask(client, command, session=begun.get("sessionid"), **values)).find("command", COMMANDS)
    assert answer is not None
    return answer


def note(command: Any) -> Any:
    found = command.find("note", COMMANDS)
    return found.text if found is not None else ""


async def test_the_commands_are_listed_for_administrators_only(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    query = f"<query xmlns='{ns.DISCO_ITEMS}' node='{COMMANDS}'/>"
    items = (await alice.request(query, to="chat.test")).find("query", ns.DISCO_ITEMS).elements()
    assert f"{ADMIN}#add-user" in {item.get("node") for item in items}
    assert {item.get("jid") for item in items} == {"chat.test"}
    refused = await bob.request(query, to="chat.test")
    assert refused.find("error").find("item-not-found", ns.STANZA_ERRORS) is not None
    info = f"<query xmlns='{ns.DISCO_INFO}' node='{ADMIN}#add-user'/>"
    identity = (await alice.request(info, to="chat.test")).find("query", ns.DISCO_INFO).find("identity", ns.DISCO_INFO)
    assert (identity.get("category"), identity.get("type")) == ("automation", "command-node")
    for command in ("add-user", "no-such-command", "get-online-users-num"):
        error = (await ask(bob, command)).find("error")
        assert error.find("forbidden", ns.STANZA_ERRORS) is not None


async def test_the_commands_are_also_at_the_administrators_own_address(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    query = f"<query xmlns='{ns.DISCO_ITEMS}' node='{COMMANDS}'/>"
    listed = (await alice.request(query, to="alice@chat.test")).find("query", ns.DISCO_ITEMS).elements()
    assert (f"{ADMIN}#add-user", "alice@chat.test") in {(item.get("node"), item.get("jid")) for item in listed}
    count = f"<command xmlns='{COMMANDS}' node='{ADMIN}#get-online-users-num'/>"
    counted = await alice.request(count, kind="set", to="alice@chat.test")
    assert counted.find("command", COMMANDS).get("status") == "completed"
    assert (await bob.request(query, to="bob@chat.test")).find("query", ns.DISCO_ITEMS).elements() == []
    for to, condition in (("bob@chat.test", "forbidden"), ("alice@chat.test", "service-unavailable")):
        refused = await bob.request(count, kind="set", to=to)
        assert refused.find("error").find(condition, ns.STANZA_ERRORS) is not None
    hidden = await bob.request(query, to="alice@chat.test")
    assert hidden.find("query", ns.DISCO_ITEMS).elements() == []


async def test_without_administrators_there_are_no_commands(new_house: Any) -> None:
    house = await new_house()
    alice = await house.online("alice")
    info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="chat.test")).find("query", ns.DISCO_INFO)
    assert COMMANDS not in {child.get("var") for child in info.elements()}
    assert (await ask(alice, "add-user")).find("error").find("service-unavailable", ns.STANZA_ERRORS) is not None


async def test_a_person_is_added_and_signs_in(house: Any) -> None:
    alice = await house.online("alice")
    form = (await ask(alice, "add-user")).find("command", COMMANDS)
    assert form.get("status") == "executing"
    asked = {f.get("var"): f for f in form.find("x", ns.DATA_FORMS).elements() if f.name == "field"}
    assert asked["password"].get("type") == "text-private"
    assert asked["accountjid"].find("required", ns.DATA_FORMS) is not None
    done = await do(
        alice, "add-user", accountjid="Dave@chat.test", password="long enough", password_verify="long enough"
    )
    assert done.get("status") == "completed"
    assert note(done) == "dave@chat.test was added"
    dave = await house.online("dave")
    assert dave.jid.startswith("dave@chat.test/")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"accountjid": "dave@chat.test", "password": "one", "password_verify": "two"}, "differ"),
        ({"accountjid": "dave@elsewhere.test", "password": "one", "password_verify": "one"}, "not an account of"),
        ({"accountjid": "@@", "password": "one", "password_verify": "one"}, "is not an address"),
        ({"accountjid": "bob@chat.test", "password": "one", "password_verify": "one"}, "exists already"),
        ({"accountjid": "dave@chat.test", "password": "one"}, "missing: Password once more"),
    ],
)
async def test_a_mistake_keeps_the_form_open(house: Any, values: dict[str, str], said: str) -> None:
    alice = await house.online("alice")
    again = await do(alice, "add-user", **values)
    assert again.get("status") == "executing"
    assert said in note(again)
    right = {"accountjid": "dave@chat.test", "password": "long enough", "password_verify": "long enough"}
    done = (await ask(alice, "add-user", session=again.get("sessionid"), **right)).find("command", COMMANDS)
    assert done.get("status") == "completed"


async def test_forms_belong_to_who_opened_them(house: Any) -> None:
    alice, other = await house.online("alice", "one"), await house.online("alice", "two")
    session = (await ask(alice, "delete-user")).find("command", COMMANDS).get("sessionid")
    stolen = (await ask(other, "delete-user", session=session, accountjids="bob@chat.test")).find("error")
    assert stolen.find("bad-sessionid", COMMANDS) is not None
    wrong = (await ask(alice, "add-user", session=session, accountjid="x@chat.test")).find("error")
    assert wrong.find("bad-sessionid", COMMANDS) is not None
    cancelled = (await ask(alice, "delete-user", session=session, action="cancel")).find("command", COMMANDS)
    assert cancelled.get("status") == "canceled"
    late = (await ask(alice, "delete-user", session=session, accountjids="bob@chat.test")).find("error")
    assert late.find("bad-sessionid", COMMANDS) is not None
    assert "bob" in house.users.passwords


async def test_people_are_removed_and_passwords_changed(house: Any) -> None:
    alice = await house.online("alice")
    assert note(await do(alice, "delete-user", accountjids=["bob@chat.test"])) == "removed: bob@chat.test"
    assert "bob" not in house.users.passwords
    assert "there is no" in note(await do(alice, "delete-user", accountjids=["bob@chat.test"]))
    await do(alice, "change-user-password", accountjid="carol@chat.test", password="another one")
    assert house.users.passwords["carol"] == "another one"


async def test_sessions_are_shown_and_ended(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob", "phone")
    stats = (await do(alice, "user-stats", accountjid="bob@chat.test")).find("x", ns.DATA_FORMS)
    assert read_form(stats)[1]["onlineresources"] == ("phone",)
    online = await do(alice, "get-online-users-list", max_items="none")
    assert read_form(online.find("x", ns.DATA_FORMS))[1]["onlineuserjids"] == ("alice@chat.test", "bob@chat.test")
    number = (await ask(alice, "get-registered-users-num")).find("command", COMMANDS)
    assert read_form(number.find("x", ns.DATA_FORMS))[1]["registeredusersnum"] == ("3",)
    await do(alice, "end-user-session", accountjids=["bob@chat.test"])
    ended = await bob.ended()
    assert ended.condition == "policy-violation"


async def test_a_single_session_is_ended_by_its_full_address(house: Any) -> None:
    alice, phone, desk = await house.online("alice"), await house.online("bob", "phone"), await house.online("bob", "b")
    done = await do(alice, "end-user-session", accountjids=["bob@chat.test/phone"])
    assert (done.get("status"), note(done)) == ("completed", "no longer connected: bob@chat.test/phone")
    assert (await phone.ended()).condition == "policy-violation"
    await desk.sync()
    assert "is not connected" in note(await do(alice, "end-user-session", accountjids=["bob@chat.test/phone"]))
    refused = await do(alice, "delete-user", accountjids=["bob@chat.test/b"])
    assert "is not an account of" in note(refused)


async def test_lists_ask_how_many_are_wanted(house: Any) -> None:
    for number in range(30):
        house.users.passwords[f"user{number:02}"] = "secret"
    alice = await house.online("alice")
    begun = (await ask(alice, "get-registered-users-list")).find("command", COMMANDS)
    assert begun.get("status") == "executing"
    [field] = [f for f in begun.find("x", ns.DATA_FORMS).elements() if f.get("var") == "max_items"]
    options = [child(option, "value").text for option in field.elements() if option.name == "option"]
    assert (field.get("type"), options) == ("list-single", ["25", "50", "75", "100", "150", "200", "none"])
    done = await do(alice, "get-registered-users-list", max_items="25")
    assert len(read_form(done.find("x", ns.DATA_FORMS))[1]["registereduserjids"]) == 25
    assert note(done) == "and 8 more"
    whole = await do(alice, "get-registered-users-list", max_items="none")
    assert len(read_form(whole.find("x", ns.DATA_FORMS))[1]["registereduserjids"]) == 33
    assert "max_items is one of these" in note(await do(alice, "get-registered-users-list", max_items="26"))


async def test_everybody_online_hears_an_announcement(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    assert note(await do(alice, "announce", announcement=["At noon", "we restart"])) == "sent to 2 sessions"
    message = await bob.receive()
    assert (message.get("from"), message.get("type")) == ("chat.test", "headline")
    assert message.find("body").text == "At noon\nwe restart"


async def greeted(house: Any, name: str) -> list[str]:
    """What somebody is told who becomes available with another program."""
    client = await house.client(name, "").connect()
    client.send("<presence/>")
    await client.sync()
    told = []
    while not client.inbox.empty():
        stanza = client.inbox.get_nowait()
        if stanza.name == "message":
            told.append(stanza.find("body").text)
    return told


async def test_the_message_of_the_day_is_told_once_to_everybody(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    assert "told 2 people" in note(await do(alice, "set-motd", motd="오늘은 점검이 있습니다"))
    got = await bob.receive()
    assert (got.get("type"), got.get("from"), child(got, "body").text) == (
        "headline", "chat.test", "오늘은 점검이 있습니다",
    )  # fmt: skip
    begun = (await ask(alice, "edit-motd")).find("command", COMMANDS)
    assert read_form(begun.find("x", ns.DATA_FORMS))[1]["motd"] == ("오늘은 점검이 있습니다",)
    assert "not told again" in note(await do(alice, "edit-motd", motd="점검이 끝났습니다"))
    await bob.quiet()
    assert await greeted(house, "bob") == []
    assert await greeted(house, "carol") == ["점검이 끝났습니다"]
    assert await greeted(house, "carol") == []


async def test_a_new_message_of_the_day_is_new_to_everybody_and_a_deleted_one_to_nobody(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    for text in ("one", "two"):
        await do(alice, "set-motd", motd=text)
        assert child(await bob.receive(), "body").text == text
    done = (await ask(alice, "delete-motd")).find("command", COMMANDS)
    assert done.get("status") == "completed"
    assert await greeted(house, "carol") == []
    assert "there is no message of the day" in note(await do(alice, "edit-motd", motd="three"))
    assert "1 to 5000" in note(await do(alice, "set-motd", motd="x" * 5001))


async def test_the_message_of_the_day_survives_a_restart(house: Any) -> None:
    alice = await house.online("alice")
    await do(alice, "set-motd", motd="one")
    await alice.close()
    await house.restart()
    assert (await greeted(house, "alice"), await greeted(house, "bob")) == ([], ["one"])
