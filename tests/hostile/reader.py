"""What a reader is: a name, inputs that it takes, and a function that reads them or refuses."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from moim.errors import MoimError


@dataclass(frozen=True)
class Reader:
    """Something that reads. ``read`` gets an input, and the numbers to draw more from."""

    name: str
    inputs: tuple[Any, ...]
    read: Callable[[Any, random.Random], object]
    refuses: tuple[type[Exception], ...] = (MoimError,)
