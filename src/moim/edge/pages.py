"""The edge's own answers: one sentence, as text, or as a small page for browsers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from http import HTTPStatus

_KOREAN = {
    404: "여기에는 아무것도 없습니다.",
    429: "요청이 너무 많습니다. 잠시 뒤에 다시 시도해 주세요.",
    502: "내부 서버가 올바르게 응답하지 않았습니다. 잠시 뒤에 다시 시도해 주세요.",
    503: "내부 서버와 연결되어 있지 않습니다. 잠시 뒤에 다시 시도해 주세요.",
    504: "내부 서버가 제시간에 응답하지 않았습니다. 잠시 뒤에 다시 시도해 주세요.",
}
_PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;\
padding:0 1rem;color:#222;background:#fff}}\
@media(prefers-color-scheme:dark){{body{{color:#eee;background:#181818}}}}</style></head>
<body><h1>{title}</h1><p>{sentence}</p></body></html>
"""


def page(
    status: int, sentence: str, *, accept: bytes, language: bytes, extra: Sequence[tuple[str, str]] = ()
) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of an answer with ``status``. Browsers (``Accept`` with HTML) get a page in their language."""
    phrase = HTTPStatus(status).phrase
    headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), *extra]
    if b"text/html" in accept.lower():
        korean = language.strip().lower().startswith(b"ko") and status in _KOREAN
        text = _PAGE.format(
            language="ko" if korean else "en",
            title=html.escape(phrase),
            sentence=html.escape(_KOREAN[status] if korean else sentence[:1].upper() + sentence[1:] + "."),
        )
        headers += [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY)]
    else:
        text = sentence + "\n"
        headers.append(("Content-Type", "text/plain; charset=utf-8"))
    body = text.encode()
    headers.append(("Content-Length", str(len(body))))
    return headers, body


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
