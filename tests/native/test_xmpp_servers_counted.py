"""Stream management between servers (XEP-0198): what the other did not acknowledge comes back, once and in order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from moim._native import Element

from .xmpp_peers import NS_CLIENT, WAIT
from .xmpp_servers import A, B, Side, header, raw, side

NS_SM = "urn:xmpp:sm:3"
ENABLE = Element("enable", NS_SM)
COUNTED = f"<enabled xmlns='{NS_SM}'/>"


def said(number: int, kind: str = "message") -> Element:
    return Element(kind, NS_CLIENT, {"from": f"u@{A}", "to": f"v@{B}", "id": f"m{number}"})


class Called:
    """The server that ``a`` calls, on a raw socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.seen = ""

    def send(self, text: str) -> None:
        self.sock.sendall(text.encode())

    def until(self, text: str) -> None:
        while text not in self.seen:
            data = self.sock.recv(4096)
            assert data, f"the stream ended; seen: {self.seen}"
            self.seen += data.decode()
        self.seen = self.seen.partition(text)[2]


@contextmanager
def called(a: Side) -> Iterator[tuple[Called, int]]:
    """A stream of ``a``'s that is open, and that it wants to count on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT)
        sid = a.server.connect("127.0.0.1", listening.getsockname()[1], tls=False, server_name=B)
        sock, _ = listening.accept()
    with sock:
        sock.settimeout(WAIT)
        peer = Called(sock)
        a.next("connected")
        a.open(sid, B)
        peer.send(header(A, attrs=f"from='{B}' version='1.0' id='x'"))
        a.next("open")
        a.server.authenticated(sid, B)
        a.server.manage(sid, ENABLE, resume=False)
        yield peer, sid


def test_what_is_not_acknowledged_comes_back(a: Side) -> None:
    with called(a) as (peer, sid):
        a.server.send(sid, [said(1), said(2, "presence"), said(3)])
        peer.until("<enable xmlns='urn:xmpp:sm:3'/>")
        peer.until("id='m3'/>")
        assert "<r " not in peer.seen, "it has not agreed yet"
        peer.send(COUNTED)
        peer.until("<r xmlns='urn:xmpp:sm:3'/>")
        peer.send(f"<a xmlns='{NS_SM}' h='1'/>")
        a.server.send(sid, [said(4)])
        peer.until("id='m4'/>")
    assert a.next("undelivered")[2] == [said(2, "presence"), said(3), said(4)]
    assert a.next("closed")[1] == sid


def test_a_peer_that_died_before_it_agreed(a: Side) -> None:
    with called(a) as (peer, sid):
        a.server.send(sid, [said(1)])
        peer.until("id='m1'/>")
    assert a.next("undelivered")[2] == [said(1)]
    a.next("closed")


def test_a_peer_that_does_not_agree_is_believed(a: Side) -> None:
    with called(a) as (peer, sid):
        peer.send(f"<failed xmlns='{NS_SM}'/>")
        a.server.send(sid, [said(1)])
        peer.until("id='m1'/>")
        a.until(lambda: a.server.stats()["stanzas"] >= 1)
    assert a.next("closed")[1] == sid


def test_a_stream_that_is_ended_here_gives_nothing_back(a: Side) -> None:
    with called(a) as (peer, sid):
        peer.send(COUNTED + f"<r xmlns='{NS_SM}'/>")
        peer.until("<a xmlns='urn:xmpp:sm:3' h='0'/>")
        a.server.send(sid, [said(1)])
        a.server.close(sid)
        peer.until("id='m1'/>")
        peer.until(f"<a xmlns='{NS_SM}' h='0'/></stream:stream>")
    assert a.next("closed")[1] == sid


def test_a_peer_is_asked_again_as_soon_as_it_answers(a: Side) -> None:
    with called(a) as (peer, sid):
        peer.send(COUNTED)
        for number in range(1, 6):
            a.server.send(sid, [said(number)])
            peer.until(f"id='m{number}'/>")
            peer.until(f"<r xmlns='{NS_SM}'/>")
            peer.send(f"<a xmlns='{NS_SM}' h='{number}'/>")
        a.server.send(sid, [said(6)])
        peer.until(f"<r xmlns='{NS_SM}'/>")
        a.server.send(sid, [said(7)])
        peer.until("id='m7'/>")
        assert "<r" not in peer.seen, "one question at a time"
        peer.send(f"<a xmlns='{NS_SM}' h='6'/>")
        peer.until(f"<r xmlns='{NS_SM}'/>")
    assert a.next("undelivered")[2] == [said(7)]


def test_a_count_that_cannot_be_ends_the_stream(a: Side) -> None:
    with called(a) as (peer, sid):
        a.server.send(sid, [said(1)])
        peer.send(COUNTED + f"<a xmlns='{NS_SM}' h='2'/>")
        peer.until("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='2' send-count='1'/>")
        assert a.next("undelivered")[2] == [said(1)]
        assert a.next("closed")[1] == sid


def test_a_peer_that_answers_no_more_is_left() -> None:
    with side(A, ack_timeout=0.2) as a, called(a) as (peer, sid):
        peer.send(COUNTED)
        a.server.send(sid, [said(1)])
        assert a.next("undelivered")[2] == [said(1)]
        assert a.next("closed")[2] == "the peer acknowledged nothing for too long"


def test_answers_that_nobody_asked_for_are_not_answered(a: Side) -> None:
    with raw(a) as peer:
        peer.opened()
        peer.send(f"<failed xmlns='{NS_SM}'/><enabled xmlns='{NS_SM}'/><resumed xmlns='{NS_SM}'/></stream:stream>")
        assert a.next("close")
        a.server.close(a.seen[-1][1])
        assert "<failed" not in peer.rest()


def test_what_a_peer_sends_is_counted(a: Side) -> None:
    message = f"<message from='u@{B}' to='v@{A}'/>"
    with raw(a) as peer:
        sid = peer.opened()
        peer.send(f"<enable xmlns='{NS_SM}'/>")
        peer.until("<unexpected-request")
        a.server.pair(sid, A, B)
        peer.send(f"{message}<enable xmlns='{NS_SM}'/>{message}{message}<r xmlns='{NS_SM}'/>")
        peer.until(COUNTED)
        assert a.next("stanza")[3] == 0, "what came before nobody counts"
        first, second = a.next("stanza")[3], a.next("stanza")[3]
        a.server.done([(sid, second)])
        peer.until(f"<a xmlns='{NS_SM}' h='0'/>")
        a.server.done([(sid, first)])
        peer.until(f"<a xmlns='{NS_SM}' h='2'/>")
        peer.send(f"<enable xmlns='{NS_SM}'/>")
        peer.until("<unexpected-request")
        peer.send(f"{message}{message}</stream:stream>")
        a.server.done([(sid, a.next("stanza")[3])])
        a.next("stanza")
        a.next("close")
        a.server.close(sid)
        peer.until(f"<a xmlns='{NS_SM}' h='3'/></stream:stream>")


def test_on_a_stream_for_both_ways_both_are_counted(a: Side) -> None:
    message = f"<message from='v@{B}' to='u@{A}'/>"
    with called(a) as (peer, sid):
        a.server.pair(sid, A, B)
        peer.send(f"{message}{COUNTED}{message}<r xmlns='{NS_SM}'/>")
        assert a.next("stanza")[3] == 0
        a.server.done([(sid, a.next("stanza")[3])])
        peer.until(f"<a xmlns='{NS_SM}' h='1'/>")
