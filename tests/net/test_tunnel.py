"""The SSH tunnel with real asyncssh at both ends: what it carries, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncssh
import pytest

from moim.errors import NotFound, PeerUnreachable, PeerUntrusted, Unavailable
from moim.net.proxy_header import proxy_header
from moim.net.ssh import NAME_PORT, SUBSYSTEM, USER, ChannelStream
from moim.net.streams import Target
from moim.net.tunnel_client import ClientTunnel, dial
from moim.net.tunnel_server import ServerTunnel, TunnelServer


class Edge:
    """A listening end that keeps what comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.refused: list[str] = []
        self.arrived: asyncio.Queue[ServerTunnel] = asyncio.Queue()
        for name in ("host", "client", "other"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(folder / name)
            key.write_public_key(folder / f"{name}.pub")
        self.server = self.make_server()

    def make_server(self, **more: float) -> TunnelServer:
        return TunnelServer(
            self._serve,
            address="127.0.0.1",
            port=0,
            host_key=self.folder / "host",
            client_key=self.folder / "client.pub",
            on_refused=lambda _peer, reason: self.refused.append(reason),
            **more,  # type: ignore[arg-type]
        )

    async def _serve(self, tunnel: ServerTunnel) -> None:
        self.arrived.put_nowait(tunnel)
        await tunnel.closed.wait()

    async def dial(self, targets: dict[str, Target], *, client: str = "client", host: str = "host") -> ClientTunnel:
        return await dial(
            address="127.0.0.1",
            port=self.server.port,
            client_key=self.folder / client,
            host_key=self.folder / f"{host}.pub",
            lend=lambda: targets,
            idle_s=60,
        )

    @contextlib.asynccontextmanager
    async def ssh(self, **options: object) -> AsyncIterator[asyncssh.SSHClientConnection]:
        """An ordinary SSH client that holds the right key."""
        async with asyncssh.connect(
            "127.0.0.1",
            self.server.port,
            config=None,
            agent_path=None,
            known_hosts=([asyncssh.read_public_key(self.folder / "host.pub")], [], []),
            **{"username": USER, "client_keys": [str(self.folder / "client")], **options},
        ) as connection:
            yield connection


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    edge = Edge(tmp_path)
    await edge.server.start()
    yield edge
    await edge.server.stop()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def local_server(handler: Handler) -> AsyncIterator[Target]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield Target(host="127.0.0.1", port=server.sockets[0].getsockname()[1])


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b" and out")
    writer.close()


async def _read_all(stream: ChannelStream) -> bytes:
    return await stream.reader.read()


async def test_streams_reach_the_lent_target_with_half_close(edge: Edge) -> None:
    async with local_server(_echo) as target:
        inside = await edge.dial({"web": target})
        tunnel = await edge.arrived.get()
        stream = await tunnel.open("web", ("192.0.2.7", 4000))
        stream.write(b"over")
        assert stream.write_eof()
        assert await _read_all(stream) == b"over and out"
        inside.close()


