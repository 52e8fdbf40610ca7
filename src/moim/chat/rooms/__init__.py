"""Group chat (XEP-0045): rooms as machines without I/O, and the services that run them at ``rooms.<domain>``."""

from moim.chat.rooms.service import Rooms, RoomSettings, Share
from moim.chat.rooms.services import RoomServices

__all__ = ["RoomServices", "RoomSettings", "Rooms", "Share"]
