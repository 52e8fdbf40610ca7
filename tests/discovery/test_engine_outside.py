"""Through the edge: what is asked of it, what goes by way of it, and what it may refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from moim.discovery.actions import Failed, HttpGet, LoggedIn, QueryAddress, QuerySrv, Response, XmppLogin
from moim.proto import mra

World = Any
EDGE_CONFIG = ("edge.example.com", 8443, "/ZXhhbXBsZS5jb20/get_edge_config")


def codes(outcome: Any) -> list[str]:
    return [step.code for step in outcome.steps]


def test_outside_everything_goes_by_way_of_the_edge(world: World) -> None:
    world.edge()
    outcome = world.run()
    assert outcome.error is None
    assert (outcome.location, outcome.authenticator, outcome.product_mode) == ("outside", "im-and-presence", "full-uc")
    assert (outcome.signed_in, outcome.jid) == (True, "alice@example.com/far")
    assert {r.host for r in world.asked if isinstance(r, HttpGet)} == {"edge.example.com"}
    assert {r.host for r in world.asked if isinstance(r, QueryAddress)} == {"edge.example.com"}
    assert [(r.host, r.port) for r in world.asked if isinstance(r, XmppLogin)] == [("edge.example.com", 5222)]
    found = {service.name: service for service in outcome.services}
    assert found["edge"].used
    assert found["uds"].host == "cucm.example.com"


def test_inside_and_outside_ask_the_same_questions(world: World) -> None:
    world.edge()
    world.run()
    assert [r.name for r in world.asked if isinstance(r, QuerySrv)] == [
        "_cisco-uds._tcp.example.com",
        "_cuplogin._tcp.example.com",
        "_collab-edge._tls.example.com",
    ]


def test_without_a_password_the_edge_is_found_and_shown_to_answer(world: World) -> None:
    world.edge()
    world.passwords.clear()
    outcome = world.run()
    assert (outcome.error, outcome.location, outcome.signed_in) == (None, "outside", False)
    assert codes(outcome)[-2:] == ["edge-answers", "no-password"]


def test_a_wrong_password_at_the_edge_is_asked_for_again(world: World) -> None:
    world.edge()
    world.passwords[:] = ["guess", "secret"]
    assert world.run().signed_in
    world.passwords[:] = ["guess"]
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind) == ("wrong-password", "credentials")


def test_an_edge_that_does_not_know_the_user_data_service(world: World) -> None:
    for services in ((), (mra.Service("_cisco-uds", error="NameError"),), (mra.Service("_cisco-uds"),)):
        world.edge(config=mra.EdgeConfig(services=services))
        world.passwords[:] = ["secret"]
        outcome = world.run()
        assert (outcome.error.code, outcome.error.kind) == ("edge-without-uds", "rubbish")


@pytest.mark.parametrize(
    "cookie",
    ["", "X-Auth=abc", "X-Auth=abc; Expires=Thu, 01 Jan 2026 00:00:00 GMT", "X-Auth=a; Expires=x; Domain=.example.org"],
)
def test_an_edge_without_a_usable_session_is_passed_over(world: World, cookie: str) -> None:
    world.edge(cookie=cookie)
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind) == ("server-rubbish", "rubbish")
    assert "session" in outcome.error.message


@pytest.mark.parametrize(
    ("answer", "code", "kind"),
    [
        (Response(403, {"server": ("CE_E",)}, b""), "edge-domain-not-enabled", "refused"),
        (Response(404, {}, b""), "edge-not-an-edge", "rubbish"),
        (Response(503, {}, b""), "edge-inside-unreachable", "network"),
        (Response(502, {}, b""), "edge-inside-unreachable", "network"),
        (Response(429, {}, b""), "too-many-attempts", "credentials"),
        (Response(200, {}, b"<html/>"), "server-rubbish", "rubbish"),
        (Response(200, {}, b"rubbish"), "server-rubbish", "rubbish"),
        (Failed("refused"), "server-refused", "network"),
        (Failed("tls-name"), "server-tls-name", "trust"),
        (None, "server-timeout", "network"),
    ],
)
def test_what_an_edge_may_answer_instead(world: World, answer: Any, code: str, kind: str) -> None:
    world.edge()
    world.pages[EDGE_CONFIG] = answer
    outcome = world.run()
    assert (outcome.location, outcome.error.code, outcome.error.kind) == ("outside", code, kind)


def test_the_next_edge_takes_over(world: World) -> None:
    world.edge()
    world.service("_collab-edge._tls.example.com", (1, 0, 8443, "edge0.example.com"), (2, 0, 8443, "edge.example.com"))
    world.host("edge0.example.com")
    world.pages["edge0.example.com", 8443, EDGE_CONFIG[2]] = Response(503, {}, b"")
    outcome = world.run()
    assert outcome.signed_in
    assert [step.why_code for step in outcome.steps if step.code == "edge-inside-unreachable"] == ["why-next-edge"]


def test_an_edge_without_an_xmpp_server_leaves_the_choice_to_the_profile(world: World) -> None:
    world.edge(config=mra.EdgeConfig(services=(mra.Service("_cisco-uds", (mra.Srv(0, 0, 8443, "cucm.example.com"),)),)))
    world.host("cucm.example.com")
    world.xmpp["cucm.example.com", 5222] = LoggedIn("alice@example.com/x", "SCRAM-SHA-256")
    assert world.run().signed_in


def test_a_path_that_the_edge_does_not_allow_is_no_sign_in(world: World, make_page: Callable[..., Response]) -> None:
    world.edge()
    world.pages["cucm.example.com", 8443, "/cucm-uds/user/alice"] = make_page("", 403)
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind) == ("server-forbidden", "refused")


def test_an_edge_of_another_domain_must_show_a_certificate_of_this_one(world: World) -> None:
    world.edge("edge.hosting.example.net", cookie="X-Auth=abc; Expires=Fri, 01 Jan 2038 00:00:00 GMT")
    outcome = world.run()
    assert outcome.signed_in
    assert {r.name for r in world.asked if isinstance(r, HttpGet)} == {"example.com"}
    world.edge("edge.example.com")
    world.asked.clear()
    world.passwords[:] = ["secret"]
    world.memory.forget()
    assert world.run().signed_in
    assert {r.name for r in world.asked if isinstance(r, HttpGet)} == {"edge.example.com"}
