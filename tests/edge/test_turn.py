"""TURN on the edge: settings, what the inside pushes, health, the log; and the whole against coturn's client."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from pydantic import ValidationError

from moim.edge import Settings
from moim.edge.turn import Turn, TurnSettings, long_term_keys, rest_credentials
from moim.errors import ConfigError, Unavailable, UsageError
from moim.settings import Node, Nodes, Ports, Site, SiteSettings

ADDRESS = "127.0.0.46"
SECRET = "a-shared-secret-of-the-site"


def make_site(root: Path) -> Site:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((ADDRESS, 0))
        offset = probe.getsockname()[1] - 3478
    nodes = Nodes(edge=Node(address=ADDRESS))
    (root / "edge").mkdir(exist_ok=True)
    return Site(root, SiteSettings(nodes=nodes, ports=Ports(offset=offset)), {"edge": Settings()})


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Turn]]]:
    """Starts a TURN service with these settings; stopped afterwards."""
    started: list[Turn] = []

    async def begin(**settings: object) -> Turn:
        turn = Turn(site=make_site(tmp_path), settings=TurnSettings.model_validate(settings))
        await turn.start()
        started.append(turn)
        return turn

    yield begin
    for turn in started:
        await turn.stop()


async def run(program: str, *arguments: str) -> tuple[int, str]:
    path = shutil.which(program) or f"/usr/bin/{program}"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(path, *arguments, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


async def echo_pair() -> tuple[int, list[asyncio.DatagramTransport]]:
    """Echoes on two ports in a row, as coturn's client wants its peer (RTP and RTCP); gives the first."""
    loop = asyncio.get_running_loop()
    while True:
        first, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", 0))
        port: int = first.get_extra_info("sockname")[1]
        try:
            second, _ = await loop.create_datagram_endpoint(Echo, local_addr=("127.0.0.1", port + 1))
        except (OSError, OverflowError):
            first.close()
            continue
        return port, [first, second]


@pytest.mark.interop
async def test_a_pushed_secret_lets_coturns_client_reach_the_pushed_peer_alone(
    start: Callable[..., Awaitable[Turn]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "moim.edge.turn")
    turn = await start(old_channel_range=True)
    port, echoes = await echo_pair()
    other_port, others = await echo_pair()
    peers = [("127.0.0.1", port), ("127.0.0.1", port + 1), ("::1", 9)]
    turn.apply(secrets=[SECRET], users={}, allow_peers=peers)
    server = turn.health()[0].port
    # The username is the client's own making: it appends the end and a colon itself.
    flags = ("-u", "alice", "-W", SECRET, "-c", "-n", "20", "-z", "5", "-p", str(server), "-e", "127.0.0.1")
    code, output = await run("turnutils_uclient", *flags, "-r", str(port), ADDRESS)
    assert code == 0, output
    assert re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)[-1] == ("20", "20"), output
    code, output = await run("turnutils_uclient", *flags, "-r", str(other_port), ADDRESS)
    assert code != 0
    assert "403" in output
    for transport in (*echoes, *others):
        transport.close()
    text = caplog.text
    assert "got the relay 127.0.0.46:" in text
    assert "released by the client" in text
    assert re.search(r"refused 127\.0\.0\.\d+:\d+: 403 peer 127\.0\.0\.1:\d+ is a loopback address", text)


@pytest.mark.interop
async def test_static_users_work_before_the_inside_has_spoken(
    start: Callable[..., Awaitable[Turn]], tmp_path: Path
) -> None:
    secret = tmp_path / "edge" / "turn-bob"
    secret.parent.mkdir()
    secret.write_text("from a file\n", encoding="utf-8")
    secret.chmod(0o600)
    users = {"alice": "wonder", "bob": "file:turn-bob"}
    turn = await start(users=users, allow_peers=["127.0.0.0/8"], old_channel_range=True)
    port, echoes = await echo_pair()
    place = ("-c", "-p", str(turn.health()[0].port), "-e", "127.0.0.1", "-r", str(port), ADDRESS)
    for user, password, good in (("alice", "wonder", True), ("bob", "from a file", True), ("bob", "guess", False)):
        code, output = await run("turnutils_uclient", "-u", user, "-w", password, *place)
        assert (code == 0) is good, output
    for transport in echoes:
        transport.close()


