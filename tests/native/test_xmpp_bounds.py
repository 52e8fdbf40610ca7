"""What the XMPP engine survives: slow and silent peers, floods before signing in, a host that does not keep up."""

from __future__ import annotations

import contextlib
import resource
import socket

from moim._native import Element

from .xmpp_peers import DOMAIN, HEADER, NS_CLIENT, Client, WebClient, host

BOB = f"bob@{DOMAIN}"


def test_a_stanza_may_be_small_before_and_large_after_signing_in() -> None:
    with host() as plane:
        port = plane.listen()
        early = Client(plane, port)
        early.send(HEADER + f"<iq type='get' id='{'x' * 10_240}'/>")
        assert "<policy-violation" in early.rest()
        late = Client(plane, port).login("alice", "desk")
        late.send(f"<iq type='get' id='{'x' * 200_000}'/>")
        late.until("x'/>")
        late.send(f"<iq type='get' id='{'x' * 262_144}'/>")
        assert "<policy-violation" in late.rest()


def test_a_slow_drip_is_read_like_anything_else() -> None:
    with host() as plane:
        client = Client(plane, plane.listen())
        for character in HEADER + "<iq type='get' id='drop'/>":
            client.send(character)
        client.until("id='drop'/>")


def test_signing_in_must_not_take_for_ever() -> None:
    with host(handshake_timeout=0.3) as plane:
        port, tls = plane.listen(), plane.listen("tls")
        silent, talking, handshaking = Client(plane, port), Client(plane, port), Client(plane, tls)
        dripping, upgrading = Client(plane, port), Client(plane, plane.listen("websocket"))
        talking.send(HEADER)
        handshaking.send(b"\x16\x03\x01\x02\x00")

        def over() -> bool:
            """Whoever says a little again and again has no more time than others."""
            for client in (dripping, upgrading):
                with contextlib.suppress(OSError):
                    client.send(" ")
            return plane.server.stats()["sessions"] == 0

        plane.until(over)
        assert "<connection-timeout" in talking.rest()
        assert silent.rest() == ""
        assert "<" not in handshaking.rest(), "no XML in the clear"
        kept = Client(plane, port).login("alice", "desk")
        plane.until(lambda: plane.server.stats()["sessions"] == 1)
        kept.send("<iq type='get' id='here'/>")
        kept.until("id='here'/>")


def test_a_handshake_that_never_ends_is_cut_off() -> None:
    with host() as plane:
        client = Client(plane, plane.listen("tls"))
        record = b"\x16\x03\x01\x40\x00" + b"\x01\x00\xff\xff" + bytes(16380)
        client.send(record + b"\x16\x03\x01\x40\x00" + bytes(12_000))
        client.rest()
        plane.until(lambda: plane.server.stats()["tls_failures"] == 1)


def test_newcomers_push_out_the_oldest_that_did_not_sign_in() -> None:
    with host(max_unauthenticated=3, threads=1) as plane:
        port = plane.listen()
        signed_in = Client(plane, port).login("alice", "desk")
        waiting = []
        for _ in range(3):
            client = Client(plane, port)
            client.send(HEADER)
            client.until("<stream:features/>")
            waiting.append(client)
        newcomer = Client(plane, port)
        newcomer.send(HEADER)
        newcomer.until("<stream:features/>")
        waiting[0].rest()
        assert plane.server.stats()["refused"] == 1
        for client in (*waiting[1:], newcomer, signed_in):
            client.send("<iq type='get' id='here'/>")
            client.until("id='here'/>")


def test_no_more_sessions_than_allowed() -> None:
    with host(max_sessions=2) as plane:
        port = plane.listen()
        first, _second = Client(plane, port).login("a", "1"), Client(plane, port).login("a", "2")
        assert Client(plane, port).rest() == ""
        first.close()
        plane.until(lambda: plane.server.stats()["sessions"] == 1)
        Client(plane, port).login("a", "3")


def test_a_reader_that_does_not_read_is_closed() -> None:
    with host(write_queue=65536) as plane:
        port = plane.listen()
        alice = Client(plane, port).login("alice", "desk")
        bob = Client(plane, port)
        bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        bob.login("bob", "phone")
        sid = plane.sid(f"{BOB}/phone")
        message = f"<message to='{BOB}/phone'><body>{'x' * 100_000}</body></message>"
        for _ in range(200):
            alice.send(message)
            plane.pump(0)
            if plane.server.stats()["slow_readers"]:
                break
        assert plane.event("closed", sid)[2].startswith("resource-constraint")
        alice.send("<iq type='get' id='here'/>")
        alice.until("id='here'/>")


