"""Meetings: spaces, the people in them, and control of the media plane."""

from moim.meetings.admission import WebSessions
from moim.meetings.live import IceServers
from moim.meetings.routes import admin_routes, public_routes
from moim.meetings.service import Service
from moim.meetings.settings import Settings
from moim.meetings.spaces import Space, Spaces

__all__ = ["IceServers", "Service", "Settings", "Space", "Spaces", "WebSessions", "admin_routes", "public_routes"]
