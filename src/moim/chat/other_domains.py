"""Who of this site may talk with other domains, and who of there may come to them: by the policy of each person.

Where all of a domain may, nobody has to look: messages go the plane's short way, and only the sessions of those who
may not are tapped. Where a domain may not, none of its messages go that way, and nobody is tapped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

from moim.chat.accounts import Accounts, Session
from moim.chat.blocking import Visibility
from moim.chat.feature import Feature
from moim.chat.plane import Plane
from moim.chat.refusals import Refusals
from moim.chat.routing import Federation
from moim.chat.settings import PersonSettings
from moim.chat.strangers import intrudes
from moim.errors import ProtocolError
from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, Jid, StanzaError, message_type, presence

_TAP: Final = "other domains"
_GOODBYES: Final = frozenset({"unavailable", "unsubscribe", "unsubscribed"})
_LINES_PER_ACCOUNT: Final = 6
_MINUTE: Final = 60.0

_log = logging.getLogger("moim.chat.other_domains")


class OtherDomains:
    """``rules`` are those of a bare JID, or of a domain, of this site. ``exempt`` are domains of the site's own parts.

    ``related`` tells whether an account has to do with somebody. A feature, and a gate for what comes in.
    """

    def __init__(
        self,
        domains: Collection[str],
        rules: Callable[[str], PersonSettings],
        *,
        accounts: Accounts,
        plane: Plane,
        visibility: Visibility,
        related: Callable[[str, Jid], Awaitable[bool]],
        refusals: Refusals,
        exempt: Collection[str],
    ) -> None:
        self._domains = domains
        self._rules = rules
        self._accounts = accounts
        self._plane = plane
        self._visibility = visibility
        self._related = related
        self._refusals = refusals
        self._exempt = exempt
        self._closed: dict[str, PersonSettings] = {}
        self._lines = RateLimit(per_s=_LINES_PER_ACCOUNT / _MINUTE, burst=_LINES_PER_ACCOUNT)
        self.feature = Feature(
            name="other domains, by policy", on_bind=self._bound, on_gone=self._gone, on_policy=self._changed
        )

    def open(self, domain: str) -> bool:
        """Whether all of a hosted domain, unless a policy says otherwise, may talk with everybody elsewhere."""
        if domain in self._exempt:
            return True
        rules = self._rules(domain)
        return rules.federation and rules.strangers

    # --- out ----------------------------------------------------------------------------------------------------

    def check(self, owner: str, to: Jid, stanza: Element) -> None:
        """An account's own stanza for another domain. Raises StanzaError when it may not go there."""
        if to.domain in self._exempt or self._rules(owner).federation or _goodbye(stanza):
            return
        if self._lines.take(owner, time.monotonic()):
            _log.warning("%s from %s to %s refused: the sender's policy has no other domains", stanza.name, owner, to)
        raise StanzaError("forbidden", "your account may not talk with people of other domains")

    def lets_out(self, stanza: Element) -> bool:
        """Whether something that is on its way to another domain goes on: also what is sent for an account.

        Requests of an account itself are the server's own, and go on: those wake people's programs (XEP-0357).
        """
        if _goodbye(stanza) or stanza.get("type") == "error":
            return True
        try:
            sender = Jid.parse(stanza.get("from") or "")
        except ProtocolError:
            return True
        if not sender.local or sender.domain not in self._domains or (stanza.name == "iq" and sender.is_bare):
            return True
        return self._rules(str(sender.bare)).federation

    # --- in -----------------------------------------------------------------------------------------------------

    async def admits(self, sender: Jid, to: Jid, stanza: Element) -> bool:
        """Whether a stanza of another domain goes on. Raises StanzaError, or Unavailable when that cannot be told.

        Everything is answered as for an account that is not there, so that nobody learns of it.
        """
        if not to.local or sender.domain in self._exempt or _goodbye(stanza) or stanza.get("type") == "probe":
            return True  # what a probe may learn is for the subscription to say, and for ``lets_out``
        if to.is_bare and stanza.name == "iq" and stanza.get("type") in ("result", "error"):
            return True  # to the server's own request
        owner = str(to.bare)
        rules = self._rules(owner)
        if not rules.federation:
            return self._refuse(sender, stanza, "the recipient's policy has no other domains")
        if rules.strangers or not intrudes(stanza) or await self._related(owner, sender):
            return True
        if self._accounts.abroad(owner) and stanza.get("type") == "groupchat":
            return True  # the node that holds the session knows whether it is in that room, this one does not
        return self._refuse(sender, stanza, "the recipient's policy has no strangers")

    def _refuse(self, sender: Jid, stanza: Element, why: str) -> bool:
        self._refusals.note("policy", sender, stanza, why)
        if stanza.name == "presence" or (stanza.name == "message" and message_type(stanza) in ("error", "headline")):
            return False
        raise StanzaError("service-unavailable")

    # --- who is there -------------------------------------------------------------------------------------------

    def _bound(self, session: Session) -> None:
        rules = self._rules(session.bare)
        if not (rules.federation and rules.strangers):
            self._closed[session.bare] = rules
            self._plane.tap(session.sid, self.open(session.full.domain), _TAP)

    def _gone(self, session: Session) -> None:
        if len(session.full_account.sessions) <= 1:
            self._closed.pop(session.bare, None)

    def _changed(self, bare: str) -> None:
        account = self._accounts.get(bare)
        if account is None:
            return
        before, now = self._closed.pop(bare, None), self._rules(bare)
        for session in tuple(account.sessions.values()):
            self._plane.tap(session.sid, False, _TAP)
            self._bound(session)
        if now.federation == (before is None or before.federation):
            return
        seeing = self._elsewhere(account.roster.subscribers() if account.roster is not None else ())
        watched = self._elsewhere(account.roster.watched() if account.roster is not None else ())
        if now.federation:
            self._visibility.unhide(bare, frozenset((*seeing, *watched)))
            return
        sessions = tuple(account.available())
        shown = self._elsewhere(target for session in sessions for target in session.directed)
        self._visibility.hide(bare, frozenset((*seeing, *shown)))
        gone = [presence(contact, bare, "unavailable") for contact in watched]
        self._plane.send_many([(session.sid, stanza) for session in sessions if not session.node for stanza in gone])

    def _elsewhere(self, addresses: Iterable[str]) -> list[str]:
        found = []
        for text in addresses:
            domain = Jid.parse(text).domain
            if domain not in self._domains and domain not in self._exempt:
                found.append(text)
        return found


class Guarded:
    """The way to other domains, for those who may go there; of what does not go on, nobody expects an answer."""

    def __init__(self, federation: Federation, lets_out: Callable[[Element], bool]) -> None:
        self._federation = federation
        self._lets_out = lets_out

    def send(self, stanza: Element) -> None:
        """Takes a stanza for another domain; failures come back as error stanzas."""
        if self._lets_out(stanza):
            self._federation.send(stanza)
        else:
            _log.debug("%s to %s is not sent: the policy of %s", stanza.name, stanza.get("to"), stanza.get("from"))


def _goodbye(stanza: Element) -> bool:
    """What ends something goes through, so that nothing is left hanging on either side."""
    return stanza.name == "presence" and stanza.get("type") in _GOODBYES
