"""Whatever is given to what reads bytes, texts and elements before anybody is let in: it is read or refused.

The short form of ``tests/hostile/parsers.py``, the same each time.
"""

from __future__ import annotations

import random

import pytest

from hostile import parsers


@pytest.mark.parametrize("seed", range(4))
def test_anything_is_read_or_refused(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        parsers.once(rng)
