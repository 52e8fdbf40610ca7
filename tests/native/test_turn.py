"""The TURN engine against coturn's own client and peer, and against a client that asks what those cannot."""

from __future__ import annotations

import base64
import hmac
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from moim._native import TurnServer
from moim.errors import Unavailable, UsageError

from .turn_peers import (
    ALLOCATE,
    BINDING,
    DATA,
    DONT_FRAGMENT,
    EVEN_PORT,
    LIFETIME,
    MAPPED,
    PEER,
    REFRESH,
    RELAYED,
    TOKEN,
    UDP,
    TurnClient,
    echo_peer,
    keys,
    parse,
    uclient,
)

REALM = "moim.test"
SECRET = b"0123456789abcdef"


@pytest.fixture
def server() -> Iterator[TurnServer]:
    """A server that knows alice and a secret, and may relay to loopback; not yet listening."""
    server = TurnServer(REALM, old_channel_range=True, threads=2)
    server.set_users({"alice": keys("alice", REALM, "wonder")})
    server.set_secrets([b"an older secret!", SECRET])
    server.set_peer_rules(["127.0.0.0/8"], [])
    yield server
    server.stop()


@pytest.fixture
def place(server: TurnServer) -> tuple[str, int]:
    """Where it listens."""
    return "127.0.0.1", server.listen("127.0.0.1", 0, relay_address="127.0.0.1")


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    """A peer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        yield sink


def events(server: TurnServer, kind: str, count: int = 1) -> list[Any]:
    """Waits until that many events of a kind have come."""
    found: list[Any] = []
    until = time.monotonic() + 10
    while len(found) < count and select.select([server.fileno()], [], [], max(0.0, until - time.monotonic()))[0]:
        found += [event for event in server.drain(1000) if event[0] == kind]
    return found


@pytest.mark.interop
@pytest.mark.parametrize(
    "flags",
    [
        ("-u", "alice", "-w", "wonder"),
        ("-u", "alice", "-W", SECRET.decode()),
        ("-u", "alice", "-w", "wonder", "-s"),
        ("-u", "alice", "-w", "wonder", "-g", "-D", "-c", "-m", "4", "-l", "1000"),
        ("-u", "alice", "-w", "wonder", "-y", "-c", "-m", "4"),
    ],
    ids=["long-term", "shared-secret", "send-indications", "padding-and-no-fragments", "relay-to-relay"],
)
def test_coturns_client_loses_nothing(server: TurnServer, place: tuple[str, int], flags: tuple[str, ...]) -> None:
    with echo_peer() as port:
        outcome = uclient(place, ("127.0.0.1", port), *flags, "-n", "50", "-z", "5")
    assert outcome.code == 0, outcome.output
    assert outcome.sent == outcome.received >= 50, outcome.output
    stats = server.stats()
    assert stats["packets_to_peers"] == stats["packets_from_peers"] >= outcome.sent
    assert stats["unsent"] == stats["dropped"] == 0


@pytest.mark.interop
@pytest.mark.parametrize("flags", [("-w", "wrong"), ("-W", "another secret")], ids=["password", "secret"])
def test_coturns_client_is_refused_with_wrong_credentials(
    server: TurnServer, place: tuple[str, int], flags: tuple[str, ...]
) -> None:
    outcome = uclient(place, ("127.0.0.1", 9), "-u", "alice", *flags)
    assert outcome.code != 0
    refused = events(server, "refused")[0]
    assert refused[2:] == (401, "the password is wrong", 1)
    assert server.stats()["allocations_made"] == 0


@pytest.mark.interop
def test_coturns_client_is_kept_from_denied_peers(server: TurnServer, place: tuple[str, int]) -> None:
    server.set_peer_rules([], [])
    outcome = uclient(place, ("127.0.0.1", 9), "-u", "alice", "-w", "wonder", "-c")
    assert outcome.code != 0
    assert "403" in outcome.output
    code, reason = events(server, "refused")[0][2:4]
    assert code == 403
    assert reason.startswith("peer 127.0.0.1:")
    assert reason.endswith(" is a loopback address")


@pytest.mark.interop
def test_the_older_channel_range_is_a_setting(sink: socket.socket) -> None:
    for old, code in ((False, 400), (True, 0)):
        server = TurnServer(REALM, old_channel_range=old)
        server.set_users({"alice": keys("alice", REALM, "wonder")})
        server.set_peer_rules(["127.0.0.0/8"], [])
        place = "127.0.0.1", server.listen("127.0.0.1", 0, relay_address="127.0.0.1")
        with TurnClient(place, "alice", "wonder") as client:
            client.allocate()
            assert client.bind(0x5000, sink.getsockname()) == code
            assert client.bind(0x4FFF, ("127.0.0.1", 9)) == 0
        server.stop()


def test_binding_tells_the_address(place: tuple[str, int]) -> None:
    with TurnClient(place, "", "") as client:
        assert client.ask(BINDING).address(MAPPED) == client.address


def test_packets_of_every_size_pass_both_ways(place: tuple[str, int], sink: socket.socket) -> None:
    with TurnClient(place, "alice", "wonder") as client:
        relay = client.allocate()
        assert client.permit(sink.getsockname()) == 0
        for size in (0, 1, 2, 3, 1200, 9000, 60_000):
            payload = bytes(range(256)) * 256
            client.send(sink.getsockname(), payload[:size])
            assert sink.recvfrom(65535) == (payload[:size], relay)
            sink.sendto(payload[:size], relay)
            answer = parse(client.socket.recv(65535))
            assert answer.type == 0x0017
            assert answer.attributes[DATA] == payload[:size]
            assert answer.address(PEER) == sink.getsockname()
        assert client.bind(0x4000, sink.getsockname()) == 0
        for size in (0, 1, 1200, 60_000):
            message = struct.pack(">HH", 0x4000, size) + payload[:size]
            client.socket.send(message)
            assert sink.recvfrom(65535) == (payload[:size], relay)
            sink.sendto(payload[:size], relay)
            assert client.socket.recv(65535) == message


def test_bursts_keep_order_and_boundaries(place: tuple[str, int], sink: socket.socket) -> None:
    frames = [bytes([number % 256]) * (1100 if number % 9 else 1 + number % 700) for number in range(200)]
    with TurnClient(place, "alice", "wonder") as client:
        relay = client.allocate()
        assert client.bind(0x4000, sink.getsockname()) == 0
        for frame in frames:
            client.socket.send(struct.pack(">HH", 0x4000, len(frame)) + frame)
        assert [sink.recv(2000) for _ in frames] == frames
        for frame in frames:
            sink.sendto(frame, relay)
        assert [client.socket.recv(2000)[4:] for _ in frames] == frames


def test_dont_fragment_is_taken_per_packet(place: tuple[str, int], sink: socket.socket) -> None:
    with TurnClient(place, "alice", "wonder") as client:
        relay = client.allocate((DONT_FRAGMENT, b""))
        assert client.permit(sink.getsockname()) == 0
        for flags in ((), ((DONT_FRAGMENT, b""),), ()):
            client.send(sink.getsockname(), b"small", *flags)
            assert sink.recvfrom(100) == (b"small", relay)


def test_reserved_ports_are_redeemed_by_any_client(place: tuple[str, int]) -> None:
    # The kernel deals clients to both threads, so some of these redeem what the other thread holds.
    for _ in range(8):
        with TurnClient(place, "alice", "wonder") as first, TurnClient(place, "alice", "wonder") as second:
            assert first.ask(ALLOCATE, UDP).code == 401
            answer = first.ask(ALLOCATE, UDP, (EVEN_PORT, b"\x80"))
            port = answer.address(RELAYED)[1]
            assert port % 2 == 0
            assert second.ask(ALLOCATE, UDP).code == 401
            redeemed = second.ask(ALLOCATE, UDP, (TOKEN, answer.attributes[TOKEN]))
            assert redeemed.address(RELAYED)[1] == port + 1
            assert second.permit(("127.0.0.1", 9)) == 0


def test_many_clients_over_all_threads(server: TurnServer, place: tuple[str, int], sink: socket.socket) -> None:
    clients = [TurnClient(place, "alice", "wonder") for _ in range(40)]
    relays = {client.allocate() for client in clients}
    assert len(relays) == 40
    for number, client in enumerate(clients):
        assert client.bind(0x4000 + number, sink.getsockname()) == 0
        client.socket.send(struct.pack(">HH", 0x4000 + number, 1) + b"x")
    assert {sink.recvfrom(10)[1] for _ in clients} == relays
    rows = server.allocations()
    assert {tuple(row["relays"]) for row in rows} == {(f"{ip}:{port}",) for ip, port in relays}
    assert server.stats()["allocations"] == 40
    assert server.stats()["threads"] == 2
    for client in clients:
        assert client.ask(REFRESH, (LIFETIME, b"\0\0\0\0")).code == 0
        client.socket.close()
    assert server.stats()["allocations"] == 0
    assert len(events(server, "closed", 40)) == 40


def test_the_table_shows_peers_and_traffic(server: TurnServer, place: tuple[str, int], sink: socket.socket) -> None:
    ip, port = sink.getsockname()
    with TurnClient(place, "alice", "wonder") as client:
        relay = client.allocate()
        assert client.bind(0x4001, (ip, port)) == 0
        client.socket.send(struct.pack(">HH", 0x4001, 5) + b"hello")
        sink.sendto(sink.recv(100) * 2, relay)
        client.socket.recv(100)
        (row,) = server.allocations()
    assert row["client"] == f"127.0.0.1:{client.address[1]}"
    assert row["server"] == f"127.0.0.1:{place[1]}"
    assert row["username"] == "alice"
    assert row["relays"] == [f"127.0.0.1:{relay[1]}"]
    assert (row["packets_to"], row["bytes_to"], row["packets_from"], row["bytes_from"]) == (1, 5, 1, 10)
    assert (row["requests"], row["successes"], row["errors"], row["dropped"]) == (2, 2, 0, 0)
    assert 590 < row["expires_in_s"] <= 600
    (permission,) = row["permissions"]
    assert (permission["peer"], permission["bytes_from"]) == (ip, 10)
    (channel,) = row["channels"]
    assert (channel["number"], channel["peer"], channel["bytes_to"]) == (0x4001, f"{ip}:{port}", 5)
    (event,) = events(server, "allocated")
    assert event == ("allocated", row["client"], "alice", row["relays"], 600)


def test_policy_takes_effect_when_the_call_returns(server: TurnServer, place: tuple[str, int]) -> None:
    peer = ("127.0.0.1", 9)
    with TurnClient(place, "alice", "wonder") as client:
        client.allocate()
        assert client.permit(peer) == 0
        server.set_peer_rules(["127.0.0.1:10"], [])
        assert client.bind(0x4000, peer) == 403
        assert client.bind(0x4000, ("127.0.0.1", 10)) == 0
        server.set_users({})
        assert server.stats()["allocations"] == 0
        assert client.ask(REFRESH).code == 401
    assert events(server, "closed")[0][4] == "its credential was withdrawn"


def test_a_shared_secret_vouches_until_the_end_it_signed(server: TurnServer, place: tuple[str, int]) -> None:
    for end, code in ((int(time.time()) + 60, 0), (int(time.time()) - 1, 401)):
        name = f"{end}:bob"
        password = base64.b64encode(hmac.digest(SECRET, name.encode(), "sha1")).decode()
        with TurnClient(place, name, password) as client:
            assert client.ask(ALLOCATE, UDP).code == 401
            assert client.ask(ALLOCATE, UDP).code == code
    assert events(server, "refused")[0][3] == "the credential has expired"


def test_a_flood_neither_fills_the_queue_nor_goes_unnoticed(sink: socket.socket) -> None:
    server = TurnServer(REALM, threads=1, unauthenticated_rate=5, unauthenticated_burst=1000)
    server.set_users({"alice": keys("alice", REALM, "wonder")})
    place = "127.0.0.1", server.listen("127.0.0.1", 0, relay_address="127.0.0.1")
    with TurnClient(place, "alice", "wrong") as client:
        assert client.ask(ALLOCATE, UDP).code == 401
        request = client.build(ALLOCATE, UDP)
        for _ in range(3000):
            client.socket.send(request)
        assert server.stats()["unauthorized"] >= 1
        told = events(server, "refused", 2)
        assert told[0][4] == 1
        assert told[1][4] > 1
        assert server.stats()["unauthorized"] <= 110
    server.stop()


def test_calls_from_several_threads_do_not_block_each_other(server: TurnServer, place: tuple[str, int]) -> None:
    def ask() -> None:
        for _ in range(50):
            server.stats()
            server.set_secrets([SECRET])

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    with TurnClient(place, "alice", "wonder") as client:
        client.allocate()
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()


def test_static_nat_shows_the_external_address(server: TurnServer) -> None:
    port = server.listen(
        "127.0.0.3", 0, relay_address="127.0.0.3", external_address="203.0.113.7", relay_ports=(31000, 31999)
    )
    with TurnClient(("127.0.0.3", port), "alice", "wonder") as client:
        ip, relay_port = client.allocate()
        assert ip == "203.0.113.7"
        assert 31000 <= relay_port <= 31999
        assert client.permit(("203.0.113.7", 22)) == 403
    assert events(server, "refused")[0][3] == "peer 203.0.113.7 is an address of this server"


def test_a_port_in_use_is_said_so(server: TurnServer, place: tuple[str, int]) -> None:
    with pytest.raises(Unavailable, match="cannot listen on"):
        server.listen(*place, relay_address="127.0.0.1")
    other = TurnServer(REALM, threads=2)
    with pytest.raises(Unavailable, match="in use"):
        other.listen(*place, relay_address="127.0.0.1")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("0.0.0.0", 0), {"relay_address": "127.0.0.1"}),
        (("127.0.0.1", 0), {"relay_address": "::"}),
        (("localhost", 0), {"relay_address": "127.0.0.1"}),
        (("127.0.0.1", 0), {"relay_address": "127.0.0.1", "relay_ports": (80, 90)}),
        (("127.0.0.1", 0), {"relay_address": "127.0.0.1", "relay_ports": (3000, 2000)}),
        (("127.0.0.1", 0), {"relay_address": "127.0.0.1", "external_address": "2001:db8::1"}),
        (("127.0.0.1", 0), {"relay_address": "127.0.0.1", "relay_address_v6": "127.0.0.2"}),
        (("127.0.0.1", 0), {"relay_address": "127.0.0.1", "external_address_v6": "2001:db8::1"}),
    ],
)
def test_impossible_addresses_are_usage_errors(
    server: TurnServer, arguments: tuple[str, int], options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        server.listen(*arguments, **options)


def test_impossible_credentials_and_rules_are_usage_errors(server: TurnServer) -> None:
    with pytest.raises(UsageError, match="alice"):
        server.set_users({"alice": (b"short", b"short")})
    with pytest.raises(UsageError, match="secrets"):
        server.set_secrets([b""])
    with pytest.raises(UsageError, match=r"10\.0\.0\.0/40"):
        server.set_peer_rules(["10.0.0.0/40"], [])
    for options in (
        {"realm": ""},
        {"realm": 'a"b'},
        {"realm": "a", "max_allocations": 0},
        {"realm": "a", "software": "x" * 800},
    ):
        with pytest.raises(UsageError):
            TurnServer(**options)


def test_stopping_twice_is_fine_and_ends_everything(server: TurnServer, place: tuple[str, int]) -> None:
    with TurnClient(place, "alice", "wonder") as client:
        relay = client.allocate()
        server.stop()
        server.stop()
    assert server.stats()["threads"] == 0
    assert server.allocations() == []
    assert events(server, "closed")[0][4] == "the server stops"
    for address in (place, relay):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(address)
    with pytest.raises(UsageError, match="stopped"):
        server.listen("127.0.0.1", 0, relay_address="127.0.0.1")
