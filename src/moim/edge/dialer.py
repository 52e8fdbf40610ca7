"""Keeps the tunnel from the inside to the edge up: dials, pushes the desired state, dials again when it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from moim.edge.control import Applied, ControlChannel, Csr, DesiredState, Hello, Push, Renew, Status, from_edge
from moim.edge.settings import TunnelSettings
from moim.errors import MoimError, PeerError
from moim.net.tunnel_client import ClientTunnel

_log = logging.getLogger("moim.edge.tunnel")


class Dialer:
    """One edge's tunnel, from the inside.

    ``open_tunnel`` makes one attempt; ``desired`` builds the state, ``sign`` a chain (PEM) from a request; ``changed``
    hears of every rise and fall.
    """

    def __init__(
        self,
        *,
        open_tunnel: Callable[[], Awaitable[ClientTunnel]],
        desired: Callable[[str], DesiredState],
        sign: Callable[[bytes], Awaitable[bytes]],
        changed: Callable[[bool, str], Awaitable[None]],
        settings: TunnelSettings,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.up = False
        self.detail = "not connected yet"
        self.pushed = ""
        self.applied = ""
        self.problems: tuple[str, ...] = ()
        self.status = Status()
        self.since: datetime | None = None
        self._open_tunnel = open_tunnel
        self._desired = desired
        self._sign = sign
        self._changed = changed
        self._settings = settings
        self._jitter = jitter
        self._channel: ControlChannel | None = None
        self._tunnel: ClientTunnel | None = None
        self._task: asyncio.Task[None] | None = None
        self._pushing = asyncio.Lock()
        self._serial = 0
        self._chain = ""
        self._renew = False
        self._applied_serial = asyncio.Condition()
        self._seen_serial = 0

    def start(self) -> None:
        """Begins to dial."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="edge:dialer")

    async def stop(self) -> None:
        """Closes the tunnel and dials no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def push(self) -> None:
        """Sends the whole desired state now, if the tunnel is up; else it goes out with the next connection."""
        channel = self._channel
        if channel is None:
            return
        async with self._pushing:
            self._serial += 1
            state = self._desired(self._chain)
            self.pushed = state.digest()
            try:
                await channel.send(Push(serial=self._serial, state=state))
            except (OSError, PeerError) as error:
                _log.warning("the state could not be pushed to the edge: %s", error)
                self._drop()

    async def renew(self) -> None:
        """Asks the edge for a new certificate request, now or when it is connected next."""
        self._renew = True
        if self._channel is not None and self.up:
            try:
                await self._channel.send(Renew())
                self._renew = False
            except (OSError, PeerError) as error:
                _log.warning("the edge could not be asked for a certificate request: %s", error)
                self._drop()

    async def settled(self) -> None:
        """Returns when the edge has answered the latest push."""
        async with self._applied_serial:
            await self._applied_serial.wait_for(lambda: self._serial > 0 and self._seen_serial == self._serial)

    def _drop(self) -> None:
        if self._tunnel is not None:
            self._tunnel.close()

    async def _run(self) -> None:
        pause = self._settings.retry_least_s
        while True:
            try:
                tunnel = await self._open_tunnel()
            except MoimError as error:
                await self._note(False, str(error))
            else:
                pause = self._settings.retry_least_s
                await self._note(False, await self._converse(tunnel))
            await asyncio.sleep(self._jitter(pause / 2, pause))
            pause = min(pause * 2, self._settings.retry_most_s)

    async def _note(self, up: bool, detail: str) -> None:
        before, self.up = self.up, up
        said, self.detail = self.detail, detail
        if before != up or (not up and said != detail):
            _log.log(logging.INFO if up else logging.WARNING, "the tunnel is %s: %s", "up" if up else "down", detail)
        if before != up:
            self.since = datetime.now(UTC)
            await self._changed(up, detail)

    async def _converse(self, tunnel: ClientTunnel) -> str:
        """Talks on a new tunnel until it ends; returns why it did."""
        self._tunnel = tunnel
        self._channel = ControlChannel(tunnel.control)
        self._chain = ""
        try:
            async with asyncio.timeout(self._settings.connect_s):
                hello = await self._channel.receive(from_edge)
            if not isinstance(hello, Hello):
                return "the edge closed the control channel" if hello is None else "the edge did not say hello"
            await self._note(True, f"version {hello.version or '?'} at the other end")
            await self.push()
            if self._renew:
                await self.renew()
            while (message := await self._channel.receive(from_edge)) is not None:
                await self._take(message)
            return "the edge closed the tunnel"
        except TimeoutError:
            return "the edge said nothing on the control channel"
        except (OSError, EOFError) as error:
            return f"the tunnel broke: {error or type(error).__name__}"
        except MoimError as error:
            return f"the edge sent something unexpected: {error}"
        finally:
            self._channel = None
            self._tunnel = None
            self.status = Status()
            tunnel.close()

    async def _take(self, message: Hello | Csr | Applied | Status) -> None:
        if isinstance(message, Csr):
            try:
                chain = await self._sign(message.pem.encode())
            except MoimError as error:
                _log.error("the edge's certificate request was not signed: %s", error)
                return
            self._chain = chain.decode()
            await self.push()
        elif isinstance(message, Applied):
            for problem in message.problems:
                _log.error("the edge could not do all of it: %s", problem)
            async with self._applied_serial:
                self.applied, self.problems = message.digest, message.problems
                self._seen_serial = message.serial
                self._applied_serial.notify_all()
        elif isinstance(message, Status):
            self.status = message
