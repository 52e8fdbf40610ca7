"""Edge configuration, proxied paths and the session cookie: both directions, and what is refused."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import ProtocolError
from moim.proto import mra, xmldoc

EDGE = mra.Edge("edge.example.com", 8443, "example.com")
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
SAMPLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<getEdgeConfigResponse version="1.0"><serviceConfig>
 <service><name>_cuplogin</name><error>NameError</error></service>
 <service><name>_cisco-uds</name><server><priority>1</priority><weight>5</weight><port>8443</port>
  <address>CUCM1.example.com.</address></server></service>
 <service><name>tftpServer</name><address>cucm1.example.com</address><address/></service></serviceConfig>
<edgeConfig><sipEdgeServer><server><address>edge.example.com</address><tlsPort>5061</tlsPort></server></sipEdgeServer>
 <sipRequest><route>&lt;sip:192.0.2.7:5061;transport=tls;zone-id=3;directed;lr&gt;</route></sipRequest>
 <xmppEdgeServer><server><address>edge.example.com</address><tlsPort>5222</tlsPort></server></xmppEdgeServer>
 <httpEdgeServer><server><address>edge.example.com</address><tlsPort>8443</tlsPort></server></httpEdgeServer>
 <turnEdgeServer/><userUdsServer><server><address/><tlsPort>8443</tlsPort></server></userUdsServer>
</edgeConfig></getEdgeConfigResponse>"""


def test_the_domain_token_has_no_padding() -> None:
    assert mra.encode_token("example.com") == "ZXhhbXBsZS5jb20"
    assert mra.edge_config_url(EDGE) == (
        "https://edge.example.com:8443/ZXhhbXBsZS5jb20/get_edge_config?service_name=_cisco-uds&service_name=_cuplogin"
    )


def test_an_edge_configuration_request_is_read_with_or_without_a_trailing_slash() -> None:
    for slash in ("", "/"):
        target = f"/ZXhhbXBsZS5jb20/get_edge_config{slash}?service_name=_cisco-uds&service_name=_cuplogin"
        assert mra.parse_edge_config_request(target) == ("example.com", ("_cisco-uds", "_cuplogin"))
    for target in ("/", "/get_edge_config", "/ZXhhbXBsZS5jb20/other", "/!!!/get_edge_config", "/" + "A" * 999 + "/x"):
        with pytest.raises(ProtocolError):
            mra.parse_edge_config_request(target)


def test_the_documented_response_is_read() -> None:
    config = mra.parse_edge_config(SAMPLE)
    uds = config.service("_cisco-uds")
    assert uds is not None
    assert uds.servers == (mra.Srv(1, 5, 8443, "cucm1.example.com"),)
    cup = config.service("_CUPLOGIN")
    assert cup is not None
    assert cup.error == "NameError"
    assert config.xmpp == (mra.EdgeServer("edge.example.com", 5222),)
    assert config.sip_routes == ("<sip:192.0.2.7:5061;transport=tls;zone-id=3;directed;lr>",)
    assert config.user_uds == ()
    assert mra.parse_edge_config(mra.build_edge_config(config)) == config


hosts = st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z][a-z0-9]{0,10}){1,3}", fullmatch=True)
ports = st.integers(1, 65535)
edge_servers = st.lists(st.builds(mra.EdgeServer, hosts, ports), max_size=3).map(tuple)
small = st.integers(0, 65535)
services = st.builds(
    mra.Service,
    st.sampled_from(["_cisco-uds", "_cuplogin", "tftpServer"]),
    st.lists(st.builds(mra.Srv, small, small, ports, hosts), max_size=3).map(tuple),
    st.sampled_from(["", "NameError"]),
    st.lists(hosts, max_size=2).map(tuple),
)


@given(st.lists(services, max_size=3).map(tuple), edge_servers, edge_servers, edge_servers)
def test_what_is_built_is_read_back(
    answers: tuple[mra.Service, ...],
    xmpp: tuple[mra.EdgeServer, ...],
    turn: tuple[mra.EdgeServer, ...],
    uds: tuple[mra.EdgeServer, ...],
) -> None:
    config = mra.EdgeConfig(answers, xmpp=xmpp, turn=turn, user_uds=uds)
    assert mra.parse_edge_config(mra.build_edge_config(config)) == config


@given(
    st.sampled_from(["http", "https"]), hosts, ports, st.from_regex(r"(/[a-z0-9-]{1,8}){0,3}(\?a=b)?", fullmatch=True)
)
def test_a_proxied_path_names_the_inside_server(scheme: str, host: str, port: int, path: str) -> None:
    url = mra.proxied_url(EDGE, scheme, host, port, path)
    assert url.startswith("https://edge.example.com:8443/")
    target = mra.parse_proxied_path(url.removeprefix(EDGE.origin))
    assert target == mra.Target("example.com", scheme, host, port, "/" + path.lstrip("/"))


@pytest.mark.parametrize(
    "text",
    ["a.b/ftp/h/1", "a.b/https/h/0", "a.b/https/h/70000", "a.b/https/h/x", "a.b/https/h h/1", "a.b/https/h", "", "/"],
)
def test_a_proxied_path_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        mra.parse_proxied_path(f"/{mra.encode_token(text)}/cucm-uds/version")


@given(st.text(max_size=200))
def test_any_path_is_read_or_refused(target: str) -> None:
    for parse in (mra.parse_proxied_path, mra.parse_edge_config_request):
        with contextlib.suppress(ProtocolError):
            parse(target)


@given(st.binary(max_size=300))
def test_any_document_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        mra.parse_edge_config(data)


@pytest.mark.parametrize(
    "data",
    [
        b"<html/>",
        b"<a>" * 100,
        b"<a>" * 30 + b"</a>" * 30,
        b"<r>" + b"<a/>" * 9000 + b"</r>",
        b'<!DOCTYPE r [<!ENTITY x "y">]><r>&x;</r>',
        b" " * (xmldoc.MAX_BYTES + 1),
        b'<?xml version="1.0" encoding="martian"?><r/>',
        SAMPLE.replace(b"<port>8443</port>", b"<port>0</port>"),
        SAMPLE.replace(b"<weight>5</weight>", b"<weight>minus</weight>"),
        SAMPLE.replace(b"CUCM1.example.com.", b"no host"),
    ],
)
def test_bad_documents_are_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        mra.parse_edge_config(data)


def test_the_cookie_goes_both_ways() -> None:
    cookie = mra.EdgeCookie("0aa3-11", NOW + timedelta(hours=8), "example.com")
    header = cookie.set_cookie()
    assert "Domain=.example.com" in header
    assert mra.parse_set_cookie(["other=1; Path=/", header], "edge.example.com", NOW) == cookie
    assert mra.read_cookie("a=b; " + cookie.header()) == "0aa3-11"
    assert mra.read_cookie("a=b") == ""


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Auth=",
        "X-Auth=1; Path=/",
        "X-Auth=1; Expires=nonsense",
        "X-Auth=1; Expires=Tue, 01 Jan 2030 00:00:00 GMT; Domain=.example.com",
        "X-Auth=1; Expires=Fri, 01 Jan 2038 00:00:00 GMT; Domain=.example.org",
    ],
)
def test_a_cookie_that_clients_would_not_use_is_refused(header: str) -> None:
    with pytest.raises(ProtocolError):
        mra.parse_set_cookie([header], "edge.example.com", NOW)
