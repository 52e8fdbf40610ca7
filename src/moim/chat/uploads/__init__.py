"""XEP-0363 HTTP file upload: slots over XMPP, files over HTTP, on the site's own disk, with quotas and an end."""

from moim.chat.uploads.files import DAY, Files, Quotas
from moim.chat.uploads.serving import upload_routes
from moim.chat.uploads.slots import Uploads

__all__ = ["DAY", "Files", "Quotas", "Uploads", "upload_routes"]
