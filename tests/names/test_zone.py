"""What each view of the zone holds, and how extra records are checked."""

from __future__ import annotations

from pathlib import Path

import dns.name
import pytest
from dns.rdatatype import RdataType
from pydantic import ValidationError

from moim.errors import ConfigError
from moim.names import Servers, Settings, Zone, build
from moim.names.zone import View
from moim.settings import Site, SiteSettings

ORIGIN = dns.name.from_text("example.test")


def zone(view: View, records: list[dict[str, object]] | None = None, **site: object) -> Zone:
    settings = Settings.model_validate({"records": records or []})
    whole = Site(Path("/x"), SiteSettings.model_validate({"domain": "example.test", **site}), {"names": settings})
    return build(whole, settings, view, serial=7)


def servers_zone(view: View, servers: Servers, **site: object) -> Zone:
    settings = Settings()
    whole = Site(Path("/x"), SiteSettings.model_validate({"domain": "example.test", **site}), {"names": settings})
    return build(whole, settings, view, serial=7, servers=servers)


def texts(held: Zone, name: str, kind: RdataType) -> list[str]:
    found = held.lookup(dns.name.from_text(name, ORIGIN) if name != "@" else ORIGIN, kind)
    return [rdata.to_text() for rrset in found.answer for rdata in rrset]


def test_inside_leads_to_the_inside_node_at_the_ports_that_are_bound() -> None:
    held = zone("inside")
    for name, port in (
        ("_cisco-uds._tcp", 18443),
        ("_cuplogin._tcp", 18443),
        ("_xmpp-client._tcp", 15222),
        ("_xmpps-client._tcp", 15223),
        ("_xmpp-server._tcp", 15269),
        ("_xmpps-server._tcp", 15270),
    ):
        assert texts(held, name, RdataType.SRV) == [f"0 0 {port} inside.example.test."]
    assert texts(held, "inside", RdataType.A) == ["127.0.0.1"]
    assert texts(held, "edge", RdataType.A) == ["127.0.0.2"]
    assert texts(held, "@", RdataType.A) == ["127.0.0.1"]
    assert not held.exists(dns.name.from_text("_collab-edge._tls", ORIGIN))


def test_outside_leads_to_the_edge_and_does_not_name_the_inside() -> None:
    held = zone("outside", ports={"profile": "standard"})
    assert texts(held, "_collab-edge._tls", RdataType.SRV) == ["0 0 8443 edge.example.test."]
    assert texts(held, "_xmpp-client._tcp", RdataType.SRV) == ["0 0 5222 edge.example.test."]
    assert texts(held, "_xmpp-server._tcp", RdataType.SRV) == ["0 0 5269 edge.example.test."]
    assert texts(held, "@", RdataType.A) == texts(held, "edge", RdataType.A) == ["127.0.0.2"]
    for name in ("inside", "_cisco-uds._tcp", "_cuplogin._tcp", "_xmpps-client._tcp"):
        assert not held.exists(dns.name.from_text(name, ORIGIN))


def test_outside_publishes_the_address_in_front_of_a_nat_and_ipv6_as_aaaa() -> None:
    nodes = {"edge": {"address": "10.0.0.2", "public_address": "2001:db8::5"}, "inside": {"address": "10.0.0.1"}}
    held = zone("outside", nodes=nodes)
    assert texts(held, "edge", RdataType.AAAA) == ["2001:db8::5"]
    assert texts(held, "edge", RdataType.A) == []
    assert texts(zone("inside", nodes=nodes), "edge", RdataType.A) == ["10.0.0.2"]


def test_an_address_that_nobody_can_connect_to_is_not_published() -> None:
    with pytest.raises(ConfigError, match=r"nodes\.inside\.address"):
        zone("inside", nodes={"inside": {"address": "0.0.0.0"}, "edge": {"address": "127.0.0.2"}})


def test_names_between_records_exist_without_data() -> None:
    held = zone("inside")
    found = held.lookup(dns.name.from_text("_tcp", ORIGIN), RdataType.SRV)
    assert (found.answer, found.exists, found.negative) == ((), True, True)
    missing = held.lookup(dns.name.from_text("nobody", ORIGIN), RdataType.A)
    assert (missing.answer, missing.exists, missing.negative) == ((), False, True)


