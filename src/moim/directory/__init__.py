"""Directory: the people of a site, their passwords and devices, and the UDS interface that clients ask."""

from moim.directory.bulk_import import Importer, Report
from moim.directory.devices import Device
from moim.directory.profile import FIELDS, Profile
from moim.directory.routes import admin_routes
from moim.directory.service import Service
from moim.directory.settings import Settings
from moim.directory.users import Users

__all__ = ["FIELDS", "Device", "Importer", "Profile", "Report", "Service", "Settings", "Users", "admin_routes"]
