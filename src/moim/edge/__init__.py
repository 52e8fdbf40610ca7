"""The edge: a node at the border that reaches nothing by itself, and the connector inside that lends it targets."""

from moim.edge.connector import EdgeInsideService, Signer
from moim.edge.ice import IceServers
from moim.edge.keys import create_keys
from moim.edge.mra import InternalSrv, PasswordVerifier
from moim.edge.node import EdgeNodeService
from moim.edge.routes import admin_routes
from moim.edge.settings import Settings
from moim.net.streams import Target

__all__ = [
    "EdgeInsideService",
    "EdgeNodeService",
    "IceServers",
    "InternalSrv",
    "PasswordVerifier",
    "Settings",
    "Signer",
    "Target",
    "admin_routes",
    "create_keys",
]
