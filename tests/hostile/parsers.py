"""Everything that reads something else than a stanza of a bound session: what it is given, bent, is read or refused.

A reader is a name, valid inputs and a function. Refusing means a MoimError; anything else that is raised is a finding.
"""

from __future__ import annotations

import base64
import random
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostile import foreign
from hostile.grammar import JIDS, TEXTS, Grammar, examples
from hostile.reader import Reader
from moim._native import ArchiveIds, copied
from moim.chat import sasl2
from moim.chat.moving.reading import Export
from moim.errors import MoimError
from moim.proto.xmpp import (
    ClientLogin,
    Element,
    Jid,
    archivable,
    bosh,
    hashed_token,
    made_up_verifier,
    make_verifier,
    ns,
    priority_of,
    read_timestamp,
    rsm,
    s2s,
    sasl,
)
from moim.proto.xmpp.caps import verification
from moim.proto.xmpp.component import ComponentStream, Proven
from moim.proto.xmpp.dataform import read_form
from moim.proto.xmpp.scram import ScramClient
from moim.proto.xmpp.stream import check_opening

_STREAM = (
    "<?xml version='1.0'?><stream:stream from='{0}' id='s1' to='{1}' version='1.0' xmlns='{2}' "
    "xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>"
)
_IDS = ArchiveIds(bytes(16))
_FEATURES = (
    "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><mechanisms "
    "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism><mechanism>PLAIN</mechanism></mechanisms>"
    "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-256</mechanism><inline><bind "
    "xmlns='urn:xmpp:bind:0'/>"
    "</inline></authentication><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features>"
)
_CHALLENGE = base64.b64encode(b"r=nonceServer,s=QSXCR+Q6sek8bf92,i=4096").decode()
_SERVER_SAYS = (
    _STREAM.format("chat.test", "a@chat.test", ns.CLIENT)
    + _FEATURES.replace("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "")
    + f"<challenge xmlns='urn:xmpp:sasl:2'>{_CHALLENGE}</challenge>"
    "<success xmlns='urn:xmpp:sasl:2'><additional-data>dj1hYWE=</additional-data>"
    "<authorization-identifier>a@chat.test/r</authorization-identifier></success>"
).encode()
_COMPONENT_SAYS = (
    _STREAM.format("", "gateway.test", "jabber:component:accept")
    + "<handshake>aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e</handshake><message from='a@gateway.test' to='b@chat.test'>"
    "<body>x</body></message><iq type='get' id='1' from='gateway.test' to='chat.test'><ping "
    "xmlns='urn:xmpp:ping'/></iq>"
    "</stream:stream>"
).encode()
_BODY = (
    b"<body xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh' rid='1573741820' to='chat.test' "
    b"wait='60' hold='1' ver='1.6' ack='1' xmpp:version='1.0' key='6f825e81f4532b2c5fa2d12457d8a1f22e8f838e' "
    b"newkey='113f58a37245ec9637266cf2fb6e48bfeaf7964e' pause='60' sid='s'><iq xmlns='jabber:client' type='get' "
    b"id='1'/></body>"
)
_EXPORT = (
    b"<?xml version='1.0' encoding='UTF-8'?><server-data xmlns='urn:xmpp:pie:0' "
    b"xmlns:xi='http://www.w3.org/2001/XInclude'>"
    b"<host jid='chat.test'><user name='juliet' password='s3crEt'><query xmlns='jabber:iq:roster'><item "
    b"jid='romeo@far.test' "
    b"name='Romeo'><group>Friends</group></item></query><offline-messages><message xmlns='jabber:client' "
    b"from='a@b' to='c@d'>"
    b"<body>x</body></message></offline-messages><archive xmlns='urn:xmpp:pie:0#mam'><result "
    b"xmlns='urn:xmpp:mam:2' id='1'/>"
    b"</archive><vCard xmlns='vcard-temp'><FN>J</FN></vCard></user><xi:include href='other.xml'/></host></server-data>"
)
_S2S_STEPS = (
    "<stream:features xmlns:stream='http://etherx.jabber.org/streams'><starttls "
    "xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
    "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>"
    "<dialback xmlns='urn:xmpp:features:dialback'/><bidi xmlns='urn:xmpp:features:bidi'/></stream:features>",
    "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>ZmFyLnRlc3Q=</auth>",
    "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
    "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>",
    "<bidi xmlns='urn:xmpp:bidi'/>",
    "<result xmlns='jabber:server:dialback' from='far.test' to='chat.test'>key</result>",
    "<result xmlns='jabber:server:dialback' from='far.test' to='chat.test' type='valid'/>",
    "<verify xmlns='jabber:server:dialback' from='far.test' to='chat.test' id='s1'>key</verify>",
    "<verify xmlns='jabber:server:dialback' from='far.test' to='chat.test' id='s1' type='invalid'/>",
    "<error xmlns='http://etherx.jabber.org/streams'><host-unknown "
    "xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></error>",
    "<enable xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='4'/>",
)


def _cut(data: bytes, rng: random.Random, take: Callable[[bytes], object]) -> None:
    """Passes bytes on in a few pieces."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 3)))
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        take(data[start:end])


def _login(data: bytes, rng: random.Random) -> None:
    direct = rng.random() < 0.5
    login = ClientLogin(
        "a@chat.test", "secret", tls="direct" if direct else "starttls", allow_plain=True, nonce=lambda: "nonce"
    )
    login.start(0.0)
    _cut(data, rng, lambda piece: login.receive(piece, 1.0))
    login.closed(2.0)
    for _ in range(1000):
        if login.next_event() is None and login.next_output() is None:
            return
    raise AssertionError("a client that never stops talking")


def _component(data: bytes, rng: random.Random) -> None:
    stream = ComponentStream(secret=lambda name: "secret" if name == "gateway.test" else None, token=lambda: "s1")

    def take(piece: bytes) -> None:
        stream.receive(piece)
        while (event := stream.next_event()) is not None:
            if isinstance(event, Proven):
                stream.accept()

    _cut(data, rng, take)
    stream.take_output()


def _bosh(data: bytes, rng: random.Random) -> None:
    body = bosh.read_body(data)
    session = bosh.Session("s", body, 0, bosh.Limits(), 0.0)
    session.opened({"from": "chat.test", "id": "1"}, 0.0)
    answered: list[int] = []
    for ticket in range(1, 8):
        later = body.rid + rng.choice((0, 1, 1, 1, 2, 3, ticket, -1, 2**40))
        session.receive(bosh.Body(body.attrs, body.payload, max(later, 0), "s"), ticket, float(ticket))
        session.push(rng.choice(("<a/>", "x" * 1000)), float(ticket))
        if rng.random() < 0.2:
            session.closed("", float(ticket))
        session.tick(float(ticket) * rng.choice((1, 10, 100)))
        while (output := session.next_output()) is not None:
            if isinstance(output, bosh.Answer):
                answered.append(output.ticket)
    assert len(answered) == len(set(answered)), "a request is answered once"


def _export(data: bytes, rng: random.Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.xml"
        path.write_bytes(data)
        for _ in Export(path).read():
            pass


def _sasl(data: bytes, rng: random.Random) -> None:
    names = ["SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "PLAIN", "HT-SHA-256-EXPR", "HT-SHA-256-NONE"]
    server = sasl.SaslServer(domain="chat.test", offered=names, bindings={"tls-exporter": b"e" * 32}, nonce="nonce")
    step: object = server.start(rng.choice([*names, "EXTERNAL", ""]), data if rng.random() < 0.9 else None)
    for _ in range(4):
        if isinstance(step, sasl.NeedVerifier):
            step = server.verifier(
                made_up_verifier(step.mechanism, step.local, b"s" * 32, salt_size=16, iterations=4096)
            )
        elif isinstance(step, sasl.NeedPassword):
            step = server.password_checked(rng.random() < 0.5)
        elif isinstance(step, sasl.NeedToken):
            step = server.token_checked(rng.choice((None, b"x")))
        elif isinstance(step, sasl.Challenge):
            step = server.respond(data)
        else:
            break


def _scram_client(data: bytes, rng: random.Random) -> None:
    client = ScramClient("SCRAM-SHA-1", "user", "pencil", nonce="nonce")
    client.first()
    client.final(data)
    client.verify(data)


def _between_servers(first: str, rng: random.Random) -> None:
    grammar = Grammar(rng, ())
    keys = s2s.Keys(b"k" * 32)
    rules = s2s.Rules(tls=rng.choice(("off", "optional", "required")), certificates=rng.choice(("off", "optional")))
    coming = s2s.Incoming(
        lambda: ("chat.test",), lambda _: rules, keys, now=0.0, secure=rng.random() < 0.5, token=lambda: "s1"
    )
    going = s2s.Outgoing("chat.test", "far.test", rules, keys, now=0.0, secure=rng.random() < 0.5)
    going.start()
    machines: tuple[Any, ...] = (coming, going)
    for machine in machines:
        machine.opened({"from": "far.test", "to": "chat.test", "version": "1.0", "id": "s1", "xmlns": ns.SERVER})
        for text in (first, *rng.choices(_S2S_STEPS, k=rng.randint(1, 8))):
            element = Element.parse(text)
            for _ in range(rng.choice((0, 0, 1, 2))):
                element = grammar.bent(element)
            machine.element(element)
            for _ in range(100):
                step = machine.next_output()
                if step is None:
                    break
                if isinstance(step, s2s.Judge):
                    machine.judged("far.test", None, "no")
                elif isinstance(step, s2s.Verify):
                    coming.verified("chat.test", "far.test", rng.choice(("valid", "invalid", "error")))
            else:
                raise AssertionError("a stream that never stops talking")


def _payloads(element: Element, rng: random.Random) -> None:
    """Everything that reads an element, whatever it is."""
    for read in (
        lambda: read_form(element), lambda: rsm.read(element), lambda: rsm.find(element), lambda: priority_of(element),
        lambda: sasl2.read_request(element), lambda: sasl2.read_data(element), lambda: s2s.dialback.read(element),
        lambda: verification(element, rng.choice(("sha-1", "sha-256", "md5"))), lambda: archivable(element),
        lambda: copied(element), lambda: Element.parse(element.to_xml()),
    ):  # fmt: skip
        with suppress(MoimError):
            read()
    assert Element.parse(f"<x xmlns='{ns.CLIENT}'>{element.to_xml()}</x>").elements() == [element]


def _jid(text: str, rng: random.Random) -> None:
    jid = Jid.parse(text)
    assert Jid.parse(str(jid)) == jid, "an address in its canonical form is its own"


_TEXTS = tuple(text.encode() for text in (*TEXTS, *JIDS))
_SASL = (
    b"\0alice\0wonder land",
    b"n,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL",
    b"c=biws,r=fykononce,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
    b"p=tls-exporter,,n=alice,r=x",
    b"y,a=bob@chat.test,n=al=2Cice,r=x",
    b"alice\0" + b"m" * 32,
)
READERS = (
    Reader("sign-in of our own clients", (_SERVER_SAYS,), _login),
    Reader("external components", (_COMPONENT_SAYS,), _component),
    Reader("BOSH", (_BODY,), _bosh),
    Reader("files of XEP-0227", (_EXPORT,), _export),
    Reader("SASL", _SASL, _sasl),
    Reader(
        "SCRAM as a client",
        (b"r=noncex,s=QSXCR+Q6sek8bf92,i=4096", b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=", b"e=x"),
        _scram_client,
    ),
    Reader("tokens", _SASL, lambda data, _: hashed_token.read_initial(data)),
    Reader("base64", (b"aGFsbG8=", *_TEXTS), lambda data, _: sasl.decode(data.decode(errors="replace"))),
    Reader("addresses", (*TEXTS, *JIDS), _jid),
    Reader("archive ids", (_IDS.write("a@chat.test", 7), *TEXTS), lambda text, _: _IDS.read("a@chat.test", text)),
    Reader("times", TEXTS, lambda text, _: read_timestamp(text), (ValueError,)),
    Reader(
        "stream headers", JIDS, lambda text, _: check_opening({"to": text, "version": text, "xmlns": text}, "chat.test")
    ),
    Reader("passwords", TEXTS, lambda text, _: make_verifier("SCRAM-SHA-1", text, b"salt", 1)),
    Reader("streams between servers", _S2S_STEPS, _between_servers),
    Reader("elements", (), _payloads),
    *foreign.READERS,
)


def once(rng: random.Random) -> None:
    """Gives something bent to one reader. Raises AssertionError with what it cannot take."""
    reader = rng.choice(READERS)
    given = _bent(reader, rng)
    try:
        with suppress(*reader.refuses):
            reader.read(given, rng)
    except Exception as error:
        raise AssertionError(f"{reader.name}: {error!r} for {given!r}") from error


def _bent(reader: Reader, rng: random.Random) -> Any:
    if reader.name == "elements":
        grammar = Grammar(rng, ())
        element = rng.choice((grammar.stanza(), grammar.entry()))
        return rng.choice([element, *element.elements()])
    given = rng.choice(reader.inputs)
    if reader.name == "streams between servers":
        return given
    for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
        given = _bytes(given, rng) if isinstance(given, bytes) else _text(given, rng)
    return given


def _text(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(("", rng.choice(TEXTS), rng.choice(JIDS))) + text[at + rng.randrange(3) :]


def _bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    end = at + rng.choice((0, 0, 1, 2, 8, 40))
    match rng.randrange(5):
        case 0:
            piece = rng.choice(_TEXTS)
        case 1:
            piece = bytes(rng.randrange(256) for _ in range(rng.randint(0, 3)))
        case 2:
            piece = data[rng.randrange(len(data) + 1) :][: rng.choice((5, 60, 600))]
        case 3:
            piece = rng.choice(examples()).to_xml().encode()
        case _:
            piece = rng.choice(
                (b"<", b">", b"'", b"/>", b"=", b",", b"&", b"&lt;", b"xmlns=''", b"\xff", b"<!--", b"<![CDATA[")
            )
    return data[:at] + piece + data[end:]
