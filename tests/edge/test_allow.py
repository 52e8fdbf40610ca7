"""The allow-lists that the inside makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from moim.edge.allow import ManualRules, automatic_inside, edge_rules
from moim.edge.rules import RuleTable, write_csv
from moim.errors import UsageError
from moim.proto import mra
from moim.settings import Site, SiteSettings

SITE = Site(Path("/nonexistent"), SiteSettings(domain="moim.test"), {})
HEADER = "Url,Deployment,HttpMethods,MatchType,Description\n"


def test_the_edge_leads_to_named_targets_only() -> None:
    rows = edge_rules(["moim.test", "voice.test"], automatic_inside(SITE))
    table = RuleTable(rows)

    def target(scheme: str, path: str, method: str = "GET") -> str | None:
        rule = table.find(scheme, "edge.moim.test", 0, path, method)
        return rule.target if rule else None

    assert {row.target for row in rows} == {"web", "mra", "xmpp-websocket"}
    assert target("https", "/") == "web"
    assert target("wss", "/meet/ws") == "web"
    assert target("wss", "/xmpp-websocket") == "xmpp-websocket"
    assert target("wss", "/xmpp-websocket/x") == "web"
    for domain in ("moim.test", "voice.test"):
        assert target("https", f"/{mra.encode_token(domain)}/get_edge_config") == "mra"
        uds = mra.proxied_path(domain, "https", "inside.moim.test", 18443, "/cucm-uds/version")
        assert target("https", uds) == "mra"
        assert target("https", uds, "DELETE") is None
        assert target("wss", uds) == "web"


def test_the_rows_of_a_web_bridge_are_there() -> None:
    rows = {(row.scheme, row.prefix): row.methods for row in edge_rules(["moim.test"], ())}
    assert rows["https", "/"] == ("GET", "POST", "PUT", "HEAD", "DELETE")
    assert rows["wss", "/"] == ("GET",)


def test_manual_rows_are_kept(tmp_path: Path) -> None:
    hosts = frozenset({"inside.moim.test"})
    manual = ManualRules(tmp_path / "allow.csv", hosts, automatic_inside(SITE))
    manual.load()
    assert manual.rules == ()
    (row,) = manual.replace(HEADER + "https://inside.moim.test:7443/vm/,,GET,Prefix,Voicemail\n")
    again = ManualRules(tmp_path / "allow.csv", hosts)
    again.load()
    assert again.rules == (row,)


def test_an_exported_list_can_be_read_back_without_doubling(tmp_path: Path) -> None:
    automatic = automatic_inside(SITE)
    manual = ManualRules(tmp_path / "allow.csv", frozenset({"inside.moim.test"}), automatic)
    assert manual.replace(write_csv(automatic)) == ()


@pytest.mark.parametrize("url", ["https://evil.example/", "wss://inside.moim.test/", "https://*/", "http://10.0.0.1/"])
def test_hosts_without_a_configured_address_are_refused(tmp_path: Path, url: str) -> None:
    manual = ManualRules(tmp_path / "allow.csv", frozenset({"inside.moim.test"}))
    with pytest.raises(UsageError):
        manual.replace(HEADER + f"{url},,GET,Prefix,\n")
    assert not (tmp_path / "allow.csv").exists()


def test_a_broken_file_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "allow.csv").write_text("rubbish")
    manual = ManualRules(tmp_path / "allow.csv", frozenset())
    manual.load()
    assert manual.rules == ()
