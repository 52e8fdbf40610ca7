"""Where servers are looked for, in which order, and where never."""

from __future__ import annotations

from collections import Counter
from functools import partial
from operator import mod

import pytest

from moim.errors import NotFound
from moim.federation.guard import Guard
from moim.federation.hosting import hoster
from moim.federation.locating import Locator, Target
from s2s_network import FakeDns

OPEN = Guard((), list)


def target(priority: int, weight: int, host: str, *, direct: bool = False) -> Target:
    return Target(host, 5269, direct, priority, weight)


def test_priority_first_then_chance_by_weight() -> None:
    targets = [target(10, 0, "last"), target(5, 30, "often"), target(5, 10, "seldom")]
    first: Counter[str] = Counter()
    for number in range(41):
        ordered = Locator(FakeDns(), OPEN, choose=partial(mod, number)).ordered(targets)
        assert ordered[-1].host == "last"
        first[ordered[0].host] += 1
    assert 25 <= first["often"] <= 33


def test_where_all_is_equal_tls_from_the_start_is_first() -> None:
    targets = [target(0, 0, "plain"), target(0, 0, "direct", direct=True)]
    assert [one.host for one in Locator(FakeDns(), OPEN, choose=lambda _: 0).ordered(targets)] == ["direct", "plain"]


async def test_both_kinds_of_records_are_one_list() -> None:
    dns = FakeDns()
    dns.srv["_xmpp-server._tcp.b.example"] = [(5, 0, 5269, "plain.b.example")]
    dns.srv["_xmpps-server._tcp.b.example"] = [(1, 0, 5270, "direct.b.example")]
    located = await Locator(dns, OPEN).locate("b.example", "required")
    assert [(t.host, t.direct) for t in located.targets] == [("direct.b.example", True), ("plain.b.example", False)]
    located = await Locator(dns, OPEN).locate("b.example", "off")
    assert [t.host for t in located.targets] == ["plain.b.example"]


async def test_without_records_the_domain_itself_at_the_standard_port() -> None:
    located = await Locator(FakeDns(), OPEN).locate("bücher.example", "required")
    assert located.targets == (Target("xn--bcher-kva.example", 5269, direct=False),)
    assert not located.srv
    assert (await Locator(FakeDns(), OPEN).locate("[2001:db8::1]", "required")).targets[0].host == "2001:db8::1"


async def test_a_dot_means_no() -> None:
    dns = FakeDns()
    dns.srv["_xmpp-server._tcp.b.example"] = [(0, 0, 0, "")]
    with pytest.raises(NotFound, match="exchanges no messages"):
        await Locator(dns, OPEN).locate("b.example", "required")
    dns.srv["_xmpps-server._tcp.b.example"] = [(0, 0, 5270, "x.b.example")]
    assert (await Locator(dns, OPEN).locate("b.example", "required")).targets[0].direct


async def test_families_take_turns_and_a_flood_of_records_is_cut() -> None:
    dns = FakeDns()
    dns.srv["_xmpp-server._tcp.b.example"] = [(n, 0, 5269, f"x{n}.b.example") for n in range(64)]
    for n in range(64):
        dns.hosts[f"x{n}.b.example"] = [f"10.{n}.0.{i}" for i in range(1, 65)]
    dns.hosts["x0.b.example"] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    locator = Locator(dns, Guard(("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"), list))
    found = (await locator.endpoints(await locator.locate("b.example", "required"), "b.example")).found
    assert [one.address for one in found[:3]] == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    assert len(found) == 24
    assert len(dns.asked) == 2 + 16


@pytest.mark.parametrize(
    ("address", "port", "refused"),
    [
        ("8.8.8.8", 5269, False), ("2001:4860:4860::8888", 5269, False), ("8.8.8.8", 443, False),
        ("127.0.0.1", 5269, True), ("127.9.9.9", 5269, True), ("::1", 5269, True), ("0.0.0.0", 5269, True),
        ("::", 5269, True), ("10.1.2.3", 5269, True), ("172.16.0.1", 5269, True), ("192.168.1.1", 5269, True),
        ("169.254.169.254", 5269, True), ("fe80::1", 5269, True), ("fd00::1", 5269, True), ("224.0.0.1", 5269, True),
        ("100.64.0.1", 5269, True), ("255.255.255.255", 5269, True), ("::ffff:10.0.0.1", 5269, True),
        ("64:ff9b::a00:1", 5269, True), ("2002:7f00:1::", 5269, True), ("ff02::1", 5269, True),
        ("8.8.8.8", 0, True), ("8.8.8.8", 25, True), ("8.8.8.8", 22, True), ("8.8.8.8", 70000, True),
        ("9.9.9.9", 5269, True), ("::ffff:9.9.9.9", 5269, True), ("9.9.9.9", 5270, False), ("x", 5269, True),
    ],
)  # fmt: skip
def test_nobodys_records_lead_inside(address: str, port: int, refused: bool) -> None:
    guard = Guard((), lambda: [("9.9.9.9", 5269), ("not an address", 5269)])
    assert bool(guard.refusal(address, port)) is refused


def test_networks_that_are_allowed_by_name() -> None:
    guard = Guard(("10.0.0.0/8", "fd00::/8"), lambda: [("10.0.0.1", 5269)])
    assert not guard.refusal("10.0.0.2", 5269)
    assert not guard.refusal("fd00::2", 5269)
    assert guard.refusal("10.0.0.1", 5269), "but never ourselves"
    assert guard.refusal("192.168.0.1", 5269)


def test_hosters_by_the_names_of_their_servers() -> None:
    assert hoster("xmpp-server1.l.Google.com.").startswith("Google")
    assert hoster("c2s.im1.ciscowebex.example") == ""
    assert hoster("notgoogle.com") == ""
