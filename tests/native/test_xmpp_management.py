"""Stream management in the engine (XEP-0198): counting, acknowledging, losing connections and coming back."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from moim._native import Element
from stanza_parts import body

from .xmpp_peers import DOMAIN, HEADER, Client, Host

SM = "urn:xmpp:sm:3"
ENABLED = f"<enabled xmlns='{SM}' id='secret' resume='true'/>"
R = f"<r xmlns='{SM}'/>"


class Manager(Host):
    """Also decides about stream management: everybody may resume everything."""

    resumable = True

    def __init__(self, **bounds: Any) -> None:
        super().__init__(**bounds)
        self.cuts: Counter[int] = Counter()

    def stanza(self, sid: int, element: Element) -> None:
        if (element.ns, element.name) == (SM, "enable"):
            self.server.manage(sid, Element("enabled", SM, {"id": "secret", "resume": "true"}), resume=self.resumable)
        elif (element.ns, element.name) == (SM, "resume"):
            previd = element.get("previd") or ""
            old = int(previd) if previd.isdigit() else self.sid(previd)
            self.server.resume(sid, old, int(element.get("h") or 0), previd)
        else:
            super().stanza(sid, element)

    def answer(self, event: tuple[Any, ...]) -> None:
        if event[0] == "unresumed":
            failed = Element("failed", SM, {}, [Element(event[2], "urn:ietf:params:xml:ns:xmpp-stanzas")])
            self.server.send(event[1], [failed])
        else:
            super().answer(event)


class Phone(Client):
    """A client that counts."""

    def enable(self) -> Phone:
        self.send(f"<enable xmlns='{SM}' resume='true'/>")
        self.until(ENABLED)
        return self

    def authenticate(self, user: str) -> Phone:
        """Signs in, without binding."""
        self.send(HEADER)
        self.until("<stream:features/>")
        self.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHB3</auth>")
        self.until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
        self.send(HEADER)
        self.until("<stream:features/>")
        return self

    def resume(self, full: str, handled: int) -> str:
        """What the server answers."""
        self.send(f"<resume xmlns='{SM}' previd='{full}' h='{handled}'/>")
        return self.until(f"previd='{full}'/>")

    def acknowledged(self) -> int:
        """What the server says that it handled."""
        self.send(R)
        self.until("<a xmlns='urn:xmpp:sm:3' h='")  # behind a question of its own, when a second has passed
        return int(self.until("'/>").removesuffix("'/>"))


ALICE = f"alice@{DOMAIN}/phone"
BOB = f"bob@{DOMAIN}/desk"


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def plane(request: pytest.FixtureRequest) -> Iterator[Manager]:
    manager = Manager(threads=request.param)
    try:
        yield manager
    finally:
        manager.server.stop()


@pytest.fixture
def port(plane: Manager) -> int:
    return plane.listen()


def pair(plane: Manager, port: int) -> tuple[Phone, Phone]:
    alice, bob = Phone(plane, port), Phone(plane, port)
    alice.login("alice", "phone")
    bob.login("bob", "desk")
    return alice.enable(), bob


def say(sender: Client, to: str, *texts: object) -> None:
    sender.send("".join(f"<message to='{to}' type='chat'><body>{text}</body></message>" for text in texts))


def bodies(text: str) -> list[str]:
    return re.findall(r"<body>([^<]*)</body>", text)


def test_both_sides_count_stanzas_alone(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    assert alice.acknowledged() == 0
    say(alice, BOB, 1, 2)
    alice.send("<iq type='get' id='q'/>")
    alice.until("id='q'/>")
    assert alice.acknowledged() == 3
    say(bob, ALICE, *range(40))
    asked = alice.until(R)
    assert len(bodies(asked)) + 1 >= 16, "it is asked by the dozen, the answer to the request counted"
    alice.send(f"<a xmlns='{SM}' h='10'/>")
    assert alice.acknowledged() == 3, "acknowledgements are not stanzas"


def test_a_question_comes_with_time_when_little_was_sent(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    say(bob, ALICE, "hello")
    alice.until("</message>")
    alice.until(R)


@pytest.mark.parametrize("wrong", ["3", "4000000000"])
def test_more_than_was_sent_cannot_be_acknowledged(plane: Manager, port: int, wrong: str) -> None:
    alice, bob = pair(plane, port)
    say(bob, ALICE, 1, 2)
    alice.until("2</body></message>")
    alice.send(f"<a xmlns='{SM}' h='{wrong}'/>")
    if wrong == "3":
        end = alice.rest()
        assert "<undefined-condition" in end
        assert f"<handled-count-too-high xmlns='{SM}' h='3' send-count='2'/>" in end
        assert plane.event("closed")[2].startswith("undefined-condition")
        assert [e.find("body").text for e in plane.event("unacknowledged")[2]] == ["1", "2"]
    else:
        assert alice.acknowledged() == 0, "a count far behind is old news"


def test_acknowledgements_that_are_no_numbers_end_the_stream(plane: Manager, port: int) -> None:
    alice, _ = pair(plane, port)
    alice.send(f"<a xmlns='{SM}' h='-1'/>")
    assert "<bad-format" in alice.rest()


def test_requests_at_the_wrong_moment_fail(plane: Manager, port: int) -> None:
    alice, _ = pair(plane, port)
    for request in ("<enable xmlns='urn:xmpp:sm:3'/>", "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>"):
        alice.send(request)
        alice.until("<unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
    unmanaged = Phone(plane, port)
    unmanaged.login("carol", "x")
    unmanaged.send(R)
    unmanaged.until("<unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")


def cut(plane: Manager, client: Client, full: str) -> int:
    """Cuts a connection; the session's number, now that it waits."""
    sid = plane.sid(full)
    client.close()
    plane.until(lambda: sum(event[:2] == ("detached", sid) for event in plane.seen) > plane.cuts[sid])
    plane.cuts[sid] += 1
    return sid


