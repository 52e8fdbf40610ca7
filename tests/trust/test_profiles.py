"""The purposes against the tables they come from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from moim import settings, trust
from moim.trust import profiles
from moim.trust.authority import Authority, new_key
from moim.trust.credentials import name_text

IPSEC = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.5")
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
PLACE = trust.Place("example.com", ("192.0.2.1",), ("192.0.2.2", "2001:db8::2"))


@pytest.mark.parametrize(
    ("purpose", "multi_server", "extended", "key_usage"),
    [
        ("CallManager", True, {SERVER, CLIENT}, {"digital_signature", "data_encipherment"}),
        ("CAPF", False, {SERVER}, {"digital_signature", "key_cert_sign"}),
        ("ipsec", False, {SERVER, CLIENT, IPSEC}, {"digital_signature", "key_encipherment", "data_encipherment"}),
        ("tomcat", True, {SERVER, CLIENT}, {"digital_signature", "key_encipherment", "data_encipherment"}),
        ("TVS", False, {SERVER, CLIENT}, {"digital_signature", "key_encipherment", "data_encipherment"}),
        ("cup", False, {SERVER, CLIENT, IPSEC}, {"digital_signature", "key_encipherment", "data_encipherment"}),
        ("cup-xmpp", True, {SERVER, CLIENT, IPSEC}, {"digital_signature", "key_encipherment", "data_encipherment"}),
        ("cup-xmpp-s2s", True, {SERVER, CLIENT, IPSEC}, {"digital_signature", "key_encipherment", "data_encipherment"}),
    ],
)
def test_rows(
    site: settings.Site, purpose: str, multi_server: bool, extended: set[x509.ObjectIdentifier], key_usage: set[str]
) -> None:
    profile = trust.PROFILES[purpose]
    assert profile.multi_server is multi_server
    leaf = Authority.load(site.root).issue(
        profile,
        profile.names(PLACE),
        new_key("rsa").public_key(),
        now=datetime.now(UTC),
        lifetime=timedelta(days=1),
    )
    assert set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == extended
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    every = ("digital_signature", "key_encipherment", "data_encipherment", "key_cert_sign", "key_agreement")
    assert {name for name in every if getattr(usage.value, name)} == key_usage


def test_edge_names() -> None:
    assert [name_text(name) for name in trust.PROFILES["edge"].names(PLACE)] == [
        "DNS:edge.example.com",
        "DNS:example.com",
        "1.3.6.1.5.5.7.8.7:_collab-edge.example.com",
        "IP:192.0.2.2",
        "IP:2001:db8::2",
    ]


@given(st.integers(min_value=1, max_value=400))
def test_other_names_of_any_length_are_der(size: int) -> None:
    domain = "a" * size
    name = profiles.srv_name("xmpp-client", domain)
    x509.SubjectAlternativeName([name]).public_bytes()
    assert name_text(name).endswith(f":_xmpp-client.{domain}")


def test_long_domain_leaves_the_common_name_out(site: settings.Site) -> None:
    place = trust.Place(".".join(["a" * 40, "b" * 40, "example"]))
    profile = trust.PROFILES["tomcat"]
    leaf = Authority.load(site.root).issue(
        profile, profile.names(place), new_key("ec").public_key(), now=datetime.now(UTC), lifetime=timedelta(days=1)
    )
    assert not list(leaf.subject)
    assert leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_every_hosted_domain_is_named() -> None:
    place = trust.Place("example.com", ("192.0.2.1",), ("192.0.2.2",), hosted=("example.net",))
    named = {purpose: [name_text(name) for name in trust.PROFILES[purpose].names(place)] for purpose in trust.PROFILES}
    srv = "1.3.6.1.5.5.7.8.7:"
    assert {"DNS:example.net", f"{srv}_xmpp-client.example.net", f"{srv}_xmpp-server.example.net"} <= {
        *named["cup-xmpp"]
    }
    assert {"DNS:example.net", "DNS:*.example.net", f"{srv}_xmpp-server.example.net"} <= {*named["cup-xmpp-s2s"]}
    assert {"DNS:example.net", f"{srv}_collab-edge.example.net"} <= {*named["edge"]}
    assert "DNS:example.net" in named["tomcat"]
    assert not any("example.net" in name for name in named["CallManager"])
