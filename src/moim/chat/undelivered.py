"""What was on its way to a session when it ended: another session gets it, it waits, or its sender is told.

These stanzas were judged, copied and archived before: XEP-0198 section 5 and RFC 6121
section 8.5.3.2 say what becomes of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable
from datetime import datetime

from moim.chat.accounts import Accounts
from moim.chat.archive import ids
from moim.chat.offline import OfflineMessages, worth_keeping
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, Jid, StanzaError, delay, message_type, ns, read_timestamp

_log = logging.getLogger("moim.chat.undelivered")


class Undelivered:
    """Finds another way for stanzas that carry the full ``to`` of a session that ended."""

    def __init__(
        self,
        domains: Container[str],
        *,
        accounts: Accounts,
        plane: Plane,
        offline: OfflineMessages,
        refuse: Callable[[Element, StanzaError], None],
    ) -> None:
        self._domains = domains
        self._accounts = accounts
        self._plane = plane
        self._offline = offline
        self._refuse = refuse

    def take(self, stanzas: Iterable[Element]) -> None:
        """Messages go to whoever is there, or are kept; who asked, and rooms, hear that nobody is there."""
        for stanza in stanzas:
            to = self._local(stanza)
            if stanza.name == "iq":
                self._refuse(stanza, StanzaError("service-unavailable"))
            elif stanza.name == "message" and to is not None:
                try:
                    self._again(stanza, to)
                except StanzaError as error:
                    self._refuse(stanza, error)

    def _again(self, message: Element, to: Jid) -> None:
        kind = message_type(message)
        same = self._accounts.session(to) if to.resource else None
        if same is not None and not same.leaving:
            self._plane.send(same.sid, [message])
        elif kind == "groupchat":
            raise StanzaError("recipient-unavailable")  # an occupant is gone with its session
        elif kind in ("normal", "chat"):
            account = self._accounts.get(str(to.bare))
            receiving = [other for other in account.receiving() if not other.leaving] if account is not None else []
            archived, told = self._archived(message, str(to.bare)), _told(message, to.domain)
            if receiving:
                new = () if told is not None or archived is None else (delay(archived, to.domain),)
                late = message.with_children((*message.children, *new))
                self._plane.send_many([(other.sid, late) for other in receiving])
            elif worth_keeping(message):
                self._offline.keep(str(to.bare), message, archived=archived is not None, since=archived or told)

    def keep(self, stanzas: Iterable[Element]) -> None:
        """Messages that their clients did not get before the server stopped wait for them like those to come."""
        for account in self._accounts:
            for session in account.sessions.values():
                session.presence = None  # the streams are over: nobody is there to be handed anything
        for stanza in stanzas:
            to = self._local(stanza) if stanza.name == "message" else None
            if to is not None and worth_keeping(stanza):
                archived = self._archived(stanza, str(to.bare))
                since = archived or _told(stanza, to.domain)
                try:
                    self._offline.keep(str(to.bare), stanza, archived=archived is not None, since=since)
                except StanzaError as error:
                    _log.error("a message for %s that it did not get is lost: %s", to.bare, error.message)

    def _local(self, stanza: Element) -> Jid | None:
        """The account or session of this server that a stanza was for; its address was read before."""
        text = stanza.get("to")
        to = Jid.parse(text) if text is not None else None
        return to if to is not None and to.local and to.domain in self._domains else None

    def _archived(self, message: Element, owner: str) -> datetime | None:
        """When the message came, by what the owner's archive calls it; None without that."""
        for child in message.elements():
            if (child.ns, child.name, child.get("by")) == (ns.STANZA_IDS, "stanza-id", owner):
                identifier = self._plane.archive_ids.read(owner, child.get("id") or "")
                return ids.time_of(identifier) if identifier is not None else None
        return None


def _told(message: Element, domain: str) -> datetime | None:
    """When the message came, as the plane wrote it while the session had no connection."""
    note = next((c for c in message.elements() if c.ns == ns.DELAY and c.get("from") == domain), None)
    return read_timestamp(note.get("stamp") or "") if note is not None else None
