"""XEP-0377 spam reports: what people say about those whom they block, for those who run this server.

A report stands inside an item of a block request (XEP-0191). It is logged and sent as a message to the people whom
the settings name; nothing goes to the one who was reported or to their server.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moim.chat.feature import Feature
from moim.errors import ProtocolError
from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_REASONS = {"urn:xmpp:reporting:spam": "spam", "urn:xmpp:reporting:abuse": "abuse"}
_MAX_REPORTS = 10
_MAX_IDS = 20
_MAX_ID = 200
_MAX_TEXT = 1000
_MAX_RECEIVERS = 20
_HOURLY = 30.0

_log = logging.getLogger("moim.chat.spam_reports")


@dataclass(frozen=True, slots=True)
class Report:
    """Who was reported, why (``spam``, ``abuse`` or ``other``), in whose words, and the archive ids of messages."""

    about: Jid
    reason: str
    text: str
    ids: tuple[tuple[str, str], ...]


def read(block: Element) -> tuple[Report, ...]:
    """The reports in a block request. Raises StanzaError for one without a reason, and for more than ten."""
    found = []
    for item in block.elements():
        report = item.find("report", ns.REPORTING) if (item.ns, item.name) == (ns.BLOCKING, "item") else None
        if report is not None:
            found.append(_report(item, report))
    if len(found) > _MAX_REPORTS:
        raise StanzaError("policy-violation", f"one request reports {_MAX_REPORTS} addresses at the most")
    return tuple(found)


def _report(item: Element, report: Element) -> Report:
    try:
        about = Jid.parse(item.get("jid") or "")
    except ProtocolError as error:
        raise StanzaError("jid-malformed", error.message) from None
    reason = report.get("reason")
    if not reason:
        raise StanzaError("bad-request", "a report says its reason")
    text = report.find("text", ns.REPORTING)
    marks = (child for child in report.elements() if (child.ns, child.name) == (ns.STANZA_IDS, "stanza-id"))
    ids = [(_cut(mark.get("by"), _MAX_ID), _cut(mark.get("id"), _MAX_ID)) for mark in marks]
    words = _cut(text.text, _MAX_TEXT) if text is not None else ""
    return Report(about, _REASONS.get(reason, "other"), words, tuple(ids[:_MAX_IDS]))


def _cut(text: str | None, most: int) -> str:
    """One line of at most so many characters: nobody writes log lines of their own."""
    return " ".join("".join(c if c.isprintable() else " " for c in (text or "")[:most]).split())


def receivers(admins: Sequence[str], abuse: Sequence[str]) -> tuple[Jid, ...]:
    """Who gets reports: administrators, and those of the abuse addresses (URIs) that are XMPP addresses."""
    addresses = [*admins, *(uri[5:].partition("?")[0].lstrip("/") for uri in abuse if uri.startswith("xmpp:"))]
    found: dict[Jid, None] = {}
    for text in addresses:
        try:
            found[Jid.parse(text)] = None
        except ProtocolError:
            _log.warning("'%s' among the addresses for reports is not an XMPP address", text)
    return tuple(found)[:_MAX_RECEIVERS]


class SpamReports:
    """``to`` gives who hears of reports from a domain; ``deliver`` takes messages with their addresses.

    What an account reports beyond 30 an hour is only counted.
    """

    def __init__(
        self,
        *,
        to: Callable[[str], Sequence[Jid]],
        deliver: Callable[[Sequence[tuple[Jid, Element]]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._to = to
        self._deliver = deliver
        self._clock = clock
        self._rate = RateLimit(per_s=_HOURLY / 3600, burst=_HOURLY)
        self.counts: Counter[str] = Counter()
        """Reports by reason since the start."""
        self.feature = Feature(
            name="XEP-0377 spam reporting",
            server_vars=(ns.REPORTING, *_REASONS),
            account_vars=(ns.REPORTING, *_REASONS),
        )

    def take(self, reporter: Jid, reports: Sequence[Report]) -> None:
        """Logs, counts and passes on what an account reported; its block request was carried out."""
        for report in reports:
            self.counts[report.reason] += 1
            if not self._rate.take(str(reporter.bare), self._clock()):
                continue  # whoever reports without end is heard no more, in the log neither
            words = f': "{report.text}"' if report.text else ""
            _log.warning("%s reports %s for %s%s", reporter.bare, report.about, report.reason, words)
            self._deliver([(to, self._message(reporter.bare, to, report)) for to in self._to(reporter.domain)])

    def _message(self, reporter: Jid, to: Jid, report: Report) -> Element:
        lines = [f"{reporter} reports {report.about}: {report.reason}."]
        if report.text:
            lines.append(f"In their words: {report.text}")
        if report.ids:
            lines.append("Messages: " + ", ".join(f"{identifier} (in {by})" for by, identifier in report.ids))
        attrs = {"from": reporter.domain, "to": str(to), "type": "normal"}
        body = Element("body", ns.CLIENT, {}, ("\n".join(lines),))
        subject = Element("subject", ns.CLIENT, {}, (f"Report: {report.reason}",))
        return Element("message", ns.CLIENT, attrs, (subject, body))
