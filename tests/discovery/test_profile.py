"""Service profile and configuration file: what they set, and which value counts."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.discovery import profile, uds
from moim.discovery.run import Url
from moim.errors import ProtocolError


@pytest.mark.parametrize(
    ("in_profile", "in_file", "counts"),
    [("profile", "file", "profile"), ("profile", "", "profile"), ("", "file", "file"), ("", "", "")],
)
def test_the_profile_wins_unless_it_is_empty(in_profile: str, in_file: str, counts: str) -> None:
    merged = profile.merge({"Directory/BaseFilter": in_profile}, {"directory/basefilter": in_file})
    assert merged == {"Directory/BaseFilter": counts}


def test_a_value_that_only_the_file_knows_counts() -> None:
    assert profile.merge({"A/b": "1"}, {"C/d": "2"}) == {"A/b": "1", "C/d": "2"}


@pytest.mark.parametrize(
    ("section", "authenticator"),
    [
        ("<ProductType>Unified CM (IM and Presence)</ProductType>", "im-and-presence"),
        ("<ProductType>Webex (IM and Presence)</ProductType>", "hosted"),
        ("<productType>hosted</productType>", "hosted"),
        ("<ProductType>Unset</ProductType>", "call-manager"),
        ("<PrimaryAddress/>", "call-manager"),
        ("<Backup1Address>imp2</Backup1Address>", "im-and-presence"),
    ],
)
def test_the_product_type_names_the_authenticator(section: str, authenticator: str) -> None:
    settings = profile.read_profile(f"<x><IMandPresence>{section}</IMandPresence></x>".encode())
    assert profile.product_type(settings) == authenticator
    as_attribute = profile.read_profile(b'<x><IMandPresence ProductType="Webex"/></x>')
    assert profile.product_type(as_attribute) == "hosted"


def test_servers_of_a_section_come_in_their_order() -> None:
    settings = {
        "IMandPresence/Backup1Address": "B.example.com.",
        "IMandPresence/PrimaryAddress": "a.example.com",
        "IMandPresence/PrimaryPort": "15222",
        "IMandPresence/Backup1Port": "none",
        "IMandPresence/Backup2Address": "no host",
    }
    assert profile.places(settings, "IMandPresence") == (
        profile.Place("a.example.com", 15222, ""),
        profile.Place("b.example.com", 0, ""),
    )


@pytest.mark.parametrize(
    "document", [b"", b"<html><body/></html>", b"<config/>", b"<a", b'<!DOCTYPE a [<!ENTITY b "c">]><a/>']
)
def test_what_is_no_profile_is_refused(document: bytes) -> None:
    with pytest.raises(ProtocolError):
        profile.read_profile(document)


def test_what_is_no_configuration_file_is_refused() -> None:
    with pytest.raises(ProtocolError):
        profile.read_config(b"<ServiceProfile/>")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (
        profile.read_profile,
        profile.read_config,
        uds.read_cluster_user,
        uds.read_servers,
        uds.read_version,
        uds.read_user,
        uds.read_devices,
    ):
        for document in (data, b"<user>" + data + b"</user>", b"<servers><server>" + data + b"</server></servers>"):
            with contextlib.suppress(ProtocolError):
                read(document)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h:6970/SPDefault.cnf.xml", Url("http", "h", 6970, "/SPDefault.cnf.xml")),
        ("https://H.example.com./a?b=c", Url("https", "h.example.com", 443, "/a?b=c")),
        ("https://[2001:db8::1]:8443/x", Url("https", "2001:db8::1", 8443, "/x")),
        ("http://h", Url("http", "h", 80, "/")),
        ("ftp://h/x", None),
        ("https://user@h/x", None),
        ("https://h:99999/x", None),
        ("https:///x", None),
        ("https://h/x y", None),
        ("https://h/x#y", None),
        ("https://[h/x", None),
        ("", None),
        ("file:///etc/passwd", None),
    ],
)
def test_only_urls_that_can_be_followed_are(text: str, url: Url | None) -> None:
    assert Url.parse(text) == url


@pytest.mark.parametrize(
    ("document", "user_id"),
    [
        (b'<clusterUser><result found="true" uri="https://h:8443/cucm-uds/user/alice"/></clusterUser>', "alice"),
        (b'<clusterUser><result found="TRUE" uri="https://h/cucm-uds/user/a%20b?x=y"/></clusterUser>', "a b"),
        (b'<clusterUser><result found="true" uri="https://h/cucm-uds/user/..%2Fadmin"/></clusterUser>', ""),
        (b'<clusterUser><result found="true"/></clusterUser>', ""),
    ],
)
def test_the_user_id_is_the_last_part_of_the_link(document: bytes, user_id: str) -> None:
    assert uds.read_cluster_user(document).user_id == user_id
