"""XEP-0363: slots, what may be put into them, how files are given out, quotas, the end of a file."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from moim import chat
from moim.chat.uploads import files as files_module
from moim.chat.uploads import serving
from moim.chat.uploads.slots import MAX_NAME, file_name
from moim.edge.rules import checked_path
from moim.model import Address, UserRemoved
from moim.net.http_server import HttpServer
from moim.proto.xmpp import Element, StanzaError, ns
from moim.proto.xmpp.dataform import read_form

UP = ns.HTTP_UPLOAD
SERVICE = "upload.chat.test"


def web(house: Any) -> httpx.AsyncClient:
    """The web origin of a house."""
    transport = httpx.ASGITransport(app=Starlette(routes=chat.public_routes(house.service, websocket_url="ws://x")))
    return httpx.AsyncClient(transport=transport, base_url="http://web.test")


async def ask(client: Any, name: str, size: int, kind: str = "") -> Any:
    """The answer to a request for a slot."""
    extra = f" content-type='{kind}'" if kind else ""
    return await client.request(f"<request xmlns='{UP}' filename='{name}' size='{size}'{extra}/>", to=SERVICE)


async def slot(client: Any, name: str, size: int, kind: str = "") -> tuple[str, str]:
    """The URLs to put and to get."""
    found = (await ask(client, name, size, kind)).find("slot", UP)
    assert found is not None
    put, got = found.find("put", UP), found.find("get", UP)
    assert put is not None
    assert got is not None
    return put.get("url") or "", got.get("url") or ""


def condition(answer: Element) -> str:
    error = answer.find("error")
    assert error is not None, answer.to_xml()
    return error.elements()[0].name


async def test_the_service_is_found_by_discovery(house: Any) -> None:
    alice = await house.online("alice")
    items = (await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="chat.test")).elements()[0]
    assert SERVICE in [item.get("jid") for item in items.elements()]
    info = (await alice.request(f"<query xmlns='{ns.DISCO_INFO}'/>", to=SERVICE)).elements()[0]
    identity = info.find("identity", ns.DISCO_INFO)
    assert (identity.get("category"), identity.get("type")) == ("store", "file")
    assert UP in [child.get("var") for child in info.elements()]
    assert read_form(info.find("x", ns.DATA_FORMS)) == (UP, {"max-file-size": (str(100 << 20),)})
    assert (await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to=SERVICE)).get("type") == "result"
    assert (await alice.request(f"<ping xmlns='{ns.PING}'/>", to=SERVICE)).get("type") == "result"
    assert condition(await alice.request("<other xmlns='x'/>", to=SERVICE)) == "service-unavailable"
    assert condition(await alice.request(f"<ping xmlns='{ns.PING}'/>", to=f"a@{SERVICE}")) == "item-not-found"
    query = f"<query xmlns='{ns.DISCO_INFO}' node='x'/>"
    assert condition(await alice.request(query, to=SERVICE)) == "item-not-found"


async def test_a_picture_there_and_back(house: Any) -> None:
    alice = await house.online("alice")
    picture = b"\x89PNG\r\n\x1a\n" + os.urandom(200_000)
    async with web(house) as http:
        put, url = await slot(alice, "한글 사진.png", len(picture), "image/png")
        assert url.startswith("http://web.test/upload/")
        assert (await http.get(url)).status_code == 404
        answer = await http.put(put, content=picture, headers={"Content-Type": "image/png"})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, "*")
        got = await http.get(url)
        assert got.content == picture
        assert got.headers["content-type"] == "image/png"
        assert got.headers["content-disposition"].startswith("inline; ")
        assert "%ED%95%9C%EA%B8%80" in got.headers["content-disposition"]
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]
        assert "immutable" in got.headers["cache-control"]
        assert got.headers["access-control-allow-origin"] == "*"
        assert (await http.get(url, headers={"If-None-Match": got.headers["etag"]})).status_code == 304
        part = await http.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, picture[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(picture)}"
        assert (await http.get(url, headers={"Range": f"bytes={len(picture)}-"})).status_code == 416
        head = await http.head(url)
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(picture)), b"")


async def test_a_slot_is_used_once(house: Any) -> None:
    alice = await house.online("alice")
    async with web(house) as http:
        put, url = await slot(alice, "a.txt", 5, "text/plain")
        assert (await http.put(put, content=b"hello")).status_code == 201
        again = await http.put(put, content=b"evil!")
        assert again.status_code == 409
        assert again.headers["connection"] == "close"
        assert (await http.get(url)).text == "hello"


async def test_who_knows_only_where_to_read_cannot_write(house: Any) -> None:
    alice = await house.online("alice")
    async with web(house) as http:
        put, url = await slot(alice, "a.txt", 5)
        other, _ = await slot(alice, "a.txt", 5)
        for wrong in (url, f"{url}?token=", f"{url}?token=%ff", f"{url}?token={other.partition('=')[2]}"):
            assert (await http.put(wrong, content=b"hello")).status_code == 403
        assert (await http.put(put.replace("a.txt", "b.txt"), content=b"hello")).status_code == 403
        assert (await http.put(put, content=b"hello")).status_code == 201


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"toolong", 413),
        ({"Content-Type": "text/plain"}, b"shor", 400),
        ({"Content-Type": "text/html"}, b"hello", 415),
        ({"Content-Type": "Text/Plain; charset=utf-8"}, b"hello", 201),
        ({}, b"hello", 201),
    ],
)
async def test_what_is_put_is_what_was_announced(house: Any, headers: dict[str, str], body: bytes, status: int) -> None:
    alice = await house.online("alice")
    async with web(house) as http:
        put, url = await slot(alice, "a.txt", 5, "text/plain")

        async def pieces() -> AsyncIterator[bytes]:  # without Content-Length
            yield body[:2]
            yield body[2:]

        for content in (body, pieces()) if status != 201 else (pieces(),):
            assert (await http.put(put, content=content, headers=headers)).status_code == status
            assert (await http.get(url)).status_code == (200 if status == 201 else 404)
        if status != 201:  # a slot that was not filled can be filled yet
            assert (await http.put(put, content=b"hello")).status_code == 201
    folder = house.site.node_dir("inside") / "uploads" / "incoming"
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("x.html", "text/html", "application/octet-stream"),
        ("x.svg", "image/svg+xml", "application/octet-stream"),
        ("x.js", "text/javascript", "application/octet-stream"),
        ("x.pdf", "application/pdf", "application/pdf"),
        ("x", "", "application/octet-stream"),
    ],
)
async def test_what_a_browser_might_run_is_only_bytes(house: Any, name: str, kind: str, told: str) -> None:
    alice = await house.online("alice")
    async with web(house) as http:
        put, url = await slot(alice, name, 3, kind)
        await http.put(put, content=b"<a>", headers={"Content-Type": kind} if kind else {})
        got = await http.get(url)
        assert got.headers["content-type"] == told
        assert got.headers["content-disposition"].startswith("attachment; ")


async def test_a_type_that_only_the_put_names(house: Any) -> None:
    alice = await house.online("alice")
    async with web(house) as http:
        put, url = await slot(alice, "x.png", 3)
        await http.put(put, content=b"png", headers={"Content-Type": "image/png"})
        assert (await http.get(url)).headers["content-type"] == "image/png"
        assert (await http.put(put, content=b"png")).status_code == 409


async def test_web_clients_of_other_origins_may_ask(house: Any) -> None:
    async with web(house) as http:
        answer = await http.options(f"/upload/{'0' * 32}/x", headers={"Origin": "https://web.example"})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "PUT" in answer.headers["access-control-allow-methods"]
        assert (await http.get(f"/upload/{'0' * 32}/x")).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["../moim.db", "..%2f..%2fmoim.db", "00/..", "%00", "a" * 400, f"{'0' * 32}/%2e%2e"])
async def test_paths_lead_nowhere_else(house: Any, path: str) -> None:
    async with web(house) as http:
        assert (await http.get(f"/upload/{path}/x")).status_code == 404
        assert (await http.get(f"/upload/{path}")).status_code == 404


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("filename='a' size='0'", "bad-request"),
        ("filename='a' size='-1'", "bad-request"),
        ("filename='a' size='٣'", "bad-request"),
        ("filename='a' size='1e3'", "bad-request"),
        ("filename='a'", "bad-request"),
        ("filename='' size='1'", "bad-request"),
        ("filename='..' size='1'", "bad-request"),
        ("size='1'", "bad-request"),
        ("filename='a' size='1' content-type='x'", "bad-request"),
        ("filename='a' size='1' content-type='text/html&#10;X: y'", "bad-request"),
        (f"filename='a' size='{'9' * 15}'", "not-acceptable"),
        (f"filename='a' size='{'9' * 400}'", "bad-request"),
    ],
)
async def test_requests_that_are_refused(house: Any, asked: str, expected: str) -> None:
    alice = await house.online("alice")
    answer = await alice.request(f"<request xmlns='{UP}' {asked}/>", to=SERVICE)
    assert condition(answer) == expected
    if expected == "not-acceptable":
        large = answer.find("error").find("file-too-large", UP)
        assert large.find("max-file-size", UP).text == str(100 << 20)


async def test_people_of_other_domains_get_no_slot(house: Any) -> None:
    sent: list[Any] = []
    uploads = house.service.uploads
    uploads._deliver = sent.extend
    for sender in ("eve@evil.test/x", "chat.test", "rooms.chat.test/x"):
        text = (
            f"<iq xmlns='jabber:client' type='get' id='1' from='{sender}' to='{SERVICE}'>"
            f"<request xmlns='{UP}' filename='a' size='1'/></iq>"
        )
        uploads.send(Element.parse(text))
    await asyncio.gather(*uploads._tasks)
    assert [condition(stanza) for _, stanza in sent] == ["forbidden"] * 3


@pytest.mark.engines
async def test_quotas_of_a_person(new_house: Any) -> None:
    house = await new_house(uploads_user_bytes=100, uploads_daily_bytes=150, default_contacts=False)
    alice, bob = await house.online("alice"), await house.online("bob")
    await slot(alice, "a", 60)  # also what is only granted counts
    assert condition(await ask(alice, "b", 50)) == "resource-constraint"
    await slot(bob, "b", 50)
    await slot(alice, "b", 40)
    files = house.service.uploads.files
    later = files._clock() + 3600
    files._clock = lambda: later
    answer = await ask(alice, "c", 60)  # the slots are over, the day is not
    assert condition(answer) == "resource-constraint"
    assert answer.find("error").find("retry", UP).get("stamp").startswith("20")
    await slot(alice, "c", 50)


@pytest.mark.engines
async def test_quotas_of_the_site(new_house: Any) -> None:
    house = await new_house(uploads_total_bytes=100, default_contacts=False)
    alice, bob = await house.online("alice"), await house.online("bob")
    await slot(alice, "a", 60)
    assert condition(await ask(bob, "b", 50)) == "resource-constraint"
    await slot(bob, "b", 40)


async def test_the_disk_keeps_some_room(new_house: Any) -> None:
    house = await new_house(uploads_free_bytes=1 << 60, default_contacts=False)
    alice = await house.online("alice")
    assert condition(await ask(alice, "a", 1)) == "resource-constraint"


async def test_slots_are_rationed(new_house: Any) -> None:
    house = await new_house(uploads_per_minute=3, default_contacts=False)
    alice = await house.online("alice")
    for _ in range(3):
        await slot(alice, "a", 1)
    answer = await ask(alice, "a", 1)
    assert condition(answer) == "resource-constraint"
    assert answer.find("error").find("retry", UP) is not None


async def test_a_full_disk_leaves_nothing_behind(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = await house.online("alice")

    def full(_file: Any, _rest: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with web(house) as http:
        put, url = await slot(alice, "a", 5)
        with monkeypatch.context() as patch:
            patch.setattr(files_module.Files, "_finish", staticmethod(full))
            assert (await http.put(put, content=b"hello")).status_code == 507
        assert not list((house.site.node_dir("inside") / "uploads" / "incoming").iterdir())
        assert (await http.put(put, content=b"hello")).status_code == 201
        house.service.uploads.files.path(urlsplit(url).path.split("/")[2]).unlink()
        assert (await http.get(url)).status_code == 404


async def test_an_upload_that_stalls_or_breaks_off(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_IDLE_S", 0.05)
    alice = await house.online("alice")
    server = HttpServer(
        Starlette(routes=chat.public_routes(house.service, websocket_url="ws://x")), address=house.address
    )
    await server.start()
    try:
        put, _ = await slot(alice, "a", 10)
        target = urlsplit(put)
        head = f"PUT {target.path}?{target.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello"
        reader, writer = await asyncio.open_connection(server.address, server.port)
        writer.write(head.encode())
        # The same slot at the same time: one of the two is refused.
        status = (await asyncio.wait_for(reader.read(), 20)).split(b" ")[1]
        assert status == b"408"
        writer.close()
        _, writer = await asyncio.open_connection(server.address, server.port)
        writer.write(head.encode())
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        async with httpx.AsyncClient() as http:
            url = f"http://{server.address}:{server.port}{target.path}?{target.query}"
            for _ in range(100):
                answer = await http.put(url, content=b"0123456789")
                if answer.status_code != 409:  # the broken one may not be noticed yet
                    break
            assert answer.status_code == 201
    finally:
        await server.stop()


async def test_two_at_once_into_one_slot(house: Any) -> None:
    alice = await house.online("alice")
    put, _ = await slot(alice, "a", 4)
    files, gate = house.service.uploads.files, asyncio.Event()
    upload = await files.find(urlsplit(put).path.split("/")[2])

    async def slowly() -> AsyncIterator[bytes]:
        yield b"ab"
        await gate.wait()
        yield b"cd"

    first = asyncio.create_task(files.receive(upload, slowly(), ""))
    await asyncio.sleep(0)
    async with web(house) as http:
        assert (await http.put(put, content=b"evil")).status_code == 409
        gate.set()
        await first
        assert (await http.get(put.partition("?")[0])).content == b"abcd"


async def test_files_end(new_house: Any) -> None:
    house = await new_house(uploads_days=2, default_contacts=False)
    alice = await house.online("alice")
    files = house.service.uploads.files
    async with web(house) as http:
        put, url = await slot(alice, "a", 1)
        unused, _ = await slot(alice, "a", 1)
        await http.put(put, content=b"x")
        identifier = urlsplit(url).path.split("/")[2]
        assert files.path(identifier).exists()
        now = files._clock()
        files._clock = lambda: now + 86400
        assert await files.sweep() == 1  # the slot that nobody used
        assert (await http.put(unused, content=b"x")).status_code == 403
        assert (await http.get(url)).status_code == 200
        files._clock = lambda: now + 3 * 86400
        assert (await http.get(url)).status_code == 404
        assert await files.sweep() == 1
        assert not files.path(identifier).exists()


async def test_files_go_with_their_account(house: Any) -> None:
    alice, bob = await house.online("alice"), await house.online("bob")
    async with web(house) as http:
        links = []
        for client in (alice, bob):
            put, url = await slot(client, "a", 1)
            await http.put(put, content=b"x")
            links.append(url)
        await house.bus.publish(UserRemoved(Address("alice", "chat.test")))
        assert [(await http.get(url)).status_code for url in links] == [404, 200]


async def test_what_a_crash_left_is_swept(house: Any) -> None:
    alice = await house.online("alice")
    files = house.service.uploads.files
    async with web(house) as http:
        put, url = await slot(alice, "a", 1)
        await http.put(put, content=b"x")
        stray = files.path("ab" * 16)
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"?")
        (stray.parents[1] / "incoming" / "cd.x").write_bytes(b"?")
        assert await files.sweep_strays() == 0  # they are young: perhaps somebody is just putting them there
        now = files._clock()
        files._clock = lambda: now + 2 * 3600
        assert await files.sweep_strays() == 2
        assert (await http.get(url)).status_code == 200


async def test_a_service_that_is_off_or_stopped(new_house: Any) -> None:
    house = await new_house(uploads=False, default_contacts=False)
    alice = await house.online("alice")
    items = (await alice.request(f"<query xmlns='{ns.DISCO_ITEMS}'/>", to="chat.test")).elements()[0]
    assert SERVICE not in [item.get("jid") for item in items.elements()]
    async with web(house) as http:
        assert (await http.get(f"/upload/{'0' * 32}/x")).status_code == 503


@given(st.text(max_size=300))
def test_names_are_safe_everywhere(text: str) -> None:
    from urllib.parse import quote

    try:
        name = file_name(text)
    except StanzaError:
        return
    assert 0 < len(name.encode()) <= MAX_NAME
    assert name not in (".", "..")
    assert checked_path(f"/upload/x/{quote(name)}")
    assert file_name(name) == name


def test_long_names_keep_their_ending() -> None:
    name = file_name("길" * 300 + ".jpeg")
    assert name.endswith("길.jpeg")
    assert file_name("C:\\fake/path\u202egnp.exe") == "C__fake_path_gnp.exe"