def test_glue_comes_with_services() -> None:
    found = zone("inside").lookup(dns.name.from_text("_cisco-uds._tcp", ORIGIN), RdataType.SRV)
    assert [rrset.to_text() for rrset in found.additional] == ["inside.example.test. 60 IN A 127.0.0.1"]


def test_extra_records_appear_in_their_view_only() -> None:
    records: list[dict[str, object]] = [
        {"name": "sip", "type": "A", "value": "192.0.2.9", "view": "inside", "ttl": 5},
        {"name": "@", "type": "TXT", "value": '"v=spf1 -all"'},
        {"name": "www", "type": "CNAME", "value": "edge"},
        {"name": "*.apps", "type": "A", "value": "192.0.2.8"},
    ]
    inside, outside = zone("inside", records), zone("outside", records)
    assert texts(inside, "sip", RdataType.A) == ["192.0.2.9"]
    assert not outside.exists(dns.name.from_text("sip", ORIGIN))
    assert texts(outside, "@", RdataType.TXT) == ['"v=spf1 -all"']
    assert texts(outside, "www", RdataType.A) == ["edge.example.test.", "127.0.0.2"]
    assert texts(outside, "x.y.apps", RdataType.A) == ["192.0.2.8"]
    assert texts(outside, "apps", RdataType.A) == []


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"name": "x", "type": "A", "value": "192.0.2.999"}, r"records\[0\] \(x A\)"),
        ({"name": "edge", "type": "CNAME", "value": "inside"}, "CNAME beside other records"),
        ({"name": "x", "type": "SRV", "value": "1 2"}, "cannot be served"),
        ({"name": "x" * 63 + "." + ".".join(["y" * 63] * 4), "type": "A", "value": "192.0.2.1"}, "cannot be served"),
    ],
)
def test_a_record_that_cannot_be_served_is_named(record: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        zone("inside", [record])


def test_a_set_that_no_message_holds_is_refused() -> None:
    text = " ".join(['"' + "a" * 250 + '"'] * 15)
    records: list[dict[str, object]] = [{"name": "t", "type": "TXT", "value": f'"{i}" {text}'} for i in range(6)]
    with pytest.raises(ConfigError, match="more than 16384 bytes"):
        zone("inside", records)


@pytest.mark.parametrize(
    "section",
    [
        {"records": [{"name": "a b", "type": "A", "value": "192.0.2.1"}]},
        {"records": [{"name": "host.", "type": "A", "value": "192.0.2.1"}]},
        {"records": [{"name": "x", "type": "NS", "value": "y"}]},
        {"forwarders": ["resolver.example"]},
        {"forwarders": ["192.0.2.1:99999"]},
        {"forward_for": ["everybody"]},
        {"allow_transfer": ["10.0.0.1/8"]},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(section: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(section)


def test_an_alias_that_leads_in_a_circle_ends() -> None:
    records: list[dict[str, object]] = [
        {"name": "a", "type": "CNAME", "value": "b"},
        {"name": "b", "type": "CNAME", "value": "a"},
    ]
    assert len(texts(zone("inside", records), "a", RdataType.A)) == 8


def test_every_inside_node_is_in_the_inside_view() -> None:
    nodes = {"inside": {"address": "192.0.2.1"}, "others": {"inside2": {"address": "192.0.2.2"}}}
    settings = SiteSettings.model_validate({"domain": "example.test", "nodes": nodes})
    site = Site(Path("/nonexistent"), settings, {"names": Settings()})
    for seen in (site, site.as_node("inside2")):
        held = build(seen, Settings(), "inside", serial=1)
        for label in ("_xmpp-client._tcp", "_xmpps-client._tcp", "_cisco-uds._tcp", "_xmpp-server._tcp"):
            (found,) = held.lookup(dns.name.from_text(f"{label}.example.test"), RdataType.SRV).answer
            targets = {(str(record.target), record.priority, record.weight) for record in found}
            assert targets == {("inside.example.test.", 0, 10), ("inside2.example.test.", 0, 10)}
        (found,) = held.lookup(dns.name.from_text("inside2.example.test"), RdataType.A).answer
        assert [record.address for record in found] == ["192.0.2.2"]
        (found,) = held.lookup(dns.name.from_text("example.test"), RdataType.A).answer
        assert {record.address for record in found} == {"192.0.2.1", "192.0.2.2"}


def test_other_servers_find_every_domain_of_the_chat_service() -> None:
    hosts = ("example.test", "rooms.example.test", "chat.other.test")
    inside = servers_zone("inside", Servers(hosts))
    assert texts(inside, "_xmpp-server._tcp.rooms", RdataType.SRV) == ["0 0 15269 inside.example.test."]
    assert texts(inside, "_xmpps-server._tcp.rooms", RdataType.SRV) == ["0 0 15270 inside.example.test."]
    outside = servers_zone("outside", Servers(hosts), ports={"profile": "standard"})
    assert texts(outside, "_xmpp-server._tcp.rooms", RdataType.SRV) == ["0 0 5269 edge.example.test."]
    assert not texts(outside, "_xmpps-server._tcp", RdataType.SRV)


def test_other_servers_are_told_the_name_and_port_in_front_of_a_nat() -> None:
    held = servers_zone("outside", Servers(("example.test",), advertised="gate.example.org", port=15999))
    assert texts(held, "_xmpp-server._tcp", RdataType.SRV) == ["0 0 15999 gate.example.org."]
    inside = servers_zone("inside", Servers(("example.test",), advertised="gate.example.org", port=15999))
    assert texts(inside, "_xmpp-server._tcp", RdataType.SRV) == ["0 0 15269 inside.example.test."]


@pytest.mark.parametrize("view", ["inside", "outside"])
def test_other_servers_are_told_that_there_is_nothing_where_it_is_off(view: View) -> None:
    held = servers_zone(view, Servers(("example.test",), enabled=False))
    assert texts(held, "_xmpp-server._tcp", RdataType.SRV) == ["0 0 0 ."]
    assert not texts(held, "_xmpps-server._tcp", RdataType.SRV)


def test_each_hosted_domain_has_a_zone_that_leads_to_the_same_nodes() -> None:
    settings = Settings.model_validate(
        {
            "records": [
                {"name": "@", "type": "MX", "value": "10 mx"},
                {"domain": "two.test", "name": "@", "type": "MX", "value": "10 mx.mail.test."},
            ]
        }
    )
    given = {"domain": "example.test", "hosted_domains": ["two.test", "sub.example.test"]}
    site = Site(Path("/x"), SiteSettings.model_validate(given), {"names": settings})
    servers = Servers(("example.test", "two.test", "sub.example.test", "rooms.two.test", "rooms.sub.example.test"))

    def held(view: View, domain: str, name: str, kind: RdataType) -> list[str]:
        origin = dns.name.from_text(domain)
        made = build(site, settings, view, serial=7, servers=servers, domain=domain)
        assert made.origin == origin
        found = made.lookup(dns.name.from_text(name, origin) if name != "@" else origin, kind)
        return [rdata.to_text() for rrset in found.answer for rdata in rrset]

    for domain in ("two.test", "sub.example.test"):
        for service, port in (("_cisco-uds", 18443), ("_cuplogin", 18443), ("_xmpp-client", 15222)):
            assert held("inside", domain, f"{service}._tcp", RdataType.SRV) == [f"0 0 {port} inside.example.test."]
        assert held("outside", domain, "_collab-edge._tls", RdataType.SRV) == ["0 0 18443 edge.example.test."]
        assert held("inside", domain, "@", RdataType.A) == ["127.0.0.1"]
        assert held("outside", domain, "@", RdataType.A) == ["127.0.0.2"]
        assert not held("inside", domain, "inside", RdataType.A)
        for name in ("_xmpp-server._tcp", "_xmpp-server._tcp.rooms"):
            assert held("outside", domain, name, RdataType.SRV) == ["0 0 15269 edge.example.test."]
        assert held("inside", domain, "@", RdataType.NS) == ["inside.example.test."]
    assert not held("inside", "example.test", "_xmpp-server._tcp.rooms.sub", RdataType.SRV)
    assert held("inside", "example.test", "@", RdataType.MX) == ["10 mx.example.test."]
    assert held("inside", "two.test", "@", RdataType.MX) == ["10 mx.mail.test."]
