"""Stanzas for sessions of other nodes: how they get there, and what becomes of those that do not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from moim.chat.accounts import Accounts, Session
from moim.chat.cluster import codec
from moim.chat.cluster.handing_over import missed
from moim.chat.cluster.link import Item
from moim.chat.cluster.links import Links
from moim.chat.cluster.shadows import Shadows
from moim.chat.plane import Batch, Plane
from moim.chat.undelivered import Undelivered
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_log = logging.getLogger("moim.chat.cluster")


class Carrier:
    """The plane's way to other nodes (``Elsewhere`` of ``plane.py``); ``arrived`` takes stanzas for components."""

    def __init__(
        self,
        links: Links,
        shadows: Shadows,
        *,
        accounts: Accounts,
        plane: Plane,
        undelivered: Undelivered,
        arrived: Callable[[Element], None],
    ) -> None:
        self._links = links
        self._shadows = shadows
        self._accounts = accounts
        self._plane = plane
        self._undelivered = undelivered
        self._arrived = arrived
        self._finding = False

    # --- to other nodes -----------------------------------------------------------------------------------------

    def send(self, batch: Batch) -> None:
        """Stanzas for sessions of other nodes, by their negative numbers; the same one for many is written once."""
        open_items: dict[str, tuple[Element, list[str]]] = {}
        for sid, stanza in batch:
            session = self._shadows.of(sid)
            if session is None:
                continue
            if (held := self._shadows.holds.get(session)) is not None:
                held.append(stanza)
                continue
            known = open_items.get(session.node)
            if known is not None and known[0] is stanza:
                known[1].append(str(session.full))
                continue
            if known is not None:
                self._send(session.node, *known)
            open_items[session.node] = (stanza, [str(session.full)])
        for node, (stanza, targets) in open_items.items():
            self._send(node, stanza, targets)

    def _send(self, node: str, stanza: Element, targets: list[str]) -> None:
        covered = self._covered(node, stanza)
        if self._links.tell(node, [codec.DELIVER, stanza.to_xml(""), targets, covered]):
            return
        if self._finding:
            # There is no other way: the node's sessions are known, but too much waits for it.
            if stanza.name == "message" and stanza.get("type") != "error":
                raise StanzaError("resource-constraint", "too much waits for the recipient's server", kind="wait")
            return
        self._finding = True
        try:
            for target in targets:
                self._missed(stanza, Jid.parse(target), covered=covered)
        finally:
            self._finding = False

    def _covered(self, node: str, stanza: Element) -> bool:
        """Whether sessions that ``node`` does not hold get the same message: then none is lost with that node's."""
        to = stanza.get("to") or ""
        if stanza.name != "message" or not to or "/" in to:
            return False
        account = self._accounts.get(to)
        return account is not None and any(session.node != node for session in account.receiving())

    def fan_out(self, element: Element, sids: Sequence[int]) -> None:
        """One stanza for many sessions of other nodes, each with its own address as ``to``."""
        targets: dict[str, list[str]] = {}
        for sid in sids:
            session = self._shadows.of(sid)
            if session is None:
                continue
            if (held := self._shadows.holds.get(session)) is not None:
                held.append(element.with_attrs({"to": str(session.full)}))
            else:
                targets.setdefault(session.node, []).append(str(session.full))
        for node, addresses in targets.items():
            if not self._links.tell(node, [codec.FAN_OUT, element.to_xml(""), addresses]):
                for address in addresses:
                    self._missed(element.with_attrs({"to": address}), Jid.parse(address))

    def copy(self, messages: Sequence[Element]) -> Sequence[Element]:
        """The carbons of messages, for other nodes' sessions of their two accounts; those to make here now as well."""
        now = [message for message in messages if not self._held(message)] if self._shadows.copies else messages
        for message in now:
            nodes: set[str] = set()
            for bare in _accounts_of(message):
                account = self._accounts.get(bare)
                if account is not None:
                    nodes.update(session.node for session in account.sessions.values() if session.node)
            for node in nodes:
                self._links.tell(node, [codec.COPY, message.to_xml("")])
        return now

    def _held(self, message: Element) -> bool:
        """Whether carbons wait for a session that is about to come here, and now wait for these as well."""
        held = next((self._shadows.copies[x] for x in _accounts_of(message) if x in self._shadows.copies), None)
        if held is not None:
            held.append(message)
        return held is not None

    # --- from other nodes ---------------------------------------------------------------------------------------

    def deliver(self, _peer: str, item: Item) -> None:
        """A stanza for some sessions here. Raises ValueError."""
        stanza, batch, missed = codec.element(item, 1), [], []
        for jid in codec.jids(item, 2):
            session = self._accounts.session(jid)
            if (coming := self._shadows.coming.get(jid)) is not None:
                coming.append(stanza)
            elif session is not None and not session.node:
                batch.append((session.sid, stanza))
            elif session is None or codec.flag(item, 4) or not self._return(session, stanza):
                missed.append(jid)
        self._plane.send_many(batch)
        for jid in missed:
            self._missed(stanza, jid, covered=bool(batch) or codec.flag(item, 3))

    def _return(self, session: Session, stanza: Element) -> bool:
        """A session has left this node while a stanza was on its way to it here: it goes where the session went."""
        return self._links.tell(session.node, [codec.DELIVER, stanza.to_xml(""), [str(session.full)], False, True])

    def deliver_to_each(self, _peer: str, item: Item) -> None:
        """A stanza for many sessions here, each with its own address. Raises ValueError."""
        stanza, sids = codec.element(item, 1), []
        for jid in codec.jids(item, 2):
            session = self._accounts.session(jid)
            if (coming := self._shadows.coming.get(jid)) is not None:
                coming.append(stanza.with_attrs({"to": str(jid)}))
            elif session is not None and not session.node:
                sids.append(session.sid)
            elif session is None or not self._return(session, stanza.with_attrs({"to": str(jid)})):
                self._missed(stanza.with_attrs({"to": str(jid)}), jid)
        self._plane.fan_out(stanza, sids)

    def copied(self, _peer: str, item: Item) -> None:
        """A message was delivered: sessions here that want carbons get them. Raises ValueError."""
        self._plane.copy_here([codec.element(item, 1)])

    def component(self, _peer: str, item: Item) -> None:
        """A stanza for a component that this node runs. Raises ValueError."""
        self._arrived(codec.element(item, 1))

    # --- what does not arrive -----------------------------------------------------------------------------------

    def reroute(self, items: Sequence[Item]) -> None:
        """What a node did not confirm: messages find another way or wait on disk, requests are answered."""
        for item in items:
            try:
                if item[0] == codec.DELIVER:
                    stanza, covered = codec.element(item, 1), codec.flag(item, 3)
                    for number, jid in enumerate(codec.jids(item, 2)):
                        self._missed(stanza, jid, covered=covered or number > 0)
                elif item[0] == codec.FAN_OUT:
                    stanza = codec.element(item, 1)
                    for jid in codec.jids(item, 2):
                        self._missed(stanza.with_attrs({"to": str(jid)}), jid)
                elif item[0] == codec.SENT:
                    self._undelivered.take(missed(codec.sent(item, 2)))
                elif item[0] == codec.COMPONENT:
                    self._arrived(codec.element(item, 1))
            except ValueError as error:
                _log.error("what a node did not confirm is lost: %s", error)

    def _missed(self, stanza: Element, session: Jid, *, covered: bool = False) -> None:
        """A stanza was for a session that is not there any more; ``covered``: others of the account have it."""
        to = stanza.get("to") or ""
        if stanza.name == "message":
            if any(child.ns == ns.CARBONS for child in stanza.elements()):
                return
            if covered and "/" not in to:
                return
        self._undelivered.take([stanza if to else stanza.with_attrs({"to": str(session)})])


def _accounts_of(message: Element) -> list[str]:
    return [(message.get(place) or "").partition("/")[0] for place in ("from", "to")]
