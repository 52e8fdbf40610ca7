"""Message archives (XEP-0313) of accounts and of rooms: what comes in, how it is kept, and who gets to see it again."""

from moim.chat.archive.accounts import Archive, Limits
from moim.chat.archive.retention import Share
from moim.chat.archive.rooms import RoomArchives

__all__ = ["Archive", "Limits", "RoomArchives", "Share"]
