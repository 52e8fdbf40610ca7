"""XEP-0280 message carbons: a session asks for copies of its account's other conversations. The plane makes them."""

from __future__ import annotations

from moim.chat.accounts import Session
from moim.chat.feature import Feature, Iq, Payload
from moim.chat.inline import Inline
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, ns


class Carbons:
    """Switches copies on and off; asking twice is no error."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.feature = Feature(
            name="XEP-0280 message carbons",
            server_vars=(ns.CARBONS, ns.CARBONS_RULES),
            account_iq={("set", ns.CARBONS, "enable"): self._enable, ("set", ns.CARBONS, "disable"): self._disable},
            inline=(Inline(ns.CARBONS, ((ns.CARBONS, "enable"),), self._enable_inside),),
        )

    def _enable(self, iq: Iq) -> Payload:
        self._plane.carbons(iq.owner.sid, True)
        return ()

    def _disable(self, iq: Iq) -> Payload:
        self._plane.carbons(iq.owner.sid, False)
        return ()

    def _enable_inside(self, session: Session, _request: Element) -> Element | None:
        self._plane.carbons(session.sid, True)
        return None
