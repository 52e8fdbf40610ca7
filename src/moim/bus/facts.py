"""Facts as they travel between nodes: versioned JSON of frozen dataclasses, from an explicit list.

A fact of one node alone (its certificate, its tunnel) is not in the list. What cannot be read comes from a newer
version or from somebody else, and is dropped with a note: the store is the truth.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from moim.model import UserChanged, UserRemoved

VERSION: Final = 1
_MAX_BYTES = 65_536
_KINDS: Final[tuple[type[Any], ...]] = (UserChanged, UserRemoved)
_ADAPTERS: Final[dict[str, TypeAdapter[Any]]] = {kind.__name__: TypeAdapter(kind) for kind in _KINDS}

_log = logging.getLogger("moim.bus")


def travels(fact: object) -> bool:
    """Whether other nodes are told of it."""
    return type(fact).__name__ in _ADAPTERS


def dump(fact: Any) -> bytes:
    """A fact as bytes; only one that travels."""
    return json.dumps({"v": VERSION, "fact": type(fact).__name__, "data": asdict(fact)}).encode()


def load(body: bytes) -> object | None:
    """A fact from bytes; None, with a note in the log, for anything else."""
    if len(body) > _MAX_BYTES:
        _log.warning("a fact of %d bytes came over the bus and was dropped", len(body))
        return None
    try:
        document = json.loads(body)
        if not isinstance(document, dict) or document.get("v") != VERSION:
            raise ValueError("its version is not known")
        adapter = _ADAPTERS.get(str(document.get("fact")))
        if adapter is None:
            raise ValueError(f"'{str(document.get('fact'))[:64]}' is no fact")
        fact: object = adapter.validate_python(document.get("data"))
        return fact
    except (ValueError, RecursionError, ValidationError) as error:
        _log.warning("something came over the bus that is no fact, and was dropped: %s", str(error).split("\n", 1)[0])
        return None
