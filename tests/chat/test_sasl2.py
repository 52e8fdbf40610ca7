"""Signing in at once (XEP-0388, XEP-0386) and by token (XEP-0484) at the running service, said by hand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from moim.chat.fast.tables import tokens
from moim.model import Address, UserChanged, UserRemoved
from moim.proto.xmpp import Element, ns
from moim.proto.xmpp.hashed_token import write_initial
from moim.proto.xmpp.scram import downgrade_hash
from raw_xmpp import RawXmpp
from stanza_parts import child

PHONE = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>Raw</software></user-agent>"
DESK = "<user-agent id='11111111-4d72-4749-b3d3-740edbf87770'/>"
BIND = f"<bind xmlns='{ns.BIND2}'><tag>Raw</tag></bind>"
ASK = f"<request-token xmlns='{ns.FAST}' mechanism='HT-SHA-256-NONE'/>"
FAST = f"<fast xmlns='{ns.FAST}'/>"
PASSWORD = "wonder land"

Connect = Callable[..., Any]


def connector(house: Any) -> Connect:
    async def connect(sender: str = "") -> RawXmpp:
        return await RawXmpp.open(house.place("xmpp-client-tls"), "chat.test", house.tls, sender=sender)

    return connect


@pytest.fixture
def connect(house: Any) -> Connect:
    """Opens a connection to the house."""
    return connector(house)


def identity(success: Element) -> str:
    assert success.name == "success", success
    who = success.find("authorization-identifier")
    assert who is not None
    return who.text


def condition(failure: Element) -> str:
    assert (failure.ns, failure.name) == (ns.SASL2, "failure"), failure
    return next(child.name for child in failure.elements() if child.ns == ns.SASL)


def token_of(success: Element) -> str:
    given = success.find("token", ns.FAST)
    assert given is not None, success
    return given.get("token") or ""


async def test_what_is_offered(connect: Connect) -> None:
    raw = await connect("alice@chat.test/phone")
    assert raw.header["to"] == "alice@chat.test"
    offer = raw.features.find("authentication", ns.SASL2)
    names = [child.text for child in offer.elements() if child.name == "mechanism"]
    assert names == ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"]
    old = raw.features.find("mechanisms", ns.SASL)
    assert [child.text for child in old.elements()] == names
    inline = offer.find("inline", ns.SASL2)
    assert inline.find("bind", ns.BIND2) is not None
    fast = inline.find("fast", ns.FAST)
    assert [child.text for child in fast.elements()] == ["HT-SHA-256-EXPR", "HT-SHA-256-ENDP", "HT-SHA-256-NONE"]
    assert fast.get("tls-0rtt") is None
    kinds = raw.features.find("sasl-channel-binding", ns.CHANNEL_BINDING)
    assert [child.get("type") for child in kinds.elements()] == ["tls-exporter", "tls-server-end-point"]


async def test_a_session_in_one_step(connect: Connect) -> None:
    raw = await connect("alice@chat.test")
    protection = downgrade_hash(
        "SCRAM-SHA-256",
        ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1"],
        ["tls-exporter", "tls-server-end-point"],
    )
    success = await raw.scram("alice", PASSWORD, PHONE + BIND, protection=protection)
    bare, _, resource = identity(success).partition("/")
    assert bare == "alice@chat.test"
    assert resource.startswith("Raw/")
    assert success.find("bound", ns.BIND2) is not None
    assert raw.features.find("bind", ns.BIND) is None
    pong = await raw.request(f"<iq type='get' id='1'><ping xmlns='{ns.PING}'/></iq>")
    assert (pong.get("type"), pong.get("to")) == ("result", identity(success))


async def test_a_resource_in_the_older_way_afterwards(connect: Connect) -> None:
    raw = await connect()
    success = await raw.scram("alice", PASSWORD)
    assert identity(success) == "alice@chat.test"
    assert raw.features.find("bind", ns.BIND) is not None
    bound = await raw.request(f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'><resource>x</resource></bind></iq>")
    assert bound.find("bind", ns.BIND).find("jid").text == "alice@chat.test/x"


async def test_the_binding_to_the_certificate(house: Any, connect: Connect) -> None:
    leaf = x509.load_pem_x509_certificate(house.files.chain.read_bytes())
    digest = hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).digest()
    raw = await connect()
    assert identity(await raw.scram("alice", PASSWORD, bindings=[("tls-server-end-point", digest)]))
    raw = await connect()
    failure = await raw.scram("alice", PASSWORD, bindings=[("tls-server-end-point", bytes(32))])
    assert condition(failure) == "not-authorized"


async def test_the_same_program_has_one_session_and_one_resource(house: Any, connect: Connect) -> None:
    first = await connect()
    one = identity(await first.scram("alice", PASSWORD, PHONE + BIND))
    desk = await connect()
    other = identity(await desk.scram("alice", PASSWORD, DESK + BIND))
    second = await connect()
    assert identity(await second.scram("alice", PASSWORD, PHONE + BIND)) == one != other
    await first.ends_with("conflict")
    pong = await desk.request(f"<iq type='get' id='1'><ping xmlns='{ns.PING}'/></iq>")
    assert pong.get("type") == "result"
    assert "d4565fa7" not in one
    anonymous = await connect()
    assert identity(await anonymous.scram("alice", PASSWORD, BIND)) not in (one, other)


@pytest.mark.parametrize("tag", ["", "a\u202eb", "x" * 5000, "집/전화"])
async def test_tags_that_may_be_none(connect: Connect, tag: str) -> None:
    raw = await connect()
    success = await raw.scram("alice", PASSWORD, f"<bind xmlns='{ns.BIND2}'><tag>{tag}</tag></bind>")
    resource = identity(success).partition("/")[2]
    assert resource.startswith("집/전화/") == (tag == "집/전화")
    assert 0 < len(resource) < 400


async def test_too_many_sessions(new_house: Any) -> None:
    house = await new_house(default_contacts=False, max_sessions_per_user=1)
    connect = connector(house)
    one, two = await connect(), await connect()
    await one.scram("alice", PASSWORD, BIND)
    error = await two.scram("alice", PASSWORD, BIND)
    assert error.find("resource-constraint", ns.STREAM_ERRORS) is not None
    pong = await one.request(f"<iq type='get' id='1'><ping xmlns='{ns.PING}'/></iq>")
    assert pong.get("type") == "result"


# --- what must not work -----------------------------------------------------------------------------------------------


async def test_whoever_opened_the_stream_is_who_signs_in(connect: Connect, caplog: Any) -> None:
    raw = await connect("bob@chat.test")
    assert condition(await raw.scram("alice", PASSWORD, BIND)) == "invalid-authzid"
    assert "the stream was opened in another account's name" in caplog.text
    raw = await connect("alice@chat.test")
    assert condition(await raw.scram("alice", PASSWORD, BIND, authzid="bob@chat.test")) == "invalid-authzid"
    assert identity(await raw.scram("alice", PASSWORD, BIND, authzid="alice@chat.test"))


async def test_names_that_do_not_exist_look_the_same(connect: Connect) -> None:
    answers = []
    for name in ("alice", "nobody"):
        raw = await connect(f"{name}@chat.test")
        answers.append((await raw.scram(name, "wrong", PHONE + BIND)).to_xml())
        answers.append((await raw.token(name, "guess", inside=PHONE + FAST)).to_xml())
    assert answers[:2] == answers[2:]
    assert "not-authorized" in answers[0]
    assert "not-authorized" in answers[1]


@pytest.mark.parametrize(
    ("mechanism", "flag", "told", "logged"),
    [
        ("SCRAM-SHA-256", "y", "kept from seeing", "kept from seeing the -PLUS mechanisms, by somebody in between"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique", "TLS 1.3 does not allow", "binds the channel in a way that"),
    ],
)
async def test_a_binding_that_does_not_fit_is_explained(
    connect: Connect, caplog: Any, mechanism: str, flag: str, told: str, logged: str
) -> None:
    raw = await connect()
    first = await raw.authenticate(mechanism, f"{flag},,n=alice,r=x".encode())
    nonce, salt, count = (part for part in base64.b64decode(first.text).decode().split(",")[:3])
    final = f"c={base64.b64encode(f'{flag},,'.encode()).decode()},{nonce},p={base64.b64encode(bytes(32)).decode()}"
    assert salt
    assert count
    raw.say(f"<response xmlns='{ns.SASL2}'>{base64.b64encode(final.encode()).decode()}</response>")
    answer = await raw.element()
    assert condition(answer) == "not-authorized"
    assert told in child(answer, ("text", ns.SASL2)).text
    assert logged in caplog.text
    assert "chat.channel_binding = false" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<authenticate xmlns='urn:xmpp:sasl:2'/>", "invalid-mechanism"),
        ("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>", "invalid-mechanism"),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><initial-response>!</initial-response>"
            "</authenticate>",
            "malformed-request",
        ),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><user-agent id='" + "x" * 200 + "'/>"
            "</authenticate>",
            "malformed-request",
        ),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><fast xmlns='urn:xmpp:fast:0' count='-1'/>"
            "</authenticate>",
            "malformed-request",
        ),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><bind xmlns='urn:xmpp:bind:0'>"
            + "<enable xmlns='x'/>" * 20
            + "</bind></authenticate>",
            "malformed-request",
        ),
        ("<response xmlns='urn:xmpp:sasl:2'/>", "malformed-request"),
        ("<abort xmlns='urn:xmpp:sasl:2'/>", "malformed-request"),
        ("<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-512'/>", "malformed-request"),
        ("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'/>", "malformed-request"),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-NONE'><user-agent id='x'/>"
            "<initial-response>YWxpY2U=</initial-response><fast xmlns='urn:xmpp:fast:0'/></authenticate>",
            "malformed-request",
        ),
        (
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='HT-SHA-256-UNIQ'><user-agent id='x'/>"
            "<fast xmlns='urn:xmpp:fast:0'/></authenticate>",
            "invalid-mechanism",
        ),
    ],
)
async def test_broken_requests(connect: Connect, text: str, expected: str) -> None:
    raw = await connect()
    assert condition(await raw.request(text)) == expected
    assert identity(await raw.scram("alice", PASSWORD))


async def test_the_two_kinds_of_sasl_do_not_mix(connect: Connect) -> None:
    raw = await connect()
    await raw.authenticate("SCRAM-SHA-256", b"n,,n=alice,r=x")
    raw.say(f"<response xmlns='{ns.SASL}'>Yz1iaXdz</response>")
    await raw.ends_with("policy-violation")


async def test_stanzas_inside_the_sign_in_end_it(connect: Connect) -> None:
    raw = await connect()
    await raw.authenticate("SCRAM-SHA-256", b"n,,n=alice,r=x")
    raw.say("<message to='bob@chat.test'><body>early</body></message>")
    await raw.ends_with("not-authorized")
    raw = await connect()
    await raw.scram("alice", PASSWORD)
    raw.say("<message to='bob@chat.test'><body>early</body></message>")
    await raw.ends_with("not-authorized")


async def test_no_second_sign_in(connect: Connect) -> None:
    raw = await connect()
    await raw.scram("alice", PASSWORD, BIND)
    answer = await raw.authenticate("SCRAM-SHA-256", b"n,,n=bob,r=x")
    assert answer.name != "challenge"


async def test_half_sign_ins_leave_nothing_behind(house: Any, connect: Connect) -> None:
    before = len(house.service._parts.sessions)
    for _ in range(5):
        flood = await asyncio.gather(*(connect() for _ in range(10)))
        await asyncio.gather(*(raw.authenticate("SCRAM-SHA-256", b"n,,n=nobody,r=x") for raw in flood))
        await asyncio.gather(*(raw.close() for raw in flood))
    last = await connect()
    while len(house.service._parts.sessions) > before + 1:
        await asyncio.sleep(0)
    assert not house.service._parts.sessions._tasks
    await last.close()


# --- tokens -----------------------------------------------------------------------------------------------------------


async def first_token(connect: Connect, mechanism: str = "HT-SHA-256-NONE") -> str:
    raw = await connect("alice@chat.test")
    token = token_of(await raw.scram("alice", PASSWORD, PHONE + ASK.replace("HT-SHA-256-NONE", mechanism)))
    await raw.close()
    return token


async def test_a_token_signs_in(connect: Connect) -> None:
    token = await first_token(connect)
    for _ in range(2):
        raw = await connect("alice@chat.test")
        success = await raw.token("alice", token, inside=PHONE + BIND + FAST)
        assert identity(success).startswith("alice@chat.test/Raw/")
        assert success.find("token", ns.FAST) is None
    pong = await raw.request(f"<iq type='get' id='1'><ping xmlns='{ns.PING}'/></iq>")
    assert pong.get("type") == "result"


async def test_a_token_bound_to_the_certificate(house: Any, connect: Connect) -> None:
    leaf = x509.load_pem_x509_certificate(house.files.chain.read_bytes())
    digest = hashlib.sha256(leaf.public_bytes(serialization.Encoding.DER)).digest()
    token = await first_token(connect, "HT-SHA-256-ENDP")
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=PHONE + FAST)) == "not-authorized"
    assert condition(await raw.token("alice", token, "HT-SHA-256-ENDP", inside=PHONE + FAST)) == "not-authorized"
    assert identity(await raw.token("alice", token, "HT-SHA-256-ENDP", binding=digest, inside=PHONE + FAST))


async def test_a_token_is_of_one_account_and_one_program(connect: Connect, caplog: Any) -> None:
    token = await first_token(connect)
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=DESK + FAST)) == "not-authorized"
    assert condition(await raw.token("bob", token, inside=PHONE + FAST)) == "not-authorized"
    assert "sign-in of bob@chat.test from 127.0.0.1 refused (HT-SHA-256-NONE): wrong token" in caplog.text
    assert identity(await raw.token("alice", token, inside=PHONE + FAST))


async def test_a_token_needs_its_stream(connect: Connect) -> None:
    token = await first_token(connect)
    raw = await connect("bob@chat.test")
    assert condition(await raw.token("alice", token, inside=PHONE + BIND + FAST)) == "invalid-authzid"


async def test_a_count_that_was_seen_is_refused(connect: Connect, caplog: Any) -> None:
    token = await first_token(connect)

    async def use(count: int) -> Element:
        raw = await connect()
        answer: Element = await raw.token("alice", token, inside=f"{PHONE}<fast xmlns='{ns.FAST}' count='{count}'/>")
        return answer

    assert identity(await use(1))
    assert condition(await use(1)) == "not-authorized"
    assert "used again with a count that had been seen" in caplog.text
    assert condition(await use(0)) == "not-authorized"
    assert identity(await use(7))
    assert condition(await use(6)) == "not-authorized"
    raw = await connect()
    both = await asyncio.gather(use(8), use(8))
    assert sorted(answer.name for answer in both) == ["failure", "success"]
    await raw.close()


async def test_a_token_that_is_given_back_is_over(connect: Connect) -> None:
    token = await first_token(connect)
    raw = await connect()
    done = await raw.token("alice", token, inside=f"{PHONE}{BIND}<fast xmlns='{ns.FAST}' invalidate='true'/>")
    assert identity(done)
    assert done.find("token", ns.FAST) is None
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=PHONE + FAST)) == "not-authorized"


async def test_tokens_are_renewed_and_the_old_one_lasts_until_the_new_one_is_used(new_house: Any) -> None:
    house = await new_house(default_contacts=False, fast_renew_hours=0)
    connect = connector(house)
    old = await first_token(connect)
    raw = await connect()
    new = token_of(await raw.token("alice", old, inside=PHONE + FAST))
    raw = await connect()
    newer = token_of(await raw.token("alice", old, inside=PHONE + FAST))
    assert len({old, new, newer}) == 3
    raw = await connect()
    assert condition(await raw.token("alice", new, inside=PHONE + FAST)) == "not-authorized"
    assert identity(await raw.token("alice", newer, inside=PHONE + FAST))
    raw = await connect()
    assert condition(await raw.token("alice", old, inside=PHONE + FAST)) == "not-authorized"


async def test_an_expired_token_says_so(house: Any, connect: Connect) -> None:
    token = await first_token(connect)
    house.service._parts.tokens._clock = lambda: 1e11
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=PHONE + FAST)) == "credentials-expired"
    assert condition(await raw.token("alice", "another", inside=PHONE + FAST)) == "not-authorized"
    assert identity(await raw.scram("alice", PASSWORD, BIND))


async def test_a_new_password_ends_tokens_told_or_not(house: Any, connect: Connect) -> None:
    token = await first_token(connect)
    house.users.passwords["alice"] = "another"
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=PHONE + FAST)) == "not-authorized"
    house.users.passwords["alice"] = PASSWORD
    assert identity(await raw.token("alice", token, inside=PHONE + FAST))
    await house.bus.publish(UserChanged(Address("alice", "chat.test"), password_changed=True))
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=PHONE + FAST)) == "not-authorized"


async def test_a_removed_account_has_no_tokens(house: Any, connect: Connect) -> None:
    token = await first_token(connect)
    await house.bus.publish(UserRemoved(Address("alice", "chat.test")))
    raw = await connect()
    assert condition(await raw.token("alice", token, inside=PHONE + FAST)) == "not-authorized"


def everything(connection: sa.Connection) -> str:
    """All that is in the database."""
    found = sa.MetaData()
    found.reflect(connection)
    return repr([list(connection.execute(sa.select(table))) for table in found.sorted_tables])


@pytest.mark.engines
async def test_tokens_last_over_a_restart_and_are_not_in_the_database(house: Any, connect: Connect) -> None:
    token = await first_token(connect)
    await house.restart()
    raw = await connect()
    assert identity(await raw.token("alice", token, inside=PHONE + FAST))
    stored = await house.store.read(everything)
    assert token not in stored
    assert repr(base64.urlsafe_b64decode(token + "="))[2:-1] not in stored
    assert "d4565fa7-4d72-4749-b3d3-740edbf87770" not in stored


async def test_programs_with_tokens_are_bounded(new_house: Any) -> None:
    house = await new_house(default_contacts=False, fast_clients=3)
    connect = connector(house)
    clock = iter(range(1_000_000_000, 2_000_000_000))
    house.service._parts.tokens._clock = lambda: float(next(clock))
    given = []
    for number in range(5):
        raw = await connect()
        agent = f"<user-agent id='program-{number}'/>"
        given.append((agent, token_of(await raw.scram("alice", PASSWORD, agent + ASK))))
    rows = await house.store.read(lambda connection: connection.execute(tokens.select()).all())
    assert len(rows) == 3
    answers = []
    for agent, token in given:
        raw = await connect()
        answers.append((await raw.token("alice", token, inside=agent + FAST)).name)
    assert answers == ["failure", "failure", "success", "success", "success"]


async def test_guessing_tokens_is_slowed_down_like_passwords(new_house: Any) -> None:
    house = await new_house(default_contacts=False, auth_failures_per_address=3, auth_failures_per_connection=20)
    connect = connector(house)
    raw = await connect()
    answers = [condition(await raw.token("alice", "guess", inside=PHONE + FAST)) for _ in range(4)]
    assert answers == ["not-authorized"] * 3 + ["temporary-auth-failure"]
    failure = await raw.scram("alice", PASSWORD)
    assert condition(failure) == "temporary-auth-failure"
    assert "try again in" in failure.find("text", ns.SASL2).text


async def test_no_token_without_a_name_for_the_program(connect: Connect) -> None:
    raw = await connect()
    assert (await raw.scram("alice", PASSWORD, ASK)).find("token", ns.FAST) is None
    raw = await connect()
    odd = ASK.replace("HT-SHA-256-NONE", "HT-SHA-512-NONE")
    assert (await raw.scram("alice", PASSWORD, PHONE + odd)).find("token", ns.FAST) is None


async def test_tokens_can_be_off(new_house: Any) -> None:
    house = await new_house(default_contacts=False, fast=False)
    raw = await connector(house)()
    assert raw.features.find("authentication", ns.SASL2).find("inline").find("fast", ns.FAST) is None
    answer = await raw.authenticate("HT-SHA-256-NONE", write_initial("alice", "x", b""), PHONE + FAST)
    assert condition(answer) == "invalid-mechanism"
    assert (await raw.scram("alice", PASSWORD, PHONE + ASK)).find("token", ns.FAST) is None


async def test_the_ends_of_the_archive_are_told(connect: Connect) -> None:
    raw = await connect("alice@chat.test")
    empty = (await raw.scram("alice", PASSWORD, PHONE + BIND)).find("bound", ns.BIND2)
    assert empty is not None
    assert empty.find("metadata", ns.ARCHIVE) is not None
    raw.say("<message type='chat' to='bob@chat.test' id='m'><body>hello</body></message>")
    pong = await raw.request(f"<iq type='get' id='1'><ping xmlns='{ns.PING}'/></iq>")
    assert pong.get("type") == "result"
    form = await raw.request(f"<iq type='get' id='2'><metadata xmlns='{ns.ARCHIVE}'/></iq>")
    ends = form.find("metadata", ns.ARCHIVE)
    assert ends is not None
    again = await connect("alice@chat.test")
    bound = (await again.scram("alice", PASSWORD, DESK + BIND)).find("bound", ns.BIND2)
    assert bound is not None
    told = bound.find("metadata", ns.ARCHIVE)
    assert told is not None
    assert told.to_xml() == ends.to_xml()
    assert told.find("end") is not None


async def test_carbons_and_stream_management_are_switched_on_inside(connect: Connect) -> None:
    raw = await connect("alice@chat.test")
    wishes = f"<enable xmlns='{ns.CARBONS}'/><enable xmlns='{ns.SM}' resume='true'/><inactive xmlns='{ns.CSI}'/>"
    offer = raw.features.find("authentication", ns.SASL2)
    inline = offer.find("inline").find("bind", ns.BIND2).find("inline")
    assert {child.get("var") for child in inline.elements()} >= {ns.CARBONS, ns.SM, ns.CSI}
    success = await raw.scram("alice", PASSWORD, f"{PHONE}<bind xmlns='{ns.BIND2}'>{wishes}</bind>")
    bound = success.find("bound", ns.BIND2)
    assert bound is not None
    enabled = bound.find("enabled", ns.SM)
    assert enabled is not None
    await raw.close()
    again = await connect("alice@chat.test")
    resume = f"<resume xmlns='{ns.SM}' previd='{enabled.get('id')}' h='0'/>"
    back = await again.scram("alice", PASSWORD, PHONE + resume + BIND)
    assert back.find("resumed", ns.SM) is not None
    assert back.find("bound", ns.BIND2) is None
    assert identity(back) == identity(success)
    third = await connect("bob@chat.test")
    stolen = await third.scram("bob", "비밀번호", PHONE + resume + BIND)
    assert stolen.find("failed", ns.SM) is not None
    assert stolen.find("bound", ns.BIND2) is not None
