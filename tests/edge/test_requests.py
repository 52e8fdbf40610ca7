"""Request heads: whatever the bytes are, what is passed on reads the same for the next parser."""

from __future__ import annotations

import contextlib

import h11
from hypothesis import example, given
from hypothesis import strategies as st

from moim.edge.requests import MAX_HEAD, Rejected, check_bytes, passed_on, read

HOSTS = frozenset({"edge.moim.test"})

pieces = st.lists(
    st.sampled_from(
        [
            *(b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"Host: edge.moim.test\r\n", b"Host: x\r\n", b"\r\n"),
            *(b"Content-Length: 5\r\n", b"Content-Length:5", b"Transfer-Encoding: chunked\r\n", b" folded\r\n", b"\n"),
            *(
                b"Connection: upgrade, x-a\r\n",
                b"Upgrade: websocket\r\n",
                b"X-A: 1\r\n",
                b"\r",
                b"\0",
                b"\t",
                b":",
                b"a",
            ),
            *(
                b"x-forwarded-for: 1.2.3.4\r\n",
                b"X_Real_IP: 1\r\n",
                b"Via: 1.0 x\r\n",
                b"\xff",
                b"GET http://x/ HTTP/1.1",
            ),
        ]
    ),
    max_size=12,
).map(b"".join)


@given(pieces)
@example(b"GET / HTTP/1.1\r\nHost: edge.moim.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n")
def test_accepted_heads_have_one_reading(head: bytes) -> None:
    raw = head + b"\r\n\r\n"
    raw = raw[: raw.index(b"\r\n\r\n") + 4]
    with contextlib.suppress(Rejected, h11.RemoteProtocolError):
        check_bytes(raw)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        connection.receive_data(raw)
        request = connection.next_event()
        assert isinstance(request, h11.Request)
        accepted = read(request, HOSTS)
        assert raw.lower().count(b"\ncontent-length") + raw.lower().count(b"\ntransfer-encoding") <= 1
        assert accepted.host in HOSTS
        assert accepted.path.startswith("/")
        assert (
            not {b"x-forwarded-for", b"x_real_ip", b"connection", b"upgrade", b"host"} & dict(accepted.headers).keys()
        )
        again = h11.Connection(h11.CLIENT).send(
            h11.Request(
                method=accepted.method,
                target=accepted.target,
                headers=[(b"Host", accepted.host.encode()), *accepted.headers],
            )
        )
        assert again is not None
        assert again.count(b"\r\n\r\n") == 1
        check_bytes(again)


def test_fields_that_connection_names_end_here() -> None:
    headers = [(b"connection", b"close, X-Secret"), (b"x-secret", b"1"), (b"x-other", b"2"), (b"te", b"trailers")]
    assert passed_on(headers, from_outside=False) == [(b"x-other", b"2")]
