"""The stream of an external component: the handshake, whose stanzas are taken, the namespaces, and what ends it."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.component import ComponentStream, Ended, Event, Proven, Stanza

HEADER = f"<stream:stream xmlns='{ns.COMPONENT}' xmlns:stream='{ns.STREAMS}' to='irc.test'>"


def stream() -> ComponentStream:
    return ComponentStream(secret={"irc.test": "s3cret"}.get, token=lambda: "id1")


def events(machine: ComponentStream) -> list[Event]:
    found = []
    while (event := machine.next_event()) is not None:
        found.append(event)
    return found


def proof(secret: str) -> str:
    return f"<handshake>{hashlib.sha1(f'id1{secret}'.encode()).hexdigest()}</handshake>"


def attached() -> ComponentStream:
    machine = stream()
    machine.receive((HEADER + proof("s3cret")).encode())
    assert events(machine) == [Proven("irc.test")]
    machine.accept()
    machine.take_output()
    return machine


def ending(machine: ComponentStream) -> str:
    """The condition of the stream error."""
    output = machine.take_output().decode()
    assert output.endswith("</stream:stream>")
    found = re.search(rf"<([a-z-]+) xmlns='{ns.STREAM_ERRORS}'", output)
    assert found is not None, output
    return found[1]


def test_the_handshake() -> None:
    machine = stream()
    machine.receive(b"<?xml version='1.0'?>" + HEADER.encode())
    assert b" from='irc.test' id='id1'>" in machine.take_output().replace(b'"', b"'")
    machine.receive(proof("s3cret").upper().replace("HANDSHAKE", "handshake").encode())
    assert events(machine) == [Proven("irc.test")]
    machine.accept()
    assert machine.take_output() == b"<handshake/>"
    assert machine.attached


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        (HEADER + proof("guess"), "not-authorized"),
        (HEADER + proof(""), "not-authorized"),
        (HEADER + "<handshake/>", "not-authorized"),
        (HEADER.replace("irc.test", "other.test") + proof("s3cret"), "not-authorized"),
        (HEADER.replace("irc.test", "other.test") + proof("id1"), "not-authorized"),
        (HEADER.replace(" to='irc.test'", "") + proof("s3cret"), "not-authorized"),
        (HEADER + "<message from='a@irc.test' to='b@c'/>", "not-authorized"),
        (HEADER.replace(ns.COMPONENT, ns.CLIENT), "invalid-namespace"),
        (HEADER + "<a></b>", "not-well-formed"),
        (HEADER + "<!-- x -->", "restricted-xml"),
    ],
)
def test_who_is_turned_away(sent: str, condition: str) -> None:
    machine = stream()
    machine.receive(sent.encode())
    assert ending(machine) == condition
    (event,) = events(machine)
    assert isinstance(event, Ended)
    assert event.reason
    machine.receive(proof("s3cret").encode())
    assert events(machine) == []


def test_stanzas_wait_for_the_answer_to_the_handshake() -> None:
    machine = stream()
    machine.receive((HEADER + proof("s3cret") + "<iq from='irc.test' to='a@b'/>").encode())
    assert isinstance(events(machine)[0], Proven)
    assert not machine.attached


def test_stanzas_change_their_namespace_on_the_way() -> None:
    machine = attached()
    machine.receive(b"<message from='x@IRC.test/r' to='A@b.c'><body>hi</body><x xmlns='other'><body/></x></message> ")
    (event,) = events(machine)
    assert isinstance(event, Stanza)
    assert event.element == Element.parse(
        f"<message xmlns='{ns.CLIENT}' from='x@irc.test/r' to='a@b.c'>"
        "<body>hi</body><x xmlns='other'><body/></x></message>"
    )
    machine.send(event.element)
    assert machine.take_output().decode().startswith("<message ")
    machine.send(Element.parse(f"<iq xmlns='{ns.CLIENT}'><q xmlns='x'><message xmlns='{ns.CLIENT}'/></q></iq>"))
    assert machine.take_output().decode() == f"<iq><q xmlns='x'><message xmlns='{ns.CLIENT}'/></q></iq>"


@pytest.mark.parametrize(
    ("sent", "condition"),
    [
        ("<message from='x@other.test' to='a@b'/>", "invalid-from"),
        ("<message from='x@sub.irc.test' to='a@b'/>", "invalid-from"),
        ("<message to='a@b'/>", "improper-addressing"),
        ("<message from='x@irc.test'/>", "improper-addressing"),
        ("<message from='x@irc.test' to='@'/>", "improper-addressing"),
        ("<handshake/>", "unsupported-stanza-type"),
        ("<message xmlns='other' from='x@irc.test' to='a@b'/>", "unsupported-stanza-type"),
        ("<message from='irc.test' to='a@b'>" + "x" * 300_000, "policy-violation"),
    ],
)
def test_what_ends_an_attached_stream(sent: str, condition: str) -> None:
    machine = attached()
    machine.receive(sent.encode())
    assert ending(machine) == condition


def test_a_polite_end() -> None:
    machine = attached()
    machine.receive(b"</stream:stream>")
    assert events(machine) == [Ended("")]
    assert machine.take_output() == b"</stream:stream>"


@given(st.lists(st.binary(max_size=60), max_size=8), st.booleans())
def test_rubbish_in_pieces_never_raises(pieces: list[bytes], inside: bool) -> None:
    machine = attached() if inside else stream()
    for piece in pieces:
        machine.receive(piece)
        events(machine)
    machine.end("", "")
    assert machine.over
