"""The inside path as a conversation: what is asked, in which order, what follows; and everything that goes wrong."""

from __future__ import annotations

from typing import Any

import pytest

from moim.discovery.actions import (
    Addresses,
    AskPassword,
    Failed,
    HttpGet,
    LoggedIn,
    QueryAddress,
    QuerySrv,
    Records,
    Response,
    Srv,
    XmppLogin,
)

NS = "192.0.2.53:53"
World = Any


def codes(outcome: Any) -> list[str]:
    return [step.code for step in outcome.steps]


def test_an_address_and_a_password_lead_to_a_signed_in_user(world: World) -> None:
    world.inside()
    outcome = world.run()
    assert outcome.error is None
    assert (outcome.address, outcome.domain, outcome.location) == ("alice@example.com", "example.com", "inside")
    assert (outcome.authenticator, outcome.product_mode) == ("im-and-presence", "full-uc")
    assert (outcome.signed_in, outcome.jid) == (True, "alice@example.com/desk")
    assert (outcome.display_name, outcome.server_version) == ("Alice A", "14.0")
    assert [device.name for device in outcome.devices] == ["CSFALICE"]
    found = {service.name: service for service in outcome.services}
    assert (found["uds"].host, found["uds"].port, found["uds"].used) == ("cucm.example.com", 8443, True)
    assert found["xmpp"].used
    assert found["config"].port == 6972


def test_the_three_questions_are_sent_at_once_and_before_anything_else(world: World) -> None:
    world.inside()
    world.run()
    assert world.asked[:3] == [
        QuerySrv("_cisco-uds._tcp.example.com"),
        QuerySrv("_cuplogin._tcp.example.com"),
        QuerySrv("_collab-edge._tls.example.com"),
    ]
    assert isinstance(world.asked[3], AskPassword)
    assert isinstance(world.asked[4], QueryAddress)


def test_the_password_goes_over_tls_only(world: World) -> None:
    world.inside()
    world.pages["cucm.example.com", 6970, "/SPDefault.cnf.xml"] = world.pages.pop(
        ("cucm.example.com", 6972, "/SPDefault.cnf.xml")
    )
    outcome = world.run()
    assert outcome.signed_in
    assert "profile-read-plain" in codes(outcome)
    plain = [request for request in world.asked if isinstance(request, HttpGet) and request.scheme == "http"]
    assert plain
    assert all(not request.headers for request in plain)


def test_lower_services_are_not_awaited(world: World) -> None:
    world.inside()
    world.srv["_cuplogin._tcp.example.com"] = None
    world.srv["_collab-edge._tls.example.com"] = None
    outcome = world.run()
    assert outcome.signed_in
    assert world.elapsed < 7
    assert codes(outcome).count("srv-not-awaited") == 2
    assert world.cancelled == 2


def test_a_higher_service_is_awaited(world: World) -> None:
    world.edge()
    world.srv["_cisco-uds._tcp.example.com"] = None
    outcome = world.run()
    assert outcome.location == "outside"
    assert "dns-timeout" in codes(outcome)


def test_without_a_password_everything_that_needs_none_is_done(world: World) -> None:
    world.inside()
    world.passwords.clear()
    outcome = world.run()
    assert outcome.error is None
    assert not outcome.signed_in
    assert (outcome.location, outcome.home_cluster, outcome.server_version) == ("inside", "cucm.example.com", "14.0")
    assert codes(outcome)[-1] == "no-password"


def test_a_wrong_password_is_asked_for_again(world: World) -> None:
    world.inside()
    world.passwords[:] = ["guess", "other", "secret"]
    outcome = world.run()
    assert outcome.signed_in
    assert codes(outcome).count("wrong-password") == 2
    assert [r.again for r in world.asked if isinstance(r, AskPassword)] == [False, True, True]


def test_three_wrong_passwords_are_enough(world: World) -> None:
    world.inside()
    world.passwords[:] = ["a", "b", "c", "secret"]
    outcome = world.run()
    assert outcome.error.code == "wrong-password"
    assert outcome.error.kind == "credentials"
    assert world.passwords == ["secret"]


def test_a_wrong_password_is_tried_at_one_server_only(world: World) -> None:
    world.service("_cisco-uds._tcp.example.com", (1, 0, 8443, "a.example.com"), (2, 0, 8443, "b.example.com"))
    world.uds("a.example.com")
    world.uds("b.example.com")
    world.passwords[:] = ["guess"]
    outcome = world.run()
    assert outcome.error.code == "wrong-password"
    with_password = [r for r in world.asked if isinstance(r, HttpGet) and "Authorization" in dict(r.headers)]
    assert len(with_password) == 1


