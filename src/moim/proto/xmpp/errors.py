"""Stream errors and stanza errors (RFC 6120 sections 4.9 and 8.3): the tables, and builders of their elements."""

from __future__ import annotations

from typing import Final

from moim.errors import Refused
from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element

_MAX_TEXT: Final = 300

STREAM_CONDITIONS: Final = frozenset(
    {
        "bad-format", "bad-namespace-prefix", "conflict", "connection-timeout", "host-gone", "host-unknown",
        "improper-addressing", "internal-server-error", "invalid-from", "invalid-namespace", "invalid-xml",
        "not-authorized", "not-well-formed", "policy-violation", "remote-connection-failed", "reset",
        "resource-constraint", "restricted-xml", "see-other-host", "system-shutdown", "undefined-condition",
        "unsupported-encoding", "unsupported-feature", "unsupported-stanza-type", "unsupported-version",
    }
)  # fmt: skip
"""Conditions of RFC 6120 section 4.9.3."""

STANZA_CONDITIONS: Final = {
    "bad-request": "modify",
    "conflict": "cancel",
    "feature-not-implemented": "cancel",
    "forbidden": "auth",
    "gone": "cancel",
    "internal-server-error": "cancel",
    "item-not-found": "cancel",
    "jid-malformed": "modify",
    "not-acceptable": "modify",
    "not-allowed": "cancel",
    "not-authorized": "auth",
    "policy-violation": "modify",
    "recipient-unavailable": "wait",
    "redirect": "modify",
    "registration-required": "auth",
    "remote-server-not-found": "cancel",
    "remote-server-timeout": "wait",
    "resource-constraint": "wait",
    "service-unavailable": "cancel",
    "subscription-required": "auth",
    "undefined-condition": "cancel",
    "unexpected-request": "wait",
}
"""Conditions of RFC 6120 section 8.3.3, each with the error type it usually has."""


class StanzaError(Refused):
    """A handler's refusal of a stanza; becomes the error reply. ``condition`` is a key of STANZA_CONDITIONS."""

    def __init__(self, condition: str, text: str = "", *, kind: str = "", application: Element | None = None) -> None:
        super().__init__(text or condition)
        self.condition = condition
        self.text = text
        self.kind = kind or STANZA_CONDITIONS[condition]
        self.application = application

    def element(self) -> Element:
        """The ``<error/>`` element."""
        children: list[Element] = [Element(self.condition, ns.STANZA_ERRORS)]
        if self.text:
            children.append(Element("text", ns.STANZA_ERRORS, {"xml:lang": "en"}, (self.text,)))
        if self.application is not None:
            children.append(self.application)
        return Element("error", ns.CLIENT, {"type": self.kind}, tuple(children))


def stream_error(condition: str, text: str = "") -> Element:
    """A ``<stream:error/>``; ``text`` is for people."""
    if condition not in STREAM_CONDITIONS:
        raise ValueError(f"'{condition}' is not a stream error condition")
    children: list[Element] = [Element(condition, ns.STREAM_ERRORS)]
    if text:
        children.append(Element("text", ns.STREAM_ERRORS, {"xml:lang": "en"}, (text,)))
    return Element("error", ns.STREAMS, {}, tuple(children))


def read_condition(error: Element | None, namespace: str) -> tuple[str, str]:
    """The condition and the text of a peer's ``<error/>`` or ``<failure/>``, whose conditions are of ``namespace``.

    The condition is ``undefined-condition`` where there is none; the text is cut to what fits into a message.
    """
    condition = text = ""
    for child in error.elements() if error is not None else ():
        if child.ns == namespace and child.name == "text":
            text = text or child.text.strip()[:_MAX_TEXT]
        elif child.ns == namespace:
            condition = condition or child.name
    return condition or "undefined-condition", text


def error_reply(stanza: Element, error: StanzaError) -> Element | None:
    """The error stanza that answers ``stanza``, with its addresses swapped; None where no error may be sent.

    Never an error about an error, nor about an IQ result (RFC 6120 section 8.3.1), nor about presence that only says
    goodbye. The payload is not echoed: nothing a sender wrote goes back enlarged.
    """
    kind = stanza.get("type")
    if kind == "error" or (stanza.name == "iq" and kind == "result"):
        return None
    attrs = {"type": "error"}
    for name, source in (("from", "to"), ("to", "from"), ("id", "id")):
        value = stanza.get(source)
        if value is not None:
            attrs[name] = value
    return Element(stanza.name, ns.CLIENT, attrs, (error.element(),))
