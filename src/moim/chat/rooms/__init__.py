"""Group chat (XEP-0045): rooms as machines without I/O, and the service that runs them at ``rooms.<domain>``."""

from moim.chat.rooms.service import Rooms, RoomSettings

__all__ = ["RoomSettings", "Rooms"]
