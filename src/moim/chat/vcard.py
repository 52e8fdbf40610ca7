"""XEP-0054 vcard-temp: what users store about themselves, and the directory's name where they stored none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import sqlalchemy as sa

from moim.chat import tables
from moim.chat.avatars import Avatars
from moim.chat.feature import Feature, Iq, Payload
from moim.chat.users import Users
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.store import Store, insert


class VCards:
    """The vCards of the domain's accounts; anybody may read what their owners stored, only the owner writes.

    ``related`` says whether somebody has to do with an account (bare JID): others do not learn that it exists unless it
    stored a vCard, and never the name that the directory has.
    """

    def __init__(
        self,
        *,
        users: Users,
        store: Store,
        avatars: Avatars,
        related: Callable[[str, Jid], Awaitable[bool]],
        max_bytes: Callable[[str], int],
    ) -> None:
        self._users = users
        self._store = store
        self._avatars = avatars
        self._related = related
        self._max_bytes = max_bytes
        self.feature = Feature(
            name="XEP-0054 vcard-temp",
            server_vars=(ns.VCARD,),
            account_vars=(ns.VCARD,),
            server_iq={("get", ns.VCARD, "vCard"): self._server},
            account_iq={("get", ns.VCARD, "vCard"): self._get, ("set", ns.VCARD, "vCard"): self._set},
            on_account_removed=self._drop,
        )

    def _server(self, iq: Iq) -> Payload:
        return (_vcard(("FN", "Moim"), ("JABBERID", str(iq.to))),)

    async def _get(self, iq: Iq) -> Payload:
        profile = await self._users.profile(str(iq.to))
        if profile is None:
            raise StanzaError("service-unavailable")
        stored = await self.stored(str(iq.to))
        related = iq.session is not None or await self._related(str(iq.to), iq.sender)
        if stored is None and not related:
            raise StanzaError("service-unavailable")
        own = [("FN", profile.display_name)] if profile.display_name and related else []
        vcard = _vcard(("JABBERID", str(iq.to))) if stored is None else stored
        named = vcard.find("FN", ns.VCARD)
        if own and (named is None or not named.text.strip()):
            rest = [child for child in vcard.children if child != named]
            vcard = vcard.with_children((*_vcard(*own).children, *rest))
        photo = await self._avatars.photo(str(iq.to), iq.sender)
        if photo is not None:
            rest = [child for child in vcard.children if child != vcard.find("PHOTO", ns.VCARD)]
            vcard = vcard.with_children((*rest, photo))
        return (vcard,)

    async def _set(self, iq: Iq) -> Payload:
        await self.store(iq.owner.bare, iq.payload)
        return ()

    async def stored(self, owner: str) -> Element | None:
        """The vCard that an account stored, without its picture; None when it stored none."""
        query = sa.select(tables.vcards.c.vcard).where(tables.vcards.c.owner == owner)
        found = await self._store.read(lambda connection: connection.execute(query).scalar())
        return None if found is None else Element.parse(found)

    async def store(self, owner: str, vcard: Element) -> None:
        """Takes an account's vCard; an inline picture becomes its avatar. Raises StanzaError."""
        if len(vcard.to_xml("").encode()) > (most := self._max_bytes(owner)):
            raise StanzaError("not-acceptable", f"a vCard may have {most} bytes")
        photo = vcard.find("PHOTO", ns.VCARD)
        inline = photo is not None and photo.find("BINVAL", ns.VCARD) is not None
        await self._avatars.set_photo(owner, photo if inline else None)
        # The picture is kept as the avatar alone; the link to one stays where it is.
        text = vcard.with_children([c for c in vcard.children if not inline or c != photo]).to_xml("")
        upsert = insert(tables.vcards).values(owner=owner, vcard=text)
        upsert = upsert.on_conflict_do_update(index_elements=["owner"], set_={"vcard": text})
        await self._store.write(lambda connection: connection.execute(upsert))

    async def _drop(self, owner: str) -> None:
        gone = sa.delete(tables.vcards).where(tables.vcards.c.owner == owner)
        await self._store.write(lambda connection: connection.execute(gone))


def _vcard(*fields: tuple[str, str]) -> Element:
    return Element("vCard", ns.VCARD, {}, tuple(Element(name, ns.VCARD, {}, (text,)) for name, text in fields))
