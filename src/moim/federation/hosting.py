"""Who is behind a server's name: hosters whose servers go on answering for domains that were once registered there."""

from __future__ import annotations

_HOSTERS = {
    "google.com": "Google (Talk, Workspace)",
    "googlemail.com": "Google (Talk, Workspace)",
    "webexconnect.com": "Cisco Webex Messenger",
    "webex.com": "Cisco Webex",
    "ciscojabber.com": "Cisco Webex Messenger",
    "facebook.com": "Facebook",
    "microsoft.com": "Microsoft",
    "lync.com": "Microsoft",
    "hosted.im": "hosted.im",
    "conversations.im": "conversations.im",
    "xmpp.cloud": "xmpp.cloud",
    "snikket.chat": "Snikket hosting",
    "movim.eu": "Movim",
}


def hoster(host: str) -> str:
    """The hoster that a server's name belongs to; empty when it is none that is known."""
    name = host.rstrip(".").lower()
    while name:
        if name in _HOSTERS:
            return _HOSTERS[name]
        name = name.partition(".")[2]
    return ""
