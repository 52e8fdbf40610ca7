"""The other server of a stream, with every element said by hand: it connects to a site, or is connected to."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path

from moim.proto.xmpp import Element, ns
from peer_certificates import Made
from raw_xmpp import RawXmpp


def contexts(made: Made, ca: Path, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For connecting and for accepting, with this certificate."""
    (folder / "chain.pem").write_bytes(made.chain_pem)
    (folder / "key.pem").write_bytes(made.key_pem)
    connecting = ssl.create_default_context(cafile=str(ca))
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context in (connecting, accepting):
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return connecting, accepting


class RawServer(RawXmpp):
    """One stream between the server of ``domain`` and another one."""

    content = ns.SERVER

    async def external(self, sender: str) -> None:
        """Proves by its certificate that it is ``sender``."""
        offered = self.features.find("mechanisms", ns.SASL)
        assert offered is not None, self.features
        authzid = base64.b64encode(sender.encode()).decode()
        self.say(f"<auth xmlns='{ns.SASL}' mechanism='EXTERNAL'>{authzid}</auth>")
        answer = await self.element()
        assert (answer.ns, answer.name) == (ns.SASL, "success"), answer
        await self.opens(sender)

    async def accept(self, own: str) -> None:
        """Lets the site send to ``own``: takes its dialback key for right."""
        assert (await self.hear())[0] == "open"
        spaces = f"xmlns='{ns.SERVER}' xmlns:db='{ns.DIALBACK}' xmlns:stream='{ns.STREAMS}'"
        self.say(f"<stream:stream from='{own}' to='{self.domain}' version='1.0' id='by-hand' {spaces}>")
        self.say("<stream:features><dialback xmlns='urn:xmpp:features:dialback'/></stream:features>")
        asked = await self.element()
        assert (asked.ns, asked.name) == (ns.DIALBACK, "result"), asked
        self.say(f"<db:result from='{own}' to='{self.domain}' type='valid'/>")

    async def until(self, name: str) -> Element:
        """The next element of this name."""
        while (element := await self.element()).name != name:
            pass
        return element


async def listening(domain: str, own: str, tls: ssl.SSLContext) -> tuple[asyncio.Server, asyncio.Future[RawServer]]:
    """Waits on loopback for a stream of ``domain`` to ``own``: the listener, and the first stream once it is open."""
    opened: asyncio.Future[RawServer] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = RawServer(domain, reader, writer)
        await raw.accept(own)
        if not opened.done():
            opened.set_result(raw)

    return await asyncio.start_server(take, "127.0.0.1", 0, ssl=tls), opened
