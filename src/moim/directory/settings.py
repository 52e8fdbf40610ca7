"""Settings of the directory: ``[directory]`` in ``moim.toml``."""

from __future__ import annotations

from pydantic import Field

from moim.settings import Section


class Settings(Section):
    """User data services and how passwords are kept."""

    port: int = 8443
    """Catalogue port of UDS (HTTPS) on the inside node; the port profile applies."""
    scram_iterations: int = Field(default=4096, ge=4096, le=1_000_000)
    """PBKDF2 rounds of new SCRAM verifiers. Each sign-in of a client costs it as many."""
    argon2_memory_kib: int = Field(default=19_456, ge=7_168, le=1_048_576)
    """Memory that one argon2id hash takes, in KiB; OWASP's least is 19,456 with 2 passes."""
    argon2_passes: int = Field(default=2, ge=1, le=64)
    """Passes of argon2id over its memory; take more when there is less memory."""
    password_min_length: int = Field(default=8, ge=1, le=128)
    """Characters that a new password must have."""
    sign_in_cache_seconds: float = Field(default=300, ge=0, le=3600)
    """How long a password that was checked once is known without hashing it again."""
    lookups_per_second: float = Field(default=200, gt=0, le=100_000)
    """UDS look-ups without sign-in that one source may make per second; five times as many in a burst."""
    search_needs_sign_in: bool = True
    """Whether the search for users (``/cucm-uds/users``) asks for a user's password."""