def test_the_time_that_a_person_takes_does_not_count(world: World) -> None:
    world.inside()
    world.thinking = 3600.0
    assert world.run(timeout=30).signed_in


def test_the_whole_has_an_end(world: World) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, "/cucm-uds/version"] = None
    world.thinking = 0.0
    outcome = world.run(timeout=5)
    assert outcome.error.code == "out-of-time"
    assert world.elapsed == pytest.approx(5)


def test_an_unknown_user_is_said_before_any_password_is_sent(world: World) -> None:
    world.inside()
    outcome = world.run("mallory@example.com")
    assert (outcome.error.code, outcome.error.kind) == ("user-unknown", "credentials")
    assert "mallory@example.com" in outcome.error.message
    assert not [r for r in world.asked if isinstance(r, HttpGet) and r.headers]


def test_a_user_is_found_by_name_when_not_by_mail_address(world: World) -> None:
    world.service("_cisco-uds._tcp.example.com", (0, 0, 8443, "cucm.example.com"))
    world.uds("cucm.example.com", user="bob")
    cluster_user = world.pages["cucm.example.com", 8443, "/cucm-uds/clusterUser"]
    nobody = Response(200, {}, b'<clusterUser><result found="false"/></clusterUser>')
    world.pages["cucm.example.com", 8443, "/cucm-uds/clusterUser"] = lambda r: (
        nobody if "email" in r.path else cluster_user(r)
    )
    assert world.run("bob@example.com").signed_in


def test_the_next_target_is_tried_when_one_fails(world: World) -> None:
    world.service(
        "_cisco-uds._tcp.example.com",
        (6, 30, 8443, "three.example.com"),
        (2, 20, 8443, "two.example.com"),
        (1, 5, 8443, "one.example.com"),
    )
    world.host("one.example.com")
    world.pages["one.example.com", 8443, "/cucm-uds/clusterUser"] = Failed("refused")
    world.uds("three.example.com")
    outcome = world.run()
    assert outcome.signed_in
    assert [s.code for s in outcome.steps if s.result == "failed"] == ["server-refused", "srv-target-no-address"]
    assert outcome.home_cluster == "three.example.com"


def test_the_home_cluster_may_be_another_one(world: World) -> None:
    world.inside()
    world.uds("far.example.net", user="alice")
    world.pages["cucm.example.com", 8443, "/cucm-uds/clusterUser"] = world.pages[
        "far.example.net", 8443, "/cucm-uds/clusterUser"
    ]
    outcome = world.run()
    assert outcome.signed_in
    assert outcome.home_cluster == "far.example.net"
    authenticated = {r.host for r in world.asked if isinstance(r, HttpGet) and r.headers}
    assert authenticated == {"far.example.net"}


def test_the_second_server_of_the_cluster_takes_over(world: World) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, "/cucm-uds/servers"] = Response(
        200, {}, b"<servers><server>dead.example.com</server><server>cucm.example.com</server></servers>"
    )
    world.host("dead.example.com")
    for path in ("version", "user/alice", "user/alice/devices"):
        world.pages["dead.example.com", 8443, f"/cucm-uds/{path}"] = Failed("timeout")
    outcome = world.run()
    assert outcome.signed_in
    assert codes(outcome).count("server-timeout") == 1


def test_a_cluster_that_does_not_tell_its_servers_is_used_as_it_is(world: World) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, "/cucm-uds/servers"] = Failed("closed")
    outcome = world.run()
    assert outcome.signed_in
    assert "uds-servers-unknown" in codes(outcome)


