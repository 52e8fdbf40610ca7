"""What discovery says of the service and of rooms (XEP-0045 section 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from moim.chat.rooms import avatar, hats
from moim.chat.rooms.ranks import Affiliation, is_manager
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns, rsm
from moim.proto.xmpp.dataform import Field, form

_MAX_ITEMS: Final = 500
_OWN_NICK: Final = "x-roomuser-item"
_TRAFFIC: Final = f"{ns.MUC}#traffic"
_COMMON: Final = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.MUC, ns.PING, ns.VCARD)
_SERVICE: Final = (
    *_COMMON,
    ns.OCCUPANT_ID,
    ns.SELF_PING,
    ns.MUC_UNIQUE,
    ns.RSM,
    ns.CHANNEL_SEARCH,
    ns.HATS,
    ns.MODERATION,
    ns.MODERATION_0,
    ns.MUC_STABLE_ID,
)
_ROOM: Final = (
    *_COMMON, ns.COMMANDS, ns.HATS, ns.MODERATION, ns.MODERATION_0, ns.MUC_REQUEST, ns.MUC_STABLE_ID, ns.OCCUPANT_ID,
    ns.REGISTER, ns.RETRACTION, f"{ns.RETRACTION}#tombstone", ns.RSM, ns.SELF_PING, ns.STANZA_IDS,
)  # fmt: skip
ARCHIVE: Final = (ns.ARCHIVE, f"{ns.ARCHIVE}#extended")


def service_info(query: Element, name: str, forms: Sequence[Element]) -> Element:
    """The service: group chat, and what it can do; ``forms`` say more (XEP-0128)."""
    _no_node(query)
    return _info(name, _SERVICE, *forms)


def room_info(room: Room, sender: Jid, query: Element) -> Element:
    """A room, with its properties as features and its details as a form; or one of its nodes."""
    node = query.get("node")
    if node == _OWN_NICK:
        return _own_nick(room, sender)
    if node in hats.COMMANDS and node in hats.visible(room, sender):
        return _command(node)
    if node == _TRAFFIC:
        raise StanzaError("service-unavailable", "everything may be said here")  # section 16.1.1
    _no_node(query)
    config = room.config
    features = (
        *_ROOM,
        "muc_public" if config.public else "muc_hidden",
        "muc_persistent" if config.persistent else "muc_temporary",
        "muc_membersonly" if config.members_only else "muc_open",
        "muc_moderated" if config.moderated else "muc_unmoderated",
        "muc_nonanonymous" if config.non_anonymous else "muc_semianonymous",
        "muc_passwordprotected" if config.password else "muc_unsecured",
        *(ARCHIVE if room.logged else ()),
    )
    return _info(config.name or room.jid.local, features, form("result", ns.MUC_INFO, _details(room)))


def _details(room: Room) -> Sequence[Field]:
    config = room.config
    details = [
        Field("muc#roominfo_description", values=(config.description,), label="Description"),
        Field("muc#roominfo_lang", values=(config.language,), label="Language"),
        Field("muc#roominfo_occupants", values=(str(len(room.occupants)),), label="Occupants"),
        Field("muc#roominfo_changesubject", "boolean", ("1" if config.change_subject else "0",)),
        Field("muc#roominfo_subjectmod", "boolean", ("1" if config.change_subject else "0",)),
        Field("muc#maxhistoryfetch", values=(str(min(config.history, room.bounds.history)),)),
    ]
    if room.subject is not None and not config.members_only and not config.password:
        details.append(Field("muc#roominfo_subject", values=(room.subject.text,), label="Subject"))
    if config.pubsub:
        details.append(Field("muc#roominfo_pubsub", values=(config.pubsub,), label="Associated node"))
    if found := avatar.hashes(room):
        details.append(Field("muc#roominfo_avatarhash", "text-multi", found, "Avatar hash"))
    if len(room.hats):
        details.append(Field("hats#hash", values=(room.hats.hash,), label="Hats hash"))
    return details


def _own_nick(room: Room, sender: Jid) -> Element:
    """The nickname that the room keeps for whoever asks (XEP-0045 section 7.12)."""
    nick = room.nicks.get(str(sender.bare))
    attrs = {"category": "conference", "type": "text", "name": nick or ""}
    found = (Element("identity", ns.DISCO_INFO, attrs),) if nick else ()
    return Element("query", ns.DISCO_INFO, {"node": _OWN_NICK}, found)


def _command(node: str) -> Element:
    attrs = {"category": "automation", "type": "command-node", "name": hats.COMMANDS[node]}
    children = [Element("identity", ns.DISCO_INFO, attrs)]
    children += [Element("feature", ns.DISCO_INFO, {"var": var}) for var in (ns.COMMANDS, ns.DATA_FORMS)]
    return Element("query", ns.DISCO_INFO, {"node": node}, tuple(children))


def room_items(room: Room, sender: Jid, query: Element) -> Element:
    """The occupants, for those who may see them (XEP-0045 section 6.5). Or the commands that somebody may use here."""
    attrs: dict[str, str] = {}
    items: list[Element] = []
    if query.get("node") == ns.COMMANDS:
        attrs = {"node": ns.COMMANDS}
        items = [
            Element("item", ns.DISCO_ITEMS, {"jid": room.address, "node": node, "name": hats.COMMANDS[node]})
            for node in hats.visible(room, sender)
        ]
    elif query.get("node"):
        raise StanzaError("item-not-found", "there is no such node")
    elif _sees_occupants(room, sender):
        nicks = [nick for nick, occupant in room.occupants.items() if occupant.visible]
        asked = query.find("set", ns.RSM)
        part = rsm.page(nicks, rsm.read(asked), usual=_MAX_ITEMS, most=_MAX_ITEMS)
        items = [
            Element("item", ns.DISCO_ITEMS, {"jid": f"{room.address}/{nick}"}) for nick in nicks[part.start : part.stop]
        ]
        if asked is not None or len(items) < len(nicks):
            items.append(part.element)
    return Element("query", ns.DISCO_ITEMS, attrs, tuple(items))


def _sees_occupants(room: Room, sender: Jid) -> bool:
    """Whether somebody is inside, or could look at a listed room by entering it at once."""
    if sender in room.by_session:
        return True
    affiliation = room.affiliation(sender)
    if room.locked or affiliation is Affiliation.OUTCAST:
        return False
    if affiliation is Affiliation.NONE and (room.config.members_only or not room.config.public):
        return False
    return not room.config.password or is_manager(affiliation)


def _no_node(query: Element) -> None:
    if query.get("node"):
        raise StanzaError("item-not-found", "there is no such node")


def _info(name: str, features: Iterable[str], *more: Element) -> Element:
    children = [Element("identity", ns.DISCO_INFO, {"category": "conference", "type": "text", "name": name})]
    children.extend(Element("feature", ns.DISCO_INFO, {"var": var}) for var in sorted(set(features)))
    return Element("query", ns.DISCO_INFO, {}, (*children, *more))
