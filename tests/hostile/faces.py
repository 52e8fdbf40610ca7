"""What faces people over HTTP (uploads, the ways to connect, the web app and its sign-in), and bent requests to it.

The application is called without a socket: what a request's head may look like is the HTTP library's business.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote

from hostile.foreign import bent
from hostile.grammar import JIDS, TEXTS
from hostile.world import World
from moim.chat.routes import public_routes
from moim.model import Address
from moim.portal.api import Api
from moim.portal.app import web_application
from moim.portal.assets import Assets
from moim.portal.caller import Hosts
from moim.portal.sessions import Sessions

_ALLOWED = (503, 507)
_SIZE = 12


@dataclass(frozen=True)
class _Person:
    address: Address
    name: str


class _People:
    """As the directory has them: what it hashes and asks its tables for has to be text."""

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        return (address.encode(), password.encode()) == (b"alice@chat.test", b"wonder land")

    async def profile(self, address: Address) -> _Person | None:
        return _Person(address, "Alice")


async def _discover(address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]:
    yield {"kind": "input", "what": str(address), "result": "ok"}
    yield {"location": "inside", "steps": [], "elapsed_ms": 1.0}


@dataclass
class _Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""


class Faces(World):
    """A world whose service faces people over HTTP; a step is one strange request."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        built = self.root / "built"
        (built / "assets").mkdir(parents=True)
        (built / "index.html").write_text("<!doctype html>")
        (built / "assets" / "x.js").write_text("1;" * 600)
        place = "ws://127.0.0.1:1/xmpp-websocket"
        api = Api(
            domains=("chat.test",), users=_People(), discover=_discover, websocket_url=lambda: place, files_origin=str,
            sessions=Sessions(lifetime=60, limit=100, per_user=10), discoveries_per_minute=10**6, discovery_seconds=5,
        )  # fmt: skip
        routes = public_routes(self.service, websocket_url=place)
        hosts = Hosts(["chat.test"])
        self._app = web_application(api=api, assets=Assets(built), hosts=hosts, extra_routes=routes, secure=False)
        self._slots: list[str] = []
        return self

    async def step(self) -> None:
        """One request. Raises AssertionError with what must not happen."""
        uploads = self.service.uploads
        assert uploads is not None
        if len(self._slots) < 3 or self.rng.random() < 0.1:
            kind = self.rng.choice(("", "text/plain", "image/png", "text/html"))
            upload = await uploads.files.reserve(
                "alice@chat.test", self.rng.choice(("a.txt", "모 임.png")), _SIZE, kind
            )
            self._slots = [*self._slots[-5:], f"/upload/{upload.id}/{upload.name}?token={uploads.token(upload)}"]
        request = self._bent(self._request())
        self.last = f"a request {request}"
        status = await self._ask(request)
        if status >= 500 and status not in _ALLOWED:
            self.findings.all.append(f"answered with {status}")
        if drafts := await asyncio.to_thread(lambda: list(uploads.files._incoming.iterdir())):
            self.findings.all.append(f"left behind: {drafts}")
        self._judge()

    # --- what is asked ------------------------------------------------------------------------------------------------

    def _request(self) -> _Request:
        rng = self.rng
        slot, form = rng.choice(self._slots), [("content-type", "application/json")]
        login = {"address": "alice@chat.test", "password": "wonder land"}
        made = rng.choice((
            _Request("PUT", slot, [("content-length", str(_SIZE)), ("content-type", "text/plain")], b"x" * _SIZE),
            _Request("PUT", slot, [("content-length", str(_SIZE))], b"x" * _SIZE),
            _Request("GET", slot, [("range", "bytes=0-3,5-"), ("if-range", '"x"')]),
            _Request("GET", slot.partition("?")[0], [("range", "bytes=-4"), ("if-none-match", 'W/"x", "y"')]),
            _Request("HEAD", slot, []), _Request("OPTIONS", slot, [("origin", "http://x.test")]),
            _Request("POST", "/http-bind", [("origin", "null"), ("content-type", "text/xml")], b"<body/>"),
            _Request("GET", "/.well-known/host-meta", []), _Request("GET", "/.well-known/host-meta.json", []),
            _Request("POST", "/api/login", form, json.dumps(bent(login, rng)).encode()),
            _Request("POST", "/api/discover", form, json.dumps(bent(login, rng)).encode()),
            _Request("POST", "/api/logout", [*form, ("cookie", "moim_session=x")], b"{}"),
            _Request("GET", "/api/session", [("cookie", "moim_session=x; a=b")]), _Request("GET", "/api/site", []),
            _Request("GET", "/meeting/123", []), _Request("GET", "/assets/x.js", [("accept-encoding", "gzip")]),
        ))  # fmt: skip
        return _Request(made.method, made.target, [("host", "chat.test:8080"), *made.headers], made.body)

    def _bent(self, request: _Request) -> _Request:
        rng = self.rng
        method, target, headers, body = request.method, request.target, list(request.headers), request.body
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            match rng.randrange(6):
                case 0:
                    method = rng.choice(("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "put"))
                case 1:
                    at = rng.randrange(1, len(target) + 1)
                    piece = rng.choice(("%2e%2e/", "..", "/", "%00", "%ff", "\\", "?", "&token=", "%0d%0aX: y", *TEXTS))
                    target = target[:at] + piece + target[at + rng.randrange(3) :]
                case 2:
                    at = rng.randrange(len(headers))
                    headers[at] = (headers[at][0], rng.choice((*TEXTS, *JIDS, f"{headers[at][1]}{rng.choice(TEXTS)}")))
                case 3:
                    headers.append((rng.choice(_FIELDS), rng.choice((*TEXTS, *JIDS, "bytes=9-1", "bytes=0-," * 50))))
                case 4:
                    at = rng.randrange(len(body) + 1)
                    junk = rng.choice((b"", b"{", b'"\\ud800"', b"\xff", b"x" * 40, b"<", b"[" * 3000))
                    body = body[:at] + junk + body[at + rng.randrange(3) :]
                case _:
                    headers.pop(rng.randrange(len(headers)))
                    headers = headers or [("host", "127.0.0.1")]
        return _Request(method, target, headers, body)

    async def _ask(self, request: _Request) -> int:
        """What an HTTP server makes of it: the head's characters are bytes, the path is what it stands for."""
        path, _, query = request.target.partition("?")
        written = [
            (name.encode(), value.translate(_NO_LINES).encode("utf-8", "replace")) for name, value in request.headers
        ]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method,
            "scheme": "http", "path": unquote(path) or "/", "raw_path": path.encode(errors="replace"), "root_path": "",
            "query_string": query.encode(errors="replace"), "headers": written, "client": ("192.0.2.1", 4000),
            "server": ("127.0.0.1", 8080), "state": {"outside": self.rng.random() < 0.5},
        }  # fmt: skip
        cut = sorted(self.rng.randrange(len(request.body) + 1) for _ in range(self.rng.choice((0, 0, 1, 3))))
        pieces = [request.body[a:b] for a, b in zip([0, *cut], [*cut, len(request.body)], strict=True)]
        coming: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        coming[-1]["more_body"] = False
        if self.rng.random() < 0.1:
            coming = [*coming[: self.rng.randrange(len(coming))]]
        status = 0

        async def receive() -> dict[str, Any]:
            return coming.pop(0) if coming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if any(set(b"\r\n\0") & {*name, *value} for name, value in message["headers"]):
                    self.findings.all.append(f"a header that is two: {message['headers']}")

        try:
            await asyncio.wait_for(self._app(scope, receive, send), 20)
        except Exception as error:
            self.findings.all.append(f"the application raised {error!r}")
        return status


_NO_LINES = dict.fromkeys(map(ord, "\r\n\0"))
_FIELDS = (
    "range", "if-range", "if-none-match", "if-modified-since", "host", "origin", "cookie", "content-length",
    "content-type", "x-forwarded-for", "accept-encoding", "transfer-encoding", "expect", "content-range",
)  # fmt: skip
