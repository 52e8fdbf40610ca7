"""Provisioning: the service profile and the configuration files that clients fetch, over HTTP and HTTPS."""

from moim.provisioning.documents import Endpoints
from moim.provisioning.service import Service
from moim.provisioning.settings import Settings

__all__ = ["Endpoints", "Service", "Settings"]
