"""What the server tells of itself beyond features: whom to write to, and relays for calls."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moim.chat.external_services import ExternalServices
from moim.chat.feature import Iq
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.caps import verification
from moim.proto.xmpp.dataform import read_form

X = ns.EXTERNAL_SERVICES


async def test_contact_addresses(new_house: Any) -> None:
    house = await new_house(admin_addresses=["mailto:a@chat.test", "xmpp:a@chat.test"], abuse_addresses=["mailto:b@c"])
    alice = await house.online("alice")
    info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="chat.test")).find("query", ns.DISCO_INFO)
    kind, fields = read_form(info.find("x", ns.DATA_FORMS))
    assert kind == "http://jabber.org/network/serverinfo"
    assert fields == {
        "admin-addresses": ("mailto:a@chat.test", "xmpp:a@chat.test"),
        "abuse-addresses": ("mailto:b@c",),
    }
    announced = house.service._parts.sessions._policies["chat.test"].stream_features[-1]
    assert announced.get("ver") == verification(info, "sha-1")


async def test_services_name_the_same_addresses(new_house: Any) -> None:
    house = await new_house(abuse_addresses=["mailto:b@c"])
    alice = await house.online("alice")
    for service in ("rooms.chat.test", "upload.chat.test"):
        info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=service)).find("query", ns.DISCO_INFO)
        forms = [read_form(found) for found in info.elements() if found.ns == ns.DATA_FORMS]
        assert ("http://jabber.org/network/serverinfo", {"abuse-addresses": ("mailto:b@c",)}) in forms


async def test_where_to_look_during_an_outage(new_house: Any) -> None:
    house = await new_house(outage_status_addresses=["https://status.test/chat.json"])
    alice = await house.online("alice")
    info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="chat.test")).find("query", ns.DISCO_INFO)
    assert read_form(info.find("x", ns.DATA_FORMS)) == (
        "urn:xmpp:sos:0",
        {"external-status-addresses": ("https://status.test/chat.json",)},
    )


async def test_no_addresses_and_no_relays_are_not_announced(house: Any) -> None:
    alice = await house.online("alice")
    info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to="chat.test")).find("query", ns.DISCO_INFO)
    assert info.find("x", ns.DATA_FORMS) is None
    assert X not in {child.get("var") for child in info.elements()}
    answer = await alice.request(f"<services xmlns='{X}'/>", to="chat.test")
    assert answer.find("error").find("service-unavailable", ns.STANZA_ERRORS) is not None


class FakeRelays:
    def issue(self, name: str, outside: bool) -> list[dict[str, Any]]:
        host = "[2001:db8::1]" if outside else "192.0.2.1"
        return [
            {"urls": [f"turn:{host}:3478?transport=udp"], "username": f"1700000000:{name}", "credential": "secret"},
            {"urls": ["stun:stun.test", "https:nothing"]},
        ]


def ask(payload: str, *, listener: str = "xmpp-client") -> list[dict[str, str]]:
    element = Element.parse(payload)
    session: Any = SimpleNamespace(connection=SimpleNamespace(name=listener))
    iq = Iq(element, element, Jid.parse("alice@chat.test/a"), Jid.parse("chat.test"), session)
    (answer,) = ExternalServices(FakeRelays()).feature.server_iq["get", X, element.name](iq)  # type: ignore[misc]
    return [child.attrs for child in answer.elements()]


def test_services_come_with_credentials() -> None:
    turn = {
        "type": "turn", "host": "192.0.2.1", "port": "3478", "transport": "udp", "username": "1700000000:alice",
        "password": "secret", "restricted": "true", "expires": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    here = {"type": "stun", "host": "192.0.2.1", "port": "3478", "transport": "udp"}
    assert ask(f"<services xmlns='{X}'/>") == [here, turn, {"type": "stun", "host": "stun.test"}]
    assert ask(f"<services xmlns='{X}' type='stun'/>") == [here, {"type": "stun", "host": "stun.test"}]
    assert ask(f"<services xmlns='{X}' type='turn'/>") == [turn]
    assert ask(f"<services xmlns='{X}' type='ftp'/>") == []
    assert ask(f"<services xmlns='{X}' type='turn'/>", listener="edge-xmpp") == [turn | {"host": "2001:db8::1"}]


def test_credentials_of_one_service() -> None:
    asked = f"<credentials xmlns='{X}'><service host='192.0.2.1' type='turn'/></credentials>"
    assert [service["password"] for service in ask(asked)] == ["secret"]
    with pytest.raises(StanzaError, match="no such service"):
        ask(f"<credentials xmlns='{X}'><service host='other.test' type='turn'/></credentials>")
    with pytest.raises(StanzaError, match="host and the type"):
        ask(f"<credentials xmlns='{X}'/>")
