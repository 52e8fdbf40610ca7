"""The security headers of every answer: what the browser may load, connect to and allow, and nothing else.

No inline script or style, no plug-ins, no frames, no other origin but the two WebSockets (CSP Level 3).
"""

from __future__ import annotations

from collections.abc import Iterable

_FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": (
        "camera=(self), microphone=(self), display-capture=(self), fullscreen=(self), autoplay=(self), "
        "clipboard-write=(self), geolocation=(), payment=(), usb=(), serial=(), midi=(), bluetooth=()"
    ),
}
_HSTS = "max-age=31536000"


def security_headers(connect: Iterable[str], *, hsts: bool) -> dict[str, str]:
    """Headers for an answer. ``connect`` are WebSocket origins besides our own origin.

    ``hsts`` only for host names over HTTPS: on loopback it would break other programs' plain HTTP on the same name.
    """
    sources = " ".join(("'self'", *dict.fromkeys(connect)))
    content = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; "
        f"media-src 'self' blob: mediastream:; connect-src {sources}; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": content, **_FIXED}
    if hsts:
        headers["Strict-Transport-Security"] = _HSTS
    return headers
