"""The listening end of a tunnel: an SSH server for one pinned key that offers a control channel and nothing else.

The dialling end lends names: it asks for a remote forward of each (RFC 4254 section 7.1; the name stands as the
address, ``NAME_PORT`` as the port), for which nothing is bound here. Later this end opens ``forwarded-tcpip`` channels
(section 7.2) to a name, never to an address. Passwords, shells, commands, SFTP, terminals, agent, X11, TUN, Unix and
direct forwards are refused, and each refusal is reported.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncssh

from moim.errors import NotFound, Unavailable
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

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_MAX_NAMES = 32
_MAX_WAITING = 16  # connections that have not proved their key yet
_MAX_ATTEMPTS = 3
_log = logging.getLogger("moim.net.tunnel")


class ServerTunnel:
    """One proven dialler: its control stream, and streams to the names it lends."""

    def __init__(self, connection: asyncssh.SSHServerConnection, peer: str) -> None:
        self.peer = peer
        self.names: set[str] = set()
        self.control = ChannelStream(limit=CONTROL_WINDOW)
        self.closed = asyncio.Event()
        self.reason = ""
        self._connection = connection

    async def open(self, name: str, client: tuple[str, int]) -> ChannelStream:
        """A stream to what the dialler lends as ``name``, on behalf of ``client``.

        Raises NotFound when the name is not lent, Unavailable when it is and cannot be reached.
        """
        if self.closed.is_set():
            raise Unavailable("the tunnel to the inside is down")
        if name not in self.names:
            raise NotFound(f"the inside lends no target named '{name}'")
        stream = ChannelStream()
        try:
            async with asyncio.timeout(OPEN_S):
                await self._connection.create_connection(
                    lambda: stream,  # type: ignore[arg-type, return-value]
                    name,
                    NAME_PORT,
                    *client,
                    window=WINDOW,
                )
        except TimeoutError:
            raise Unavailable(f"the inside did not open '{name}' within {OPEN_S:g} s") from None
        except asyncssh.ChannelOpenError as error:
            raise Unavailable(f"the inside cannot open '{name}': {error.reason}") from error
        except (OSError, asyncssh.Error) as error:
            raise Unavailable(f"the tunnel broke while '{name}' was opened: {error}") from error
        return stream

    def close(self, reason: str) -> None:
        """Ends the tunnel; ``reason`` goes to the dialler and the log."""
        self.reason = self.reason or reason
        self._connection.disconnect(asyncssh.DISC_BY_APPLICATION, reason)


class _LentName(asyncssh.SSHListener):
    """What stands for a listener where nothing is bound."""

    def __init__(self, tunnel: ServerTunnel, name: str) -> None:
        super().__init__()
        self._lent = (tunnel, name)

    def get_port(self) -> int:
        return NAME_PORT

    def close(self) -> None:
        tunnel, name = self._lent
        tunnel.names.discard(name)


class _ControlSession(asyncssh.SSHServerSession[bytes]):
    """The one session a dialler may open, for the one subsystem there is."""

    def __init__(self, guard: _Guard, stream: ChannelStream) -> None:
        self._guard = guard
        self._stream = stream

    def connection_made(self, chan: Any) -> None:
        self._stream.connection_made(chan)

    def shell_requested(self) -> bool:
        return self._guard.refuse("asked for a shell")

    def exec_requested(self, command: str) -> bool:
        return self._guard.refuse("asked to run a command")

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == SUBSYSTEM or self._guard.refuse(f"asked for the subsystem {subsystem[:32]!r}")

    def session_started(self) -> None:
        self._guard.control_started()

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._stream.data_received(data, datatype)

    def eof_received(self) -> bool:
        return self._stream.eof_received()

    def pause_writing(self) -> None:
        self._stream.pause_writing()

    def resume_writing(self) -> None:
        self._stream.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.connection_lost(exc)


class _Guard(asyncssh.SSHServer):
    """The policy of one connection: the pinned key, the control session, names; everything else is refused."""

    def __init__(self, server: TunnelServer) -> None:
        self._server = server
        self._connection: asyncssh.SSHServerConnection | None = None
        self._tunnel: ServerTunnel | None = None
        self._attempts = 0
        self._sessions = 0
        self._peer = ""

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        peer = conn.get_extra_info("peername") or ("", 0)
        self._connection, self._peer = conn, str(peer[0])
        self._server.waiting.add(self)
        if len(self._server.waiting) > _MAX_WAITING:
            self.refuse("came while too many connections were still signing in")
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.waiting.discard(self)
        if self._tunnel is not None:
            self._tunnel.reason = self._tunnel.reason or (str(exc) if exc else "the connection was closed")
            self._tunnel.closed.set()

    def refuse(self, what: str) -> bool:
        """Reports a refusal; False, so that it can be the answer."""
        self._server.on_refused(self._peer, f"the SSH peer {what}, which this tunnel does not offer")
        return False

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._connection is not None:
            self._connection.abort()

    # authentication

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        if username == USER and key.public_data == self._server.client_key.public_data:
            return True
        self._attempts += 1
        self._server.on_refused(self._peer, "the SSH peer showed a key that is not the inside's")
        if self._attempts >= _MAX_ATTEMPTS:
            self.abort()
        return False

    def auth_completed(self) -> None:
        assert self._connection is not None
        self._server.waiting.discard(self)
        self._tunnel = ServerTunnel(self._connection, self._peer)

    # requests

    def session_requested(self) -> Any:
        self._sessions += 1
        if self._tunnel is None or self._sessions > 1:
            return self.refuse("asked for a second session")
        return _ControlSession(self, self._tunnel.control)

    def control_started(self) -> None:
        """The control session is up: the tunnel is usable."""
        assert self._tunnel is not None
        self._server.adopt(self._tunnel)

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        tunnel = self._tunnel
        if tunnel is None or listen_port != NAME_PORT or not _NAME.fullmatch(listen_host):
            return self.refuse("asked to listen on an address")
        if len(tunnel.names) >= _MAX_NAMES:
            return self.refuse(f"lends more than {_MAX_NAMES} names")
        tunnel.names.add(listen_host)
        return _LentName(tunnel, listen_host)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        return self.refuse("asked for a connection out of this node")

    def unix_connection_requested(self, dest_path: str) -> Any:
        return self.refuse("asked for a Unix socket of this node")

    def unix_server_requested(self, listen_path: str) -> Any:
        return self.refuse("asked to listen on a Unix socket")

    def tun_requested(self, unit: int | None) -> Any:
        return self.refuse("asked for a network tunnel")

    def tap_requested(self, unit: int | None) -> Any:
        return self.refuse("asked for a network tunnel")


class TunnelServer:
    """Listens for the one dialler whose key is pinned; ``serve(tunnel)`` runs for each one that comes.

    A later dialler replaces an earlier one: it is the same inside, whose old connection may be dead without saying so.
    """

    def __init__(
        self,
        serve: Callable[[ServerTunnel], Awaitable[None]],
        *,
        address: str,
        port: int,
        host_key: Path,
        client_key: Path,
        on_refused: Callable[[str, str], None],
        keepalive_s: float = 5.0,
        keepalive_missed: int = 2,
    ) -> None:
        self.address = address
        self.port = port
        self.client_key = read_public_key(client_key)
        self.on_refused = on_refused
        self.waiting: set[_Guard] = set()
        self._host_key = read_private_key(host_key)
        self._serve = serve
        self._keepalive = (keepalive_s, keepalive_missed)
        self._acceptor: asyncssh.SSHAcceptor | None = None
        self._current: ServerTunnel | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Binds. Raises Unavailable when the address or port cannot be had."""
        interval, missed = self._keepalive
        try:
            self._acceptor = await asyncssh.listen(
                self.address,
                self.port,
                server_factory=lambda: _Guard(self),
                server_host_keys=[self._host_key],
                server_version="Moim",
                login_timeout=10,
                keepalive_interval=interval,
                keepalive_count_max=missed,
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                agent_forwarding=False,
                x11_forwarding=False,
                allow_pty=False,
                line_editor=False,
                encoding=None,
                window=CONTROL_WINDOW,
                reuse_address=True,
                **ALGORITHMS,
            )
        except OSError as error:
            raise Unavailable(
                f"the tunnel cannot listen on {self.address}:{self.port}: {error.strerror or error}",
                hint="another program holds the port, or the address is not on this machine",
            ) from error
        self.port = self._acceptor.get_port()

    async def stop(self) -> None:
        """Closes the port and the tunnel."""
        if self._acceptor is not None:
            self._acceptor.close()
        for guard in tuple(self.waiting):
            guard.abort()
        if self._current is not None:
            self._current.close("this edge is stopping")
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def adopt(self, tunnel: ServerTunnel) -> None:
        """Makes ``tunnel`` the current one."""
        if self._current is not None and not self._current.closed.is_set():
            self._current.close("a newer connection of the inside took over")
        self._current = tunnel
        task = asyncio.get_running_loop().create_task(self._run(tunnel), name=f"tunnel:{tunnel.peer}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, tunnel: ServerTunnel) -> None:
        try:
            await self._serve(tunnel)
        except Exception:
            _log.exception("the tunnel from %s ended in an unexpected error", tunnel.peer)
        finally:
            tunnel.close("this end is done")
