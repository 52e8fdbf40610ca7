"""A connection on which every element is said by hand: for sign-ins that no library does, or that none should do."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Sequence
from typing import Any

from moim.proto.xmpp import Element, XmlStream, ns
from moim.proto.xmpp.hashed_token import proof, write_initial
from moim.proto.xmpp.scram import ScramClient, ScramHash

WAIT = 20.0


class RawXmpp:
    """One client connection to the server of ``domain``."""

    content = ns.CLIENT
    """The namespace of stanzas."""

    def __init__(self, domain: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.domain = domain
        self.reader, self.writer = reader, writer
        self.parser = XmlStream()
        self.waiting: list[Any] = []
        self.header: dict[str, str] = {}
        self.features = Element("none", ns.STREAMS)

    @classmethod
    async def open(cls, place: tuple[str, int], domain: str, tls: ssl.SSLContext, *, sender: str = "") -> RawXmpp:
        """Connects by direct TLS, opens a stream in ``sender``'s name, and reads what is offered."""
        raw = cls(domain, *await asyncio.open_connection(*place, ssl=tls, server_hostname=domain))
        await raw.opens(sender)
        return raw

    async def opens(self, sender: str = "") -> None:
        """Opens a stream; what is offered is in ``features``."""
        who = f" from='{sender}'" if sender else ""
        self.parser = XmlStream()
        self.say(
            f"<stream:stream{who} to='{self.domain}' version='1.0' xmlns='{self.content}' xmlns:stream='{ns.STREAMS}'>"
        )
        opened = await self.hear()
        assert opened[0] == "open", opened
        self.header = opened[1]
        self.features = await self.element()

    def say(self, text: str) -> None:
        """Sends text as it is."""
        self.writer.write(text.encode())

    async def hear(self) -> Any:
        """The next thing of the stream, as the framer gives it; ``("end",)`` when the connection is over."""
        while not self.waiting:
            try:
                data = await asyncio.wait_for(self.reader.read(65536), WAIT)
            except ConnectionError:
                data = b""
            if not data:
                return ("end",)
            self.waiting += self.parser.feed(data)
        return self.waiting.pop(0)

    async def element(self) -> Element:
        """The next element."""
        item = await self.hear()
        assert item[0] == "element", item
        element: Element = item[1]
        return element

    async def ends_with(self, condition: str) -> None:
        """Asserts that a stream error comes and then the end."""
        error = await self.element()
        assert (error.ns, error.name) == (ns.STREAMS, "error"), error
        assert error.find(condition, ns.STREAM_ERRORS) is not None, error
        while (await self.hear())[0] != "end":
            pass

    async def authenticate(self, mechanism: str, initial: bytes | None, inside: str = "") -> Element:
        """Sends an ``<authenticate/>`` with ``inside`` as further children; gives the answer."""
        data = "" if initial is None else f"<initial-response>{base64.b64encode(initial).decode()}</initial-response>"
        self.say(f"<authenticate xmlns='{ns.SASL2}' mechanism='{mechanism}'>{data}{inside}</authenticate>")
        return await self.element()

    async def scram(
        self,
        name: str,
        password: str,
        inside: str = "",
        *,
        hash_name: ScramHash = "SCRAM-SHA-256",
        authzid: str = "",
        bindings: Sequence[tuple[str, bytes]] = (),
        protection: str = "",
    ) -> Element:
        """Signs in by SCRAM in the way of XEP-0388; gives the last answer, whose proof was checked."""
        kind, binding = bindings[0] if bindings else ("tls-exporter", None)
        client = ScramClient(
            hash_name,
            name,
            password,
            nonce="clientnonce",
            authzid=authzid,
            plus=bool(bindings),
            binding=binding,
            binding_type=kind,
            protection=protection,
        )
        answer = await self.authenticate(f"{hash_name}-PLUS" if bindings else hash_name, client.first(), inside)
        if answer.name != "challenge":
            return answer
        final = client.final(base64.b64decode(answer.text))
        self.say(f"<response xmlns='{ns.SASL2}'>{base64.b64encode(final).decode()}</response>")
        answer = await self.element()
        if answer.name == "success":
            data = answer.find("additional-data")
            assert data is not None
            client.verify(base64.b64decode(data.text))
            await self._offered_behind(answer)
        return answer

    async def token(
        self, name: str, token: str, mechanism: str = "HT-SHA-256-NONE", *, binding: bytes = b"", inside: str
    ) -> Element:
        """Signs in by a token; gives the answer, whose proof was checked."""
        answer = await self.authenticate(mechanism, write_initial(name, token, binding), inside)
        if answer.name == "success":
            data = answer.find("additional-data")
            assert data is not None
            assert base64.b64decode(data.text) == proof(token, "Responder", binding)
            await self._offered_behind(answer)
        return answer

    async def _offered_behind(self, success: Element) -> None:
        """A session that goes on is offered nothing (XEP-0198 section 9.2)."""
        if success.find("resumed", ns.SM) is None:
            self.features = await self.element()
            assert self.features.name == "features"

    async def request(self, stanza: str) -> Element:
        """Sends a stanza and gives the next one."""
        self.say(stanza)
        return await self.element()

    async def close(self) -> None:
        """Cuts the connection."""
        self.writer.close()
