"""One site for two domains, as the real program runs it: names, certificates, sign-ins, chat, rooms, files."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from federated_sites import make_site
from federation_person import Person
from running_site import RunningSite
from slixmpp_client import Client

FIRST, SECOND = "first.test", "second.test"
ALICE, NAMESAKE, CAROL = f"alice@{FIRST}", f"alice@{SECOND}", f"carol@{SECOND}"
PASSWORDS = {NAMESAKE: "second to none", CAROL: "at the second"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    """A running site of two domains, with people in each."""
    site, _ = make_site(tmp_path_factory.mktemp("domains") / "site", FIRST, hosted=[SECOND])
    for address, password in PASSWORDS.items():
        site.moim("user", "add", address, "--password-file", "-", text=f"{password}\n")
    site.start()
    yield site
    site.stop()


def person(site: RunningSite, address: str) -> Person:
    return Person(address, (site.passwords | PASSWORDS)[address], ca=site.ca)


@pytest.fixture
async def people(both: RunningSite) -> AsyncIterator[dict[str, Person]]:
    """Everybody, not signed in yet."""
    found = {address: person(both, address) for address in (ALICE, NAMESAKE, CAROL)}
    yield found
    for one in found.values():
        await one.leave()


def srv(where: tuple[str, int], name: str) -> str:
    dig = ["dig", f"@{where[0]}", "-p", str(where[1]), "+short", name, "SRV"]
    return subprocess.run(dig, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


def test_the_name_server_has_both_zones(both: RunningSite) -> None:
    places = {one["name"]: (one["address"], one["port"]) for one in both.status()["services"]}
    inside, outside = places["dns-inside"], places["dns-outside"]
    client, edge, server = (places[name][1] for name in ("xmpp-client", "edge-https", "xmpp-server"))
    for domain in (FIRST, SECOND):
        assert srv(inside, f"_xmpp-client._tcp.{domain}") == f"0 0 {client} inside.{FIRST}."
        assert srv(outside, f"_xmpp-client._tcp.{domain}") == f"0 0 {client} edge.{FIRST}."
        assert srv(outside, f"_collab-edge._tls.{domain}") == f"0 0 {edge} edge.{FIRST}."
        for name in (domain, f"rooms.{domain}", f"upload.{domain}"):
            assert srv(inside, f"_xmpp-server._tcp.{name}") == f"0 0 {server} inside.{FIRST}."


@pytest.mark.parametrize(
    ("service", "domain"),
    [
        *((service, domain) for service in ("xmpp-client", "edge-xmpp", "xmpp-server") for domain in (FIRST, SECOND)),
        ("xmpp-server", f"rooms.{SECOND}"),
    ],
)
def test_certificates_name_both(both: RunningSite, service: str, domain: str) -> None:
    address, port = both.place(service)
    kind = "xmpp-server" if service == "xmpp-server" else "xmpp"
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{address}:{port}", "-CAfile", str(both.ca), "-verify_return_error",
         "-verify_hostname", domain, "-servername", domain, "-starttls", kind, "-xmpphost", domain],
        input="", capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr


async def test_people_of_two_domains_with_an_ordinary_client(both: RunningSite, people: dict[str, Person]) -> None:
    alice, namesake, carol = (people[address] for address in (ALICE, NAMESAKE, CAROL))
    places = both.place("xmpp-client"), both.place("edge-xmpp"), both.place("xmpp-client")
    await asyncio.gather(*(one.sign_in(*place) for one, place in zip((alice, namesake, carol), places, strict=True)))
    await alice.befriend(carol)
    alice.send_message(NAMESAKE, "are you me?", mtype="chat")
    assert await namesake.chat() == (ALICE, "are you me?")
    namesake.send_message(ALICE, "another one", mtype="chat")
    assert await alice.chat() == (NAMESAKE, "another one")
    await carol.plugin["xep_0118"].publish_tune(title="next door")
    await alice.hears_of(CAROL, "next door")
    room = f"hall@rooms.{SECOND}"
    await carol.open_room(room, "carol")
    await alice.join(room, "alice")
    alice.send_message(room, "through the wall", mtype="groupchat")
    await carol.says("alice", "through the wall")
    await carol.leave()
    await alice.sees(CAROL, "gone")


async def test_a_wrong_domain_is_refused(both: RunningSite) -> None:
    for address, password in ((f"carol@{FIRST}", PASSWORDS[CAROL]), (NAMESAKE, both.passwords[ALICE])):
        stranger = Client(both, address, password=password)
        gone = asyncio.Event()
        stranger.add_event_handler("disconnected", lambda _, gone=gone: gone.set())
        stranger.enable_starttls, stranger.enable_direct_tls = True, False
        stranger.connect(*both.place("xmpp-client"))
        await asyncio.wait_for(stranger.failed.wait(), 20)
        await asyncio.wait_for(gone.wait(), 20)  # slixmpp leaves by itself


def test_the_web_app_lets_both_in(both: RunningSite) -> None:
    with httpx.Client(base_url=both.status()["web"], trust_env=False) as web:
        for address, password, status in (
            (NAMESAKE, PASSWORDS[NAMESAKE], 200),
            (NAMESAKE, both.passwords[ALICE], 401),
            (ALICE, both.passwords[ALICE], 200),
            (f"alice@{FIRST}.example", both.passwords[ALICE], 401),
        ):
            answer = web.post("/api/login", json={"address": address, "password": password})
            assert answer.status_code == status
            if status == 200:
                assert answer.json()["address"] == address
        assert web.get("/.well-known/host-meta", headers={"Host": SECOND}).status_code == 200


@pytest.mark.parametrize("view", ["inside", "outside"])
def test_discovery_finds_the_way_for_an_address_of_the_second(both: RunningSite, view: str, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORDS[CAROL]}\n")
    dns = "{}:{}".format(*both.place(f"dns-{view}"))
    words = ("discover", CAROL, "--dns", dns, "--ca", str(both.ca), "--password-file", str(secret), "--json")
    found = json.loads(both.moim(*words).stdout)
    assert found["location"] == view
    assert found["signed_in"]


def test_people_are_listed_by_address_and_foreign_ones_are_refused(both: RunningSite) -> None:
    listed = {one["address"] for one in json.loads(both.moim("user", "list", "--json").stdout)}
    assert {ALICE, NAMESAKE, CAROL} <= listed
    refused = both.moim("user", "add", "dave@third.test", "--password-file", "-", check=False, text="long enough\n")
    assert refused.returncode != 0
    assert f"addresses here end in @{FIRST} or @{SECOND}" in " ".join(refused.stderr.split())
