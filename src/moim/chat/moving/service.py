"""Taking accounts over and giving them out, for the admin API: over a running chat service or over one at rest."""

from __future__ import annotations

from moim.chat.hosts import Hosts
from moim.chat.moving.taking import Parts, Taking
from moim.chat.moving.writing import Giving
from moim.store import Store


class Moving:
    """The two directions, over the parts of a chat service. ``hosts`` are the domains of its users."""

    def __init__(self, parts: Parts, store: Store, hosts: Hosts) -> None:
        self._parts = parts
        self._store = store
        self.hosts = hosts

    def taking(self, domain: str, *, dry_run: bool) -> Taking:
        """What takes pieces of a domain's people; with ``dry_run`` it only says what it would do."""
        return Taking(
            self._parts,
            self._store,
            domain,
            most_contacts=self.hosts.settings(domain).max_roster_items,
            most_blocked=self.hosts.settings(domain).max_blocked,
            dry_run=dry_run,
        )

    def giving(self) -> Giving:
        """What writes accounts."""
        return Giving(self._parts, self._store)
