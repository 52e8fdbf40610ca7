"""The allow-list: which row wins, what never matches, and the CSV form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moim.edge.rules import METHODS, Rule, RuleTable, checked_path, read_csv, write_csv
from moim.errors import ProtocolError, UsageError


def rule(prefix: str = "/", target: str = "web", methods: tuple[str, ...] = ("GET",), **more: object) -> Rule:
    return Rule.model_validate({"scheme": "https", "prefix": prefix, "target": target, "methods": methods, **more})


def find(table: RuleTable, path: str, method: str = "GET", scheme: str = "https") -> str | None:
    found = table.find(scheme, "edge.moim.test", 443, path, method)
    return found.target if found else None


def test_the_longest_prefix_wins() -> None:
    table = RuleTable([rule("/"), rule("/a/", "a"), rule("/a/b/", "b")])
    assert [find(table, path) for path in ("/x", "/a/x", "/a/b/x", "/a/b")] == ["web", "a", "b", "a"]


def test_an_exact_row_beats_a_prefix_of_the_same_length() -> None:
    table = RuleTable([rule("/ws"), rule("/ws", "socket", match="exact")])
    assert find(table, "/ws") == "socket"
    assert find(table, "/ws/1") == "web"


def test_a_narrow_row_takes_methods_away() -> None:
    table = RuleTable([rule("/", methods=("GET", "POST")), rule("/static/", "files", methods=("GET",))])
    assert find(table, "/static/x", "POST") is None
    assert find(table, "/x", "POST") == "web"
    assert table.methods("https", "edge.moim.test", 443, "/static/x") == ("GET",)


def test_rows_of_the_same_place_add_up() -> None:
    table = RuleTable([rule("/", methods=("GET",)), rule("/", methods=("POST",))])
    assert table.methods("https", "edge.moim.test", 443, "/") == ("GET", "POST")


def test_scheme_host_and_port_have_to_fit() -> None:
    table = RuleTable([rule(host="inside.moim.test", port=8443)])
    assert table.find("https", "inside.moim.test", 8443, "/", "GET")
    for scheme, host, port in (
        ("wss", "inside.moim.test", 8443),
        ("https", "other.moim.test", 8443),
        ("https", "inside.moim.test", 443),
    ):
        assert table.find(scheme, host, port, "/", "GET") is None


@pytest.mark.parametrize(
    "path",
    [
        *("", "x", "/a/../b", "/..", "/.", "/a/./b", "//", "//host/x", "/a//b", "/a\\b", "/a b", "/a\n", "/ä", "/a?b"),
        *("/%2e%2e/b", "/a%2Fb", "/a%5cb", "/a%00", "/%252e", "/a%2", "/a%zz", "/a#b", "/" + "a" * 5000, "/<x>"),
    ],
)
def test_ambiguous_paths_are_refused(path: str) -> None:
    with pytest.raises(ProtocolError):
        checked_path(path)


@pytest.mark.parametrize("path", ["/", "/a", "/a/", "/a.b/..c", "/%ED%95%9C", "/a;v=1/@b", "/~x/(1)*", "/a%20b"])
def test_plain_paths_stay_as_they_are(path: str) -> None:
    assert checked_path(path) == path


segments = st.lists(st.sampled_from(["a", "b", "cucm-uds", "..", ".", "%2e", "", "x%20y"]), max_size=5)


@given(segments, st.booleans())
def test_nothing_leaves_the_prefix_that_allowed_it(parts: list[str], slash: bool) -> None:
    path = "/" + "/".join(parts) + ("/" if slash else "")
    table = RuleTable([rule("/cucm-uds/", "uds")])
    try:
        checked_path(path)
    except ProtocolError:
        return
    found = find(table, path)
    assert (found == "uds") == path.startswith("/cucm-uds/")
    assert ".." not in path.split("/")


rules = st.builds(
    rule,
    prefix=st.lists(st.text("abc-._~", min_size=1, max_size=5).filter(lambda s: s not in (".", "..")), max_size=3).map(
        lambda parts: "/" + "/".join(parts)
    ),
    target=st.sampled_from(["web", "mra", "uds"]),
    methods=st.sets(st.sampled_from(METHODS), min_size=1).map(tuple),
    scheme=st.sampled_from(["https", "wss", "http"]),
    host=st.sampled_from(["*", "inside.moim.test", "10.0.0.1", "2001:db8::1"]),
    port=st.integers(1, 65535),
    match=st.sampled_from(["exact", "prefix"]),
    description=st.text("abc, \"'\n가", max_size=20).map(lambda text: text.strip()),
)


@given(st.lists(rules, max_size=5))
def test_csv_round_trip(rows: list[Rule]) -> None:
    assert read_csv(write_csv(rows)) == tuple(rows)


def test_csv_reads_the_documented_form() -> None:
    text = (
        'Url,Deployment,HttpMethods,MatchType,Description\r\nhttps://cms.moim.test/,,"GET, POST",Prefix,Bridge\r\n\r\n'
    )
    (row,) = read_csv(text)
    assert (row.scheme, row.host, row.port, row.prefix, row.match) == ("https", "cms.moim.test", 443, "/", "prefix")
    assert (row.methods, row.description) == (("GET", "POST"), "Bridge")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("ftp://a.b/,,GET,Prefix,", "line 2.*scheme"),
        ("https://a.b/x?y=1,,GET,Prefix,", "line 2.*nothing more"),
        ("https:///x,,GET,Prefix,", "line 2"),
        ("https://a.b:99999/,,GET,Prefix,", "line 2"),
        ("https://a.b/,,FETCH,Prefix,", "line 2.*methods"),
        ("https://a.b/,,,Prefix,", "line 2.*methods"),
        ("https://a.b/,,GET,regex,", "line 2.*match"),
        ("https://a.b/../x,,GET,Prefix,", "line 2.*prefix"),
        ("https://u@a.b/,,GET,Prefix,", "line 2"),
    ],
)
def test_csv_errors_name_the_line(line: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_csv("Url,Deployment,HttpMethods,MatchType,Description\n" + line + "\n")


def test_csv_needs_its_header() -> None:
    with pytest.raises(UsageError, match="first line"):
        read_csv("https://a.b/,,GET,Prefix,\n")


def test_a_row_has_bounds() -> None:
    with pytest.raises(ValidationError):
        rule("/" + "a" * 2000)
    with pytest.raises(ValidationError):
        rule(host="not a host")
