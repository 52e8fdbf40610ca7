"""Both halves of the edge: the tunnel comes up, breaks and comes back; state, certificate and health follow."""

from __future__ import annotations

import asyncio
import ipaddress
import stat
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from moim.edge import Settings, Target
from moim.edge.settings import TunnelSettings
from moim.edge.turn import TurnSettings
from moim.errors import ConfigError, Unavailable
from moim.model import CertificateChanged

from .conftest import House, Upstream

GET = b"GET / HTTP/1.1\r\nHost: edge.moim.test:18443\r\nConnection: close\r\n\r\n"


async def _next(house: House, *, up: bool) -> None:
    async with asyncio.timeout(20):
        while (await house.changes.get()).up is not up:
            pass


def _serial(house: House) -> int:
    return x509.load_pem_x509_certificate(house.edge.certificate.chain_file.read_bytes()).serial_number


def _bound(transport: str, address: str, state: str) -> set[int]:
    """Catalogue ports that are bound on an address, from the kernel's table."""
    found = set()
    for line in Path(f"/proc/net/{transport}").read_text().splitlines()[1:]:
        local, is_state = line.split()[1], line.split()[3]
        host, port = local.split(":")
        if is_state == state and ipaddress.ip_address(bytes.fromhex(host)[::-1]).compressed == address:
            found.add(int(port, 16) - 10_000)
    return found


async def test_a_request_from_outside_reaches_the_web_target(house: House, upstream: Upstream) -> None:
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    for standard in (8443, 443):
        answer = await house.raw(GET, port=house.site.settings.ports.bind(standard))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\nhello")


async def test_a_cut_tunnel_comes_back_with_the_whole_state(house: House, upstream: Upstream) -> None:
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    before = house.edge.health()[0].detail
    house.inside._dialer._drop()
    await _next(house, up=False)
    await _next(house, up=True)
    await house.inside.settled()
    assert (await house.raw(GET)).startswith(b"HTTP/1.1 200 ")
    assert house.inside._dialer.applied == house.inside._dialer.pushed != ""
    assert before != house.edge.health()[0].detail
    assert house.authority.signed == 1


async def test_without_the_tunnel_the_edge_answers_503(house: House) -> None:
    await house.start()
    await house.inside.stop()
    async with asyncio.timeout(10):
        while house.edge._tunnel is not None:
            await asyncio.sleep(0.01)
    answer = await house.raw(GET)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 5" in answer.lower()
    assert b"tunnel to the inside is down" in answer
    page = await house.raw(GET.replace(b"Connection", b"Accept: text/html\r\nAccept-Language: ko-KR\r\nConnection"))
    assert b'<html lang="ko">' in page
    assert "연결되어 있지 않습니다".encode() in page
    reader, writer = await asyncio.open_connection(house.edge_address, house.site.settings.ports.bind(5222))
    assert await reader.read() == b""
    writer.close()
    reasons = {(refusal.listener, refusal.reason) for refusal in house.edge._refusals.list()}
    assert any(listener == "edge-xmpp" and "tunnel" in reason for listener, reason in reasons)
    assert any(listener == "edge-https" and "tunnel" in reason for listener, reason in reasons)
    assert {status.name: status.state for status in house.edge.health()}["edge-xmpp"] == "degraded"


async def test_an_edge_without_certificate_closes_tls_at_once(house: House) -> None:
    await house.edge.start()
    states = {status.name: (status.state, status.detail) for status in house.edge.health()}
    assert states["edge-https"] == ("starting", "waits for its certificate from the inside")
    assert states["tunnel"][0] == "degraded"
    with pytest.raises(OSError):
        await house.connect()


async def test_a_restarted_edge_serves_its_certificate_before_the_inside_is_back(house: House) -> None:
    await house.start()
    await house.edge.stop()
    await house.inside.stop()
    await house.make_edge().start()
    answer = await house.raw(GET)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"waits for the inside" in answer
    await house.make_inside().start()
    await house.certified()
    assert house.authority.signed == 1


async def test_the_inside_waits_for_an_edge_that_comes_later(house: House) -> None:
    house.make_inside()
    await house.inside.start()
    async with asyncio.timeout(10):
        while "no tunnel to the edge" not in house.inside.health()[0].detail:
            await asyncio.sleep(0.01)
    assert house.inside.health()[0].state == "degraded"
    await house.edge.start()
    await house.certified()
    status = house.inside.health()[0]
    assert (status.name, status.node, status.state) == ("tunnel", "inside", "running")
    assert "edge.moim.test" in status.detail


async def test_a_new_certificate_drops_no_connection(house: House, upstream: Upstream) -> None:
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    first = _serial(house)
    reader, writer = await house.connect()
    writer.write(GET.replace(b"close", b"keep-alive"))
    await reader.readuntil(b"hello")
    await house.inside_bus.publish(CertificateChanged("edge"))
    async with asyncio.timeout(10):
        while _serial(house) == first:
            await asyncio.sleep(0.01)
    writer.write(GET)
    assert b"hello" in await reader.read()
    writer.close()
    _, fresh = await house.connect()
    shown = x509.load_der_x509_certificate(fresh.get_extra_info("ssl_object").getpeercert(binary_form=True))
    assert shown.serial_number == _serial(house) != first
    fresh.close()


