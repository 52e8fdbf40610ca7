"""Taking accounts over and giving them out, for the admin API: over a running chat service or over one at rest."""

from __future__ import annotations

from moim.chat.moving.taking import Parts, Taking
from moim.chat.moving.writing import Giving
from moim.store import Store


class Moving:
    """The two directions, over the parts of a chat service. ``domain`` is that of its users."""

    def __init__(self, parts: Parts, store: Store, domain: str, *, most_contacts: int, most_blocked: int) -> None:
        self._parts = parts
        self._store = store
        self._bounds = {"most_contacts": most_contacts, "most_blocked": most_blocked}
        self.domain = domain

    def taking(self, *, dry_run: bool) -> Taking:
        """What takes pieces; with ``dry_run`` it only says what it would do."""
        return Taking(self._parts, self._store, self.domain, **self._bounds, dry_run=dry_run)

    def giving(self) -> Giving:
        """What writes accounts."""
        return Giving(self._parts, self._store)
