"""XEP-0156: what host-meta says to whoever asks, inside and through the edge, on a running site."""

from __future__ import annotations

import ssl
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from moim.chat.alternatives import alternative_routes
from running_site import RunningSite

XRD = "{http://docs.oasis-open.org/ns/xri/xrd-1.0}"
BOSH, WEBSOCKET = "urn:xmpp:alt-connections:xbosh", "urn:xmpp:alt-connections:websocket"


@pytest.mark.parametrize("bosh", [True, False])
async def test_both_forms_say_the_same(bosh: bool) -> None:
    app = Starlette(routes=alternative_routes(websocket_url="wss://in.test:5281/ws", bosh=lambda: bosh))
    caller = SimpleNamespace(outside=False, secure=True, authority="chat.test")

    async def framed(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"caller": caller}
        await app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=framed), base_url="http://x") as http:
        xml = await http.get("/.well-known/host-meta")
        assert xml.headers["content-type"].startswith("application/xrd+xml")
        links = [link.attrib for link in ET.fromstring(xml.content).iter(f"{XRD}Link")]
        document = await http.get("/.well-known/host-meta.json")
        assert document.headers["access-control-allow-origin"] == "*"
        assert document.json() == {"links": links}
        expected = {WEBSOCKET: "wss://in.test:5281/ws"} | ({BOSH: "https://chat.test/http-bind"} if bosh else {})
        assert {link["rel"]: link["href"] for link in links} == expected


def trusting(site: RunningSite) -> Any:
    """A client that knows the site's authority, and names the edge by its address."""
    context = ssl.create_default_context(cafile=str(site.ca))
    context.check_hostname = False
    return httpx.Client(verify=context, timeout=20)


@pytest.mark.parametrize("side", ["web", "edge-web"])
def test_what_a_running_site_says_is_there(site: RunningSite, side: str) -> None:
    host, port = site.place(side)
    base = f"{'http' if side == 'web' else 'https'}://{host}:{port}"
    with trusting(site) as http:
        links = {x["rel"]: x["href"] for x in http.get(f"{base}/.well-known/host-meta.json").json()["links"]}
        assert links[BOSH] == f"{base}/http-bind"
        answer = http.post(links[BOSH], content=b"?")
        assert 'condition="bad-request"' in answer.text.replace("'", '"')
        scheme, at, place = ("ws", *site.place("xmpp-websocket")) if side == "web" else ("wss", host, port)
        assert links[WEBSOCKET] == f"{scheme}://{at}:{place}/xmpp-websocket"


@pytest.mark.parametrize("side", ["web", "edge-web"])
def test_preflight_and_unknown_files_on_a_running_site(site: RunningSite, side: str) -> None:
    host, port = site.place(side)
    base = f"{'http' if side == 'web' else 'https'}://{host}:{port}"
    with trusting(site) as http:
        asked = http.options(f"{base}/upload/{'0' * 32}/a.png", headers={"Origin": "https://other.example"})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
        missing = http.get(f"{base}/upload/{'0' * 32}/a.png")
        assert missing.status_code == 404
        assert "sandbox" in missing.headers["content-security-policy"]
        assert missing.headers["cross-origin-resource-policy"] == "cross-origin"
