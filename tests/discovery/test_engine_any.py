"""Whatever the world answers, in whatever order, discovery ends with an outcome that can be shown."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from moim.discovery import Cancel, Discovery, Memory, Outcome, parse_target
from moim.discovery.actions import (
    Addresses,
    Credentials,
    Failed,
    LoggedIn,
    NoCredentials,
    Nothing,
    Records,
    Response,
    Srv,
)
from moim.discovery.messages import TEXT
from moim.proto import mra

HOSTS = st.sampled_from(["a.example.com", "b.example.net", "", "::1", "x" * 300])
BODIES = st.sampled_from(
    [
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
)
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
ANSWERS = st.one_of(
    st.builds(
        Records,
        st.lists(st.builds(Srv, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), HOSTS), max_size=3).map(tuple),
        TTL,
        st.just("ns"),
    ),
    st.builds(Addresses, st.lists(st.just("192.0.2.1"), max_size=2).map(tuple), TTL, st.just("ns")),
    st.builds(Nothing, st.booleans(), TTL, st.just("ns")),
    st.builds(
        Response,
        st.sampled_from([200, 200, 200, 200, 302, 401, 403, 404, 429, 500]),
        st.builds(lambda cookie: {"set-cookie": cookie, "retry-after": ("x",)}, COOKIES),
        BODIES,
    ),
    st.just(LoggedIn("al@example.com/x", "SCRAM-SHA-256")),
    st.builds(Credentials, st.sampled_from(["", "al", "bad user", "al@example.com"]), st.just("hunter2!")),
    st.just(NoCredentials()),
    st.builds(Failed, REASONS, st.text(max_size=5)),
    st.none(),
)
TARGETS = st.sampled_from(
    [
        "al@example.com",
        "moim://provision?ServicesDomain=example.com",
        "moim://provision?ServicesDomain=example.com&VoiceServicesDomain=v.example.com&ServiceDiscoveryExcludedServices=CUCM",
    ]
)


@settings(max_examples=300, deadline=None)
@given(TARGETS, st.data())
def test_any_world_leads_to_an_outcome(text: str, data: st.DataObject) -> None:
    memory = Memory("ns")
    for start in (0.0, 50.0):
        engine = Discovery(parse_target(text), memory=memory, wall=1e9 + start, pick=lambda: 0.3, timeout=20)
        now = start
        engine.begin(now)
        waiting: list[int] = []
        for _ in range(400):
            while (output := engine.next_output()) is not None:
                if isinstance(output, Cancel):
                    waiting = [number for number in waiting if number != output.number]
                else:
                    waiting.append(output.number)
            outcome = None
            while (event := engine.next_event()) is not None:
                outcome = event
            if isinstance(outcome, Outcome):
                break
            answer = data.draw(ANSWERS) if waiting else None
            if answer is None:
                deadline = engine.deadline()
                now = deadline if deadline is not None else now + 1
                if deadline is None:
                    engine.receive((waiting.pop(0), NoCredentials()), now)
                engine.tick(now)
            else:
                now += 0.01
                engine.receive((waiting.pop(data.draw(st.integers(0, len(waiting) - 1))), answer), now)
        assert isinstance(outcome, Outcome)
        assert outcome.signed_in or outcome.error is not None or outcome.steps[-1].result == "skipped"
        assert "hunter2!" not in repr(outcome)
        json.dumps(outcome.to_json())
        for step in outcome.steps:
            assert step.code in TEXT
            assert step.why_code in TEXT or not step.why_code
        if outcome.error is not None:
            assert f"hint.{outcome.error.code}" in TEXT
