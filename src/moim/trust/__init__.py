"""Trust: the site's own authority, a certificate per purpose, and their renewal while connections stay up."""

from moim.trust.authority import Authority, create_authority
from moim.trust.credentials import CertificateInfo, Credential
from moim.trust.profiles import PROFILES, Place, Profile
from moim.trust.routes import admin_routes
from moim.trust.service import Service
from moim.trust.settings import Settings

__all__ = [
    "PROFILES",
    "Authority",
    "CertificateInfo",
    "Credential",
    "Place",
    "Profile",
    "Service",
    "Settings",
    "admin_routes",
    "create_authority",
]
