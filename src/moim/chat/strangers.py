"""How much of people whom its recipient never dealt with an account has to take from other domains.

Three buckets: of the sender's domain and of the sender, in each hosted domain, and of the recipient. Whoever is in the
recipient's contact list, was written to by it, or was shown its presence (rooms elsewhere) is no stranger and is never
counted. Messages that the plane delivers by its table are counted afterwards, from their archive records: a domain that
is over its limit loses that short way for a while, so that what comes then is judged before it is delivered.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from moim.chat.accounts import Accounts
from moim.chat.archive.rows import Record
from moim.chat.refusals import Refusals
from moim.chat.rosters import Rosters
from moim.chat.routing import Federation
from moim.errors import MoimError, ProtocolError
from moim.net.rate import RateLimit
from moim.proto.xmpp import SUBSCRIPTION_TYPES, Element, Jid, StanzaError

_MINUTE = 60.0
_KNOWN_FOR = 86_400.0
_MAX_KNOWN = 50_000
_JUDGED_FOR = 900.0
_MAX_WAITING = 2000


@dataclass(frozen=True, slots=True)
class Shares:
    """Stanzas of strangers per minute: from one of them, from one domain, to one account. A bucket holds a minute's.

    Without a share for ``sender`` (0) nothing is counted.
    """

    sender: float
    domain: float
    recipient: float


class Watched:
    """The way to other domains, with an eye on who writes to whom."""

    def __init__(self, federation: Federation, wrote: Callable[[Element], None]) -> None:
        self._federation = federation
        self._wrote = wrote

    def send(self, stanza: Element) -> None:
        """Takes a stanza for another domain; failures come back as error stanzas."""
        self._wrote(stanza)
        self._federation.send(stanza)


class Strangers:
    """``shares`` are those that count for a bare JID of this site. ``exempt`` are domains of this server's own parts.

    ``look_again`` hears of a domain of which ``judges`` says something else than before. ``clock`` is monotonic, in
    seconds.
    """

    def __init__(
        self,
        domains: Collection[str],
        shares: Callable[[str], Shares],
        *,
        accounts: Accounts,
        rosters: Rosters,
        refusals: Refusals,
        exempt: Collection[str] = (),
        look_again: Callable[[str], None] = lambda remote: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosted = domains
        self._here = tuple(f"@{domain}" for domain in domains)
        self._accounts = accounts
        self._rosters = rosters
        self._refusals = refusals
        self._exempt = exempt
        self._look_again = look_again
        self._clock = clock
        self._shares = shares
        self._limits: dict[tuple[str, float], RateLimit] = {}
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._judged: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def wrote(self, stanza: Element) -> None:
        """An account's stanza leaves for another domain: an answer from there is no stranger's."""
        if stanza.get("type") in ("error", "result", "unavailable", "unsubscribe", "unsubscribed"):
            return
        try:
            owner, other = Jid.parse(stanza.get("from") or ""), Jid.parse(stanza.get("to") or "")
        except ProtocolError:
            return
        if owner.local and owner.domain in self._hosted:
            self._knows(str(owner.bare), str(other.bare))

    def _knows(self, owner: str, other: str) -> None:
        self._known[owner, other] = self._clock() + _KNOWN_FOR
        self._known.move_to_end((owner, other))
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    async def admits(self, sender: Jid, to: Jid, stanza: Element) -> bool:
        """Whether a stanza of another domain goes on; one that does not was answered here. Raises Unavailable."""
        if not to.local or sender.domain in self._exempt or not intrudes(stanza):
            return True
        if await self.related(str(to.bare), sender):
            return True
        if self._accounts.abroad(str(to.bare)) and stanza.get("type") == "groupchat":
            return True  # the node that holds the session knows whether it is in that room, this one does not
        limit = self._over(sender, to)
        if limit is None:
            return True
        error = StanzaError("policy-violation", "too much comes from people who are no contacts", kind="wait")
        self._refusals.refuse("strangers", sender, stanza, error, f"too much from strangers, by {limit}")
        self._judge(sender.domain)
        return False

    def _over(self, sender: Jid, to: Jid) -> str | None:
        """Counts one stanza: whose share is used up. A larger share is not touched for what a smaller one refuses."""
        shares = self._shares(str(to.bare))
        if not shares.sender:
            return None
        if not self._takes("one sender", shares.sender, f"{sender.bare} {to.domain}"):
            return "one sender"
        if not self._takes("one domain", shares.domain, f"{sender.domain} {to.domain}"):
            return "one domain"
        if not self._takes("all for one account", shares.recipient, str(to.bare)):
            return "all for one account"
        return None

    def _takes(self, kind: str, share: float, who: str) -> bool:
        limit = self._limits.get((kind, share))
        if limit is None:  # as many as the settings name
            limit = self._limits[kind, share] = RateLimit(per_s=share / _MINUTE, burst=share)
        return limit.take(who, self._clock())

    async def related(self, owner: str, sender: Jid) -> bool:
        """Whether an account (bare JID) has to do with somebody, or they are of this site. Raises Unavailable."""
        if sender.domain in self._hosted or sender.domain in self._exempt:
            return True
        other = str(sender.bare)
        until = self._known.get((owner, other))
        if until is not None and until > self._clock():
            return True
        account = self._accounts.get(owner)
        beginning = f"{other}/"
        for session in account.sessions.values() if account is not None else ():
            if any(shown == other or shown.startswith(beginning) for shown in session.directed):
                self._knows(owner, other)
                return True
        roster = await self._rosters.get(owner)
        item = roster.item(other)
        state = item.state
        if item.listed or item.approved or state.seen or state.sees or state.pending_out:
            return True
        return roster.item(sender.domain).listed  # of a gateway that the account uses

    # --- what the plane delivered -------------------------------------------------------------------------------

    def carried(self, records: Iterable[Record]) -> None:
        """Messages that were delivered by table: those of other domains are counted, those to them make relations."""
        for _, source, target, _, message in records:
            if source.partition("/")[0].endswith(self._here):
                if not target.partition("/")[0].endswith(self._here):
                    self.wrote(message.with_attrs({"from": source, "to": target}))
                continue
            try:
                sender, to = Jid.parse(source), Jid.parse(target)
            except ProtocolError:
                continue
            if sender.domain in self._exempt or sender.domain in self._judged or to.domain not in self._hosted:
                continue
            if len(self._tasks) >= _MAX_WAITING:
                self._judge(sender.domain)
                continue
            task = asyncio.create_task(self._count(sender, to), name="chat:strangers")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _count(self, sender: Jid, to: Jid) -> None:
        try:
            if not await self.related(str(to.bare), sender) and self._over(sender, to) is not None:
                self._judge(sender.domain)
        except MoimError:
            self._judge(sender.domain)  # nobody knows at the moment, so that each is looked at

    def _judge(self, domain: str) -> None:
        """Everything of the domain comes up to be judged, until it was within its limits for a while."""
        before = self._judged.get(domain)
        self._judged[domain] = asyncio.get_running_loop().call_later(_JUDGED_FOR, self._trust, domain)
        if before is not None:
            before.cancel()
        else:
            self._look_again(domain)

    def _trust(self, domain: str) -> None:
        if self._judged.pop(domain, None) is not None:
            self._look_again(domain)

    def judges(self, domain: str) -> bool:
        """Whether messages of the domain have lost the short way for now."""
        return domain in self._judged

    async def stop(self) -> None:
        """Ends the work in progress."""
        for timer in self._judged.values():
            timer.cancel()
        self._judged.clear()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def intrudes(stanza: Element) -> bool:
    """Whether a stanza wants somebody's attention or work: no answers, no goodbyes."""
    kind = stanza.get("type")
    if stanza.name == "iq":
        return kind in ("get", "set")
    if stanza.name == "presence":
        return kind in (None, "probe") or kind in SUBSCRIPTION_TYPES
    return kind != "error"
