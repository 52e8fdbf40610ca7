"""Instant messaging and presence: client connections, contact lists, presence, and messages, also for those away."""

from moim.chat.hosts import hosts
from moim.chat.routes import admin_routes, public_routes
from moim.chat.service import Service
from moim.chat.settings import Settings
from moim.chat.users import CertificateFiles, Profile, Users

__all__ = ["CertificateFiles", "Profile", "Service", "Settings", "Users", "admin_routes", "hosts", "public_routes"]
