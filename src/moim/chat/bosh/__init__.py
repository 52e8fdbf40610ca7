"""BOSH (XEP-0124, XEP-0206): XMPP over plain HTTP requests, for clients that get neither a socket nor a WebSocket."""

from moim.chat.bosh.connections import Bosh, BoshBounds
from moim.chat.bosh.serving import bosh_routes

__all__ = ["Bosh", "BoshBounds", "bosh_routes"]