def test_nothing_is_lost_or_doubled_when_a_connection_breaks(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    counter = itertools.count()
    got: list[str] = []
    sent = 0
    for round_ in range(4):
        say(bob, ALICE, *(next(counter) for _ in range(7)))
        got += bodies(alice.until(f"{round_ * 10 + 6}</body></message>"))
        alice.send(f"<a xmlns='{SM}' h='{len(got) - 2}'/>")
        say(alice, BOB, f"from {round_}")
        bob.until(f"from {round_}</body></message>")
        sent += 1
        sid = cut(plane, alice, ALICE)
        say(bob, ALICE, *(next(counter) for _ in range(3)))
        bob.send("<iq type='get' id='z'/>")
        bob.until("id='z'/>")
        alice = Phone(plane, port).authenticate("alice")
        answer = alice.resume(ALICE, len(got))
        assert f"h='{sent}'" in answer
        got += bodies(alice.until(f"{round_ * 10 + 9}</body>"))
        alice.until("</message>")  # behind the note that it is late
        assert plane.event("resumed")[1] == sid
    assert got == [str(number) for number in range(40)]
    assert plane.server.stats()["detached"] == 0
    assert plane.server.stats()["resumed"] == 4
    alice.send(f"<a xmlns='{SM}' h='40'/>")
    assert alice.acknowledged() == sent
    assert not [event for event in plane.seen if event[0] in ("closed", "unacknowledged")]


def test_what_was_not_received_comes_again_in_order(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    say(bob, ALICE, *range(5))
    alice.until("4</body></message>")
    cut(plane, alice, ALICE)
    alice = Phone(plane, port).authenticate("alice")
    alice.resume(ALICE, 2)
    say(bob, ALICE, 5)
    assert bodies(alice.until("5</body></message>")) == ["2", "3", "4", "5"]


def test_a_session_that_is_still_connected_is_taken_over(plane: Manager, port: int) -> None:
    first, bob = pair(plane, port)
    say(bob, ALICE, 1)
    first.until("</message>")
    second = Phone(plane, port).authenticate("alice")
    second.send(f"<resume xmlns='{SM}' previd='{ALICE}' h='0'/>")
    assert bodies(second.until("1</body></message>")) == ["1"]
    assert "<conflict" in first.rest()
    say(bob, ALICE, 2)
    second.until("2</body></message>")
    say(second, BOB, "back")
    assert f"from='{ALICE}'" in bob.until("back</body></message>")
    assert not [event for event in plane.seen if event[0] == "closed"]
    assert plane.server.stats()["sessions"] == 3 or plane.until(lambda: plane.server.stats()["sessions"] == 2)


def test_what_follows_a_resumption_waits_for_it(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    cut(plane, alice, ALICE)
    alice = Phone(plane, port).authenticate("alice")
    alice.send(f"<resume xmlns='{SM}' previd='{ALICE}' h='0'/><message to='{BOB}'><body>at once</body></message>")
    assert f"from='{ALICE}'" in bob.until("at once</body></message>")


def test_a_session_that_is_gone_is_not_resumed_and_the_client_binds_anew(plane: Manager, port: int) -> None:
    alice = Phone(plane, port).authenticate("alice")
    alice.send(f"<resume xmlns='{SM}' previd='4242' h='0'/>")
    alice.until("<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
    alice.bind("phone", 0)
    alice.enable()


def test_a_count_too_high_does_not_resume_and_takes_nothing_away(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    cut(plane, alice, ALICE)
    say(bob, ALICE, 1)
    wrong = Phone(plane, port).authenticate("alice")
    wrong.send(f"<resume xmlns='{SM}' previd='{ALICE}' h='9'/>")
    assert f"<handled-count-too-high xmlns='{SM}' h='9'" in wrong.rest()
    alice = Phone(plane, port).authenticate("alice")
    alice.resume(ALICE, 0)
    late = alice.until("</message>")
    assert re.search(
        r"<body>1</body><delay xmlns='urn:xmpp:delay' from='moim.test' stamp='20[0-9T:.-]+Z'/></message>", late
    )


def test_what_a_session_leaves_comes_back_before_its_end(plane: Manager, port: int) -> None:
    alice, bob = pair(plane, port)
    say(bob, ALICE, "lost")
    alice.until("</message>")
    say(alice, BOB, "taken")
    bob.until("</message>")
    sid = cut(plane, alice, ALICE)
    plane.server.send(sid, [Element("iq", "jabber:client", {"type": "get", "id": "g"})])
    plane.server.send(sid, [Element("iq", "jabber:client", {"type": "result", "id": "r"})])
    plane.server.send(sid, [Element("presence", "jabber:client", {"from": BOB})])
    plane.server.close(sid)
    _, _, elements, handled = plane.event("unacknowledged", sid)
    assert [(element.name, element.get("type")) for element in elements] == [("message", "chat"), ("iq", "get")]
    assert handled == 1
    plane.event("closed", sid)
    kinds = [event[0] for event in plane.seen if event[1] == sid]
    assert kinds[-3:] == ["detached", "unacknowledged", "closed"]
    say(bob, ALICE, "nobody")
    plane.until(lambda: any(stanza.name == "message" for stanza in plane.stanzas()))


def test_a_polite_end_is_an_end(plane: Manager, port: int) -> None:
    alice, _ = pair(plane, port)
    alice.send("</stream:stream>")
    alice.rest()
    assert plane.event("closed")[2] == "the peer ended the stream"
    assert not [event for event in plane.seen if event[0] == "detached"]


def test_a_session_without_resumption_ends_with_its_connection(plane: Manager, port: int) -> None:
    plane.resumable = False
    alice, bob = pair(plane, port)
    say(bob, ALICE, "lost")
    alice.until("</message>")
    alice.close()
    assert len(plane.event("unacknowledged")[2]) == 1
    plane.event("closed")


@pytest.mark.parametrize("connected", [True, False])
def test_a_queue_without_end_ends_the_session(connected: bool) -> None:
    plane = Manager(unacked_stanzas=50, threads=2)
    try:
        port = plane.listen()
        alice, bob = pair(plane, port)
        if not connected:
            cut(plane, alice, ALICE)
        say(bob, ALICE, *range(60))
        left = plane.event("unacknowledged")[2]
        assert [element.find("body").text for element in left] == [str(number) for number in range(51)]
        plane.event("closed")
        later = plane.until(
            lambda: [e for e in plane.seen if e[0] == "missed" or (e[0] == "stanza" and e[2].name == "message")]
        )
        assert later, "the rest is routed again by whoever decides"
        assert plane.server.stats()["overflows"] == 1
    finally:
        plane.server.stop()


def test_presence_of_a_waiting_session_is_kept_once_for_each_sender(plane: Manager, port: int) -> None:
    alice, _ = pair(plane, port)
    sid = cut(plane, alice, ALICE)
    for number in range(3000):
        status = Element("status", "jabber:client", {}, [str(number)])
        plane.server.send(sid, [Element("presence", "jabber:client", {"from": BOB}, [status])])
    alice = Phone(plane, port).authenticate("alice")
    alice.resume(ALICE, 0)
    assert alice.until("</presence>").count("<presence") == 1


def test_a_client_that_does_not_answer_is_taken_for_gone() -> None:
    plane = Manager(ack_timeout=0.5, threads=1)
    try:
        alice, bob = pair(plane, plane.listen())
        say(bob, ALICE, *range(20))
        _, _, reason, messages = plane.event("detached")
        assert reason == "the peer acknowledged nothing for too long"
        assert [body(message) for message in messages] == [str(number) for number in range(20)]
        alice.close()
    finally:
        plane.server.stop()


# --- what Python handles ----------------------------------------------------------------------------------------------


def undone(plane: Manager, count: int) -> list[tuple[int, int]]:
    """So many messages that came up and whose senders wait, each by its session and number."""

    def found() -> list[tuple[int, int]]:
        return [(e[1], e[3]) for e in plane.seen if e[0] == "stanza" and e[3]]

    return plane.until(lambda: len(found()) >= count and found())[:count]  # type: ignore[no-any-return]


def test_a_message_that_python_handles_counts_when_it_is_done_with(plane: Manager, port: int) -> None:
    plane.holding = True
    alice, bob = pair(plane, port)
    alice.send("<iq type='get' id='q'/>")
    say(alice, f"nobody@{DOMAIN}", 1, 2)
    alice.send(R)
    first, second = undone(plane, 2)
    plane.server.done([second, second, (second[0], 99)])
    alice.until(f"<a xmlns='{SM}' h='1'/>")
    plane.server.gather(False)
    say(alice, BOB, "delivered by the table")
    bob.until("by the table")
    plane.server.done([first])
    alice.until(f"<a xmlns='{SM}' h='4'/>")  # it does not have to ask again


def test_what_is_not_done_with_is_sent_again_by_a_client_that_comes_back(plane: Manager, port: int) -> None:
    plane.holding = True
    alice, _ = pair(plane, port)
    say(alice, f"nobody@{DOMAIN}", 1, 2)
    first, second = undone(plane, 2)
    plane.server.done([first])
    cut(plane, alice, ALICE)
    alice = Phone(plane, port).authenticate("alice")
    assert "h='1'" in alice.resume(ALICE, 0)
    say(alice, f"nobody@{DOMAIN}", 2)
    again = undone(plane, 3)[2]
    plane.server.done([second])
    assert alice.acknowledged() == 1, "what is said of the first time does not count for the second"
    plane.server.done([again])
    assert alice.until("/>") == f"<a xmlns='{SM}' h='2'/>"


def test_a_session_that_ends_counts_what_was_done_with(plane: Manager, port: int) -> None:
    plane.holding = True
    alice, _ = pair(plane, port)
    say(alice, f"nobody@{DOMAIN}", 1, 2)
    first, _ = undone(plane, 2)
    plane.server.done([first])
    sid = cut(plane, alice, ALICE)
    plane.server.close(sid)
    assert plane.event("unacknowledged", sid)[3] == 1


def test_a_session_leaves_the_engine_with_what_was_done_with(plane: Manager, port: int) -> None:
    plane.holding = True
    alice, _ = pair(plane, port)
    say(alice, f"nobody@{DOMAIN}", 1, 2)
    first, second = undone(plane, 2)
    plane.server.done([first])
    sid = cut(plane, alice, ALICE)
    plane.server.move_out(sid)
    assert plane.event("moved", sid)[2:4] == (1, 0)
    plane.server.done([second])
