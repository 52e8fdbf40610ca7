"""A firewall that forwards one TCP port, as NAT and PAT do: nothing of what it carries tells who is in front of it."""

from __future__ import annotations

import contextlib
import socket
import threading


class PortForward:
    """Listens on a free port of ``address``; connections go on to ``target``, which may be set later."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.target: tuple[str, int] | None = None
        self._socket = socket.create_server((address, 0))
        self.address, self.port = self._socket.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._socket.accept()
            except OSError:
                return
            try:
                assert self.target is not None
                other = socket.create_connection(self.target, 10)
            except OSError:
                one.close()
                continue
            other.settimeout(None)
            for here, there in ((one, other), (other, one)):
                threading.Thread(target=_carry, args=(here, there), daemon=True).start()


def _carry(here: socket.socket, there: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := here.recv(65536):
            there.sendall(data)
    with contextlib.suppress(OSError):
        there.shutdown(socket.SHUT_WR)
