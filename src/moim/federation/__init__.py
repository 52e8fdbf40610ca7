"""Federation: messages and presence with other XMPP domains, who they may be, and what went wrong with them."""

from moim.federation.plane import Chat, ServerPlane
from moim.federation.routes import admin_routes
from moim.federation.service import SERVER_PORT, SERVER_TLS_PORT, Service
from moim.federation.settings import Settings

__all__ = ["SERVER_PORT", "SERVER_TLS_PORT", "Chat", "ServerPlane", "Service", "Settings", "admin_routes"]
