"""The admin API: its frame and its sign-in. Each room brings its own routes."""

from moim.console.service import Service, admin_application, read_token, write_token
from moim.console.settings import Settings

__all__ = ["Service", "Settings", "admin_application", "read_token", "write_token"]
