"""What archives call their messages: the same as another implementation, and nothing that somebody made up is read."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from moim._native import ArchiveIds
from moim.errors import UsageError

KEY = bytes(range(16))
IDS = ArchiveIds(KEY)
NUMBERS = st.integers(0, (1 << 63) - 1)
ADDRESSES = st.sampled_from(("a@x", "b@x", "room@rooms.x", "홍길동@회사.한국")) | st.text(max_size=40)


def fnv(text: str) -> int:
    """FNV-1a, 64 bits."""
    found = 0xCBF29CE484222325
    for byte in text.encode():
        found = (found ^ byte) * 0x100000001B3 & ((1 << 64) - 1)
    return found


def written(owner: str, number: int) -> str:
    block = number.to_bytes(8, "big") + fnv(owner).to_bytes(8, "big")
    cipher = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    return base64.urlsafe_b64encode(cipher.update(block) + cipher.finalize()).decode().rstrip("=")


@given(ADDRESSES, NUMBERS)
def test_as_another_implementation_has_it(owner: str, number: int) -> None:
    text = IDS.write(owner, number)
    assert text == written(owner, number)
    assert IDS.read(owner, text) == number


@given(ADDRESSES, ADDRESSES, NUMBERS)
def test_an_archive_reads_its_own_alone(owner: str, other: str, number: int) -> None:
    text = IDS.write(owner, number)
    assert IDS.read(other, text) == (number if other == owner else None)
    assert ArchiveIds(bytes(16)).read(owner, text) is None


@given(ADDRESSES, st.text(max_size=30) | st.from_regex(r"[A-Za-z0-9_-]{21}[AQgw]", fullmatch=True))
def test_what_is_made_up_is_refused(owner: str, text: str) -> None:
    assert IDS.read(owner, text) is None


@given(ADDRESSES, NUMBERS, st.integers(0, 21), st.characters(codec="ascii"))
def test_a_character_that_is_changed(owner: str, number: int, index: int, character: str) -> None:
    text = IDS.write(owner, number)
    bent = text[:index] + character + text[index + 1 :]
    assert IDS.read(owner, bent) == (number if bent == text else None)


def test_names_that_have_to_stay() -> None:
    assert [IDS.write("alice@example.com", number) for number in (0, 1, 86_400_000 << 22)] == [
        "HD0c98ZtrkbVWqGYG1ZGig",
        "DOuG9d2UaZhGHUSR-m_mfg",
        "RPoyME-ft6PR8V_N73YrbQ",
    ]


def test_keys_and_numbers_that_are_none() -> None:
    for key in (b"", bytes(15), bytes(17), bytes(32)):
        with pytest.raises(UsageError, match="16 bytes"):
            ArchiveIds(key)
    for number in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            IDS.write("a@x", number)
