"""Messages between local sessions and another server without Python: hits in both directions, and what stays a miss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from moim._native import ArchiveIds, Element
from moim.errors import UsageError
from stanza_parts import body, child

from .test_xmpp_copies import LAPTOP, next_message, unwrapped
from .test_xmpp_management import ALICE, Manager, Phone, say
from .xmpp_peers import DOMAIN, NS_CLIENT
from .xmpp_servers import B, Side, side

FAR = f"v@{B}/far"
BARE = f"alice@{DOMAIN}"
IDS = ArchiveIds(bytes(16))


def message(to: str, *children: Element, **attrs: str) -> Element:
    body = Element("body", NS_CLIENT, {}, ["hello"])
    return Element("message", NS_CLIENT, {"from": FAR, "to": to, "type": "chat"} | attrs, [body, *children])


class Link:
    """A server with two sessions of Alice's, and a stream between it and another one, paired in both directions."""

    def __init__(self, plane: Manager, far: Side) -> None:
        self.plane, self.far, self.server = plane, far, plane.server
        port = plane.listen()
        self.phone, self.laptop = Phone(plane, port), Phone(plane, port)
        self.phone.login("alice", ALICE.rpartition("/")[2])
        self.laptop.login("alice", LAPTOP.rpartition("/")[2])
        plane.answering = False
        self.sid = self.server.connect("127.0.0.1", far.listen("server-tls"), tls=True, server_name=B, local=DOMAIN)
        plane.event("tls", self.sid)
        self.server.open_stream(self.sid, {"from": DOMAIN, "to": B, "version": "1.0"})
        self.into = far.next("connected")[1]
        far.next("tls")
        far.next("open")
        far.open(self.into, DOMAIN)
        plane.event("open", self.sid)
        self.direct(True)
        far.server.pair(self.into, B, DOMAIN)
        plane.seen.clear()

    def direct(self, on: bool) -> None:
        self.server.pair(self.sid, DOMAIN, B, direct=on)
        self.server.route_domain(self.sid, DOMAIN, B, on)

    def send(self, *stanzas: Element) -> None:
        self.far.server.send(self.into, list(stanzas))

    def missed(self) -> Element:
        """The next thing that came up."""
        event: tuple[Any, ...] = self.plane.event("stanza")
        self.plane.seen.remove(event)
        element: Element = event[2]
        return element


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    plane = Manager(threads=request.param, archive_ids=IDS)
    try:
        with side(B) as far:
            yield Link(plane, far)
    finally:
        plane.server.stop()


def test_messages_go_both_ways_without_python(link: Link) -> None:
    say(link.phone, FAR, "out")
    out = link.far.next("stanza")[2]
    assert (out.get("from"), out.get("to"), out.find("body").text) == (ALICE, FAR, "out")
    link.send(message(ALICE), message(BARE), message(BARE, type="headline"))
    assert next_message(link.phone) == message(ALICE)
    for client in (link.phone, link.laptop):
        assert next_message(client).get("to") == BARE
    assert link.missed().get("type") == "headline", "what no archive keeps is counted by Python alone"
    carried = link.plane.event("carried", link.sid)
    assert carried[2:] == (2, 1)


def test_copies_and_records_of_both_directions(link: Link) -> None:
    link.server.carbons(link.plane.sid(LAPTOP), True)
    link.server.archive(BARE, True)
    say(link.phone, FAR, "out")
    assert link.far.next("stanza")[2].find("stanza-id", "urn:xmpp:sid:0") is None
    sent = next_message(link.laptop)
    inner = unwrapped(sent, "sent")
    out = link.plane.event("records")[2]
    assert [(record[1], record[2], record[3]) for record in out] == [(ALICE, FAR, [BARE])]
    assert child(inner, ("stanza-id", "urn:xmpp:sid:0")).get("id") == IDS.write(BARE, out[0][0])
    link.plane.seen.clear()
    link.send(message(ALICE))
    got = next_message(link.phone)
    assert unwrapped(next_message(link.laptop), "received") == got
    records = link.plane.event("records")[2]
    assert [(record[1], record[2], record[3]) for record in records] == [(FAR, ALICE, [BARE])]
    assert child(got, ("stanza-id", "urn:xmpp:sid:0")).attrs == {"by": BARE, "id": IDS.write(BARE, records[0][0])}


