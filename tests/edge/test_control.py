"""The control channel: messages both ways, versions, bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.edge.control import (
    MAX_LINE,
    AllowedPeer,
    Applied,
    ControlChannel,
    Csr,
    DesiredState,
    Hello,
    Push,
    Renew,
    Status,
    TurnState,
    decode,
    encode,
    from_edge,
    from_inside,
)
from moim.edge.rules import Rule
from moim.errors import ProtocolError


def state(**more: object) -> DesiredState:
    rule = Rule(scheme="https", prefix="/", methods=("GET",), target="web")
    return DesiredState.model_validate({"domains": ("moim.test",), "http": (rule,), **more})


def test_every_message_survives_the_line() -> None:
    turn = TurnState(secrets=("s" * 32,), allow_peers=(AllowedPeer(address="127.0.0.1", port=16384),))
    for message in (Push(serial=1, state=state(turn=turn)), Renew()):
        assert decode(encode(message), from_inside) == message
    for answer in (Hello(version="1"), Csr(pem="x"), Applied(serial=1, digest="a", problems=("b",)), Status()):
        assert decode(encode(answer), from_edge) == answer


def test_equal_states_have_equal_digests() -> None:
    assert state().digest() == DesiredState.model_validate_json(state().model_dump_json()).digest()
    assert state().digest() != state(domains=("other.test",)).digest()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "version"),
        (b'{"type":"renew"}', "version None"),
        (b'{"type":"renew","v":2}', "version 2"),
        (b'{"type":"other","v":1}', "wrong field"),
        (b'{"type":"renew","v":1,"x":1}', "x"),
        (b'{"type":"push","v":1,"serial":1,"state":{"tcp":[{"listener":"UPPER","target":"a"}]}}', "listener"),
        (b'{"type":"push","v":1,"serial":1,"state":{"turn":{"secrets":["short"]}}}', "secrets"),
        (b'{"type":"push","v":1,"serial":1,"state":{"http":[{"scheme":"ftp"}]}}', "http"),
    ],
)
def test_wrong_lines_are_refused(line: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        decode(line, from_inside)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "v", "state"]), inner),
    max_leaves=10,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_nothing_else_comes_out_of_decoding(line: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(line, from_inside)
    with contextlib.suppress(ProtocolError):
        decode(line, from_edge)


def test_long_messages_are_not_sent() -> None:
    with pytest.raises(ProtocolError, match="over the bound"):
        encode(Status(relays=tuple({"x": "y" * 10_000} for _ in range(MAX_LINE // 10_000 + 1))))


class _Pipe:
    """A byte stream that keeps what is written and reads what the test feeds."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=MAX_LINE)
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    async def drain(self) -> None: ...

    def write_eof(self) -> bool:
        return True

    def close(self) -> None: ...

    def abort(self) -> None: ...


async def test_a_channel_reads_lines_to_the_end() -> None:
    pipe = _Pipe()
    channel = ControlChannel(pipe)
    await channel.send(Hello())
    pipe.reader.feed_data(pipe.written * 2 + b'{"half')
    pipe.reader.feed_eof()
    assert await channel.receive(from_edge) == Hello()
    assert await channel.receive(from_edge) == Hello()
    assert await channel.receive(from_edge) is None


async def test_a_line_without_end_is_refused() -> None:
    pipe = _Pipe()
    pipe.reader.feed_data(b"x" * (MAX_LINE + 1))
    with pytest.raises(ProtocolError, match="too long"):
        await ControlChannel(pipe).receive(from_edge)
