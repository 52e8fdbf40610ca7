"""Whatever the world answers, in whatever order, discovery ends with an outcome that can be shown."""

from __future__ import annotations

import contextlib
import json

from hypothesis import event, given, settings
from hypothesis import strategies as st

from moim.discovery import Cancel, Discovery, Memory, Outcome, parse_target
from moim.discovery.actions import (
    Addresses,
    AskPassword,
    Credentials,
    Failed,
    HttpGet,
    LoggedIn,
    NoCredentials,
    Nothing,
    QueryAddress,
    QuerySrv,
    Records,
    Request,
    Response,
    Result,
    Srv,
    XmppLogin,
)
from moim.discovery.messages import TEXT
from moim.errors import ProtocolError
from moim.proto import mra

HOSTS = st.sampled_from(["a.example.com", "a.example.com", "b.example.com", "b.example.net", "", "::1", "x" * 300])
DOCUMENTS = [
    b"",
    b"<a/>",
    b'<clusterUser><result found="true" uri="https://h/user/al"/>'
    b'<homeCluster serversUri="https://a.example.com:1/s">a</homeCluster></clusterUser>',
    b'<clusterUser><result found="false"/></clusterUser>',
    b"<servers><server>a.example.com</server><server>b.example.net</server></servers>",
    b"<versionInformation><version>1</version></versionInformation>",
    b"<user><userName>al</userName><serviceProfile><uri>http://a.example.com:6970/p</uri></serviceProfile></user>",
    b"<devices/>",
    b"<p><IMandPresence><PrimaryAddress>a.example.com</PrimaryAddress></IMandPresence></p>",
    b"<p><IMandPresence><ProductType>Webex</ProductType></IMandPresence></p>",
    mra.build_edge_config(
        mra.EdgeConfig(services=(mra.Service("_cisco-uds", (mra.Srv(0, 0, 8443, "a.example.com"),)),))
    ),
    mra.build_edge_config(mra.EdgeConfig(services=())),
    b"\xff\x00 rubbish {name}",
]
BODIES = st.sampled_from(DOCUMENTS)
COOKIES = st.sampled_from(
    [(), ("X-Auth=1; Expires=Fri, 01 Jan 2038 00:00:00 GMT; Domain=.example.com",), ("X-Auth=1",), ("\x00",)]
)
REASONS = st.sampled_from(
    [
        "timeout",
        "refused",
        "unreachable",
        "closed",
        "tls-name",
        "tls-expired",
        "tls-untrusted",
        "tls-failed",
        "rubbish",
        "dns-refused",
        "dns-failed",
        "credentials",
        "login-refused",
        "unencrypted",
    ]
)
TTL = st.integers(0, 100)
RECORD = st.builds(Srv, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9).map(lambda port: port * 1000), HOSTS)
RECORDS = st.builds(Records, st.lists(RECORD, max_size=3).map(tuple), TTL, st.just("ns"))
ADDRESSES = st.builds(Addresses, st.lists(st.just("192.0.2.1"), min_size=1, max_size=2).map(tuple), TTL, st.just("ns"))
NOTHING = st.builds(Nothing, st.booleans(), TTL, st.just("ns"))
RESPONSES = st.builds(
    Response,
    st.sampled_from([200, 200, 200, 200, 200, 200, 302, 401, 403, 404, 429, 500]),
    st.builds(lambda cookie: {"set-cookie": cookie, "retry-after": ("x",)}, COOKIES),
    BODIES,
)
LOGINS = st.just(LoggedIn("al@example.com/x", "SCRAM-SHA-256"))
PEOPLE = st.builds(Credentials, st.sampled_from(["", "al", "bad user", "al@example.com"]), st.just("hunter2!"))
FAILED = st.builds(Failed, REASONS, st.text(max_size=5))
ANY = st.one_of(RECORDS, ADDRESSES, NOTHING, RESPONSES, LOGINS, PEOPLE, st.just(NoCredentials()), FAILED)
# What the document that a path names would look like, so that flows get deep.
FITTING = {
    "clusterUser": 2,
    "/s": 4,
    "servers": 4,
    "version": 5,
    "devices": 7,
    "/p": 8,
    "user/": 6,
    "get_edge_config": 10,
}


def answers(request: Request) -> st.SearchStrategy[Result | None]:
    """Mostly what fits the request, and then anything."""
    fitting: st.SearchStrategy[Result]
    match request:
        case QuerySrv():
            fitting = RECORDS
        case QueryAddress():
            fitting = ADDRESSES
        case HttpGet(path=path):
            target = path
            if "get_edge_config" not in path and path.startswith("/") and not path.startswith("/cucm"):
                with contextlib.suppress(ProtocolError):
                    target = mra.parse_proxied_path(path).path
            index = next((number for part, number in FITTING.items() if part in target), 1)
            cookie = ("X-Auth=1; Expires=Fri, 01 Jan 2038 00:00:00 GMT; Domain=.example.com",)
            fitting = st.just(Response(200, {"set-cookie": cookie}, DOCUMENTS[index]))
        case XmppLogin():
            fitting = LOGINS
        case AskPassword():
            fitting = PEOPLE
    return st.integers(0, 19).flatmap(lambda drawn: fitting if drawn < 17 else ANY if drawn < 19 else st.none())


TARGETS = st.sampled_from(
    [
        "al@example.com",
        "moim://provision?ServicesDomain=example.com",
        "moim://provision?ServicesDomain=example.com&VoiceServicesDomain=v.example.com&ServiceDiscoveryExcludedServices=CUCM",
    ]
)


@settings(max_examples=150, deadline=None)
@given(TARGETS, st.data())
def test_any_world_leads_to_an_outcome(text: str, data: st.DataObject) -> None:
    memory = Memory("ns")
    for start in (0.0, 50.0):
        engine = Discovery(parse_target(text), memory=memory, wall=1e9 + start, pick=lambda: 0.3, timeout=20)
        now = start
        engine.begin(now)
        waiting: dict[int, Request] = {}
        for _ in range(400):
            while (output := engine.next_output()) is not None:
                if isinstance(output, Cancel):
                    waiting.pop(output.number, None)
                else:
                    waiting[output.number] = output.request
            outcome = None
            while (told := engine.next_event()) is not None:
                outcome = told
            if isinstance(outcome, Outcome):
                break
            number = data.draw(st.sampled_from(sorted(waiting)))
            answer = data.draw(answers(waiting[number]))
            deadline = engine.deadline()
            if answer is None and deadline is not None:
                now = deadline
                engine.tick(now)
                continue
            now += 0.01
            del waiting[number]
            engine.receive((number, answer or NoCredentials()), now)
        assert isinstance(outcome, Outcome)
        event("signed in" if outcome.signed_in else outcome.error.code if outcome.error else "no password")
        assert outcome.signed_in or outcome.error is not None or outcome.steps[-1].result == "skipped"
        assert "hunter2!" not in repr(outcome)
        json.dumps(outcome.to_json())
        for step in outcome.steps:
            assert step.code in TEXT
            assert step.why_code in TEXT or not step.why_code
        if outcome.error is not None:
            assert f"hint.{outcome.error.code}" in TEXT
