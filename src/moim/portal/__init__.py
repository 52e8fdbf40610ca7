"""Portal: the web app and the HTTP interface that serves it, for browsers inside and, through the edge, outside."""

from moim.portal.api import Discover, Profile, Users
from moim.portal.service import Service, make_sessions
from moim.portal.sessions import Opened, Sessions
from moim.portal.settings import Settings

__all__ = ["Discover", "Opened", "Profile", "Service", "Sessions", "Settings", "Users", "make_sessions"]