@pytest.mark.parametrize(
    ("answer", "code", "kind"),
    [
        (Failed("refused"), "server-refused", "network"),
        (Failed("timeout"), "server-timeout", "network"),
        (None, "server-timeout", "network"),
        (Failed("unreachable"), "server-unreachable", "network"),
        (Failed("closed"), "server-closed", "network"),
        (Failed("tls-name", "for another"), "server-tls-name", "trust"),
        (Failed("tls-expired"), "server-tls-expired", "trust"),
        (Failed("tls-untrusted"), "server-tls-untrusted", "trust"),
        (Failed("tls-failed"), "server-tls-failed", "trust"),
        (Failed("rubbish"), "server-rubbish", "rubbish"),
        (Response(200, {}, b"<html>hello"), "server-rubbish", "rubbish"),
        (Response(200, {}, b"<html/>"), "server-rubbish", "rubbish"),
        (Response(200, {}, b"<clusterUser/>"), "server-rubbish", "rubbish"),
        (Response(200, {}, b"\xff\xfe\x00"), "server-rubbish", "rubbish"),
        (Response(200, {}, b""), "server-rubbish", "rubbish"),
        (Response(302, {"location": ("/x",)}, b""), "server-status", "rubbish"),
        (Response(403, {}, b""), "server-forbidden", "refused"),
        (Response(404, {}, b""), "server-not-there", "rubbish"),
        (Response(503, {}, b""), "server-busy", "network"),
    ],
)
def test_a_server_that_is_of_no_use_is_said_plainly(world: World, answer: Any, code: str, kind: str) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, "/cucm-uds/clusterUser"] = answer
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind) == (code, kind)
    assert "cucm.example.com" in outcome.error.message
    assert outcome.location == "inside"
    assert not outcome.signed_in


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Response(401, {}, b"<error>account is LOCKED</error>"), "account-locked"),
        (Response(401, {}, b"password expired"), "password-expired"),
        (Response(401, {}, b""), "wrong-password"),
        (Response(429, {"retry-after": ("30",)}, b""), "too-many-attempts"),
    ],
)
def test_credentials_that_are_refused(world: World, answer: Response, code: str) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, "/cucm-uds/user/alice"] = answer
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind) == (code, "credentials")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("clusterUser", "server-forbidden"),
        ("version", "server-forbidden"),
        ("user/alice/devices", "wrong-password"),
    ],
)
def test_a_server_that_wants_credentials_where_it_should_not(world: World, path: str, code: str) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, f"/cucm-uds/{path}"] = Response(401, {}, b"")
    assert world.run().error.code == code


def test_srv_that_points_nowhere(world: World) -> None:
    world.service("_cisco-uds._tcp.example.com", (0, 0, 8443, "gone.example.com"))
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind) == ("srv-target-no-address", "network")
    assert "gone.example.com" in outcome.error.message


def test_a_service_that_is_declared_absent_is_absent(world: World) -> None:
    world.edge()
    world.service("_cisco-uds._tcp.example.com", (0, 0, 0, ""))
    outcome = world.run()
    assert outcome.location == "outside"
    assert "srv-not-offered" in codes(outcome)


def test_without_records_settings_are_manual(world: World) -> None:
    world.host("example.com")
    outcome = world.run()
    assert (outcome.location, outcome.error.code, outcome.error.kind) == ("manual", "no-services", "manual")


def test_a_domain_that_does_not_exist(world: World) -> None:
    outcome = world.run()
    assert (outcome.location, outcome.error.code, outcome.error.kind) == ("manual", "no-such-domain", "network")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, "dns-timeout"),
        (Failed("timeout"), "dns-timeout"),
        (Failed("unreachable"), "dns-unreachable"),
        (Failed("dns-refused"), "dns-refused"),
        (Failed("dns-failed"), "dns-failed"),
        (Failed("rubbish"), "dns-rubbish"),
        (LoggedIn("x", "y"), "dns-rubbish"),
    ],
)
def test_a_name_server_that_is_no_help(world: World, answer: Any, code: str) -> None:
    for name in ("_cisco-uds._tcp", "_cuplogin._tcp", "_collab-edge._tls"):
        world.srv[f"{name}.example.com"] = answer
    outcome = world.run()
    assert (outcome.location, outcome.error.code, outcome.error.kind) == ("manual", code, "network")


def test_only_cuplogin_means_inside_with_messaging_only(world: World) -> None:
    world.service("_cuplogin._tcp.example.com", (0, 0, 8443, "imp.example.com"))
    world.service("_collab-edge._tls.example.com", (0, 0, 8443, "edge.example.com"))
    world.host("imp.example.com")
    world.xmpp["imp.example.com", 5222] = LoggedIn("alice@example.com/x", "SCRAM-SHA-1")
    outcome = world.run()
    assert (outcome.location, outcome.authenticator, outcome.product_mode) == ("inside", "im-and-presence", "im-only")
    assert outcome.signed_in


def test_without_an_im_service_the_call_manager_authenticates(world: World) -> None:
    world.inside()
    world.pages["cucm.example.com", 6972, "/SPDefault.cnf.xml"] = Response(200, {}, b"<p><Voicemail/></p>")
    outcome = world.run()
    assert (outcome.authenticator, outcome.product_mode, outcome.signed_in) == ("call-manager", "phone", True)
    assert not [r for r in world.asked if isinstance(r, XmppLogin)]


