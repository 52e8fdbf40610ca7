"""The admin API of the certificates, as the console mounts it."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette

from moim import trust
from moim.net import http_errors


async def test_list_and_renew(service: trust.Service, facts: list[str]) -> None:
    await service.check()
    app = Starlette(routes=trust.admin_routes(service), exception_handlers=dict(http_errors.HANDLERS))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        listed = (await client.get("/certificates")).json()["certificates"]
        assert [one["purpose"] for one in listed] == ["authority", "cup-xmpp", "tomcat"]
        before = listed[2]
        assert before["name"] == "tomcat-ECDSA"
        assert before["subject"] == "CN=inside.example.com"
        assert before["issuer"] == listed[0]["subject"]
        after = (await client.post("/certificates/tomcat/renew")).json()
        assert after["fingerprint"] != before["fingerprint"]
        assert after["names"] == before["names"]
        assert facts[-1] == "tomcat"
        assert (await client.post("/certificates/edge/renew")).status_code == 202
        assert facts[-1] == "edge"
        missing = await client.post("/certificates/nothing/renew")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "not-found"
