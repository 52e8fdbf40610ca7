"""Addresses and configuration links, as people type and click them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.discovery import parse_target
from moim.discovery.actions import AskPassword, QuerySrv
from moim.errors import MoimError, UsageError

World = Any


def test_a_typed_address() -> None:
    target = parse_target("  Alice@Example.COM ")
    assert (str(target.address), target.domain, target.voice_domain) == ("alice@example.com",) + ("example.com",) * 2
    assert parse_target("앨리스@예시.kr").domain.startswith("xn--")


@pytest.mark.parametrize(
    "link",
    [
        "ciscojabber://provision?ServicesDomain=example.com",
        "ciscojabber://provision?servicesdomain=example.com",
        "moim://provision?SERVICESDOMAIN=Example.com.",
        "MOIM:provision?ServicesDomain=example.com",
        "moim://Provision/?ServicesDomain=%65xample.com",
    ],
)
def test_links_of_both_schemes_in_any_case(link: str) -> None:
    target = parse_target(link)
    assert (target.source, target.domain, target.voice_domain, target.address) == (
        "link",
        "example.com",
        "example.com",
        None,
    )


def test_every_parameter_of_a_link_is_read() -> None:
    target = parse_target(
        "ciscojabber://provision?servicesdomain=example.com&VoiceServicesDomain=Voice.example.com"
        "&ServiceDiscoveryExcludedServices=WebEx,%20CUCM,martian&ServicesDomainSsoEmailPrompt=on"
        "&InvalidCertificateBehavior=rejectandnotify&PRTCertificateUrl=https://h/c&Telephony_Enabled=False"
        "&ForceLaunchBrowser=true&Unknown=1&Telephony_Enabled=true&IP_Mode=dual&FIPS_MODE=maybe",
        user="bob",
    )
    assert target.voice_domain == "voice.example.com"
    assert target.excluded == {"WEBEX", "CUCM"}
    assert str(target.address) == "bob@example.com"
    assert dict(target.options) == {
        "ServicesDomainSsoEmailPrompt": "ON",
        "InvalidCertificateBehavior": "RejectAndNotify",
        "PRTCertificateUrl": "https://h/c",
        "Telephony_Enabled": "false",
        "ForceLaunchBrowser": "true",
        "IP_Mode": "dual",
    }
    assert target.ignored == ("Unknown", "Telephony_Enabled", "FIPS_MODE", "MARTIAN")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice",
        "@example.com",
        "alice@",
        "alice@exa mple.com",
        "a b@example.com",
        "moim://provision?VoiceServicesDomain=example.com",
        "moim://provision?ServicesDomain=",
        "moim://provision?ServicesDomain=not%20a%20domain",
        "moim://other?ServicesDomain=example.com",
        "ciscojabber:",
        "https://provision?ServicesDomain=example.com",
        "moim://provision?" + "&".join(["a=b"] * 100),
        "a" * 5000 + "@example.com",
    ],
)
def test_what_is_neither_is_said_plainly(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert caught.value.message


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    for wrapped in (text, f"moim://provision?{text}", f"moim://provision?ServicesDomain=example.com&{text}"):
        with contextlib.suppress(MoimError):
            parse_target(wrapped)


def test_srv_records_are_asked_for_in_the_voice_domain(world: World) -> None:
    outcome = world.run(
        "moim://provision?ServicesDomain=example.com&VoiceServicesDomain=voice.example.com", user="alice"
    )
    assert {r.name.partition(".")[2].partition(".")[2] for r in world.asked if isinstance(r, QuerySrv)} == {
        "voice.example.com"
    }
    assert (outcome.domain, outcome.voice_domain, outcome.address) == (
        "example.com",
        "voice.example.com",
        "alice@example.com",
    )


@pytest.mark.parametrize(
    ("excluded", "asked"),
    [
        ("WEBEX", ["_cisco-uds", "_cuplogin", "_collab-edge"]),
        ("CUCM", ["_cuplogin", "_collab-edge"]),
        ("CUP", ["_cisco-uds", "_collab-edge"]),
        ("WEBEX,CUCM", ["_cuplogin", "_collab-edge"]),
        ("cucm,cup", ["_collab-edge"]),
        ("WEBEX,CUCM,CUP", []),
    ],
)
def test_excluded_services_are_not_asked_for(world: World, excluded: str, asked: list[str]) -> None:
    link = f"ciscojabber://provision?ServicesDomain=example.com&ServiceDiscoveryExcludedServices={excluded}"
    outcome = world.run(link)
    assert [r.name.partition(".")[0] for r in world.asked if isinstance(r, QuerySrv)] == asked
    assert outcome.location == "manual"
    assert outcome.error.code == ("no-such-domain" if asked else "all-excluded")
    assert outcome.error.kind == ("network" if asked else "manual")


def test_a_link_without_a_user_asks_for_the_name_with_the_password(world: World) -> None:
    world.inside()
    outcome = world.run("moim://provision?ServicesDomain=example.com")
    assert [(r.address, r.domain) for r in world.asked if isinstance(r, AskPassword)] == [("", "example.com")]
    assert (outcome.address, outcome.signed_in) == ("alice@example.com", True)


def test_a_link_without_a_user_goes_as_far_as_it_can(world: World) -> None:
    world.inside()
    world.passwords.clear()
    outcome = world.run("moim://provision?ServicesDomain=example.com")
    assert (outcome.error, outcome.location, outcome.server_version) == (None, "inside", "14.0")
