"""The store: durable state of a site. One writer that commits in groups, several readers, migrations per room."""

from moim.store.engine import Store, Where
from moim.store.migrate import migrate
from moim.store.settings import Settings
from moim.store.upsert import insert

__all__ = ["Settings", "Store", "Where", "insert", "migrate"]
