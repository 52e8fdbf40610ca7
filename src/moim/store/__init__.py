"""The store: durable state of a site. One writer that commits in groups, several readers, migrations per room."""

from moim.store.engine import Store
from moim.store.migrate import migrate

__all__ = ["Store", "migrate"]
