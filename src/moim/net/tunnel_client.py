"""The dialling end of a tunnel: connects out with pinned keys, lends targets by name, carries what comes for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import asyncssh

from moim.errors import PeerTimeout, PeerUnreachable, PeerUntrusted
from moim.net.proxy_header import proxy_header
from moim.net.ssh import (
    ALGORITHMS,
    CONTROL_WINDOW,
    NAME_PORT,
    OPEN_S,
    SUBSYSTEM,
    USER,
    WINDOW,
    ChannelStream,
    read_private_key,
    read_public_key,
)
from moim.net.streams import SocketStream, Target, connect, relay

_log = logging.getLogger("moim.net.tunnel")


class ClientTunnel:
    """The dialling end of an open tunnel: its control stream, and ``closed`` for its end."""

    def __init__(self, connection: asyncssh.SSHClientConnection, control: ChannelStream) -> None:
        self.control = control
        self._connection = connection
        self._carrying: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> int:
        """Streams open now."""
        return len(self._carrying)

    def carry(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs the copying of one stream until it ends."""
        task = asyncio.get_running_loop().create_task(work, name=f"tunnel:{name}")
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def wait_closed(self) -> None:
        """Returns when the tunnel is gone."""
        await self._connection.wait_closed()

    def close(self) -> None:
        """Ends the tunnel and everything in it."""
        self._connection.abort()


async def dial(
    *,
    address: str,
    port: int,
    client_key: Path,
    host_key: Path,
    lend: Callable[[], dict[str, Target]],
    idle_s: float,
    timeout: float = 10.0,  # noqa: ASYNC109
    keepalive_s: float = 5.0,
    keepalive_missed: int = 2,
) -> ClientTunnel:
    """Connects, lends the names that ``lend()`` returns, opens the control stream.

    ``lend`` is asked again at each channel, so that a target may move; a name that is missing then is refused.
    ``host_key`` is the file with the only key that the other side may show. Raises PeerUnreachable, PeerTimeout,
    PeerUntrusted (another host key, or ours not accepted).
    """
    key = read_private_key(client_key)
    known = read_public_key(host_key)
    place = f"{address}:{port}"
    try:
        async with asyncio.timeout(timeout):
            connection = await asyncssh.connect(
                address,
                port,
                username=USER,
                client_keys=[key],
                known_hosts=([known], [], []),
                server_host_key_algs=["ssh-ed25519"],
                client_version="Moim",
                config=None,
                agent_path=None,
                preferred_auth=["publickey"],
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                x509_trusted_certs=None,
                disable_trivial_auth=True,
                login_timeout=timeout,
                keepalive_interval=keepalive_s,
                keepalive_count_max=keepalive_missed,
                **ALGORITHMS,
            )
    except TimeoutError:
        raise PeerTimeout(f"the edge at {place} did not finish the SSH handshake within {timeout:g} s") from None
    except asyncssh.HostKeyNotVerifiable as error:
        raise PeerUntrusted(
            f"the edge at {place} shows another host key than the pinned one",
            hint=f"if the edge was set up anew, copy its public key to {host_key}",
        ) from error
    except asyncssh.PermissionDenied as error:
        raise PeerUntrusted(
            f"the edge at {place} does not accept this node's key", hint="copy the inside's public key to the edge"
        ) from error
    except (OSError, asyncssh.Error) as error:
        raise PeerUnreachable(f"no tunnel to the edge at {place}: {error}") from error
    control = ChannelStream(limit=CONTROL_WINDOW)
    tunnel = ClientTunnel(connection, control)
    try:
        async with asyncio.timeout(timeout):
            for name in lend():
                await connection.create_server(
                    _acceptor(tunnel, name, lend, idle_s),
                    name,
                    NAME_PORT,
                    window=WINDOW,
                )
            await connection.create_session(
                lambda: control,  # type: ignore[arg-type, return-value]
                subsystem=SUBSYSTEM,
                encoding=None,
                window=CONTROL_WINDOW,
            )
    except (TimeoutError, OSError, asyncssh.Error) as error:
        connection.abort()
        raise PeerUnreachable(f"the edge at {place} did not set up the tunnel: {error}") from error
    return tunnel


def _acceptor(
    tunnel: ClientTunnel, name: str, lend: Callable[[], dict[str, Target]], idle_s: float
) -> Callable[[str, int], Awaitable[ChannelStream]]:
    """What connects an incoming channel for ``name``: first to the target, then the channel is confirmed."""

    async def accept(client: str, port: int) -> ChannelStream:
        target = lend().get(name)
        if target is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, f"'{name}' is not lent any more")
        try:
            header = proxy_header((client, port)) if target.announce else b""
        except (ValueError, OverflowError):
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "the client has no address"
            ) from None
        try:
            local = await connect(target, timeout=OPEN_S)
        except (PeerUnreachable, PeerTimeout) as error:
            _log.warning("the edge asked for '%s', and %s", name, error.message)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, f"'{name}' does not answer") from error
        if header:
            local.write(header)
        stream = ChannelStream()
        tunnel.carry(_carry(stream, local, idle_s), name)
        return stream

    return accept


async def _carry(stream: ChannelStream, local: SocketStream, idle_s: float) -> None:
    try:
        async with asyncio.timeout(OPEN_S):
            await stream.opened.wait()
    except TimeoutError:
        local.abort()
        return
    await relay(stream, local, idle_s=idle_s)
