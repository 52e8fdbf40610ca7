"""XEP-0352 client state indication: the plane holds back what an inactive client need not hear at once."""

from __future__ import annotations

from moim.chat.accounts import Session
from moim.chat.feature import Feature
from moim.chat.inline import Inline
from moim.chat.plane import Plane
from moim.proto.xmpp import Element, ns


def client_state(plane: Plane) -> Feature:
    """Announces it; ``<active/>`` and ``<inactive/>`` never come up from the plane but inside a sign-in."""

    def switch(session: Session, request: Element) -> Element | None:
        plane.inactive(session.sid, request.name == "inactive")
        return None

    return Feature(
        name="XEP-0352 client state indication",
        stream_features=(Element("csi", ns.CSI),),
        inline=(Inline(ns.CSI, ((ns.CSI, "active"), (ns.CSI, "inactive")), switch),),
    )