def test_a_reader_that_takes_nothing_is_closed_in_time() -> None:
    with host(write_timeout=0.0, threads=1) as plane:
        port = plane.listen()
        bob = Client(plane, port)
        bob.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        bob.login("bob", "phone")
        sid = plane.sid(f"{BOB}/phone")
        large = Element("message", NS_CLIENT, {}, [Element("body", NS_CLIENT, {}, ["x" * 3_000_000])])
        plane.server.send(sid, [large])
        assert plane.event("closed", sid)[2].startswith("resource-constraint")


def test_a_stranger_that_does_not_read_gets_little() -> None:
    ping = b"\x89\xfd" + bytes(4) + bytes(125)
    with host() as plane:
        client = WebClient(plane, plane.listen("websocket"))
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.upgraded()
        with contextlib.suppress(OSError):
            for _ in range(200):  # 2.6 MB, much less than may wait for somebody who has signed in
                client.send_raw(ping * 100)
        plane.until(lambda: plane.server.stats()["slow_readers"] == 1)


def test_a_session_is_not_read_while_python_is_behind() -> None:
    with host(pending_events=8) as plane:
        alice = Client(plane, plane.listen()).login("alice", "desk")
        plane.answering = False
        before = len(plane.stanzas())
        count = 400
        alice.send("".join(f"<iq type='get' id='{number}'/>" for number in range(count)))
        plane.until(lambda: plane.server.stats()["pauses"] >= 1)
        assert plane.server.stats()["events"] <= 8
        plane.until(lambda: len(plane.stanzas()) == before + count)
        assert [stanza.get("id") for stanza in plane.stanzas()[before:]] == [str(number) for number in range(count)]


def test_memory_stays_flat_in_a_flood_before_signing_in() -> None:
    with host(threads=1, max_unauthenticated=300) as plane:
        port, tls, web = plane.listen(), plane.listen("tls"), plane.listen("websocket")
        sockets: list[socket.socket] = []
        junk = [
            (port, HEADER.encode() + b"<a>" * 90),
            (port, HEADER.encode() + b"<a b='" + b"x" * 9000),
            (tls, b"\x16\x03\x01\x40\x00" + bytes(9000)),
            (web, b"GET /xmpp-websocket HTTP/1.1\r\nHost: " + b"x" * 8000),
        ]

        def flood(rounds: int) -> None:
            for number in range(rounds):
                place, words = junk[number % 4]
                sock = socket.create_connection(("127.0.0.1", place))
                sock.setblocking(False)
                sock.send(words)
                sockets.append(sock)
                if len(sockets) > 400:
                    sockets.pop(0).close()
                plane.pump(0)
                plane.seen.clear()

        flood(1200)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        flood(2400)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        for sock in sockets:
            sock.close()
        assert grown < 8 * 1024, f"{grown} KiB more after 2,400 more connections"
        plane.until(lambda: plane.server.stats()["sessions"] == 0)
        assert plane.server.stats()["panics"] == 0


def test_events_are_cheap_to_keep_for_a_host_that_sleeps() -> None:
    with host(threads=1) as plane:
        port = plane.listen()
        plane.answering = False
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.sendall(HEADER.encode() + b"</stream:stream>")
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
        assert plane.server.stats()["events"] <= 300 * 4


def test_a_peer_that_does_not_say_goodbye_is_dropped_after_the_linger_time() -> None:
    with host(linger=0.2) as plane:
        client = Client(plane, plane.listen()).login("alice", "desk")
        plane.server.close(plane.sid(f"alice@{DOMAIN}/desk"))
        client.until("</stream:stream>")
        plane.until(lambda: plane.server.stats()["sessions"] == 0)
        plane.answering = False
        client = Client(plane, plane.listen())
        client.send(HEADER + "</stream:stream>")
        plane.until(lambda: plane.server.stats()["accepted"] == 2)
        plane.until(lambda: plane.server.stats()["sessions"] == 0)


def test_idle_sessions_can_be_ended() -> None:
    with host(idle_timeout=0.1, threads=1) as plane:
        client = Client(plane, plane.listen()).login("alice", "desk")
        assert "<connection-timeout" in client.rest()


def test_a_sender_that_is_too_fast_is_read_more_slowly() -> None:
    with host(rate=20_000, burst=20_000, threads=1) as plane:
        alice = Client(plane, plane.listen()).login("alice", "desk")
        alice.send("".join(f"<iq type='get' id='{number}'/>" for number in range(1500)))
        plane.until(lambda: plane.server.stats()["throttled"] >= 1)
        assert plane.server.stats()["bytes_in"] < 40_000
        alice.until("id='1499'/>")