def test_without_a_profile_the_call_manager_authenticates(world: World) -> None:
    world.inside()
    del world.pages["cucm.example.com", 6972, "/SPDefault.cnf.xml"]
    outcome = world.run()
    assert (outcome.authenticator, outcome.signed_in) == ("call-manager", True)
    assert codes(outcome).count("profile-missing") == 2


def test_a_hosted_product_is_seen_and_signed_in_where_dns_says(world: World) -> None:
    world.inside(product="Webex (IM and Presence)", im="cloud.example.net")
    world.host("cloud.example.net")
    outcome = world.run()
    assert (outcome.authenticator, outcome.signed_in) == ("hosted", True)


def test_a_user_without_devices_has_messaging_only(world: World) -> None:
    world.inside()
    world.pages["cucm.example.com", 8443, "/cucm-uds/user/alice/devices"] = Response(200, {}, b"<devices/>")
    assert world.run().product_mode == "im-only"


def test_xmpp_servers_of_the_dns_are_used_when_the_profile_names_no_port(world: World) -> None:
    world.inside()
    profile = b"<p><IMandPresence><PrimaryAddress>imp.example.com</PrimaryAddress></IMandPresence></p>"
    world.pages["cucm.example.com", 6972, "/SPDefault.cnf.xml"] = Response(200, {}, profile)
    world.service("_xmpp-client._tcp.example.com", (5, 0, 5222, "slow.example.com"))
    world.service("_xmpps-client._tcp.example.com", (1, 0, 5223, "fast.example.com"))
    world.host("slow.example.com", "fast.example.com")
    world.xmpp["fast.example.com", 5223] = Failed("refused")
    world.xmpp["slow.example.com", 5222] = LoggedIn("alice@example.com/x", "SCRAM-SHA-256")
    outcome = world.run()
    assert outcome.signed_in
    assert [(r.host, r.direct) for r in world.asked if isinstance(r, XmppLogin)] == [
        ("fast.example.com", True),
        ("slow.example.com", False),
    ]


@pytest.mark.parametrize(
    ("answer", "code", "kind"),
    [
        (Failed("tls-name"), "server-tls-name", "trust"),
        (Failed("unencrypted"), "server-unencrypted", "trust"),
        (Failed("credentials"), "server-credentials", "credentials"),
        (Failed("login-refused", "account disabled"), "server-login-refused", "refused"),
        (Failed("closed"), "server-closed", "network"),
        (None, "server-timeout", "network"),
    ],
)
def test_a_sign_in_that_fails_is_no_sign_in(world: World, answer: Any, code: str, kind: str) -> None:
    world.inside()
    world.xmpp["cucm.example.com", 5222] = answer
    outcome = world.run()
    assert (outcome.error.code, outcome.error.kind, outcome.signed_in) == (code, kind, False)
    assert outcome.authenticator == "im-and-presence"


def test_one_zone_for_inside_and_outside_still_works_from_outside(world: World) -> None:
    world.edge()
    world.service("_cisco-uds._tcp.example.com", (0, 0, 8443, "cucm.example.com"))
    world.hosts["cucm.example.com"] = Addresses(("10.0.0.1",), 60, NS)
    through_edge = world._get
    world._get = lambda request: Failed("timeout") if request.host == "cucm.example.com" else through_edge(request)
    outcome = world.run()
    assert (outcome.location, outcome.signed_in) == ("outside", True)
    assert "outside-after-inside" in codes(outcome)


def test_a_certificate_that_is_not_trusted_never_leads_to_the_edge(world: World) -> None:
    world.edge()
    world.service("_cisco-uds._tcp.example.com", (0, 0, 8443, "cucm.example.com"))
    world.host("cucm.example.com")
    world.pages["cucm.example.com", 8443, "/cucm-uds/clusterUser"] = Failed("tls-untrusted")
    outcome = world.run()
    assert outcome.error.kind == "trust"
    assert outcome.location == "inside"


def test_sign_in_can_be_left_out(world: World) -> None:
    world.inside()
    outcome = world.run(sign_in=False)
    assert (outcome.error, outcome.signed_in, outcome.authenticator) == (None, False, "im-and-presence")


def test_records_without_a_usable_port_are_none(world: World) -> None:
    world.srv["_cisco-uds._tcp.example.com"] = Records((Srv(0, 0, 0, "cucm.example.com"),), 60, NS)
    world.host("example.com")
    assert world.run().error.code == "no-services"
