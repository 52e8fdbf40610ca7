"""Every message is read whole or refused in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.meetings.messages import MAX_MESSAGE, Answer, Join, Leave, Refusal, State, parse


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"type": "join", "callId": " 123 "}, Join("123")),
        (
            {
                "type": "join",
                "callId": "1",
                "passcode": "12 34",
                "secret": "s",
                "name": " 김\n하나 ",
                "token": "t",
                "x": 1,
            },
            Join("1", "김 하나", "1234", "s", "t"),
        ),
        ({"type": "join", "callId": "1", "name": None}, Join("1")),
        ({"type": "answer", "seq": 3, "sdp": "v=0"}, Answer(3, "v=0")),
        ({"type": "state", "audio": True, "video": False}, State(True, False)),
        ({"type": "leave"}, Leave()),
    ],
)
def test_messages(raw: dict[str, Any], message: object) -> None:
    assert parse(json.dumps(raw)) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        "{",
        "[" * 100_000,
        '{"type": 7}',
        '{"type": "dance"}',
        '{"type": ["join"]}',
        '{"type": "join"}',
        '{"type": "join", "callId": ""}',
        '{"type": "join", "callId": 123}',
        '{"type": "join", "callId": "1", "name": ["x"]}',
        '{"type": "join", "callId": "1", "name": "\\ud83d"}',
        '{"type": "join", "callId": "%s"}' % ("1" * 200),
        '{"type": "answer", "seq": true, "sdp": "v=0"}',
        '{"type": "answer", "seq": -1, "sdp": "v=0"}',
        '{"type": "answer", "seq": 1e400, "sdp": "v=0"}',
        '{"type": "answer", "seq": 1}',
        '{"type": "state", "audio": 1, "video": 0}',
        '{"type": "leave", "x": "%s"}' % ("x" * MAX_MESSAGE),
    ],
)
def test_rubbish_is_refused_in_words(text: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(text)
    assert refusal.value.code == "bad-request"
    assert refusal.value.message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["callId", "name", "passcode", "secret", "token", "seq", "sdp", "audio"]), _JSON),
    st.sampled_from(["join", "answer", "state", "leave", "other"]),
)
def test_any_object_is_read_or_refused(fields: dict[str, Any], kind: str) -> None:
    try:
        message = parse(json.dumps({"type": kind, **fields}))
    except Refusal:
        return
    if isinstance(message, Join):
        assert len(message.name) <= 64
        assert message.name.isprintable() or "\u200d" in message.name
