"""A whole site against programs nobody here wrote: dig and kdig, openssl, slixmpp inside and through the edge."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess

import httpx
import pytest

from running_site import RunningSite
from slixmpp_client import Client

pytestmark = pytest.mark.interop


def dig(tool: str, where: tuple[str, int], *words: str) -> str:
    done = subprocess.run(
        [tool, f"@{where[0]}", "-p", str(where[1]), "+short", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("tool", ["dig", "kdig"])
def test_both_views(site: RunningSite, tool: str) -> None:
    inside, outside = site.place("dns-inside"), site.place("dns-outside")
    uds = site.place("uds")
    edge = site.place("edge-https")
    assert dig(tool, inside, "_cisco-uds._tcp.moim.test", "SRV").split()[2] == str(uds[1])
    assert dig(tool, inside, "_collab-edge._tls.moim.test", "SRV") == ""
    assert dig(tool, outside, "_cisco-uds._tcp.moim.test", "SRV") == ""
    assert dig(tool, outside, "_collab-edge._tls.moim.test", "SRV").split()[2:] == [str(edge[1]), "edge.moim.test."]
    assert dig(tool, outside, "+tcp", "edge.moim.test", "A").strip() == edge[0]
    assert dig(tool, inside, "inside.moim.test", "A").strip() == uds[0]


@pytest.mark.parametrize(
    ("service", "options", "name"),
    [
        ("uds", [], "inside.moim.test"),
        ("edge-https", [], "edge.moim.test"),
        ("xmpp-client-tls", ["-alpn", "xmpp-client"], "moim.test"),
        ("xmpp-client", ["-starttls", "xmpp", "-xmpphost", "moim.test"], "moim.test"),
        ("edge-xmpp", ["-starttls", "xmpp", "-xmpphost", "moim.test"], "moim.test"),
    ],
)
def test_openssl_verifies_every_certificate(site: RunningSite, service: str, options: list[str], name: str) -> None:
    address, port = site.place(service)
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{address}:{port}", "-CAfile", str(site.ca), "-verify_return_error",
         "-verify_hostname", name, "-servername", name, *options],
        input="", capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in done.stdout, done.stdout[-800:] + done.stderr[-800:]
    assert "TLSv1.3" in done.stdout


async def test_slixmpp_inside_and_through_the_edge(site: RunningSite) -> None:
    alice, bob = Client(site, "alice@moim.test"), Client(site, "bob@moim.test")
    await alice.sign_in(site, "xmpp-client")
    await bob.sign_in(site, "edge-xmpp")
    alice.send_message("bob@moim.test", "안녕, 밖에서도 보여? 👋🏽")
    assert await bob.message() == ("alice@moim.test", "안녕, 밖에서도 보여? 👋🏽")
    bob.send_message(alice.boundjid.full, "응 🎉 <b>&amp;</b>")
    assert await alice.message() == ("bob@moim.test", "응 🎉 <b>&amp;</b>")
    assert await alice.plugin["xep_0199"].ping("moim.test", timeout=10) is not None
    await asyncio.gather(alice.disconnect(), bob.disconnect())


async def test_slixmpp_over_direct_tls_and_offline(site: RunningSite) -> None:
    carol = Client(site, "carol@moim.test")
    await carol.sign_in(site, "xmpp-client-tls")
    await carol.disconnect()
    alice = Client(site, "alice@moim.test")
    await alice.sign_in(site, "xmpp-client")
    for number in range(3):
        alice.send_message("carol@moim.test", f"나중에 {number}")
    await alice.plugin["xep_0199"].ping("moim.test", timeout=10)
    again = Client(site, "carol@moim.test")
    await again.sign_in(site, "edge-xmpp")
    assert [await again.message() for _ in range(3)] == [("alice@moim.test", f"나중에 {n}") for n in range(3)]
    await asyncio.gather(alice.disconnect(), again.disconnect())


async def test_a_wrong_password_is_refused_through_the_edge_too(site: RunningSite) -> None:
    mallory = Client(site, "alice@moim.test", password="wrong")
    address, port = site.place("edge-xmpp")
    mallory.connect(address, port)
    await asyncio.wait_for(mallory.failed.wait(), 20)
    await mallory.disconnect()


def test_the_edge_passes_only_what_the_rules_name(site: RunningSite) -> None:
    address, port = site.place("edge-https")
    context = ssl.create_default_context(cafile=str(site.ca))
    uds_host, uds_port = site.place("uds")
    alice = (["alice", "moim.test"][0], site.passwords["alice@moim.test"])

    def path(host: str, number: int) -> str:
        return base64.b64encode(f"moim.test/https/{host}/{number}".encode()).decode().rstrip("=")

    with httpx.Client(
        verify=context, base_url=f"https://edge.moim.test:{port}", transport=_to(address, context)
    ) as edge:
        config = base64.b64encode(b"moim.test").decode().rstrip("=")
        query = "?service_name=_cisco-uds&service_name=_cuplogin"
        assert edge.get(f"/{config}/get_edge_config{query}").status_code == 401
        answer = edge.get(f"/{config}/get_edge_config{query}", auth=alice)
        assert answer.status_code == 200
        assert "_cisco-uds" in answer.text
        own = edge.get(f"/{path('inside.moim.test', uds_port)}/cucm-uds/user/alice", auth=alice)
        assert own.status_code == 200
        for forbidden in (
            path("inside.moim.test", site.place("admin")[1]) + "/api/v1/users",
            path(uds_host, 22) + "/",
            path("localhost", uds_port) + "/cucm-uds/version",
            path("inside.moim.test", uds_port) + "/../admin",
        ):
            assert edge.get(f"/{forbidden}", auth=alice).status_code in {400, 403, 404}


def _to(address: str, context: ssl.SSLContext) -> httpx.HTTPTransport:
    """Connects to ``address`` whatever the URL's host is, as a resolver would make it."""

    class Fixed(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.extensions["sni_hostname"] = request.url.host
            request.url = request.url.copy_with(host=address)
            return super().handle_request(request)

    return Fixed(verify=context)


@pytest.mark.parametrize("view", ["inside", "outside"])
def test_discover_by_command(site: RunningSite, view: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("p") / "password"
    secret.write_text(site.passwords["alice@moim.test"])
    dns = site.status()["dns"][view]
    done = site.moim(
        "discover", "alice@moim.test", "--dns", dns, "--ca", str(site.ca), "--password-file", str(secret), "--json"
    )
    found = json.loads(done.stdout)
    assert found["address"] == "alice@moim.test"
    assert found["domain"] == "moim.test"
    assert found["location"] == view
    assert found["product_mode"]
    assert found["authenticator"]
    assert found["signed_in"] is True
    assert found["steps"]
    wrong = tmp_path_factory.mktemp("p") / "password"
    wrong.write_text("not this one")
    refused = site.moim(
        "discover", "alice@moim.test", "--dns", dns, "--ca", str(site.ca), "--password-file", str(wrong), check=False
    )
    assert refused.returncode == 4
    assert "Traceback" not in refused.stderr + refused.stdout
