"""Two Moim sites, each found by the other's own name server: people of both with slixmpp, unmodified."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from slixmpp import JID
from slixmpp.exceptions import IqError

from admin_api import AdminApi
from federated_sites import two_sites
from federation_person import Person
from moim.settings import load_frame
from port_forward import PortForward
from running_site import RunningSite

ALICE, BOB, CAROL = "alice@a.test", "bob@b.test", "carol@b.test"
POLICIES = """
[chat.policies.inner]
federation = false
archive = false
uploads_file_bytes = 1000
password_changes = false
"""
Sites = tuple[RunningSite, RunningSite]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    # b is behind a NAT: others are told of another name, address and port, which alone leads to its edge.
    gate = PortForward()
    advertised = f'advertised_host = "gate.b.test"\nadvertised_port = {gate.port}\n'
    record = f'[[names.records]]\nname = "gate"\ntype = "A"\nvalue = "{gate.address}"\n'
    a, b = two_sites(tmp_path_factory.mktemp("federated"), trusting=True, a_more=POLICIES, b_more=advertised + record)
    gate.target = (load_frame(b.root).settings.nodes.edge.address, 15269)
    yield a, b
    for site in (a, b):
        site.stop()
    gate.close()


@pytest.fixture
async def people(sites: Sites) -> AsyncIterator[dict[str, Person]]:
    a, b = sites
    found = {address: Person.of(a if address.endswith("a.test") else b, address) for address in (ALICE, BOB, CAROL)}
    yield found
    for person in found.values():
        await person.leave()


async def test_contacts_presence_chat_and_a_room_across_domains(sites: Sites, people: dict[str, Person]) -> None:
    a, b = sites
    alice, bob, carol = people[ALICE], people[BOB], people[CAROL]
    await asyncio.gather(alice.sign_in(*a.place("xmpp-client")), bob.sign_in(*b.place("xmpp-client")))
    await alice.befriend(bob)

    alice.send_message(BOB, "hello", mtype="chat")
    assert await bob.chat() == (ALICE, "hello")
    bob.send_message(ALICE, "hello yourself", mtype="chat")
    assert await alice.chat() == (BOB, "hello yourself")

    await bob.plugin["xep_0118"].publish_tune(title="la la")
    await alice.hears_of(BOB, "la la")

    room = "meeting@rooms.a.test"
    await alice.open_room(room, "alice")
    await bob.join(room, "bob")
    bob.send_message(room, "from afar", mtype="groupchat")
    await alice.says("bob", "from afar")
    alice.send_message(room, "from here", mtype="groupchat")
    await bob.says("alice", "from here")

    info = await bob.plugin["xep_0030"].get_info(jid="a.test", timeout=15)
    assert ("server", "im") in {(kind[0], kind[1]) for kind in info["disco_info"]["identities"]}

    # Somebody who is away gets it later.
    alice.send_message(CAROL, "for later", mtype="chat")
    await carol.sign_in(*b.place("xmpp-client"))
    assert await carol.chat() == (ALICE, "for later")

    await bob.leave()
    await alice.sees(BOB, "gone")

    peers = AdminApi(a.root).get("/federation/peers")["peers"]
    peer = next(one for one in peers if one["domain"] == "b.test")
    open_streams = [one for one in peer["streams"] if one["state"] == "open"]
    assert {one["certificate"] for one in open_streams} == {"pkix"}
    assert {one["authenticatedBy"] for one in open_streams} == {"external"}
    assert open_streams[0]["tls"]["version"] == "TLSv1.3"
    assert {one["host"] for one in open_streams if one["openedBy"] == "us"} == {"gate.b.test"}


async def test_a_policy_set_while_running_counts_and_the_sender_hears_why(
    sites: Sites, people: dict[str, Person]
) -> None:
    a, _ = sites
    alice = people[ALICE]
    await alice.sign_in(*a.place("xmpp-client"))
    api = AdminApi(a.root)
    api.put("/federation/policies/b.test", {"access": "deny"})
    alice.send_message(BOB, "hello?", mtype="chat")
    condition, text = await alice.error()
    assert condition == "not-allowed"
    assert "exchanges nothing with b.test" in text
    api.delete("/federation/policies/b.test")
    alice.send_message("somebody@nowhere.test", "hello?", mtype="chat")
    condition, text = await alice.error()
    assert condition == "remote-server-timeout"
    assert "nowhere.test" in text


async def test_what_one_person_may_not_and_another_may(sites: Sites, people: dict[str, Person]) -> None:
    """While signed in: no other domain, no large file, no archive, no new password; and all of it again."""
    a, b = sites
    alice, bob, neighbour = people[ALICE], people[BOB], Person.of(a, "carol@a.test")
    people["neighbour"] = neighbour
    for plugin in ("xep_0077", "xep_0313", "xep_0363"):
        alice.register_plugin(plugin)
        neighbour.register_plugin(plugin)
    await asyncio.gather(alice.sign_in(*a.place("xmpp-client")), bob.sign_in(*b.place("xmpp-client")))
    await neighbour.sign_in(*a.place("xmpp-client"))

    async def heard(sender: Person, to: Person, text: str) -> None:
        sender.send_message(to.boundjid.bare, text, mtype="chat")
        assert await to.chat() == (sender.boundjid.bare, text)

    async def archived(person: Person, other: Person) -> set[str]:
        answer = await person.plugin["xep_0313"].retrieve(with_jid=other.boundjid.bare)
        return {str(one["mam_result"]["forwarded"]["stanza"]["body"]) for one in answer["mam"]["results"]}

    async def slot(person: Person, size: int) -> str:
        try:
            answer = await person.plugin["xep_0363"].request_slot(JID("upload.a.test"), "a.txt", size)
        except IqError as error:
            return str(error.condition)
        return "ok" if answer["http_upload_slot"]["put"]["url"] else "?"

    await heard(alice, bob, "before")  # from here on the streams are open, and what follows goes the short way
    await heard(bob, alice, "before")
    await heard(alice, neighbour, "on record")
    shown = json.loads((await asyncio.to_thread(a.moim, "user", "policy", ALICE, "inner", "--json")).stdout)
    assert (shown["policy"], shown["by"]) == ("inner", "person")
    assert {"key": "federation", "value": False, "from": "policy inner"} in shown["limits"]

    alice.send_message(BOB, "out", mtype="chat")
    assert (await alice.error())[0] == "forbidden"
    bob.send_message(ALICE, "in", mtype="chat")
    assert (await bob.error())[0] == "service-unavailable"
    assert (await slot(alice, 1001), await slot(neighbour, 1001)) == ("not-acceptable", "ok")
    await heard(alice, neighbour, "off the record")
    with pytest.raises(IqError, match="service-unavailable"):
        await archived(alice, neighbour)
    with pytest.raises(IqError, match="service-unavailable"):
        await alice.plugin["xep_0077"].change_password("another password")
    await heard(neighbour, alice, "from the neighbour")

    await asyncio.to_thread(a.moim, "user", "policy", ALICE, "--clear")
    await heard(alice, bob, "after")
    await heard(bob, alice, "after")
    assert await slot(alice, 1001) == "ok"
    assert await archived(alice, neighbour) == {"on record"}
    assert await archived(neighbour, alice) == {"on record", "off the record", "from the neighbour"}


def test_policies_by_command(sites: Sites, tmp_path: Path) -> None:
    a, _ = sites
    unknown = a.moim("user", "policy", ALICE, "outer", check=False)
    assert unknown.returncode == 2
    assert "there is no policy 'outer'" in unknown.stderr
    assert "there are: inner" in unknown.stderr
    nobody = a.moim("user", "policy", "nobody@a.test", "inner", check=False)
    assert nobody.returncode == 4
    assert "there is no user nobody@a.test" in nobody.stderr
    people = tmp_path / "people.csv"
    people.write_text("address,password,policy\nerin@a.test,password-1,inner\nfrank@a.test,password-2,outer\n")
    assert "line 3: there is no policy 'outer'" in a.moim("user", "import", str(people), check=False).stderr
    shown = a.moim("user", "policy", "erin@a.test").stdout
    assert "erin@a.test has the policy 'inner'." in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["uploads_file_bytes", "1000", "policy", "inner"] in rows
    assert ["archive_days", "365", "default"] in rows
    listed = a.moim("chat", "policies").stdout
    assert "uploads_file_bytes = 1000" in listed
    AdminApi(a.root).delete("/users/erin%40a.test")


def test_the_check_says_that_messages_go_both_ways(sites: Sites) -> None:
    a, _ = sites
    AdminApi(a.root).delete("/federation/peers/b.test")
    done = a.moim("federation", "check", "b.test", "--json")
    found = json.loads(done.stdout)
    AdminApi(a.root).delete("/federation/peers/b.test")
    *steps, last = AdminApi(a.root).post_lines("/federation/check", {"domain": "b.test"})
    assert last == found, "the command tells what the admin API tells"
    assert steps == found["steps"]
    AdminApi(a.root).delete("/federation/peers/b.test")
    spoken = a.moim("federation", "check", "b.test").stdout.splitlines()
    assert spoken[:-2] == [f"ok  {step['text']}" if step["state"] == "ok" else f"!!  {step['text']}" for step in steps]
    assert spoken[-2:] == ["", found["verdict"]]
    assert found["verdict"] == "Messages between a.test and b.test go both ways.", done.stdout + a.logs()
    said = {step["what"]: step for step in found["steps"]}
    assert said["port in"]["state"] == "ok", said["port in"]
    assert "TLSv1.3" in said["port in"]["text"]
    assert said["certificate"]["text"] == "the certificate proves b.test (pkix)"
    assert said["dialback to them"]["state"] == said["dialback to us"]["state"] == "ok"


def test_the_check_of_a_domain_that_is_not_there(sites: Sites) -> None:
    a, _ = sites
    done = a.moim("federation", "check", "nowhere.test", check=False)
    assert done.returncode == 1
    assert "Nothing is exchanged with nowhere.test" in done.stdout
    assert "Next step:" in done.stdout


def test_policies_and_status_by_command(sites: Sites) -> None:
    a, _ = sites
    refused = a.moim("federation", "policy", "set", "x.test", "--certificates", "off", "--dialback", "off", check=False)
    assert refused.returncode == 2
    assert "nobody could prove a domain" in refused.stderr
    shown = json.loads(a.moim("federation", "policy", "set", "*.x.test", "--tls", "optional", "--json").stdout)
    assert shown["set"] == {"tls": "optional"}
    assert "a.test, rooms.a.test" in a.moim("federation", "status").stdout