async def test_the_table_is_bounded(start: Callable[..., Awaitable[Turn]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Server:
        def allocations(self) -> list[dict[str, object]]:
            return [{"permissions": [{}] * 128, "channels": [{}] * 128} for _ in range(64)]

    turn = await start()
    with monkeypatch.context() as patch:
        patch.setattr(turn, "_server", Server())
        rows = turn.relays()
    assert sum(len(row["permissions"]) + len(row["channels"]) for row in rows) == 4096
    assert all((row["permission_count"], row["channel_count"]) == (128, 128) for row in rows)


async def test_health_follows_the_service(start: Callable[..., Awaitable[Turn]]) -> None:
    turn = await start()
    (status,) = turn.health()
    assert (status.name, status.node, status.transport, status.address) == ("turn", "edge", "udp", ADDRESS)
    assert (status.state, status.detail) == ("running", "0 relays")
    assert turn.relays() == []
    await turn.stop()
    assert turn.health()[0].state == "stopped"
    assert turn.relays() == []


async def test_switched_off_it_listens_nowhere(start: Callable[..., Awaitable[Turn]]) -> None:
    turn = await start(enabled=False)
    assert turn.health() == []
    turn.apply(secrets=[SECRET], users={}, allow_peers=[])


async def test_a_port_in_use_is_unavailable(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind((ADDRESS, site.settings.ports.bind(3478)))
        with pytest.raises(Unavailable, match="cannot listen"):
            await Turn(site=site, settings=TurnSettings()).start()


async def test_a_push_that_cannot_be_used_is_refused_and_changes_nothing(start: Callable[..., Awaitable[Turn]]) -> None:
    turn = await start()
    with pytest.raises(UsageError):
        turn.apply(secrets=[SECRET], users={}, allow_peers=[("nonsense", 9)])
    assert turn.health()[0].state == "running"


@pytest.mark.parametrize(
    "settings",
    [
        {"relay_ports": (80, 90)},
        {"relay_ports": (30000, 29999)},
        {"relay_ports": (30000, 70000)},
        {"allow_peers": ["localhost"]},
        {"allow_peers": ["10.0.0.0/33"]},
        {"allow_peers": ["10.0.0.0/255.0.0.0"]},
        {"deny_peers": ["10.0.0.1:0"]},
        {"deny_peers": ["10.0.0.1:x"]},
        {"deny_peers": ["[10.0.0.1]:5"]},
        {"deny_peers": ["fe80::1%eth0"]},
        {"max_allocations": 0},
        {"colour": "blue"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TurnSettings.model_validate(settings)


async def test_every_form_of_a_peer_that_settings_take_is_understood(start: Callable[..., Awaitable[Turn]]) -> None:
    peers = ["10.0.0.0/8", "10.1.2.3/8", "192.0.2.1", "192.0.2.1:5000", "2001:db8::/32", "2001:db8::1", "[::1]:5000"]
    await start(allow_peers=peers, deny_peers=peers)


@pytest.mark.parametrize(("mode", "content", "reason"), [(0o644, "x", "others"), (0o600, "", "no password")])
async def test_password_files_are_private_and_not_empty(tmp_path: Path, mode: int, content: str, reason: str) -> None:
    site = make_site(tmp_path)
    path = tmp_path / "edge" / "password"
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=reason):
        await Turn(site=site, settings=TurnSettings(users={"alice": "file:password"})).start()
    path.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        await Turn(site=site, settings=TurnSettings(users={"alice": "file:password"})).start()


def test_keys_are_those_of_the_standard() -> None:
    md5, sha256 = long_term_keys("user", "realm", "pass")
    assert md5.hex() == "8493fbc53ba582fb4c044c456bdc40eb"
    assert len(sha256) == 32
    assert long_term_keys("u", "r", "e\u0301\u3000") == long_term_keys("u", "r", "\u00e9 ")


def test_credentials_are_those_that_shared_secret_servers_take() -> None:
    now = time.time()
    name, password = rest_credentials(b"north", "alice", 3600, now)
    assert name == f"{int(now) + 3600}:alice"
    assert rest_credentials(b"key", "bob", 1, 1_433_895_917.9) == ("1433895918:bob", "+lKJsag/ZHlhvKUHw12J5YhbTU8=")
    assert rest_credentials(b"south", "alice", 3600, now)[1] != password
