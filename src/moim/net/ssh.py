"""What both ends of an SSH tunnel share: algorithms, key files, and a byte stream over one channel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.kex import get_kex_algs

from moim.errors import ConfigError
from moim.net.streams import ByteStream

USER = "moim"
SUBSYSTEM = "moim-control"
NAME_PORT = 1
"""The port number that goes with every lent name."""

WINDOW = 512 * 1024
"""Flow-control window of one stream, in bytes: what may wait unread in either direction."""
CONTROL_WINDOW = 2 * 1024 * 1024
"""Window of the control channel, and the bound of one line there."""
OPEN_S = 10.0
"""Seconds that opening a stream may take."""
# Authenticated encryption and curves only: both ends are Moim, so nothing older is needed. The hybrid post-quantum
# exchange is there when the cryptography library brings ML-KEM.
_KEX = [name for name in (b"mlkem768x25519-sha256", b"curve25519-sha256") if name in get_kex_algs()]
ALGORITHMS: dict[str, Any] = {
    "kex_algs": [name.decode() for name in _KEX],
    "encryption_algs": ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"],
    "compression_algs": ["none"],
    "signature_algs": ["ssh-ed25519"],
}


class ChannelStream(ByteStream):
    """A byte stream over one SSH channel; asyncssh calls it as the channel's session.

    Reading goes through a StreamReader that pauses the channel, so that the SSH window is the back-pressure.
    """

    def __init__(self, *, limit: int = WINDOW // 2) -> None:
        self.reader = asyncio.StreamReader(limit=limit)
        self._chan: Any = None
        self._room = asyncio.Event()
        self._room.set()
        self._lost = False
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()

    # what asyncssh calls

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self._chan = chan
        self.reader.set_transport(chan)
        self.opened.set()

    def session_started(self) -> None:
        """Data may flow."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Bytes from the peer; extended data (standard error) has no meaning here."""
        if datatype is None:
            self.reader.feed_data(data)

    def eof_received(self) -> bool:
        """The peer ended its half; ours stays open."""
        self.reader.feed_eof()
        return True

    def pause_writing(self) -> None:
        """The peer's window or our buffer is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """There is room again."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone."""
        self._lost = True
        self._room.set()
        self.closed.set()
        if exc is not None and self.reader.exception() is None:
            self.reader.set_exception(ConnectionResetError("the tunnel is gone"))
        elif not self.reader.at_eof():
            self.reader.feed_eof()

    # ByteStream

    def write(self, data: bytes) -> None:
        """Queues bytes; on a channel that is gone they are dropped (``drain`` tells)."""
        if not self._lost and not self._chan.is_closing():
            try:
                self._chan.write(data)
            except OSError:
                self._lost = True

    async def drain(self) -> None:
        """Waits for room. Raises ConnectionResetError when the channel is gone."""
        await self._room.wait()
        if self._lost:
            raise ConnectionResetError("the tunnel's channel is closed")

    def write_eof(self) -> bool:
        """Ends the writing half."""
        if self._lost or self._chan.is_closing():
            return False
        self._chan.write_eof()
        return True

    def close(self) -> None:
        """Sends what is queued, then closes the channel."""
        if self._chan is not None and not self._lost:
            self._chan.close()

    def abort(self) -> None:
        """Closes the channel at once."""
        if self._chan is not None and not self._lost:
            self._chan.abort()


def read_public_key(path: Path) -> asyncssh.SSHKey:
    """A pinned public key file. Raises ConfigError when it is missing or unreadable."""
    try:
        return asyncssh.read_public_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"the tunnel's key {path} cannot be read: {error}", hint="create the site's keys") from error


def read_private_key(path: Path) -> asyncssh.SSHKey:
    """A private key file. Raises ConfigError when it is missing or unreadable."""
    try:
        return asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"the tunnel's key {path} cannot be read: {error}", hint="create the site's keys") from error
