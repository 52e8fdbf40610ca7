"""Whose web page sends a request."""

import pytest

from moim.net.origins import same_host


@pytest.mark.parametrize(
    ("origin", "authority", "same"),
    [
        ("https://chat.example", "chat.example", True),
        ("http://CHAT.example:8080", "chat.example:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://evil.example", "chat.example", False),
        ("https://chat.example.evil.example", "chat.example", False),
        ("https://chat.example@evil.example", "chat.example", False),
        ("null", "chat.example", False),
        ("null", "", False),
        ("", "", False),
        ("http://[::1", "chat.example", False),
        ("http://[::1", "[::1", False),
        ("http://[1.2.3.4]", "[1.2.3.4]", False),
        ("http://]", "chat.example", False),
    ],
)
def test_same_host(origin: str, authority: str, same: bool) -> None:
    assert same_host(origin, authority) is same
