"""The route table at work: which messages are delivered without Python, to whom, in which form; and forged senders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moim._native import Element

from .xmpp_peers import DOMAIN, HEADER, NS_CLIENT, OPEN, Client, Host, WebClient, host

ALICE, BOB = f"alice@{DOMAIN}", f"bob@{DOMAIN}"


@pytest.fixture(params=[1, 3])
def plane(request: pytest.FixtureRequest) -> Iterator[Host]:
    """With every session on one thread, and with sessions on several."""
    with host(threads=request.param) as made:
        yield made


def messages(plane: Host) -> list[Element]:
    return [stanza for stanza in plane.stanzas() if stanza.name == "message"]


def fence(client: Client) -> None:
    """Everything the client sent before has been judged when this returns."""
    client.send("<iq type='get' id='fence'/>")
    client.until("id='fence'/>")


def test_a_message_is_stamped_serialised_anew_and_never_seen_by_python(plane: Host) -> None:
    port = plane.listen()
    alice, bob = Client(plane, port).login("alice", "desk"), Client(plane, port).login("bob", "phone")
    alice.send(
        f"<message  type=\"chat\" to='{BOB}/phone' xmlns:e='urn:e'><body>a &#x3C; b <![CDATA[& c]]></body>"
        "<e:x e:y='1'/></message>"
    )
    assert bob.until("</message>") == (
        f"<message type='chat' to='{BOB}/phone' from='{ALICE}/desk'><body>a &lt; b &amp; c</body>"
        "<x xmlns='urn:e' xmlns:n0='urn:e' n0:y='1'/></message>"
    )
    fence(alice)
    assert messages(plane) == []
    stats = plane.server.stats()
    assert (stats["routed"], stats["delivered"], stats["missed"]) == (1, 1, 0)


def test_a_bare_address_means_every_resource_that_wants_messages(plane: Host) -> None:
    port = plane.listen()
    alice = Client(plane, port).login("alice", "desk")
    bobs = [Client(plane, port).login("bob", f"r{priority}", presence=priority) for priority in (0, 5, -1)]
    hidden = Client(plane, port).login("bob", "hidden", presence=None)
    alice.send(f"<message to='{BOB}'><body>all</body></message>")
    for bob in bobs[:2]:
        assert "<body>all</body>" in bob.until("</message>")
    alice.send(f"<message to='{BOB}/r-1' type='headline'><body>one</body></message>")
    assert "<body>one</body>" in bobs[2].until("</message>")
    alice.send(f"<message to='{BOB}/hidden'><body>bound is enough</body></message>")
    assert "<body>bound" in hidden.until("</message>")
    alice.send(f"<message to='{BOB}/gone' type='chat'><body>moved</body></message>")
    for bob in bobs[:2]:
        assert "<body>moved</body>" in bob.until("</message>")
    for client in (bobs[2], hidden):
        client.quiet(lambda client=client: fence(client))  # type: ignore[misc]
    assert messages(plane) == []


def test_addresses_are_compared_without_case(plane: Host) -> None:
    port = plane.listen()
    alice, bob = Client(plane, port).login("alice", "desk"), Client(plane, port).login("bob", "Phone")
    alice.send(f"<message to='BOB@{DOMAIN.upper()}/Phone'><body>x</body></message>")
    bob.until("</message>")
    alice.send(f"<message to='{BOB}/phone' type='headline'><body>resources keep their case</body></message>")
    plane.until(lambda: messages(plane))


@pytest.mark.parametrize(
    "message",
    [
        f"<message to='{BOB}/phone' type='groupchat'/>",
        f"<message to='{BOB}/phone' type='error'/>",
        f"<message to='{BOB}/phone' type='strange'/>",
        f"<message to='{BOB}/gone' type='headline'/>",
        f"<message to='{BOB}/gone' type='normal'/>",
        f"<message to='{BOB}/gone'/>",
        f"<message to='carol@{DOMAIN}'/>",
        f"<message to='carol@{DOMAIN}/x'/>",
        "<message to='bob@elsewhere.test'/>",
        f"<message to='{DOMAIN}'/>",
        "<message to=''/>",
        "<message to='/'/>",
        "<message/>",
        f"<message to='BÖB@{DOMAIN}/phone'/>",
    ],
)
def test_what_no_row_decides_goes_up(plane: Host, message: str) -> None:
    port = plane.listen()
    alice, bob = Client(plane, port).login("alice", "desk"), Client(plane, port).login("bob", "phone")
    alice.send(message)
    found = plane.until(lambda: messages(plane))
    assert found == [
        Element.parse(message.replace("<message", "<message xmlns='jabber:client'", 1)).with_attrs(
            {"from": f"{ALICE}/desk"}
        )
    ]
    bob.quiet(lambda: fence(bob))
    assert plane.server.stats()["missed"] == 1


def test_presence_and_unbinding_take_rows_away(plane: Host) -> None:
    port = plane.listen()
    alice, bob = Client(plane, port).login("alice", "desk"), Client(plane, port).login("bob", "phone")
    bob.send("<presence type='unavailable'/>")
    bob.until("<presence type='unavailable'")
    fence(bob)
    alice.send(f"<message to='{BOB}'/>")
    plane.until(lambda: len(messages(plane)) == 1)
    plane.server.unbind(plane.sid(f"{BOB}/phone"))
    alice.send(f"<message to='{BOB}/phone'/>")
    plane.until(lambda: plane.server.stats()["routes"] == 1)
    alice.send(f"<message to='{BOB}/phone'/>")
    plane.until(lambda: len(messages(plane)) >= 2)


def test_a_newer_session_takes_the_resource(plane: Host) -> None:
    port = plane.listen()
    alice = Client(plane, port).login("alice", "desk")
    old = Client(plane, port).login("bob", "phone")
    new = Client(plane, port).login("bob", "phone")
    alice.send(f"<message to='{BOB}/phone'><body>x</body></message>")
    new.until("</message>")
    old.close()
    plane.event("closed")
    alice.send(f"<message to='{BOB}/phone'><body>y</body></message>")
    new.until("</message>")


def test_a_tap_sends_everything_up(plane: Host) -> None:
    port = plane.listen()
    alice, bob = Client(plane, port).login("alice", "desk"), Client(plane, port).login("bob", "phone")
    plane.server.tap(plane.sid(f"{BOB}/phone"), True)
    fence(bob)
    alice.send(f"<message to='{BOB}/phone'><body>1</body></message>")
    plane.until(lambda: len(messages(plane)) == 1)
    bob.send(f"<message to='{ALICE}/desk'><body>2</body></message>")
    plane.until(lambda: len(messages(plane)) == 2)
    plane.server.tap(plane.sid(f"{BOB}/phone"), False)
    fence(bob)
    alice.send(f"<message to='{BOB}/phone'><body>3</body></message>")
    bob.until("</message>")


def test_what_is_said_in_another_language_than_ours_carries_it(plane: Host) -> None:
    port = plane.listen()
    bob = Client(plane, port).login("bob", "phone")
    korean = HEADER.replace(" to=", " xml:lang='ko' to=")
    minji = Client(plane, port).login("minji", "desk", header=korean)
    web = OPEN.replace(" to=", " xml:lang='en-GB' to=")
    ann = WebClient(plane, plane.listen("websocket")).login("ann", "web", header=web)
    minji.send(f"<message to='{BOB}/phone'><body>밥 먹었어?</body></message>")
    assert " xml:lang='ko'>" in bob.until("</message>")
    for own in ("en", ""):
        minji.send(f"<message xml:lang='{own}' to='{BOB}/phone'><body>Had lunch?</body></message>")
        assert f" xml:lang='{own}' " in bob.until("</message>")
    ann.send(f"<message xmlns='jabber:client' to='{BOB}/phone'><body>Colour?</body></message>")
    assert " xml:lang='en-GB'>" in bob.until("</message>")
    minji.send("<presence type='unavailable'/>")
    (stanza,) = plane.until(lambda: [found for found in plane.stanzas() if found.get("type") == "unavailable"])
    assert stanza.get("xml:lang") == "ko"
    ours = Client(plane, port).login("alice", "desk", header=HEADER.replace(" to=", " xml:lang='en' to="))
    ours.send(f"<message to='{BOB}/phone'><body>x</body></message>")
    assert "xml:lang" not in bob.until("</message>")


def test_the_order_of_messages_is_kept(plane: Host) -> None:
    port = plane.listen()
    alice, bob = Client(plane, port).login("alice", "desk"), Client(plane, port).login("bob", "phone")
    alice.send("".join(f"<message to='{BOB}'><body>{number}</body></message>" for number in range(500)))
    got = bob.until("<body>499</body></message>")
    assert [int(part.split("<")[0]) for part in got.split("<body>")[1:]] == list(range(500))


def test_websocket_and_tcp_see_the_same_stanza_each_in_its_form(plane: Host) -> None:
    port = plane.listen()
    alice = Client(plane, port).login("alice", "desk")
    tcp = Client(plane, port).login("bob", "tcp")
    web = WebClient(plane, plane.listen("websocket")).login("bob", "web")
    alice.send(f"<message to='{BOB}'><body>안녕 🎉</body></message>")
    assert tcp.until("</message>") == f"<message to='{BOB}' from='{ALICE}/desk'><body>안녕 🎉</body></message>"
    web.until("</message>")
    assert web.messages[-1] == (
        f"<message xmlns='jabber:client' to='{BOB}' from='{ALICE}/desk'><body>안녕 🎉</body></message>"
    )


@pytest.mark.parametrize("claimed", [f"{BOB}/phone", BOB, f"{ALICE}/other", f"x{ALICE}", "", DOMAIN])
def test_nobody_speaks_for_another(plane: Host, claimed: str) -> None:
    alice = Client(plane, plane.listen()).login("alice", "desk")
    alice.send(f"<message to='{BOB}' from='{claimed}'/>")
    assert "<invalid-from" in alice.rest()
    assert messages(plane) == []


@pytest.mark.parametrize("claimed", [f"{ALICE}/desk", ALICE, f"ALICE@{DOMAIN}/desk"])
def test_ones_own_address_is_accepted_and_completed(plane: Host, claimed: str) -> None:
    alice = Client(plane, plane.listen()).login("alice", "desk")
    alice.send(f"<iq type='get' id='q' from='{claimed}'/>")
    alice.until("id='q'/>")
    assert next(stanza for stanza in plane.stanzas() if stanza.get("id") == "q").get("from") == f"{ALICE}/desk"


@pytest.mark.parametrize(
    ("stanza", "condition"),
    [
        ("<message xmlns='jabber:server'/>", "invalid-namespace"),
        ("<message xmlns=''/>", "invalid-namespace"),
        ("<stream:message/>", "invalid-namespace"),
        ("<letter/>", "unsupported-stanza-type"),
        ("<stream:stream/>", "bad-format"),
        ("text", "bad-format"),
        ("<message><!-- x --></message>", "restricted-xml"),
        ("<message>&copy;</message>", "restricted-xml"),
        ("<message>\x01</message>", "not-well-formed"),
        ("<x:message/>", "not-well-formed"),
        (b"<message>\xff</message>", "unsupported-encoding"),
        ("<a>" * 200, "policy-violation"),
    ],
)
def test_elements_that_end_the_stream(plane: Host, stanza: str | bytes, condition: str) -> None:
    alice = Client(plane, plane.listen()).login("alice", "desk")
    alice.send(stanza)
    assert f"<stream:error><{condition} xmlns=" in alice.rest()
    assert plane.event("closed")[2].startswith(condition)
    assert plane.server.stats()["routes"] == 0


def test_a_stream_error_of_the_peer_ends_the_stream(plane: Host) -> None:
    alice = Client(plane, plane.listen()).login("alice", "desk")
    alice.send("<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
    assert alice.rest() == "</stream:stream>"
    assert "policy-violation" in plane.event("closed")[2]


def test_one_element_for_many(plane: Host) -> None:
    port = plane.listen()
    clients = [Client(plane, port).login("bob", str(index)) for index in range(5)]
    news = Element("presence", NS_CLIENT, {"from": ALICE})
    plane.server.send_many([(plane.sid(f"{BOB}/{index}"), news) for index in range(5)])
    for client in clients:
        assert client.until(f"<presence from='{ALICE}'/>")
