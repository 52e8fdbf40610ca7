"""The built web app, held in memory: hashed files that browsers may keep for ever, one page to ask for each time."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from moim.errors import NotFound

BUILT = Path(__file__).parent / "static"
"""Where ``npm run build`` in ``web/`` puts the app."""

_MAX_BYTES = 32 << 20
_WORTH_GZIP = 1024
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".webmanifest": "application/manifest+json"}
_TEXTUAL = ("text/", "image/svg+xml", "application/json", "application/manifest+json")


@dataclass(frozen=True, slots=True)
class _Asset:
    plain: bytes
    zipped: bytes | None
    media_type: str
    etag: str
    immutable: bool


class Assets:
    """The files below ``root``, read once. Missing files are an app that was not built: the page then says so."""

    def __init__(self, root: Path = BUILT) -> None:
        self._root = root
        self._assets: dict[str, _Asset] = {}
        self._load()

    @property
    def built(self) -> bool:
        """Whether there is an app to serve."""
        return "/index.html" in self._assets

    def _load(self) -> None:
        total = 0
        for path in sorted(self._root.rglob("*")):
            if not path.is_file():
                continue
            name = "/" + path.relative_to(self._root).as_posix()
            asset = _asset(name, path.read_bytes())
            total += len(asset.plain)
            if total > _MAX_BYTES:
                raise ValueError(f"the web app in {self._root} is larger than {_MAX_BYTES} bytes")
            self._assets[name] = asset

    def page(self, request: Request) -> Response:
        """The page of the app, whatever the path: its router takes it from there."""
        if not self.built:
            return PlainTextResponse(
                "The web app is not built. Run: make build\n웹 앱이 빌드되지 않았습니다. 실행: make build\n",
                status_code=503,
            )
        return self._respond(request, self._assets["/index.html"])

    def file(self, request: Request) -> Response:
        """A file of the app. Raises NotFound."""
        asset = self._assets.get(request.url.path)
        if asset is None or request.url.path == "/index.html":
            raise NotFound("there is no such page")
        return self._respond(request, asset)

    def _respond(self, request: Request, asset: _Asset) -> Response:
        headers = {
            "ETag": asset.etag,
            "Cache-Control": "public, max-age=31536000, immutable" if asset.immutable else "no-cache",
            "Vary": "Accept-Encoding",
        }
        if request.headers.get("if-none-match") == asset.etag:
            return Response(status_code=304, headers=headers)
        body = asset.plain
        if asset.zipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
            body = asset.zipped
            headers["Content-Encoding"] = "gzip"
        return Response(body, media_type=asset.media_type, headers=headers)


def _asset(name: str, content: bytes) -> _Asset:
    suffix = Path(name).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name, strict=True)[0] or "application/octet-stream"
    zipped = None
    if len(content) >= _WORTH_GZIP and media_type.startswith(_TEXTUAL):
        zipped = gzip.compress(content, compresslevel=9, mtime=0)
    # Weak, because one tag stands for both encodings (RFC 9110 section 8.8.1).
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _Asset(content, zipped, media_type, etag, name.startswith("/assets/"))
