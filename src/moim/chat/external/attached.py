"""The listener of external components, and who is attached: each configured name by at most one program at a time.

Components are few and trusted with their own domain, and with nothing else: every ``from`` is checked. The connection
has no TLS, so the listener belongs on this machine or on a network of servers.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from moim.chat.feature import Feature
from moim.model import ServiceState, ServiceStatus
from moim.net.listener import Limits, Listener
from moim.net.streams import CHUNK, SocketStream
from moim.proto.xmpp import Element, Jid, StanzaError, error_reply
from moim.proto.xmpp.component import ComponentStream, Event, Proven, Stanza

_HANDSHAKE_S = 15.0
_IDLE_S = 60.0
_DEAD_S = 45.0
_GOODBYE_S = 2.0
_MAX_WAITING = 4 << 20  # bytes for a component that does not read
_CONNECTIONS = 64

_log = logging.getLogger("moim.chat.external")

Take = Callable[[Jid, Element], None]
"""Takes a stanza of a component: its ``to``, and the stanza, whose ``from`` was checked."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """Where components attach, and their secrets by canonical domain."""

    secrets: Mapping[str, str]
    address: str
    port: int


class ExternalComponent:
    """One configured domain, as the router sees it."""

    def __init__(self, host: str, bounce: Callable[[Jid, Element], None]) -> None:
        self.host = host
        self.connection: _Connection | None = None
        self._bounce = bounce

    def send(self, stanza: Element) -> None:
        """Takes a stanza for the component; while it is not attached, the sender hears so."""
        if self.connection is not None:
            self.connection.send(stanza)
            return
        reply = error_reply(stanza, StanzaError("service-unavailable", "the component is not connected", kind="wait"))
        if reply is not None and stanza.name != "presence":
            self._bounce(Jid.parse(reply.get("to") or ""), reply)


class ExternalComponents:
    """Every configured component. ``take`` gets what they send, ``deliver`` sends what answers others."""

    def __init__(
        self,
        attachments: Attachments,
        *,
        take: Take,
        deliver: Callable[[Sequence[tuple[Jid, Element]]], None],
    ) -> None:
        self._secrets = attachments.secrets
        self._take = take
        self.components = {
            host: ExternalComponent(host, lambda to, reply: deliver([(to, reply)])) for host in self._secrets
        }
        self._listener = Listener(
            self._serve,
            name="xmpp-component",
            address=attachments.address,
            port=attachments.port,
            limits=Limits(connections=_CONNECTIONS, per_client=_CONNECTIONS),
            on_refused=lambda peer, reason: _log.warning("a component from %s is refused: %s", peer, reason),
        )

        self.feature = Feature(
            name="XEP-0114 components", server_items=self.attached, on_start=self.start, on_stop=self.stop
        )

    async def start(self) -> None:
        """Listens. Raises Unavailable when the port cannot be had."""
        self._listener.start()

    async def stop(self) -> None:
        """Ends every stream."""
        for component in self.components.values():
            if component.connection is not None:
                component.connection.end("system-shutdown", "the server stops")
        await self._listener.stop()

    def attached(self) -> Sequence[tuple[str, str]]:
        """Domain and name of the components that are attached now, for discovery."""
        return [(host, host) for host, component in self.components.items() if component.connection is not None]

    def health(self, node: str) -> ServiceStatus:
        """The listener."""
        count = len(self.attached())
        state: ServiceState = "running" if self._listener.listening else "stopped"
        detail = f"{count} of {len(self.components)} attached"
        return ServiceStatus("xmpp-component", node, "tcp", self._listener.address, self._listener.port, state, detail)

    async def _serve(self, stream: SocketStream) -> None:
        stream.give_up_after(_DEAD_S)
        machine = ComponentStream(secret=self._secrets.get, token=_token)
        connection = _Connection(stream, machine)
        attached: list[ExternalComponent] = []

        def happened(event: Event) -> None:
            if isinstance(event, Proven):
                component = self.components[event.name]
                if component.connection is not None:
                    connection.end("conflict", f"{event.name} is attached already")
                    return
                component.connection = connection
                attached.append(component)
                connection.accept()
                _log.info("the component %s is attached, from %s", event.name, stream.peer[0])
            elif isinstance(event, Stanza):
                self._take(event.to, event.element)
            elif event.reason:
                _log.warning("the component %s from %s ended: %s", machine.name or "?", stream.peer[0], event.reason)

        try:
            await connection.run(happened)
        finally:
            for component in attached:
                component.connection = None
                _log.info("the component %s is gone", component.host)


class _Connection:
    """One connection: a loop that reads, a task that writes, and what waits in between."""

    def __init__(self, stream: SocketStream, machine: ComponentStream) -> None:
        self._stream = stream
        self._machine = machine
        self._waiting = bytearray()
        self._wake = asyncio.Event()
        self._over = False

    def accept(self) -> None:
        """Tells the component that it is attached."""
        self._machine.accept()
        self._flush()

    def send(self, stanza: Element) -> None:
        """Sends a stanza; a component that does not read is cut off."""
        self._machine.send(stanza)
        self._flush()
        if len(self._waiting) > _MAX_WAITING:
            _log.error("the component %s does not read what it gets; it is cut off", self._machine.name)
            self._waiting.clear()
            self._stream.abort()

    def end(self, condition: str, reason: str) -> None:
        """Ends the stream."""
        self._machine.end(condition, reason)
        self._flush()

    def _flush(self) -> None:
        self._waiting += self._machine.take_output()
        self._wake.set()

    async def run(self, happened: Callable[[Event], None]) -> None:
        """Reads until the end, telling what happens."""
        writer = asyncio.create_task(self._write(), name="chat:component-write")
        try:
            async with asyncio.timeout(_HANDSHAKE_S) as patience:
                while not self._machine.over and (data := await self._stream.reader.read(CHUNK)):
                    self._machine.receive(data)
                    while (event := self._machine.next_event()) is not None:
                        happened(event)
                    self._flush()
                    if self._machine.attached:
                        patience.reschedule(None)
                    await asyncio.sleep(0)  # others have their turn, however much comes
        except TimeoutError:
            self.end("connection-timeout", "the handshake took too long")
        finally:
            self._over = True
            self._wake.set()
            await asyncio.wait([writer], timeout=_GOODBYE_S)
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self) -> None:
        while not self._over or self._waiting:
            self._wake.clear()
            if not self._waiting and not self._over:
                try:
                    await asyncio.wait_for(self._wake.wait(), _IDLE_S)
                except TimeoutError:
                    self._waiting += b" "  # a dead peer is found out by what it does not acknowledge
            data, self._waiting = bytes(self._waiting), bytearray()
            try:
                self._stream.write(data)
                await self._stream.drain()
            except OSError:
                return


def _token() -> str:
    return secrets.token_urlsafe(18)
