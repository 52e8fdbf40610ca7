"""Instant messaging and presence: client connections, contact lists, presence, and messages, also for those away."""

from moim.chat.service import Service
from moim.chat.settings import Settings
from moim.chat.users import Certificates, Profile, Users

__all__ = ["Certificates", "Profile", "Service", "Settings", "Users"]