@pytest.mark.parametrize(
    "stanza",
    [
        message(f"bob@{DOMAIN}"),
        message(ALICE, type="groupchat"),
        message(ALICE, type="error"),
        message(DOMAIN),
        message(ALICE, Element("received", "urn:xmpp:carbons:2")),
        message(ALICE, Element("stanza-id", "urn:xmpp:sid:0", {"by": BARE, "id": "1"})),
        message(ALICE, Element("result", "urn:xmpp:mam:2")),
        message(ALICE, Element("delay", "urn:xmpp:delay", {"from": DOMAIN})),
        message(ALICE, Element("delay", "urn:xmpp:delay", {"from": f"room@{DOMAIN}/nick"})),
        Element("presence", NS_CLIENT, {"from": FAR, "to": ALICE}),
        Element("iq", NS_CLIENT, {"from": FAR, "to": ALICE, "type": "get", "id": "1"}),
    ],
    ids=lambda stanza: f"{stanza.name} {stanza.get('type')} {stanza.elements()[-1:]}"[:40],
)
def test_what_comes_in_for_python_to_judge(link: Link, stanza: Element) -> None:
    link.send(stanza)
    assert link.missed() == stanza


@pytest.mark.parametrize("to", [f"V@{B}", f"v@{B}/ü", "v@c.test", B.upper(), f"v@{B}/"])
def test_what_goes_out_for_python_to_judge(link: Link, to: str) -> None:
    say(link.phone, to, "hello")
    assert link.missed().get("to") == to


def test_a_tap_and_an_end_of_the_way(link: Link) -> None:
    link.server.tap(link.plane.sid(ALICE), True)
    say(link.phone, FAR, "tapped")
    assert body(link.missed()) == "tapped"
    link.send(message(BARE))
    assert link.missed() == message(BARE)
    link.server.tap(link.plane.sid(ALICE), False)
    link.direct(False)
    say(link.phone, FAR, "not direct")
    assert body(link.missed()) == "not direct"
    link.send(message(BARE))
    assert link.missed() == message(BARE)
    link.direct(True)
    say(link.phone, FAR, "direct")
    assert link.far.next("stanza")[2].find("body").text == "direct"
    link.far.server.close(link.into)
    link.plane.event("close", link.sid)
    link.server.close(link.sid)
    link.plane.event("closed", link.sid)
    say(link.phone, FAR, "gone")
    assert body(link.missed()) == "gone"


def test_nothing_overtakes_what_waits_for_python(link: Link) -> None:
    presence = Element("presence", NS_CLIENT, {"from": FAR, "to": ALICE})
    link.send(presence, *(message(ALICE, id=str(number)) for number in range(5)))
    assert link.missed() == presence
    came = [link.missed() for _ in range(len([event for event in link.plane.seen if event[0] == "stanza"]))]
    came += [next_message(link.phone) for _ in range(5 - len(came))]
    assert [stanza.get("id") for stanza in came] == list("01234")


def test_what_the_stream_could_not_carry_comes_back(link: Link) -> None:
    link.far.server.close(link.into)
    link.plane.event("close", link.sid)
    link.server.close(link.sid)
    link.server.route_domain(link.sid, DOMAIN, B, True)
    say(link.phone, FAR, "late")
    assert body(link.missed()) == "late"
    assert all(event[0] != "undelivered" for event in link.plane.seen)


def test_domains_are_checked(link: Link) -> None:
    for bad in ("", "u@b.test", "b.test/r"):
        with pytest.raises(UsageError):
            link.server.route_domain(link.sid, DOMAIN, bad, True)


def plane_records(link: Link) -> list[tuple[Any, ...]]:
    link.plane.event("records")
    return [event for event in link.plane.seen if event[0] == "records"]


def test_a_server_whose_messages_are_never_kept_hears_so(link: Link) -> None:
    link.server.archive(BARE, True)
    link.server.manage(link.sid, Element("enable", "urn:xmpp:sm:3"), resume=False)
    say(link.phone, FAR, "it has agreed to count when it has this")
    link.far.next("stanza")
    link.plane.seen.clear()
    link.send(message(ALICE))
    next_message(link.phone)
    for event in plane_records(link):
        link.server.committed(event[1], kept=False)
    assert link.far.next("undelivered")[2] == [message(ALICE)]
    assert link.far.next("closed")[2].startswith("the peer reported the stream error resource-constraint")
