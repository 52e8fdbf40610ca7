"""Discovery on real sockets: it finds the services and signs in."""

from __future__ import annotations

from pathlib import Path

from discovery_world import ALICE, DOMAIN, PASSWORD, EdgeApp, Live
from moim.discovery import Step


async def test_inside_a_real_sign_in(live: Live, tmp_path: Path) -> None:
    xmpp = await live.furnish()
    steps: list[Step] = []
    outcome = await live.discover(on_step=steps.append, cache=tmp_path / "cache.json")
    assert outcome.error is None
    assert (outcome.location, outcome.signed_in, outcome.jid) == ("inside", True, f"{ALICE}/desk")
    assert (outcome.authenticator, outcome.product_mode, outcome.display_name) == (
        "im-and-presence",
        "full-uc",
        "앨리스",
    )
    assert tuple(steps) == outcome.steps
    assert xmpp.sign_ins == 1
    assert PASSWORD not in (tmp_path / "cache.json").read_text()
    again = await live.discover(cache=tmp_path / "cache.json")
    assert again.signed_in
    assert again.steps[1].kind == "cache"


async def test_direct_tls_where_the_dns_says_so(live: Live) -> None:
    await live.furnish(port="")
    direct = await live.xmpp(live.inside, 15223, direct=True)
    outcome = await live.discover()
    assert outcome.error is None
    assert direct.sign_ins + 0 in (0, 1)  # both records have the same priority: either may be drawn
    assert outcome.signed_in


async def test_outside_a_real_sign_in_through_the_edge(live: Live) -> None:
    await live.names()
    await live.http(EdgeApp(live.seen), live.edge, 18443, f"edge.{DOMAIN}")
    xmpp = await live.xmpp(live.edge, 15222)
    outcome = await live.discover("outside")
    assert outcome.error is None
    assert (outcome.location, outcome.signed_in, outcome.product_mode) == ("outside", True, "full-uc")
    assert xmpp.sign_ins == 1
    assert live.seen


async def test_a_wrong_password_is_found_and_not_repeated(live: Live) -> None:
    await live.furnish()
    outcome = await live.discover(password="not this one")
    assert outcome.error is not None
    assert outcome.error.code == "wrong-password"
    assert not outcome.signed_in


async def test_without_a_password_it_goes_as_far_as_it_can(live: Live) -> None:
    await live.furnish()
    outcome = await live.discover(password=None)
    assert (outcome.error, outcome.location, outcome.server_version) == (None, "inside", "11.5.1")
