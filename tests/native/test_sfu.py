"""The SFU engine as Python sees it: commands, batches of events, refusals."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim import _native
from moim.errors import ProtocolError, Unavailable, UsageError


@pytest.fixture
def engine() -> Iterator[_native.Sfu]:
    engine = _native.Sfu(max_participants=3, max_subscriptions=1)
    engine.listen("127.0.0.1", 0)
    yield engine
    engine.stop()


def events(engine: _native.Sfu) -> list[Any]:
    """Waits for the descriptor, then takes everything."""
    assert select.select([engine.fileno()], [], [], 10)[0]
    return engine.drain(100)


def test_the_first_offer_invites_to_publish(engine: _native.Sfu) -> None:
    engine.add_participant(7)
    assert events(engine) == [("negotiate", 7)]
    offer = engine.offer(7)
    assert offer is not None
    seq, sdp, layout = offer
    assert seq == 1
    assert layout["tracks"] == []
    assert set(layout["publish"]) == {"audio", "video"}
    for kind, mid in layout["publish"].items():
        section = next(part for part in sdp.split("\r\nm=") if f"a=mid:{mid}\r\n" in part)
        assert section.startswith(kind)
        assert "a=recvonly" in section
    assert "a=ice-lite" in sdp
    assert "opus/48000" in sdp
    assert sdp.index("VP8/90000") < sdp.index("H264/90000")
    assert engine.offer(7) is None  # until the answer is here


def test_candidates_are_announced() -> None:
    engine = _native.Sfu()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert engine.listen("127.0.0.1", port, candidates=[f"127.0.0.1:{port}", "192.0.2.7:16384"]) == port
    engine.add_participant(1)
    offer = engine.offer(1)
    assert offer is not None
    assert f"127.0.0.1 {port} typ host" in offer[1]
    assert "192.0.2.7 16384 typ host" in offer[1]
    engine.stop()


def test_wrong_calls_are_the_callers_fault(engine: _native.Sfu) -> None:
    engine.add_participant(1)
    engine.add_participant(2)
    for call in (
        lambda: engine.add_participant(1),
        lambda: engine.offer(9),
        lambda: engine.answer(9, 1, ""),
        lambda: engine.subscribe(1, 1),
        lambda: engine.subscribe(1, 9),
        lambda: engine.republish(9),
        lambda: engine.listen("127.0.0.1", 0),
        lambda: _native.Sfu(connect_timeout=-1),
        lambda: _native.Sfu().add_participant(1),
        lambda: _native.Sfu().listen("localhost", 0),
        lambda: _native.Sfu().listen("127.0.0.1", 0, candidates=["nowhere"]),
        lambda: _native.Sfu().listen("0.0.0.0", 0),
    ):
        with pytest.raises(UsageError):
            call()
    engine.remove_participant(9)
    engine.unsubscribe(9, 8)


def test_limits_are_kept(engine: _native.Sfu) -> None:
    for pid in (1, 2, 3):
        engine.add_participant(pid)
    with pytest.raises(Unavailable):
        engine.add_participant(4)
    engine.subscribe(1, 2)
    engine.subscribe(1, 2)
    with pytest.raises(Unavailable):
        engine.subscribe(1, 3)
    engine.remove_participant(3)
    engine.add_participant(4)


def test_a_taken_port_is_said(engine: _native.Sfu) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="cannot listen"):
            _native.Sfu().listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("sdp", ["", "v=0", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "x" * 300_000])
def test_an_answer_that_is_none_is_the_peers_fault(engine: _native.Sfu, sdp: str) -> None:
    engine.add_participant(1)
    offer = engine.offer(1)
    assert offer is not None
    with pytest.raises(ProtocolError):
        engine.answer(1, offer[0], sdp)
    with pytest.raises(ProtocolError):
        engine.answer(1, offer[0] + 1, sdp)


@given(st.data())
def test_no_answer_ends_the_engine(data: st.DataObject) -> None:
    engine = _native.Sfu()
    engine.listen("127.0.0.1", 0)
    engine.add_participant(1)
    offer = engine.offer(1)
    assert offer is not None
    answer = offer[1].replace("actpass", "active").replace("recvonly", "sendonly").replace("a=ice-lite\r\n", "")
    lines = answer.splitlines()
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "double", "swap", "text"])):
            case "drop":
                lines.pop(place)
            case "double":
                lines.insert(place, lines[place])
            case "swap":
                lines[place], lines[-1] = lines[-1], lines[place]
            case "text":
                lines[place] = data.draw(st.text(max_size=40))
        if not lines:
            break
    text = "\r\n".join(lines) + "\r\n"
    try:
        engine.answer(1, offer[0], text)
    except ProtocolError:
        assert text != answer
        engine.remove_participant(1)
    engine.add_participant(2)
    assert engine.offer(2) is not None
    assert engine.stats()["faults"] == 0
    assert engine.running()
    engine.stop()


def test_strangers_datagrams_are_counted(engine: _native.Sfu) -> None:
    engine.stop()
    engine = _native.Sfu()
    port = engine.listen("127.0.0.1", 0)
    engine.add_participant(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\x00" * 20, os.urandom(1400), b"\x80" * 2000):
            stranger.sendto(data, ("127.0.0.1", port))
        while engine.stats()["unknown"] < 4:
            pass
    assert engine.stats()["participants"][1]["connected"] is False
    engine.stop()
    assert not engine.running()
    with pytest.raises(UsageError):
        engine.stats()


def test_a_participant_who_never_connects_is_given_up() -> None:
    engine = _native.Sfu(connect_timeout=0.1)
    engine.listen("127.0.0.1", 0)
    engine.add_participant(5)
    assert events(engine) == [("negotiate", 5)]
    assert events(engine) == [("disconnected", 5, "never-connected")]
    engine.stop()
