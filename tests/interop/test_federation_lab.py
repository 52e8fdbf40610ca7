"""Moim, Prosody and ejabberd on three hosts with standard ports and our name server; people with slixmpp on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from federation_lab import DOMAIN, FederationLab, Peer, Somebody

pytestmark = [pytest.mark.interop, pytest.mark.lab, pytest.mark.xdist_group("federation-lab")]


@pytest.fixture(params=["prosody", "ejabberd"])
def peer(lab: FederationLab, request: pytest.FixtureRequest) -> Peer:
    return lab.peers[request.param]


def test_the_check_finds_nothing_wrong(lab: FederationLab, peer: Peer) -> None:
    found = lab.federation("check", peer.domain, check=False)
    assert found["ok"], found
    assert [step for step in found["steps"] if step["state"] == "failed"] == []
    assert found["verdict"] == f"Messages between {DOMAIN} and {peer.domain} go both ways."


def test_others_find_us(lab: FederationLab) -> None:
    found = lab.federation("check", DOMAIN)
    assert found["verdict"] == f"{DOMAIN} is this site's own domain, and others are told to find it here."
    assert {step["what"]: step["state"] for step in found["steps"]} == {"our records": "ok", "port in": "ok"}


def test_contacts_presence_chat_copies_and_archive(lab: FederationLab, peer: Peer) -> None:
    alice, other, juliet = lab.person("alice"), lab.person("alice"), peer.person("juliet")
    other.copies()
    alice.ask(juliet.address)
    juliet.sees(alice.address, "there")
    alice.sees(juliet.address, "there")
    alice.subscription(juliet.address)
    alice.say(juliet.address, "안녕 Juliet 👋")
    juliet.hears(alice.address, "안녕 Juliet 👋")
    assert other.copy() == ["sent", "안녕 Juliet 👋"]
    juliet.say(alice.address, "O Romeo")
    alice.hears(juliet.address, "O Romeo")
    assert alice.archived(juliet.address) == ["안녕 Juliet 👋", "O Romeo"]
    streams = [s for s in lab.peer_row(peer.domain)["streams"] if s["state"] == "open"]
    assert {(s["tls"]["version"], s["authenticatedBy"], s["certificate"]) for s in streams} <= {
        ("TLSv1.3", "external", "pkix"), ("TLSv1.3", "certificate", "pkix"), ("TLSv1.3", "dialback", "pkix"),
    }, streams  # fmt: skip
    juliet.leave()
    alice.sees(juliet.address, "gone")
    for somebody in (alice, other):
        somebody.leave()


def test_rooms_on_both_sides(lab: FederationLab, peer: Peer) -> None:
    bob, romeo = lab.person("bob"), peer.person("romeo")
    ours, theirs = f"lounge-{peer.kind}@rooms.{DOMAIN}", f"balcony@rooms.{peer.domain}"
    bob.open_room(ours, "bob")
    romeo.join(ours, "romeo")
    romeo.say(ours, "good evening", "groupchat")
    bob.says("romeo", "good evening")
    bob.say(ours, "welcome", "groupchat")
    romeo.says("bob", "welcome")
    romeo.open_room(theirs, "romeo")
    bob.join(theirs, "bob")
    bob.say(theirs, "may I?", "groupchat")
    romeo.says("bob", "may I?")
    romeo.say(theirs, "come in", "groupchat")
    bob.says("romeo", "come in")
    for somebody in (bob, romeo):
        somebody.leave()


def test_a_file_of_ours_is_fetched_from_their_host(lab: FederationLab, peer: Peer) -> None:
    alice, juliet = lab.person("alice"), peer.person("juliet")
    link = alice.upload(f"upload.{DOMAIN}", str(lab.site.ca), "바다.txt", "the sea")
    alice.say(juliet.address, link)
    sender, url = juliet.chat()
    assert sender == alice.address
    assert juliet.fetch(url, str(lab.site.ca)) == "the sea"
    for somebody in (alice, juliet):
        somebody.leave()


@pytest.fixture
def own_policies(lab: FederationLab) -> Iterator[None]:
    """Takes back what a test sets for a domain."""
    yield
    for one in lab.federation("policy", "list")["policies"]:
        lab.federation("policy", "remove", one["domain"])


def shut_out(lab: FederationLab, peer: Peer, ours: Somebody, theirs: Somebody) -> None:
    """Nothing goes either way, both senders hear why, and the check names the way to let the domain in."""
    ours.say(theirs.address, "no way out")
    condition, text = ours.error()
    assert condition == "not-allowed"
    assert peer.domain in text
    theirs.say(ours.address, "no way in")
    assert theirs.error()[0] in ("remote-server-not-found", "remote-server-timeout")
    found = lab.federation("check", peer.domain, check=False)
    assert found["next"] == f"moim federation policy set {peer.domain} --access allow"


@pytest.mark.usefixtures("own_policies")
def test_a_domain_that_is_not_allowed(lab: FederationLab) -> None:
    peer = lab.peers["prosody"]
    alice, juliet = lab.person("alice"), peer.person("juliet")
    lab.federation("policy", "set", peer.domain, "--access", "deny")
    shut_out(lab, peer, alice, juliet)
    lab.federation("policy", "remove", peer.domain)
    alice.say(juliet.address, "allowed again")
    juliet.hears(alice.address, "allowed again")
    for somebody in (alice, juliet):
        somebody.leave()


def test_an_allow_list(lab: FederationLab) -> None:
    """With it, only those on it are talked to, in either direction; a policy of a running site adds to it."""
    allowed, other = lab.peers["ejabberd"], lab.peers["prosody"]
    names = f'["{allowed.domain}", "*.{allowed.domain}"]'
    with lab.settings("federation", f'mode = "allow-list"\nallow = {names}'):
        alice, juliet, romeo = lab.person("alice"), allowed.person("juliet"), other.person("romeo")
        alice.say(juliet.address, "on the list")
        juliet.hears(alice.address, "on the list")
        juliet.say(alice.address, "and back")
        alice.hears(juliet.address, "and back")
        room = f"garden@rooms.{allowed.domain}"
        juliet.open_room(room, "juliet")
        alice.join(room, "alice")
        alice.say(room, "a fine garden", "groupchat")
        juliet.says("alice", "a fine garden")
        shut_out(lab, other, alice, romeo)
        lab.federation("policy", "set", other.domain, "--access", "allow")
        alice.say(romeo.address, "let in by hand")
        romeo.hears(alice.address, "let in by hand")
        lab.federation("policy", "remove", other.domain)
        for somebody in (alice, juliet, romeo):
            somebody.leave()


@pytest.fixture
def prosody(lab: FederationLab) -> Iterator[Peer]:
    """Prosody, which is as it was after the test."""
    yield lab.peers["prosody"]
    lab.peers["prosody"].start()


@pytest.mark.usefixtures("own_policies")
def test_a_wrong_certificate(lab: FederationLab, prosody: Peer) -> None:
    """The sender, the status and the check say in plain words what is wrong with it."""
    domain, alice = prosody.domain, lab.person("alice")
    lab.federation("policy", "set", domain, "--certificates", "required", "--dialback", "off")
    for names, signed, reason in (
        (("other.example",), True, "the certificate is for other.example"),
        ((domain, f"rooms.{domain}"), False, "the certificate is self-signed"),
    ):
        prosody.start(names=names, signed=signed)
        lab.federation("reset", domain, check=False)
        alice.say(f"juliet@{domain}", "who are you?")
        condition, text = alice.error()
        assert (condition, reason in text) == ("remote-server-timeout", True), text
        assert reason in lab.peer_row(domain)["lastError"]
        found = lab.federation("check", domain, check=False)
        assert not found["ok"]
        assert any(reason in step["text"] for step in found["steps"] if step["state"] == "failed"), found
    alice.leave()


def test_a_peer_that_dies_and_comes_back(lab: FederationLab, peer: Peer) -> None:
    alice, juliet = lab.person("alice"), peer.person("juliet")
    lab.federation("reset", peer.domain, check=False)
    alice.say(juliet.address, "before")
    juliet.hears(alice.address, "before")
    juliet.say(alice.address, "yes?")
    alice.hears(juliet.address, "yes?")
    peer.host.cut()
    alice.say(juliet.address, "on its way")
    peer.host.mend()
    juliet.hears(alice.address, "on its way")
    peer.host.cut()
    alice.say(juliet.address, "in their cable")
    lab.until_no_stream_out(peer.domain)
    alice.say(juliet.address, "into the dark")
    condition, text = alice.error()
    assert condition == "remote-server-timeout"
    assert text
    peer.host.mend()
    lab.federation("reset", peer.domain, check=False)
    alice.say(juliet.address, "back")
    juliet.hears(alice.address, "back")
    assert lab.site.process is not None
    assert lab.site.process.poll() is None
    for somebody in (alice, juliet):
        somebody.leave()


@pytest.mark.usefixtures("own_policies")
def test_a_peer_without_encryption(lab: FederationLab) -> None:
    """Refused as long as encryption is required; spoken to in the clear where an administrator allows it.

    The last test of the file: it leaves ejabberd without encryption, because starting it takes long.
    """
    peer, alice = lab.peers["ejabberd"], lab.person("alice")
    peer.start(starttls="false")
    juliet = peer.person("juliet")
    lab.federation("reset", peer.domain, check=False)
    alice.say(juliet.address, "in the clear?")
    condition, text = alice.error()
    assert condition == "remote-server-timeout"
    assert "encryption" in text
    assert "encryption" in lab.peer_row(peer.domain)["lastError"]
    found = lab.federation("check", peer.domain, check=False)
    assert found["next"] == f"moim federation policy set {peer.domain} --tls optional"
    lab.federation("policy", "set", peer.domain, "--tls", "optional")
    alice.say(juliet.address, "in the clear")
    juliet.hears(alice.address, "in the clear")
    juliet.say(alice.address, "likewise")
    alice.hears(juliet.address, "likewise")
    streams = lab.peer_row(peer.domain)["streams"]
    assert {(stream["tls"], stream["authenticatedBy"]) for stream in streams} == {(None, "dialback")}
    for somebody in (alice, juliet):
        somebody.leave()
