"""Settings of the admin API: ``[console]`` in ``moim.toml``."""

from moim.settings import Section


class Settings(Section):
    """Where administrators' programs reach the site."""

    port: int = 8445
    """Catalogue port of the admin API on the inside node; the port profile applies."""
