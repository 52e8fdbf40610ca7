"""The numbers of archived messages, which say when they were given, and the numbers that stand for addresses.

An id is 63 bits: milliseconds since 2020, then 22 bits of the node and of a count within the millisecond. The plane
gives all of them. Greater means later. They stay inside: on the wire are the names that ``moim._native.ArchiveIds``
makes of them, which tell nothing and are other ones in every archive (XEP-0359 section 7).
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final

EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)
_SHIFT = 22
_LAST_MS = (1 << 41) - 1
MAX: Final = (1 << 63) - 1


def time_of(identifier: int) -> datetime:
    """When the id was given."""
    return EPOCH + timedelta(milliseconds=identifier >> _SHIFT)


def first_at(moment: datetime) -> int:
    """The least id that may have been given at ``moment`` or later."""
    micros = (moment - EPOCH) // timedelta(microseconds=1)
    return min(max(-(-micros // 1000), 0), _LAST_MS) << _SHIFT


def first_after(moment: datetime) -> int:
    """The least id that may have been given later than ``moment``, by whole milliseconds."""
    millis = (moment - EPOCH) // timedelta(milliseconds=1)
    return min(max(millis + 1, 0), _LAST_MS) << _SHIFT


@lru_cache(maxsize=65_536)
def key(address: str) -> int:
    """The number that stands for an address in canonical form: 64 bits of its hash, as a signed number."""
    return int.from_bytes(blake2b(address.encode(), digest_size=8).digest(), "big", signed=True)


def checksum(text: str | None) -> int:
    """A number to look for a sender's own id by; equal ones have to be compared."""
    return zlib.crc32(text.encode()) if text else 0
