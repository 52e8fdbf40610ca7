"""Settings of the certificates: ``[trust]`` in ``moim.toml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moim.settings import Section


class Settings(Section):
    """How the site's own authority issues and renews."""

    key_type: Literal["ec", "rsa"] = "ec"
    """Which certificate of a purpose the listeners present: ``ec`` the ``-ECDSA`` one, ``rsa`` the other."""
    lifetime_days: int = Field(default=90, ge=1, le=397)
    """Days that a certificate lives. It is renewed when a third of them is left."""
    check_seconds: float = Field(default=30, ge=1, le=3600)
    """Seconds between two looks at what is due and at files that were replaced by hand."""
