"""XMPP over WebSocket (RFC 7395): the upgrade and who may ask for it, one element per message, pings and goodbyes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .xmpp_peers import DOMAIN, NS_FRAMING, NS_STREAMS, Client, Host, WebClient, host

OPEN = f"<open xmlns='{NS_FRAMING}' to='{DOMAIN}' version='1.0'/>"


@pytest.fixture
def plane() -> Iterator[Host]:
    with host() as made:
        yield made


@pytest.mark.parametrize("mode", ["websocket", "websocket-tls"])
def test_from_upgrade_to_goodbye(plane: Host, mode: str) -> None:
    client = WebClient(plane, plane.listen(mode), tls=mode == "websocket-tls").login("alice", "web")
    sid = plane.sid(f"alice@{DOMAIN}/web")
    assert plane.event("connected", sid)[5] is (mode == "websocket-tls")
    assert client.messages[0].startswith(f"<open xmlns='{NS_FRAMING}' from='{DOMAIN}'")
    assert client.messages[1] == f"<stream:features xmlns:stream='{NS_STREAMS}'/>"
    client.send("ping", 9)
    client.send("<iq xmlns='jabber:client' type='get' id='q'/>")
    client.until("<iq xmlns='jabber:client' type='result' id='q'/>")
    assert client.controls == [(10, b"ping")]
    client.send(f"<close xmlns='{NS_FRAMING}'/>")
    client.rest()
    assert client.messages[-1] == f"<close xmlns='{NS_FRAMING}'/>"
    assert client.controls[-1] == (8, b"\x03\xe8")
    assert plane.event("closed", sid)[2] == "the peer ended the stream"


def test_a_message_in_fragments(plane: Host) -> None:
    client = WebClient(plane, plane.listen("websocket"))
    client.upgraded()
    for index, part in enumerate((OPEN[:3], "", OPEN[3:30])):
        client.send(part, 1 if index == 0 else 0, fin=False)
        client.send(b"", 9)
    client.send(OPEN[30:], 0)
    client.until("<stream:features")


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        ("<message xmlns='jabber:client'/>", "bad-format"),
        ("", "not-well-formed"),
        ("<open", "not-well-formed"),
        (OPEN + OPEN, "bad-format"),
        (OPEN.replace(DOMAIN, "other.test"), "host-unknown"),
        (OPEN.replace("1.0", "0.1"), "unsupported-version"),
        (OPEN.replace(NS_FRAMING, "urn:x"), "bad-format"),
        (f"<stream:stream xmlns:stream='{NS_STREAMS}' to='{DOMAIN}' version='1.0'>", "not-well-formed"),
        ("<!-- x -->", "restricted-xml"),
        (b"<\xff/>", "unsupported-encoding"),
    ],
)
def test_first_messages_that_are_refused(plane: Host, message: str | bytes, condition: str) -> None:
    client = WebClient(plane, plane.listen("websocket"))
    client.upgraded()
    client.send(message)
    client.rest()
    opening, error, closing = client.messages
    assert opening.startswith("<open")
    assert error.startswith(f"<stream:error xmlns:stream='{NS_STREAMS}'><{condition} ")
    assert closing == f"<close xmlns='{NS_FRAMING}'/>"


@pytest.mark.parametrize(
    ("message", "condition"),
    [
        (OPEN, "bad-format"),
        ("<message/>", "invalid-namespace"),
        ("<iq xmlns='jabber:client'/><iq xmlns='jabber:client'/>", "bad-format"),
        (f"<stream:stream xmlns:stream='{NS_STREAMS}'/>", "bad-format"),
        (f"<pause xmlns='{NS_FRAMING}'/>", "invalid-namespace"),
        ("<message xmlns='jabber:client' from='bob@moim.test'/>", "invalid-from"),
    ],
)
def test_later_messages_that_are_refused(plane: Host, message: str, condition: str) -> None:
    client = WebClient(plane, plane.listen("websocket")).login("alice", "web")
    client.send(message)
    client.rest()
    assert f"<{condition} " in client.messages[-2]


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\x81\x00", 1002), (b"\x82\x80\0\0\0\0", 1003), (b"\xf1\x80\0\0\0\0", 1002), (b"\x80\x80\0\0\0\0", 1002)],
)
def test_frames_that_are_refused(plane: Host, frame: bytes, code: int) -> None:
    client = WebClient(plane, plane.listen("websocket"))
    client.upgraded()
    client.send_raw(frame)
    client.rest()
    assert client.controls == [(8, code.to_bytes(2, "big"))]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Protocol": "chat"}, "400"),
        ({"Sec-WebSocket-Protocol": "chat, XMPP"}, "101"),
        ({"Upgrade": "h2c"}, "426"),
        ({"Sec-WebSocket-Version": "8"}, "426"),
        ({"Origin": "https://elsewhere.test"}, "403"),
        ({"Origin": "http://moim.test:1", "Host": "moim.test:1"}, "101"),
        ({"X": "y" * 8192}, ""),
    ],
)
def test_upgrades(plane: Host, headers: dict[str, str], status: str) -> None:
    client = WebClient(plane, plane.listen("websocket"), headers=headers)
    if status == "101":
        assert "Sec-WebSocket-Protocol: xmpp\r\n" in client.upgraded()
    else:
        assert client.rest()[9:12] == status


def test_origins_that_are_named_are_allowed(plane: Host) -> None:
    some = plane.listen("websocket", origins=["https://chat.moim.test"])
    WebClient(plane, some, headers={"Origin": "https://chat.moim.test"}).upgraded()
    assert " 403 " in WebClient(plane, some, headers={"Origin": "https://moim.test"}).rest()
    every = plane.listen("websocket", origins=["*"])
    WebClient(plane, every, headers={"Origin": "https://anything.test"}).upgraded()
    plane.until(lambda: any("origin" in event[2] for event in plane.seen if event[0] == "closed"))


def test_another_path_is_another_resource(plane: Host) -> None:
    assert " 404 " in WebClient(plane, plane.listen("websocket", path="/ws")).rest()


def test_plain_xmpp_on_the_websocket_port_gets_an_http_answer(plane: Host) -> None:
    client = Client(plane, plane.listen("websocket"))
    client.send("<stream:stream>\r\n\r\n")
    assert client.rest().startswith("HTTP/1.1 400 ")
