"""Reports of spam: read within bounds, told to those who run the server, never in the way of blocking."""

from __future__ import annotations

from typing import Any

import pytest

from moim.chat.spam_reports import SpamReports, read, receivers
from moim.proto.xmpp import Element, Jid, StanzaError, ns

SPAM = "urn:xmpp:reporting:spam"


def block(*items: str) -> Element:
    return Element.parse(f"<block xmlns='{ns.BLOCKING}'>{''.join(items)}</block>")


def item(jid: str = "spam@else.example", reason: str = SPAM, inside: str = "") -> str:
    return f"<item jid='{jid}'><report xmlns='{ns.REPORTING}' reason='{reason}'>{inside}</report></item>"


async def test_a_report_blocks_and_is_told_to_administrators(new_house: Any) -> None:
    house = await new_house(
        default_contacts=False, admins=["bob@chat.test"], abuse_addresses=["xmpp:carol@chat.test", "mailto:a@b.test"]
    )
    alice, bob = await house.online("alice"), await house.online("bob")
    words = f"<text>Buy\n2026 nothing</text><stanza-id xmlns='{ns.STANZA_IDS}' by='alice@chat.test' id='77'/>"
    answer = await alice.request(block(item(inside=words)).to_xml(""), kind="set")
    assert answer.get("type") == "result"
    told = await bob.receive()
    body = told.find("body").text
    assert told.get("from") == "chat.test"
    assert "alice@chat.test reports spam@else.example: spam." in body
    assert "Buy 2026 nothing" in body
    assert "77 (in alice@chat.test)" in body
    listed = await alice.request(f"<blocklist xmlns='{ns.BLOCKING}'/>")
    assert "spam@else.example" in listed.to_xml("")
    assert house.service.stats()["spam_reports"] == 1
    carol = await house.client("carol").connect()
    carol.send("<presence/>")
    while (waited := await carol.receive()).name != "message":
        pass
    assert waited.find("subject").text == "Report: spam"


async def test_discovery_says_so(house: Any) -> None:
    alice = await house.online("alice")
    info = await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="chat.test")
    offered = {feature.get("var") for feature in info.elements()[0].elements()}
    assert {ns.REPORTING, SPAM, "urn:xmpp:reporting:abuse"} <= offered


async def test_a_report_that_is_none_blocks_nobody(house: Any) -> None:
    alice = await house.online("alice")
    answer = await alice.request(block(item(reason="")).to_xml(""), kind="set")
    assert answer.find("error").find("bad-request", ns.STANZA_ERRORS) is not None
    listed = await alice.request(f"<blocklist xmlns='{ns.BLOCKING}'/>")
    assert not listed.elements()[0].elements()


def test_reports_have_bounds() -> None:
    ids = f"<stanza-id xmlns='{ns.STANZA_IDS}' by='{'b' * 900}' id='{'i' * 900}'/>" * 90
    (found,) = read(block(item(reason="urn:else", inside=f"<text>{'&#10;x' * 5000}</text>{ids}")))
    assert (found.reason, len(found.ids)) == ("other", 20)
    assert len(found.text) <= 1000
    assert "\n" not in found.text
    assert len(found.ids[0][0]) == 200
    with pytest.raises(StanzaError):
        read(block(*[item(f"s{number}@else.example") for number in range(11)]))
    with pytest.raises(StanzaError):
        read(block(item("@@")))


def test_one_account_is_heard_so_often_and_no_more() -> None:
    sent: list[tuple[Jid, Element]] = []
    reports = SpamReports(to=lambda _: [Jid.parse("bob@chat.test")], deliver=sent.extend, clock=lambda: 0.0)
    for _ in range(100):
        reports.take(Jid.parse("alice@chat.test/x"), read(block(item())))
    assert (len(sent), reports.counts["spam"]) == (30, 100)


def test_who_is_told(caplog: pytest.LogCaptureFixture) -> None:
    found = receivers(["bob@chat.test"], ["xmpp:bob@chat.test?message", "mailto:x@y.test", "xmpp:@@"])
    assert found == (Jid.parse("bob@chat.test"),)
    assert "not an XMPP address" in caplog.text
