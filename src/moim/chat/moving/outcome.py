"""What came of taking over something of a user: numbers by kind, conflicts, and what was left behind and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_TOLD = 20


@dataclass(slots=True)
class Outcome:
    """``new`` and ``same`` count by kind (contacts, requests, vCard, private, blocked, items, waiting, archived).

    ``conflicts``: what differs from what is here, which stays. ``left``: what could not be taken.
    """

    new: Counter[str] = field(default_factory=Counter)
    same: Counter[str] = field(default_factory=Counter)
    conflicts: list[str] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)

    def conflict(self, sentence: str) -> None:
        """Notes a conflict; the first twenty are told."""
        if len(self.conflicts) < _TOLD:
            self.conflicts.append(sentence)
        self.left["conflicts"] += 1

    def leave(self, reason: str) -> None:
        """Counts something that is left behind."""
        if reason in self.left or len(self.left) < _TOLD:
            self.left[reason] += 1

    def to_json(self) -> dict[str, Any]:
        """For the admin API."""
        return {
            "new": dict(self.new),
            "same": dict(self.same),
            "conflicts": self.conflicts,
            "left": dict(self.left),
        }
