"""XEP-0398 avatars in one place: what vCards (XEP-0153) show and set is the avatar of personal eventing (XEP-0084).

Whoever may not read the avatar's nodes does not get it by vCard either; its hash is in presence when all who see
presence may read it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from moim.chat.accounts import Accounts, Session
from moim.chat.feature import Feature
from moim.chat.pep import Pep
from moim.chat.pep_events import PepEvents
from moim.chat.pep_store import PepStore
from moim.proto.xmpp import Element, Jid, StanzaError, ns

_HASH: Final = re.compile(r"[0-9a-f]{40}")
_MEDIA_TYPE: Final = re.compile(r"image/[a-z0-9.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class _Avatar:
    number: str
    type: str


class Avatars:
    """The avatar of each account. ``refresh(owner)`` shows the presence of its sessions anew."""

    def __init__(
        self, pep: Pep, store: PepStore, events: PepEvents, *, accounts: Accounts, refresh: Callable[[str], None]
    ) -> None:
        self._pep = pep
        self._store = store
        self._events = events
        self._accounts = accounts
        self._refresh = refresh
        self._shown: dict[str, str] = {}
        pep.listen(ns.AVATAR_METADATA, self._changed)
        self.feature = Feature(
            name="XEP-0398 avatar conversion",
            account_vars=(ns.AVATAR_CONVERSION,),
            before_available=self._before_available,
            on_presence=self._dress,
            on_gone=self._gone,
        )

    # --- presence -----------------------------------------------------------------------------------------------

    def _before_available(self, session: Session, _priority: int) -> Awaitable[None] | None:
        owner = session.bare
        if owner in self._shown:
            return None
        if not self._store.has_nodes(owner):
            self._shown[owner] = ""
            return None
        return self._learn(owner)

    async def _learn(self, owner: str) -> None:
        self._shown[owner] = await self._visible(owner)

    async def _changed(self, owner: str) -> None:
        account = self._accounts.get(owner)
        if account is None or owner not in self._shown:
            return
        before, after = self._shown[owner], await self._visible(owner)
        if after != before:
            self._shown[owner] = after
            self._refresh(owner)

    async def _visible(self, owner: str) -> str:
        """The hash that presence shows: empty when there is no avatar, or not everybody may see it."""
        config = await self._store.config(owner, ns.AVATAR_METADATA)
        if config is None or config.access_model not in ("open", "presence"):
            return ""
        avatar = await self._current(owner)
        return avatar.number if avatar is not None else ""

    def _dress(self, session: Session, stanza: Element) -> Element:
        number = self._shown.get(session.bare, "")
        claimed = stanza.find("x", ns.VCARD_UPDATE)
        if not number and claimed is None:
            return stanza
        photo = claimed.find("photo", ns.VCARD_UPDATE) if claimed is not None else None
        if photo is not None and not photo.text.strip():
            return stanza  # this session wants no avatar to be seen (XEP-0398 section 4)
        photo = Element("photo", ns.VCARD_UPDATE, {}, (number,) if number else ())
        others = [child for child in stanza.children if child != claimed]
        return stanza.with_children([*others, Element("x", ns.VCARD_UPDATE, {}, (photo,))])

    def _gone(self, session: Session) -> None:
        account = session.full_account
        if all(other is session for other in account.sessions.values()):
            self._shown.pop(account.bare, None)

    # --- vCards -------------------------------------------------------------------------------------------------

    async def _current(self, owner: str) -> _Avatar | None:
        for item in await self._store.items(owner, ns.AVATAR_METADATA, newest=1):
            for info in Element.parse(item.payload).elements():
                number = (info.get("id") or "").lower()
                if info.name == "info" and not info.get("url") and _HASH.fullmatch(number):
                    return _Avatar(number, info.get("type") or "image/png")
        return None

    async def photo(self, owner: str, reader: Jid) -> Element | None:
        """The ``<PHOTO/>`` that a reader of the vCard sees; None when there is none, or not for them."""
        config = await self._store.config(owner, ns.AVATAR_DATA)
        if config is None or not await self._events.may(owner, config, reader):
            return None
        avatar = await self._current(owner)
        if avatar is None:
            return None
        for item in await self._store.items(owner, ns.AVATAR_DATA, names=(avatar.number,)):
            data = "".join(Element.parse(item.payload).text.split())
            if _digest(data) != avatar.number:
                return None  # what is called by the hash of something else is no avatar (section 3.1)
            fields = (Element("TYPE", ns.VCARD, {}, (avatar.type,)), Element("BINVAL", ns.VCARD, {}, (data,)))
            return Element("PHOTO", ns.VCARD, {}, fields)
        return None

    async def set_photo(self, owner: str, photo: Element | None) -> None:
        """The owner stored a vCard with this picture, or without one. Raises StanzaError for what is no picture."""
        before = await self._current(owner)
        if photo is None:
            if before is not None:
                await self._publish(owner, ns.AVATAR_METADATA, "current", Element("metadata", ns.AVATAR_METADATA))
            return
        content = photo.find("BINVAL", ns.VCARD)
        try:
            data = base64.b64decode("".join((content.text if content is not None else "").split()), validate=True)
        except (binascii.Error, ValueError):
            raise StanzaError("bad-request", "the picture of the vCard is not base64") from None
        if not data:
            await self.set_photo(owner, None)
            return
        number = hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if before is not None and before.number == number:
            return
        declared = photo.find("TYPE", ns.VCARD)
        kind = declared.text.strip().lower() if declared is not None else ""
        kind = kind if _MEDIA_TYPE.fullmatch(kind) else "image/png"
        text = base64.b64encode(data).decode("ascii")
        await self._publish(owner, ns.AVATAR_DATA, number, Element("data", ns.AVATAR_DATA, {}, (text,)))
        info = Element("info", ns.AVATAR_METADATA, {"id": number, "type": kind, "bytes": str(len(data))})
        await self._publish(owner, ns.AVATAR_METADATA, number, Element("metadata", ns.AVATAR_METADATA, {}, (info,)))

    async def _publish(self, owner: str, node: str, name: str, payload: Element) -> None:
        """A node that is made for a vCard is as public as the vCard; one that is there stays as it is."""
        new = await self._store.config(owner, node) is None
        await self._pep.publish(owner, node, name, payload, {"access_model": "open"} if new else None)


def _digest(data: str) -> str:
    try:
        return hashlib.sha1(base64.b64decode(data, validate=True), usedforsecurity=False).hexdigest()
    except (binascii.Error, ValueError):
        return ""