async def test_a_renewal_that_is_due_before_the_tunnel_is_up_is_not_lost(house: House) -> None:
    await house.start()
    first = _serial(house)
    await house.inside.stop()
    house.make_inside()
    await house.inside_bus.publish(CertificateChanged("edge"))
    await house.inside.start()
    async with asyncio.timeout(10):
        while _serial(house) == first:
            await asyncio.sleep(0.01)
    assert house.authority.signed == 2


async def test_secrets_have_mode_0600(house: House) -> None:
    await house.start()
    root = house.site.root
    private = ("edge/ssh_host_key", "inside/edge/client_key", "edge/trust/key.pem", "inside/edge/turn-secrets.json")
    for path in private:
        assert stat.S_IMODE((root / path).stat().st_mode) == 0o600, path


async def test_turn_gets_its_secrets_and_the_media_peers(house: House) -> None:
    await house.start()
    state = house.inside.desired()
    assert len(state.turn.secrets) == 1
    assert [(peer.address, peer.port) for peer in state.turn.allow_peers] == [(house.inside_address, 26384)]
    await house.inside.set_media([(house.inside_address, 30000)])
    await house.inside.settled()
    assert house.edge._state is not None
    assert [peer.port for peer in house.edge._state.turn.allow_peers] == [30000]


@pytest.mark.interop
async def test_issued_credentials_relay_to_the_media_plane(make_house: Callable[..., House]) -> None:
    house = make_house(Settings(turn=TurnSettings(old_channel_range=True)))  # which turnutils_uclient uses
    await house.start()
    (server,) = house.inside.ice.issue("alice@moim.test", True)
    first = house.site.settings.ports.bind(16384)
    # The client also binds a channel to the next port, as for RTCP; nothing else of the inside may be relayed to.
    await house.inside.set_media([(house.inside_address, first), (house.inside_address, first + 1)])
    await house.inside.settled()
    media = str(first)
    peer = await asyncio.create_subprocess_exec(
        "turnutils_peer", "-L", house.inside_address, "-p", media, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        client = await asyncio.create_subprocess_exec(
            *("turnutils_uclient", "-u", server["username"], "-w", server["credential"], "-p", "13478", "-n", "50"),
            *("-m", "1", "-c", "-L", house.edge_address, "-e", house.inside_address, "-r", media, house.edge_address),
            stdout=PIPE,
            stderr=STDOUT,
        )
        talking = asyncio.create_task(client.communicate())
        while not house.inside.edge_status.relays and not talking.done():
            house.edge._changed.set()
            await asyncio.sleep(0.01)
        seen = house.inside.edge_status.relays
        output, _ = await talking
    finally:
        peer.kill()
        await peer.wait()
        await house.stop()
    assert seen
    assert "alice@moim.test" in str(seen[0])
    assert b"Total lost packets 0 (0.000000%)" in output, output.decode()


async def test_the_edge_listens_on_its_public_ports_and_nothing_else(house: House) -> None:
    await house.start()
    assert _bound("tcp", house.edge_address, "0A") == {2222, 8443, 443, 5222, 5269}
    assert _bound("udp", house.edge_address, "07") == {3478}


async def test_status_of_the_edge_is_known_inside(house: House, upstream: Upstream) -> None:
    house.targets["web"] = Target(path=upstream.path)
    await house.start()
    await house.raw(GET)
    await house.raw(GET.replace(b"edge.moim.test", b"evil.example"))
    house.edge._changed.set()
    async with asyncio.timeout(10):
        while not house.inside.edge_status.refusals or not house.inside.edge_status.counters.get("responses.2xx"):
            await asyncio.sleep(0.01)
    status = house.inside.edge_status
    assert {listener.name for listener in status.listeners} >= {"tunnel", "edge-https", "edge-web", "edge-xmpp"}
    assert status.refusals[0].listener == "edge-https"
    assert "evil.example" in status.refusals[0].reason


async def test_a_port_that_is_taken_says_so(house: House) -> None:
    first = house.edge
    await first.start()
    with pytest.raises(Unavailable, match="edge-https cannot listen"):
        await house.make_edge().start()
    await first.stop()


async def test_missing_keys_say_so(house: House) -> None:
    (house.site.root / "edge" / "ssh_host_key").unlink()
    with pytest.raises(ConfigError, match="ssh_host_key"):
        await house.edge.start()


async def test_another_hosts_key_stops_the_tunnel(house: House) -> None:
    known = house.site.root / "inside" / "edge" / "known_host.pub"
    known.write_bytes((house.site.root / "edge" / "authorized_key.pub").read_bytes())
    await house.edge.start()
    house.make_inside()
    await house.inside.start()
    async with asyncio.timeout(10):
        while "another host key" not in house.inside.health()[0].detail:
            await asyncio.sleep(0.01)
    assert not house.inside.up


async def test_an_edge_that_goes_silent_is_noticed(make_house: Callable[..., House]) -> None:
    house = make_house(Settings(tunnel=TunnelSettings(keepalive_s=0.1, keepalive_missed=1)))
    await house.start()
    try:
        # The edge stops reading without closing: what a host that lost its power looks like.
        assert house.edge._tunnel is not None
        assert house.edge._tunnel._connection._transport is not None
        house.edge._tunnel._connection._transport.pause_reading()
        await _next(house, up=False)
        await _next(house, up=True)
    finally:
        await house.stop()
