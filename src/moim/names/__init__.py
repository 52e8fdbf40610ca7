"""The built-in name server: one zone, an inside and an outside view of it, over UDP and TCP."""

from __future__ import annotations

from moim.names.answer import Responder
from moim.names.service import Service
from moim.names.settings import Record, Settings
from moim.names.zone import Servers, Zone, build

__all__ = ["Record", "Responder", "Servers", "Service", "Settings", "Zone", "build"]