async def test_unix_sockets_can_be_lent(edge: Edge, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with await asyncio.start_unix_server(_echo, str(path)):
        inside = await edge.dial({"web": Target(path=path)})
        tunnel = await edge.arrived.get()
        stream = await tunnel.open("web", ("192.0.2.7", 4000))
        stream.write(b"x")
        stream.write_eof()
        assert await _read_all(stream) == b"x and out"
        inside.close()


async def test_a_target_can_be_told_who_the_client_is(edge: Edge, tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with await asyncio.start_unix_server(_echo, str(path)):
        inside = await edge.dial({"xmpp": Target(path=path, announce=True)})
        tunnel = await edge.arrived.get()
        stream = await tunnel.open("xmpp", ("192.0.2.7", 4000))
        assert await stream.reader.readexactly(28) == proxy_header(("192.0.2.7", 4000))
        for client in (("odd", 4000), ("192.0.2.7", 70_000)):
            with pytest.raises(Unavailable, match="no address"):
                await tunnel.open("xmpp", client)
        inside.close()


async def test_big_transfers_wait_for_a_slow_reader(edge: Edge) -> None:
    written = 0
    stuck = asyncio.Event()

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        for _ in range(512):
            writer.write(bytes(65536))
            try:
                async with asyncio.timeout(1):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()
            written += 65536
        writer.close()

    async with local_server(flood) as target:
        inside = await edge.dial({"web": target})
        tunnel = await edge.arrived.get()
        stream = await tunnel.open("web", ("192.0.2.7", 4000))
        await stuck.wait()
        assert written < 16 * 1024 * 1024
        total = 0
        while data := await stream.reader.read(65536):
            total += len(data)
        assert total == 512 * 65536
        inside.close()


async def test_names_that_are_not_lent_are_refused(edge: Edge) -> None:
    targets = {"web": Target(host="127.0.0.1", port=9)}
    inside = await edge.dial(targets)
    tunnel = await edge.arrived.get()
    with pytest.raises(NotFound):
        await tunnel.open("xmpp", ("192.0.2.7", 4000))
    with pytest.raises(Unavailable, match="does not answer"):
        await tunnel.open("web", ("192.0.2.7", 4000))
    targets.clear()
    with pytest.raises(Unavailable, match="not lent"):
        await tunnel.open("web", ("192.0.2.7", 4000))
    inside.close()


async def test_a_newer_dialler_takes_over(edge: Edge) -> None:
    first = await edge.dial({})
    old = await edge.arrived.get()
    second = await edge.dial({})
    await edge.arrived.get()
    await old.closed.wait()
    await first.wait_closed()
    second.close()


async def test_the_end_of_the_tunnel_ends_its_streams(edge: Edge) -> None:
    async with local_server(_echo) as target:
        inside = await edge.dial({"web": target})
        tunnel = await edge.arrived.get()
        stream = await tunnel.open("web", ("192.0.2.7", 4000))
        inside.close()
        await tunnel.closed.wait()
        with contextlib.suppress(ConnectionError):
            assert await stream.reader.read() == b""
        with pytest.raises(ConnectionError):
            await stream.drain()
        with pytest.raises(Unavailable):
            await tunnel.open("web", ("192.0.2.7", 4000))


async def test_another_host_key_is_not_trusted(edge: Edge) -> None:
    with pytest.raises(PeerUntrusted, match="another host key"):
        await edge.dial({}, host="other")


async def test_another_client_key_is_refused(edge: Edge) -> None:
    with pytest.raises(PeerUntrusted, match="does not accept"):
        await edge.dial({}, client="other")
    assert any("not the inside's" in reason for reason in edge.refused)


async def test_another_user_name_is_refused(edge: Edge) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with edge.ssh(username="root"):
            pass


async def test_passwords_are_not_offered(edge: Edge) -> None:
    with pytest.raises(asyncssh.PermissionDenied):
        async with edge.ssh(client_keys=None, password="moim"):
            pass


async def test_nobody_listening_is_unreachable(edge: Edge) -> None:
    await edge.server.stop()
    with pytest.raises(PeerUnreachable):
        await edge.dial({})


@pytest.mark.parametrize(
    "request_options",
    [{}, {"command": "id"}, {"subsystem": "sftp"}, {"subsystem": "other"}],
    ids=["shell", "exec", "sftp", "subsystem"],
)
async def test_sessions_other_than_control_are_refused(edge: Edge, request_options: dict[str, str]) -> None:
    async with edge.ssh() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_process(**request_options)
    assert edge.refused


async def test_a_second_session_is_refused(edge: Edge) -> None:
    async with edge.ssh() as connection:
        await connection.create_session(ChannelStream, subsystem=SUBSYSTEM, encoding=None)  # type: ignore[arg-type]
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_session(ChannelStream, subsystem=SUBSYSTEM, encoding=None)  # type: ignore[arg-type]


async def test_direct_forwards_are_refused(edge: Edge) -> None:
    async with local_server(_echo) as target, edge.ssh() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection(target.host, target.port)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/run/x")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_tun(ChannelStream)  # type: ignore[arg-type]


async def test_listening_on_addresses_is_refused(edge: Edge) -> None:
    async with edge.ssh() as connection:
        for host, port in (("", 0), ("", NAME_PORT), ("127.0.0.1", 8080), ("web", 80), ("Web!", NAME_PORT)):
            with pytest.raises(asyncssh.ChannelListenError):
                await connection.forward_remote_port(host, port, "127.0.0.1", 9)
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_path("/tmp/x", "/tmp/y")


async def test_lending_a_name_binds_nothing(edge: Edge) -> None:
    async with edge.ssh() as connection:
        await connection.forward_remote_port("web", NAME_PORT, "127.0.0.1", 9)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", NAME_PORT)


@pytest.mark.parametrize("extra", [{"term_type": "xterm"}, {"x11_forwarding": True, "x11_display": ":9"}])
async def test_terminals_and_x11_are_refused_beside_control(edge: Edge, extra: dict[str, object]) -> None:
    async with edge.ssh() as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_session(ChannelStream, subsystem=SUBSYSTEM, encoding=None, **extra)  # type: ignore[arg-type]
    assert edge.arrived.empty()


async def test_a_silent_peer_is_noticed(edge: Edge) -> None:
    await edge.server.stop()
    edge.server = edge.make_server(keepalive_s=0.1, keepalive_missed=1)
    await edge.server.start()
    far: list[asyncio.StreamWriter] = []
    cut = asyncio.Event()

    async def wire(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection("127.0.0.1", edge.server.port)
        far.append(back)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while (data := await source.read(65536)) and not cut.is_set():
                sink.write(data)
            await asyncio.Event().wait()

        await asyncio.gather(copy(reader, back), copy(onward, writer))

    async with local_server(wire) as middle:
        inside = await dial(
            address="127.0.0.1",
            port=middle.port,
            client_key=edge.folder / "client",
            host_key=edge.folder / "host.pub",
            lend=dict,
            idle_s=60,
            keepalive_s=0.1,
            keepalive_missed=1,
        )
        tunnel = await edge.arrived.get()
        cut.set()
        await tunnel.closed.wait()
        await inside.wait_closed()
