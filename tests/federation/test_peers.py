"""A real Prosody and a real ejabberd as the other domain, each way: contacts, chat, rooms; TLS or not; refusals."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from admin_api import AdminApi
from ejabberd_server import EjabberdServer
from federated_sites import federation_toml, make_site, start_all
from federation_person import Person
from moim.proto.xmpp import Element, ns
from peer_certificates import CLIENT, SERVER, Made, authority, leaf
from prosody_server import ProsodyServer
from raw_server import RawServer, contexts, listening
from raw_xmpp import RawXmpp
from running_site import RunningSite
from tiny_dns import TinyDns

DOMAIN, SECOND, OTHER, WRONG = "moim.test", "second.test", "other.test", "wrong.test"
BRIEF, SILENT = "brief.test", "silent.test"
ALICE, NAMESAKE, ROMEO = f"alice@{DOMAIN}", f"alice@{SECOND}", f"romeo@{OTHER}"
PASSWORD = "correct horse"

pytestmark = pytest.mark.interop


@dataclass
class Two:
    """The site and the other server."""

    site: RunningSite
    other: ProsodyServer | EjabberdServer
    authority: Made
    dns: TinyDns

    def streams(self, domain: str = OTHER) -> list[dict[str, object]]:
        peers = AdminApi(self.site.root).get("/federation/peers")["peers"]
        found: list[dict[str, object]] = next((one["streams"] for one in peers if one["domain"] == domain), [])
        return [one for one in found if one["state"] == "open"]

    def policy(self, domain: str, **given: object) -> None:
        AdminApi(self.site.root).put(f"/federation/policies/{domain}", given)

    def default(self, *domains: str) -> None:
        for domain in domains:
            AdminApi(self.site.root).delete(f"/federation/policies/{domain}")


@pytest.fixture(scope="module", params=["prosody", "ejabberd"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp(request.param)
    root = authority("The peers' authority")
    own = leaf([OTHER, f"rooms.{OTHER}"], root)
    (folder / "peers.pem").write_bytes(root.chain_pem)
    dns = TinyDns()
    toml = federation_toml(resolvers=dns.place, trusted=folder / "peers.pem")
    site, inside = make_site(folder / "site", DOMAIN, toml, hosted=[SECOND])
    site.moim("user", "add", NAMESAKE, "--password-file", "-", text=f"{PASSWORD}\n")
    ours = [name for domain in (DOMAIN, SECOND) for name in (domain, f"rooms.{domain}")]
    for name in ours:
        # ejabberd asks the system about targets, which knows the names of this test's name server not at all.
        dns.add(f"_xmpp-server._tcp.{name}. 60 IN SRV 0 0 15269 {inside}.")
    dns.add(f"x.{OTHER}. 60 IN A {inside}")
    accounts, trusted = {"romeo": PASSWORD}, (site.root / "ca.pem").read_bytes()
    other: ProsodyServer | EjabberdServer
    if request.param == "prosody":
        places = dict.fromkeys(ours, (inside, 15269))
        other = ProsodyServer(
            folder / "other", OTHER, accounts, places=places, chain=own.chain_pem, key=own.key_pem, trusted=trusted,
            hosts=[WRONG], encrypt=False, address=inside,
        )  # fmt: skip
    else:
        other = EjabberdServer(
            folder / "other", OTHER, accounts, dns=(dns.address, dns.port), chain=own.chain_pem, key=own.key_pem,
            trusted=trusted, hosts=[WRONG], starttls="optional", address=inside,
        )  # fmt: skip
    for name in (OTHER, f"rooms.{OTHER}", WRONG):
        dns.add(f"_xmpp-server._tcp.{name}. 60 IN SRV 0 0 {other.s2s_port} x.{OTHER}.")
    start_all(site, other)
    yield Two(site, other, root, dns)
    other.stop()
    site.stop()
    dns.close()


@pytest.fixture
async def pair(two: Two) -> AsyncIterator[tuple[Person, Person]]:
    alice, romeo = Person.of(two.site, ALICE), Person(ROMEO, PASSWORD)
    await asyncio.gather(
        alice.sign_in(*two.site.place("xmpp-client")), romeo.sign_in(two.other.address, two.other.c2s_port)
    )
    yield alice, romeo
    await asyncio.gather(alice.leave(), romeo.leave())


async def chats(alice: Person, romeo: Person, word: str) -> None:
    """Each says something until the other hears it: ejabberd loses what it writes into a stream that is being closed,
    as each change of a policy does, for it knows no acknowledgements between servers."""
    for one, other, text in ((alice, romeo, f"{word} there"), (romeo, alice, f"{word} back")):
        said = (one.boundjid.bare, text)
        for patience in (5, 10, 20):
            one.send_message(other.boundjid.bare, text, mtype="chat")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while await other.chats.get() != said:
                        pass
                break
        else:
            raise AssertionError(f"{other.boundjid.bare} never hears {said}")


async def test_contacts_chat_and_rooms_each_way(two: Two, pair: tuple[Person, Person]) -> None:
    alice, romeo = pair
    await alice.befriend(romeo)
    await chats(alice, romeo, "first")
    for one, other in ((alice, romeo), (romeo, alice)):
        title = f"a song of {one.boundjid.local}"
        await one.plugin["xep_0118"].publish_tune(title=title)
        await other.hears_of(one.boundjid.bare, title)
    for room, host, guest in (
        (f"ours@rooms.{DOMAIN}", (alice, "alice"), (romeo, "romeo")),
        (f"theirs@rooms.{OTHER}", (romeo, "romeo"), (alice, "alice")),
    ):
        await host[0].open_room(room, host[1])
        await guest[0].join(room, guest[1])
        guest[0].send_message(room, "I am a guest", mtype="groupchat")
        await host[0].says(guest[1], "I am a guest")
        host[0].send_message(room, "welcome", mtype="groupchat")
        await guest[0].says(host[1], "welcome")
    streams = two.streams()
    assert {one["certificate"] for one in streams} == {"pkix"}
    assert {one["authenticatedBy"] for one in streams} == {"external"}
    await romeo.leave()
    await alice.sees(ROMEO, "gone")


async def test_dialback_where_certificates_are_not_looked_at(two: Two, pair: tuple[Person, Person]) -> None:
    two.policy(OTHER, certificates="off")
    await chats(*pair, "dialback")
    assert {one["authenticatedBy"] for one in two.streams()} == {"dialback"}
    assert all(one["tls"] for one in two.streams())
    two.default(OTHER)


@pytest.mark.parametrize(("certificates", "how"), [("required", "external"), ("off", "dialback")])
async def test_people_of_a_second_domain(two: Two, certificates: str, how: str) -> None:
    two.policy(OTHER, certificates=certificates)
    namesake, romeo = Person(NAMESAKE, PASSWORD, ca=two.site.ca), Person(ROMEO, PASSWORD)
    await asyncio.gather(
        namesake.sign_in(*two.site.place("xmpp-client")), romeo.sign_in(two.other.address, two.other.c2s_port)
    )
    namesake.send_message(ROMEO, f"{how} there", mtype="chat")
    assert await romeo.chat() == (NAMESAKE, f"{how} there")
    romeo.send_message(NAMESAKE, f"{how} back", mtype="chat")
    assert await namesake.chat() == (ROMEO, f"{how} back")
    room = f"ours@rooms.{SECOND}"
    await namesake.open_room(room, "namesake")
    await romeo.join(room, "romeo")
    romeo.send_message(room, "I am a guest", mtype="groupchat")
    await namesake.says("romeo", "I am a guest")
    assert {one["authenticatedBy"] for one in two.streams()} == {how}
    pairs = {pair["local"] for one in two.streams() for pair in one["pairs"]}  # type: ignore[attr-defined]
    assert {SECOND, f"rooms.{SECOND}"} <= pairs
    await asyncio.gather(namesake.leave(), romeo.leave())
    two.default(OTHER)


async def test_without_encryption_where_both_say_so(two: Two, pair: tuple[Person, Person]) -> None:
    await chats(*pair, "encrypted")
    assert all(one["tls"] for one in two.streams())
    two.policy(OTHER, tls="off", certificates="off")
    await chats(*pair, "plain")
    assert [one["tls"] for one in two.streams()] == [None] * len(two.streams())
    two.default(OTHER)


async def test_a_wrong_certificate_is_refused_each_way(two: Two, pair: tuple[Person, Person]) -> None:
    alice, _ = pair
    two.policy(WRONG, certificates="required")
    alice.send_message(f"somebody@{WRONG}", "who are you?", mtype="chat")
    condition, text = await alice.error()
    assert condition == "remote-server-timeout"
    assert f"not for {WRONG}" in text
    two.default(WRONG)


async def test_a_domain_that_is_not_allowed(two: Two, pair: tuple[Person, Person]) -> None:
    alice, romeo = pair
    two.policy(OTHER, access="deny")
    alice.send_message(ROMEO, "hello?", mtype="chat")
    assert (await alice.error())[0] == "not-allowed"
    romeo.send_message(ALICE, "hello?", mtype="chat")
    condition, _ = await romeo.error()
    assert condition in ("remote-server-not-found", "remote-server-timeout", "policy-violation", "not-authorized")
    assert alice.chats.empty()
    two.default(OTHER)


def test_the_check_finds_nothing_wrong(two: Two) -> None:
    api = AdminApi(two.site.root)
    api.delete(f"/federation/peers/{OTHER}")
    *steps, verdict = api.post_lines("/federation/check", {"domain": OTHER})
    assert verdict["ok"], verdict
    assert verdict["verdict"] == f"Messages between {DOMAIN} and {OTHER} go both ways."
    said = {step["what"]: step["state"] for step in steps}
    assert said["certificate"] == said["dialback to them"] == said["dialback to us"] == said["authentication"] == "ok"


def test_the_check_for_a_second_domain(two: Two) -> None:
    AdminApi(two.site.root).delete(f"/federation/peers/{OTHER}")
    *_, verdict = AdminApi(two.site.root).post_lines("/federation/check", {"domain": OTHER, "from": SECOND})
    assert verdict["verdict"] == f"Messages between {SECOND} and {OTHER} go both ways."
    refused = two.site.moim("federation", "check", OTHER, "--from", "third.test", check=False)
    assert "third.test is not a domain of this site" in refused.stderr
    own = two.site.moim("federation", "check", SECOND, "--from", DOMAIN, check=False)
    assert "both are domains of this site" in own.stderr
    own = two.site.moim("federation", "check", SECOND)
    assert f"{SECOND} is this site's own domain, and others are told to find it here." in own.stdout


@pytest.mark.parametrize("two", ["prosody"], indirect=True)  # ejabberd counts nothing between servers
async def test_what_a_frozen_peer_took_arrives_when_it_is_back(two: Two, pair: tuple[Person, Person]) -> None:
    assert isinstance(two.other, ProsodyServer)
    alice, romeo = pair
    await chats(alice, romeo, "before")
    two.other.freeze()
    alice.send_message(ROMEO, "into the kernel", mtype="chat")
    await alice.plugin["xep_0199"].ping(DOMAIN)  # whoever answers this has sent what came before
    await asyncio.to_thread(two.other.kill)
    await asyncio.to_thread(two.other.start)
    again = Person(ROMEO, PASSWORD)
    await again.sign_in(two.other.address, two.other.c2s_port)
    assert await again.chat() == (ALICE, "into the kernel")
    await again.leave()


@pytest.mark.parametrize("two", ["prosody"], indirect=True)  # no server starts within the life of the certificate
async def test_streams_end_with_the_certificates_that_opened_them(two: Two, tmp_path: Path) -> None:
    two.policy(BRIEF, certificates="required")
    alice = Person.of(two.site, ALICE)
    await alice.sign_in(*two.site.place("xmpp-client"))
    made = leaf([BRIEF], two.authority, usages=(SERVER, CLIENT), end=datetime.now(UTC) + timedelta(seconds=6))
    connecting, accepting = contexts(made, two.site.ca, tmp_path)
    listener, opened = await listening(DOMAIN, BRIEF, accepting)
    host, port = listener.sockets[0].getsockname()
    two.dns.add(f"_xmpps-server._tcp.{BRIEF}. 60 IN SRV 0 0 {port} x.{BRIEF}.", f"x.{BRIEF}. 60 IN A {host}")

    theirs = await RawServer.open(two.site.place("xmpp-server-tls"), DOMAIN, connecting, sender=BRIEF)
    assert isinstance(theirs, RawServer)
    await theirs.external(BRIEF)
    theirs.say(f"<message from='x@{BRIEF}' to='{ALICE}' type='chat'><body>in</body></message>")
    assert await alice.chat() == (f"x@{BRIEF}", "in")
    alice.send_message(f"x@{BRIEF}", "out", mtype="chat")
    ours = await asyncio.wait_for(opened, 10)
    assert (await ours.until("message")).find("body").text == "out"  # type: ignore[union-attr]

    for stream in (theirs, ours):
        error = await stream.until("error")
        assert error.find("reset", ns.STREAM_ERRORS) is not None, error
        assert datetime.now(UTC) > made.certificate.not_valid_after_utc
    alice.send_message(f"x@{BRIEF}", "out", mtype="chat")
    condition, text = await alice.error()
    assert condition == "remote-server-timeout"
    assert "the certificate ended on" in text
    assert not two.streams(BRIEF)
    listener.close()
    await alice.leave()
    two.default(BRIEF)


@pytest.mark.parametrize("two", ["prosody"], indirect=True)
async def test_what_waits_is_not_acknowledged_and_comes_back_when_the_site_stops(two: Two) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    host, port = silent.sockets[0].getsockname()
    two.dns.add(f"_xmpp-server._tcp.{SILENT}. 60 IN SRV 0 0 {port} x.{SILENT}.", f"x.{SILENT}. 60 IN A {host}")
    tls = ssl.create_default_context(cafile=str(two.site.ca))
    alice = await RawXmpp.open(two.site.place("xmpp-client-tls"), DOMAIN, tls)
    enable = f"<bind xmlns='{ns.BIND2}'><enable xmlns='{ns.SM}'/></bind>"
    success = await alice.scram("alice", two.site.passwords[ALICE], enable)
    assert success.name == "success"

    async def heard(name: str) -> Element:
        while (element := await alice.element()).name != name:
            pass
        return element

    counts = []
    for said in ("", f"<message to='x@{SILENT}' type='chat' id='waits'><body>hello?</body></message>"):
        alice.say(f"{said}<r xmlns='{ns.SM}'/>")
        counts.append((await heard("a")).get("h"))
    assert counts[0] == counts[1]
    rows = AdminApi(two.site.root).get("/federation/peers")["peers"]
    assert [row["queue"] for row in rows if row["domain"] == SILENT] == [1]
    stopping = asyncio.create_task(asyncio.to_thread(two.site.stop))
    back = await heard("message")
    assert (back.get("id"), back.get("type")) == ("waits", "error")
    assert "this server is stopping" in back.to_xml()
    await stopping
    silent.close()
    await asyncio.to_thread(two.site.start)


async def test_a_peer_that_dies_and_comes_back(two: Two) -> None:
    alice = Person.of(two.site, ALICE)
    await alice.sign_in(*two.site.place("xmpp-client"))
    await asyncio.to_thread(two.other.stop)
    alice.send_message(ROMEO, "are you there?", mtype="chat")
    assert (await alice.error())[0] == "remote-server-timeout"
    await asyncio.to_thread(two.other.start)
    AdminApi(two.site.root).delete(f"/federation/peers/{OTHER}")
    romeo = Person(ROMEO, PASSWORD)
    await romeo.sign_in(two.other.address, two.other.c2s_port)
    await chats(alice, romeo, "again")
    await asyncio.gather(alice.leave(), romeo.leave())
