"""Hashed tokens: the messages as the draft has them, both ways, and what is none."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp.hashed_token import HT_BINDINGS, proof, read_initial, write_initial

TOKEN = "WXZzciBwYmFmdmZnZiBqdmd1IGp2eXFhcmZm"


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, spelled out."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


@pytest.mark.parametrize("binding", [b"", bytes(range(32))])
def test_the_proofs_of_both_sides(binding: bytes) -> None:
    assert proof(TOKEN, "Initiator", binding) == hmac_sha256(TOKEN.encode(), b"Initiator" + binding)
    assert proof(TOKEN, "Responder", binding) == hmac_sha256(TOKEN.encode(), b"Responder" + binding)


def test_the_message_of_the_client() -> None:
    message = write_initial("juliet", TOKEN, b"cb")
    assert message == b"juliet\0" + hmac_sha256(TOKEN.encode(), b"Initiatorcb")
    assert read_initial(message) == ("juliet", hmac_sha256(TOKEN.encode(), b"Initiatorcb"))


@given(st.text(min_size=1, max_size=50).filter(lambda name: "\0" not in name), st.text(max_size=50), st.binary())
def test_what_is_written_is_read(name: str, token: str, binding: bytes) -> None:
    assert read_initial(write_initial(name, token, binding)) == (name, proof(token, "Initiator", binding))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"a",
        b"a\0",
        b"\0" + bytes(32),
        b"a\0" + bytes(31),
        b"a\0" + bytes(33),
        b"\xff\0" + b"x" * 32,
        b"a" * 4000 + b"\0" + bytes(32),
    ],
)
def test_what_is_no_message(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_initial(message)


@given(st.binary(max_size=200))
def test_nothing_else_happens_to_any_bytes(message: bytes) -> None:
    try:
        name, shown = read_initial(message)
    except ProtocolError:
        return
    assert name
    assert len(shown) == 32


def test_the_strongest_comes_first() -> None:
    assert list(HT_BINDINGS) == ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"]
