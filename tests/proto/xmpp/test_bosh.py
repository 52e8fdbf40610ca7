"""BOSH sessions without I/O: the order of requests, copies, waiting, pauses, keys, and how sessions end."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto.xmpp import Element, bosh, ns

LIMITS = bosh.Limits(wait=50, hold=1, inactivity=60, polling=2, pause=120)
FEATURES = f"<stream:features xmlns:stream='{ns.STREAMS}'/>"


def body(rid: int, payload: str = "", **attrs: str) -> bosh.Body:
    text = "".join(f" {name.replace('_', ':')}='{value}'" for name, value in attrs.items())
    return bosh.read_body(
        f"<body xmlns='{ns.HTTP_BIND}' xmlns:xmpp='{ns.XBOSH}' rid='{rid}'{text}>{payload}</body>".encode()
    )


class Talk:
    """A session, with what it said sorted."""

    def __init__(self, *, limits: bosh.Limits = LIMITS, rid: int = 100, **attrs: str) -> None:
        attrs = {"to": "chat.test", "wait": "60", "hold": "1"} | attrs
        self.session = bosh.Session("secret", body(rid, **attrs), rid, limits, 0.0)
        self.answers: dict[int, Element] = {}
        self.passed: list[Element] = []
        self.restarts = 0
        self.over: str | None = None
        self.session.opened({"from": "chat.test", "id": "stream"}, 0.0)
        self.session.push(FEATURES, 0.0)
        self.take()

    def take(self) -> None:
        while (step := self.session.next_output()) is not None:
            if isinstance(step, bosh.Answer):
                assert step.ticket not in self.answers
                self.answers[step.ticket] = Element.parse(step.body)
            elif isinstance(step, bosh.Pass):
                self.passed.append(step.element)
            elif isinstance(step, bosh.Restart):
                self.restarts += 1
            else:
                assert self.over is None
                self.over = step.condition

    def send(self, rid: int, payload: str = "", *, ticket: int = 0, now: float = 1.0, **attrs: str) -> Element | None:
        """The answer, if it came at once."""
        self.session.receive(body(rid, payload, sid="secret", **attrs), ticket or rid, now)
        self.take()
        return self.answers.get(ticket or rid)

    def push(self, text: str, now: float = 1.0) -> None:
        self.session.push(text, now)
        self.take()

    def gone(self) -> bool:
        return self.over is not None

    def tick(self, now: float) -> None:
        self.session.tick(now)
        self.take()


def message(n: int) -> str:
    return f"<message xmlns='jabber:client' id='{n}'/>"


def ids(elements: list[Element]) -> list[str | None]:
    return [element.get("id") for element in elements]


def test_creation_tells_the_terms() -> None:
    talk = Talk(ack="1")
    first = talk.answers[100]
    assert first.find("features", ns.STREAMS) is not None
    assert {name: first.get(name) for name in ("sid", "wait", "hold", "requests", "inactivity", "from", "authid")} == {
        "sid": "secret", "wait": "50", "hold": "1", "requests": "2", "inactivity": "60",
        "from": "chat.test", "authid": "stream",
    }  # fmt: skip
    assert (first.get("ack"), first.get("maxpause"), first.get(f"{{{ns.XBOSH}}}restartlogic")) == ("100", "120", "true")


def test_a_request_waits_for_news_and_the_next_one_frees_it() -> None:
    talk = Talk()
    assert talk.send(101) is None
    talk.push(message(1))
    assert ids(talk.answers[101].elements()) == ["1"]
    assert talk.send(102) is None
    assert talk.send(103, message(2)) is None
    assert talk.answers[102].elements() == []
    assert ids(talk.passed) == ["2"]


def test_a_request_that_waited_long_enough_is_answered() -> None:
    talk = Talk()
    talk.send(101, now=5.0)
    assert talk.session.deadline() == 55.0
    talk.tick(54.9)
    assert 101 not in talk.answers
    talk.tick(55.0)
    assert talk.answers[101].elements() == []
    assert talk.over is None
    assert talk.session.deadline() == 115.0


def test_whoever_stays_away_is_gone() -> None:
    talk = Talk()
    talk.tick(59.0)
    assert not talk.gone()
    talk.tick(60.0)
    assert talk.gone()
    assert talk.over == ""
    answer = talk.send(101)
    assert answer is not None
    assert (answer.get("type"), answer.get("condition")) == ("terminate", "item-not-found")


def test_requests_are_worked_off_in_their_order() -> None:
    talk = Talk()
    assert talk.send(102, message(2)) is None
    assert talk.passed == []
    talk.send(101, message(1))
    assert ids(talk.passed) == ["1", "2"]


@pytest.mark.parametrize("rid", [98, 103, 5_000, 2**53 - 1])
def test_a_number_out_of_the_window_ends_the_session(rid: int) -> None:
    talk = Talk()
    answer = talk.send(rid)
    assert answer is not None
    assert (answer.get("type"), answer.get("condition")) == ("terminate", "item-not-found")
    assert talk.over == "item-not-found"


def test_a_copy_gets_the_same_answer_and_acts_once() -> None:
    talk = Talk()
    talk.push(message(1))
    answer = talk.send(101, message(7))
    again = talk.send(101, message(7), ticket=900)
    assert answer == again
    assert ids(talk.passed) == ["7"]
    assert talk.send(102) is None
    assert talk.send(102, ticket=901) is None
    talk.push(message(2))
    assert talk.answers[102] == talk.answers[901]
    assert ids(talk.answers[102].elements()) == ["2"]


def test_copies_without_end_are_a_flood() -> None:
    talk = Talk()
    for ticket in range(1000, 1004):
        talk.send(101, ticket=ticket)
    assert talk.over == "policy-violation"
    assert len([t for t in talk.answers if t >= 1000]) == 4


def test_an_end_takes_the_last_words_along() -> None:
    talk = Talk()
    talk.send(101)
    answer = talk.send(102, "<presence xmlns='jabber:client' type='unavailable'/>", type="terminate")
    assert answer is not None
    assert answer.get("type") == "terminate"
    assert answer.get("condition") is None
    assert [element.name for element in talk.passed] == ["presence"]
    assert talk.answers[101].get("type") == "terminate"
    assert talk.over == ""


def test_the_end_of_the_stream_reaches_the_client() -> None:
    talk = Talk()
    talk.send(101)
    error = f"<stream:error xmlns:stream='{ns.STREAMS}'><conflict xmlns='{ns.STREAM_ERRORS}'/></stream:error>"
    talk.session.closed("remote-stream-error", 2.0, [error])
    talk.take()
    answer = talk.answers[101]
    assert (answer.get("type"), answer.get("condition")) == ("terminate", "remote-stream-error")
    assert answer.find("error", ns.STREAMS) is not None


def test_a_stream_that_never_answers() -> None:
    session = bosh.Session("s", body(1, to="x"), 1, LIMITS, 0.0)
    deadline = session.deadline()
    assert deadline is not None
    session.tick(deadline)
    answer = session.next_output()
    assert isinstance(answer, bosh.Answer)
    assert Element.parse(answer.body).get("condition") == "remote-connection-failed"
    assert session.next_output() == bosh.Over("remote-connection-failed")


def test_restart_opens_the_stream_anew() -> None:
    talk = Talk()
    assert talk.send(101, xmpp_restart="true") is None
    assert talk.restarts == 1
    talk.push(FEATURES)
    assert talk.answers[101].find("features", ns.STREAMS) is not None


def test_a_pause_is_longer_than_inactivity_and_bounded() -> None:
    talk = Talk()
    talk.send(101)
    answer = talk.send(102, pause="1000", now=10.0)
    assert answer is not None
    assert 101 in talk.answers
    talk.tick(129.0)
    assert talk.over is None
    talk.push(message(1), 129.0)
    waited = talk.send(103, now=129.5)  # the pause is over with the next request
    assert waited is not None
    talk.tick(129.5 + 59)
    assert talk.over is None
    talk.tick(129.5 + 60)
    assert talk.over == ""


def test_polling_is_answered_at_once_but_not_too_often() -> None:
    talk = Talk(hold="0")
    assert talk.answers[100].get("hold") == "0"
    assert talk.send(101, now=10.0) is not None
    assert talk.send(102, message(1), now=10.1) is not None
    assert talk.send(103, now=13.0) is not None
    talk.push(message(1), 13.1)
    assert talk.send(104, now=13.2) is not None  # there was something to fetch
    assert talk.send(105, now=13.3) is not None
    assert talk.over is None
    talk.send(106, now=13.4)
    assert talk.over == "policy-violation"


def test_acknowledgements_tell_what_was_received() -> None:
    talk = Talk(ack="1")
    talk.send(101)
    talk.send(102)
    assert talk.answers[101].get("ack") == "102"
    talk.push(message(1))
    assert talk.answers[102].get("ack") is None


def test_keys_keep_others_off_the_session() -> None:
    keys = [hashlib.sha1(b"seed").hexdigest()]
    for _ in range(4):
        keys.append(hashlib.sha1(keys[-1].encode()).hexdigest())
    talk = Talk(newkey=keys.pop())
    talk.send(101, key=keys.pop())
    fresh = hashlib.sha1(b"fresh").hexdigest()
    talk.send(102, key=keys.pop(), newkey=hashlib.sha1(fresh.encode()).hexdigest())
    talk.send(103, key=fresh)
    assert talk.over is None
    talk.send(104, key=fresh)
    assert talk.over == "item-not-found"


@pytest.mark.parametrize("rid", [101, 102, 104])
@pytest.mark.parametrize("key", ["", "x"])
def test_keys_keep_others_from_answers_by_copies(rid: int, key: str) -> None:
    """Copies of a request that was answered, one that is held and one that waits for another before it."""
    keys = [hashlib.sha1(b"seed").hexdigest()]
    for _ in range(6):
        keys.append(hashlib.sha1(keys[-1].encode()).hexdigest())
    talk = Talk(newkey=keys[6], hold="2", limits=replace(LIMITS, hold=2))
    talk.send(101, key=keys[5])
    talk.push(message(1))
    talk.send(102, key=keys[4])
    talk.send(104, key=keys[2])
    talk.send(rid, ticket=900, key=keys[106 - rid])
    assert not talk.session.over, "the client itself may ask again"
    talk.send(rid, ticket=901, key=key)
    assert talk.over == "item-not-found"
    assert not list(talk.answers[901].elements())


def test_the_language_of_the_body_is_that_of_its_stanzas() -> None:
    talk = Talk(xml_lang="ko")
    talk.send(101, message(1))
    talk.send(102, "<message xmlns='jabber:client' xml:lang='en'/><auth xmlns='urn:x'/>")
    assert [element.get("xml:lang") for element in talk.passed] == ["ko", "en", None]


def test_stanzas_in_the_namespace_of_the_body() -> None:
    read = body(1, "<message to='a'><body>hi</body><x xmlns='other'><body/></x></message>")
    (stanza,) = read.payload
    assert stanza == Element.parse(
        "<message xmlns='jabber:client' to='a'><body>hi</body><x xmlns='other'><body/></x></message>"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<body",
        b"<body xmlns='other' rid='1'/>",
        b"<head xmlns='http://jabber.org/protocol/httpbind' rid='1'/>",
        b"<body xmlns='http://jabber.org/protocol/httpbind'/>",
        b"<body xmlns='http://jabber.org/protocol/httpbind' rid='-1'/>",
        b"<body xmlns='http://jabber.org/protocol/httpbind' rid='9007199254740992'/>",
        b"<body xmlns='http://jabber.org/protocol/httpbind' rid='1e5'/>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><body xmlns='http://jabber.org/protocol/httpbind' rid='1'/>",
        b"<body xmlns='http://jabber.org/protocol/httpbind' rid='1'>" + b" " * bosh.MAX_BODY + b"</body>",
    ],
)
def test_what_is_no_body(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        bosh.read_body(data)


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        bosh.read_body(data)


STEP = st.tuples(
    st.sampled_from(["send", "push", "tick"]),
    st.integers(0, 6),
    st.floats(0, 30),
    st.sampled_from([{}, {}, {}, {"type": "terminate"}, {"pause": "9"}, {"xmpp_restart": "1"}]),
)


@given(st.sampled_from(["0", "1", "3"]), st.lists(STEP, max_size=40))
def test_every_request_is_answered_once(hold: str, steps: list[Any]) -> None:
    talk, now, ticket, pushed = Talk(hold=hold), 1.0, 10_000, 0
    tickets = set()
    for kind, offset, later, attrs in steps:
        now += later
        if kind == "send":
            ticket += 1
            tickets.add(ticket)
            talk.send(100 + offset, ticket=ticket, now=now, **attrs)
        elif kind == "push" and talk.over is None:
            pushed += 1
            talk.push(message(pushed), now)
        else:
            talk.tick(now)
    talk.session.closed("", now)
    talk.take()
    assert set(talk.answers) == tickets | {100}
    assert talk.over is not None
    # What was answered was said once and in order; copies of one answer aside.
    said = {tuple(ids(answer.elements())): None for answer in talk.answers.values()}
    numbers = [int(number) for answer in said for number in answer if number]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
