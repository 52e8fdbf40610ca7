"""The XMPP engine from connection to goodbye: streams, TLS, SASL restarts, listeners, back-pressure, stopping."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from moim._native import Element, XmppServer
from moim.errors import Unavailable, UsageError

from .xmpp_peers import (
    DOMAIN,
    HEADER,
    NS_CLIENT,
    NS_SASL,
    NS_STREAM_ERRORS,
    NS_STREAMS,
    NS_TLS,
    Client,
    Host,
    certificate,
    client_context,
    host,
)


@pytest.fixture
def plane() -> Iterator[Host]:
    with host() as made:
        yield made


def test_a_stream_opens_carries_and_ends(plane: Host) -> None:
    port = plane.listen()
    client = Client(plane, port)
    client.send(HEADER)
    header = client.until("<stream:features/>")
    assert header.startswith("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream=")
    assert f"from='{DOMAIN}'" in header
    client.send("<iq type='get' id='q'/> \n")
    client.until("<iq type='result' id='q'/>")
    client.send("</stream:stream>")
    assert client.rest() == "</stream:stream>"
    client.close()
    sid = plane.event("connected")[1]
    assert plane.event("closed", sid) == ("closed", sid, "the peer ended the stream")
    kinds = [event[0] for event in plane.seen]
    assert kinds == ["connected", "open", "stanza", "close", "closed"]
    assert plane.seen[0] == ("connected", sid, 1, "127.0.0.1", client_port(plane), False)
    assert plane.seen[1][2] == {"to": DOMAIN, "version": "1.0", "xmlns": NS_CLIENT}


def client_port(plane: Host) -> int:
    port = plane.seen[0][4]
    assert isinstance(port, int)
    return port


def test_starttls_then_sasl_then_bind(plane: Host) -> None:
    client = Client(plane, plane.listen())
    client.starttls()
    client.login("alice", "desk")
    sid = plane.sid(f"alice@{DOMAIN}/desk")
    info = plane.event("tls", sid)[2]
    assert info["version"] == "TLSv1.3"
    assert info["sni"] == DOMAIN
    assert info["cipher"].startswith("TLS_")
    assert plane.server.stats()["handshakes"] == 1
    assert plane.server.stats()["unauthenticated"] == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_direct_tls_with_alpn_and_channel_binding(plane: Host, version: ssl.TLSVersion) -> None:
    context = client_context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["xmpp-client"])
    client = Client(plane, plane.listen("tls"))
    client.tls(context)
    assert isinstance(client.sock, ssl.SSLSocket)
    assert client.sock.selected_alpn_protocol() == "xmpp-client"
    client.send(HEADER)
    client.until("<stream:features/>")
    sid = plane.event("connected")[1]
    assert plane.event("connected")[5] is True
    assert plane.event("tls")[2]["alpn"] == "xmpp-client"
    binding = plane.server.exporter(sid)
    if version is ssl.TLSVersion.TLSv1_3:
        assert binding is not None
        assert len(binding) == 32
        assert binding != bytes(32)
    else:
        assert binding is None
    assert plane.server.exporter(sid + 1) is None


def test_direct_tls_refuses_another_protocol(plane: Host) -> None:
    context = client_context()
    context.set_alpn_protocols(["http/1.1"])
    client = Client(plane, plane.listen("tls"))
    with pytest.raises(ssl.SSLError):
        client.tls(context)
    plane.until(lambda: plane.server.stats()["tls_failures"] == 1)


def test_the_exporter_is_forgotten_after_authentication(plane: Host) -> None:
    client = Client(plane, plane.listen("tls"))
    client.tls()
    client.login("alice", "desk")
    assert plane.server.exporter(plane.sid(f"alice@{DOMAIN}/desk")) is None


def test_what_came_with_starttls_ends_the_stream(plane: Host) -> None:
    client = Client(plane, plane.listen())
    client.send(HEADER)
    client.until("<stream:features/>")
    client.send(f"<starttls xmlns='{NS_TLS}'/><iq type='get' id='injected'/>")
    assert "<policy-violation" in client.rest()
    assert all(stanza.name != "iq" for stanza in plane.stanzas())


def test_starttls_fails_without_a_certificate() -> None:
    with host() as plane:
        plane.server.stop()
        plane.server = XmppServer(DOMAIN)
        client = Client(plane, plane.listen())
        client.send(HEADER)
        client.until("<stream:features/>")
        client.send(f"<starttls xmlns='{NS_TLS}'/>")
        assert client.rest() == f"<failure xmlns='{NS_TLS}'/></stream:stream>"
        assert plane.event("closed")[2] == "there is no certificate yet"


def test_what_follows_starttls_later_is_not_taken_as_xml(plane: Host) -> None:
    plane.answering = False
    client = Client(plane, plane.listen())
    client.send(HEADER + f"<starttls xmlns='{NS_TLS}'/>")
    plane.event("stanza")
    client.send("<iq type='get' id='injected'/>")
    plane.server.starttls(plane.event("stanza")[1])
    client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    plane.until(lambda: plane.server.stats()["tls_failures"] == 1)
    assert len(plane.stanzas()) == 1


def test_a_pipelined_stream_restart_waits_for_the_answer(plane: Host) -> None:
    client = Client(plane, plane.listen())
    auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHB3</auth>"
    bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>"
    client.send(HEADER + auth + HEADER + bind)
    assert f"<jid>alice@{DOMAIN}/r</jid>" in client.until("</iq>")


@pytest.mark.parametrize("more", ["", f" from='alice@{DOMAIN}'"])
def test_a_stream_that_is_opened_in_the_same_words_again_is_answered_at_once(plane: Host, more: str) -> None:
    plane.again = ({"from": DOMAIN, "id": "again", "version": "1.0"}, Element("features", NS_STREAMS, {}, ["known"]))
    client = Client(plane, plane.listen())
    client.send(HEADER)
    client.until("<stream:features/>")
    client.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHB3</auth>")
    client.until(f"<success xmlns='{NS_SASL}'/>")
    client.send(HEADER.replace(" to=", f"{more} to="))
    answer = client.until("<stream:features/>" if more else "<stream:features>known</stream:features>")
    assert answer.startswith("<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream=")
    assert ("id='again'" in answer) is not bool(more)
    assert [event[0] for event in plane.seen].count("open") == (2 if more else 1)
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    client.until("</iq>")


def test_stanzas_before_they_may_come(plane: Host) -> None:
    port = plane.listen()
    for stanza in ("<message to='a@b'/>", "<presence/>"):
        client = Client(plane, port)
        client.send(HEADER + stanza)
        assert f"<not-authorized xmlns='{NS_STREAM_ERRORS}'/>" in client.rest()
    client = Client(plane, port)
    client.send("<message xmlns='jabber:client'/>")
    answer = client.rest()
    assert (
        f"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' from='{DOMAIN}'"
        in answer
    )
    assert "<invalid-namespace" in answer
    assert not plane.stanzas()


def test_a_claim_to_be_somebody_is_dropped_before_binding(plane: Host) -> None:
    client = Client(plane, plane.listen())
    client.send(HEADER + "<iq type='get' id='q' from='root@moim.test'/>")
    client.until("id='q'/>")
    assert plane.stanzas()[0].attrs == {"type": "get", "id": "q"}


def test_the_certificate_is_swapped_while_connections_stay(plane: Host) -> None:
    port = plane.listen("tls")
    old = Client(plane, port)
    old.tls()
    old.login("alice", "desk")
    plane.server.set_tls(*certificate("other.test"))
    new = Client(plane, port)
    context = ssl.create_default_context(cadata=certificate("other.test")[0].decode())
    new.tls(context, "other.test")
    old.send("<iq type='get' id='still'/>")
    old.until("id='still'/>")
    with pytest.raises(UsageError):
        plane.server.set_tls(certificate(DOMAIN)[0], certificate("other.test")[1])
    with pytest.raises(UsageError):
        plane.server.set_tls(b"", b"")


@pytest.mark.interop
def test_openssl_agrees_about_starttls(plane: Host, tmp_path: Path) -> None:
    port = plane.listen()
    plane.features = [Element("starttls", NS_TLS)]
    authority = tmp_path / "ca.pem"
    authority.write_bytes(certificate(DOMAIN)[0])
    command = ["openssl", "s_client", "-starttls", "xmpp", "-xmpphost", DOMAIN, "-connect", f"127.0.0.1:{port}"]
    command += ["-CAfile", str(authority), "-verify_hostname", DOMAIN, "-verify_return_error", "-servername", DOMAIN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        plane.event("tls")
        output, _ = process.communicate(b"Q\n", timeout=20)
    assert b"Verify return code: 0 (ok)" in output
    assert b"TLSv1.3" in output


def test_unix_sockets_and_the_proxy_protocol(plane: Host, tmp_path: Path) -> None:
    path = str(tmp_path / "xmpp.sock")
    listener, port = plane.server.listen(path, 0, "starttls", proxy_protocol=True)
    assert port == 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 5222\r\n" + HEADER.encode())
        assert plane.event("connected")[2:5] == (listener, "2001:db8::7", 4000)
    tcp = plane.listen("tls", proxy_protocol=True)
    client = Client(plane, tcp)
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\x09\xc0\0\2\1\x9c\x40\x14\x66")
    client.tls()
    client.send(HEADER)
    client.until("<stream:features/>")
    assert any(event[0] == "connected" and event[3:5] == ("192.0.2.9", 40000) for event in plane.seen)
    bare = Client(plane, tcp)
    bare.send(HEADER)
    assert bare.rest() == ""
    plane.server.unlisten(listener)
    plane.until(lambda: not Path(path).exists())


def test_a_stale_unix_socket_is_replaced_a_live_one_is_not(plane: Host, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    plane.server.listen(path, 0, "starttls")
    with pytest.raises(Unavailable):
        plane.server.listen(path, 0, "starttls")


def test_arguments_that_make_no_sense(plane: Host) -> None:
    server = plane.server
    taken = plane.listen()
    with pytest.raises(Unavailable, match=f"port {taken}"):
        server.listen("127.0.0.1", taken, "starttls")
    with pytest.raises(UsageError):
        server.listen("localhost", 0, "starttls")
    with pytest.raises(UsageError):
        server.listen("127.0.0.1", 0, "telnet")  # type: ignore[arg-type]
    for jid in ("a@b", "a@b/", "/r", "a@b/\0"):
        with pytest.raises(UsageError):
            server.bind(1, jid)
    with pytest.raises(UsageError):
        server.authenticated(1, "a@b/c")
    with pytest.raises(UsageError):
        server.open_stream(1, {"a b": "c"})
    with pytest.raises(UsageError):
        XmppServer(DOMAIN, handshake_timeout=-1)
    without = XmppServer(DOMAIN)
    with pytest.raises(UsageError):
        without.listen("127.0.0.1", 0, "tls")
    without.stop()
    # Calls about sessions that are gone do nothing.
    server.send(999, [Element("iq", NS_CLIENT)])
    server.close(999)


def test_closing_with_an_error(plane: Host) -> None:
    client = Client(plane, plane.listen()).login("alice", "desk")
    sid = plane.sid(f"alice@{DOMAIN}/desk")
    plane.server.close(sid, Element("conflict", NS_STREAM_ERRORS))
    expected = f"<stream:error><conflict xmlns='{NS_STREAM_ERRORS}'/></stream:error></stream:stream>"
    assert client.rest() == expected
    assert plane.event("closed", sid)[2] == "conflict"
    plane.server.send(sid, [Element("iq", NS_CLIENT)])
    client.close()
    plane.until(lambda: plane.server.stats()["sessions"] == 0)


def test_a_peer_that_vanishes_is_reported(plane: Host) -> None:
    client = Client(plane, plane.listen()).login("alice", "desk")
    sid = plane.sid(f"alice@{DOMAIN}/desk")
    client.close()
    assert plane.event("closed", sid)[2] == "the peer closed the connection"
    assert plane.server.stats()["routes"] == 0


@pytest.mark.parametrize("farewell", ["</stream:stream>", ""])
def test_a_peer_that_only_listens_any_more_gets_its_farewell(plane: Host, farewell: str) -> None:
    client = Client(plane, plane.listen()).login("alice", "desk")
    client.send("<iq type='get' id='last'/>" + farewell)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.rest().endswith("</stream:stream>")
    plane.event("closed")
    plane.until(lambda: plane.server.stats()["sessions"] == 0)


def test_stopping_says_goodbye_to_everybody() -> None:
    made = Host(threads=2)
    port = made.listen()
    clients = [Client(made, port).login("alice", str(index)) for index in range(4)]
    stopper = threading.Thread(target=made.server.stop)
    stopper.start()
    for client in clients:
        assert "<system-shutdown" in client.rest()
    stopper.join(5)
    assert not stopper.is_alive()
    with pytest.raises(ConnectionRefusedError):
        Client(made, port)
    made.pump()
    assert sum(event[0] == "closed" for event in made.seen) == 4


def test_several_domains_are_served() -> None:
    with host(domains=["second.test"]) as plane:
        port = plane.listen()
        for name in ("second.test", "SECOND.test", DOMAIN):
            client = Client(plane, port)
            client.send(HEADER.replace(DOMAIN, name))
            client.until("<stream:features/>")
        client = Client(plane, port)
        client.send(HEADER.replace(DOMAIN, "third.test"))
        assert "<host-unknown" in client.rest()


@pytest.mark.parametrize(
    ("header", "condition"),
    [
        (HEADER.replace(" version='1.0' xmlns", " xmlns"), "unsupported-version"),
        (HEADER.replace("version='1.0' xmlns", "version='0.9' xmlns"), "unsupported-version"),
        (HEADER.replace("'1.0' xmlns", "'one' xmlns"), "unsupported-version"),
        (HEADER.replace(f"to='{DOMAIN}'", ""), "improper-addressing"),
        (HEADER.replace(DOMAIN, "elsewhere.test"), "host-unknown"),
        (HEADER.replace("jabber:client", "jabber:server"), "invalid-namespace"),
        (HEADER.replace("xmlns='jabber:client'", ""), "invalid-namespace"),
        (HEADER.replace("http://etherx.jabber.org/streams", "urn:other"), "invalid-namespace"),
        (HEADER.replace("?>", " encoding='utf-16'?>"), "unsupported-encoding"),
        ("<?xml version='1.0'?><!DOCTYPE x><stream:stream>", "restricted-xml"),
        ("GET / HTTP/1.1\r\n\r\n", "bad-format"),
    ],
)
def test_headers_that_are_refused(plane: Host, header: str, condition: str) -> None:
    client = Client(plane, plane.listen())
    client.send(header)
    answer = client.rest()
    assert f"<{condition} xmlns='{NS_STREAM_ERRORS}'/>" in answer
    assert answer.endswith("</stream:error></stream:stream>")
    assert "version='1.0'" in answer
    assert plane.event("closed")[2].startswith(condition)
