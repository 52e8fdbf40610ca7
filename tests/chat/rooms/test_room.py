"""The machine of a room under any sequence of steps, and the tables behind it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.chat.rooms import entering, hats, lists, messages, owners, registration, retracting
from moim.chat.rooms.config import RoomConfig
from moim.chat.rooms.config_form import apply_form
from moim.chat.rooms.hat_list import Hat
from moim.chat.rooms.history import Entry, History, Wanted, read_wanted
from moim.chat.rooms.occupants import Subject
from moim.chat.rooms.ranks import Affiliation, Role, check_affiliation_change, check_role_change, initial_role
from moim.chat.rooms.relay import Relay
from moim.chat.rooms.room import Room
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import read_form
from room_machine import BOUNDS, NOW, OWNER, codes, element, enter, form, make_room, say, tell, unfolded

PEOPLE = [OWNER, *(Jid(name, "x.test", device) for name in ("ann", "ben", "cem") for device in ("1", "2"))]
NICKS = ["O", "Ann", "Ben", "Cem"]


def items(*each: str) -> Element:
    return Element.parse(f"<query xmlns='{ns.MUC_ADMIN}'>{''.join(each)}</query>")


people, nicks = st.sampled_from(PEOPLE), st.sampled_from(NICKS)
affiliations, roles = st.sampled_from(list(Affiliation)), st.sampled_from(list(Role))
steps = st.one_of(
    st.tuples(st.just("enter"), people, nicks),
    st.tuples(st.just("present"), people, nicks),
    st.tuples(st.just("leave"), people),
    st.tuples(st.just("say"), people),
    st.tuples(st.just("subject"), people),
    st.tuples(st.just("whisper"), people, nicks),
    st.tuples(st.just("invite"), people, people),
    st.tuples(st.just("affiliation"), people, people, affiliations),
    st.tuples(st.just("role"), people, nicks, roles),
    st.tuples(st.just("configure"), people, st.sampled_from(["moderatedroom", "membersonly"]), st.sampled_from("01")),
    st.tuples(st.just("whois"), people, st.sampled_from(["anyone", "moderators"])),
    st.tuples(st.just("register"), people, nicks),
    st.tuples(st.just("assign"), people, people),
    st.tuples(st.just("moderate"), people),
    st.tuples(st.just("retract"), people),
    st.tuples(st.just("ask"), people),
    st.tuples(st.just("broadcast"), people, st.sampled_from(["moderator", "participant", "visitor"])),
    st.tuples(st.just("destroy"), people),
)


def take(room: Room, step: tuple) -> None:  # type: ignore[type-arg]
    kind, who, *rest = step
    if kind == "enter":
        enter(room, who, rest[0])
    elif kind == "present":
        entering.available(room, who, rest[0], element("<presence><show>away</show></presence>"), NOW)
    elif kind == "leave":
        entering.unavailable(room, who, element("<presence type='unavailable'/>"))
    elif kind == "say":
        say(room, who, "<body>hi</body>")
    elif kind == "subject":
        say(room, who, "<subject>hi</subject>")
    elif kind == "whisper":
        messages.to_occupant(room, who, rest[0], element("<message type='chat'><body>psst</body></message>"))
    elif kind == "invite":
        inner = f"<x xmlns='{ns.MUC_USER}'><invite to='{rest[0]}'/></x>"
        messages.to_room(room, who, element(f"<message>{inner}</message>"), NOW)
    elif kind == "affiliation":
        lists.change(room, who, items(f"<item jid='{rest[0]}' affiliation='{rest[1]}'/>"))
    elif kind == "role":
        lists.change(room, who, items(f"<item nick='{rest[0]}' role='{rest[1]}'/>"))
    elif kind == "register":
        filled = form(ns.MUC_REGISTER, muc__register_roomnick=rest[0])
        registration.change(room, who, Element.parse(f"<query xmlns='{ns.REGISTER}'>{filled}</query>"))
    elif kind == "assign":
        if room.hats.get("u:hat") is None:
            room.hats.define(Hat("u:hat", "Hat"))
        filled = form("urn:xmpp:hats:commands", hats__jid=str(rest[0]), hats__uri="u:hat")
        node = "urn:xmpp:hats:commands:assign"
        hats.command(room, who, Element.parse(f"<command xmlns='{ns.COMMANDS}' node='{node}'>{filled}</command>"))
    elif kind in ("moderate", "retract"):
        newest = room.history.entries()[-1].identifier if len(room.history) else "t0"
        retract = f"<retract xmlns='{ns.RETRACTION}' id='{newest}'/>"
        if kind == "retract":
            say(room, who, retract)
        else:
            moderate = f"<moderate xmlns='{ns.MODERATION}' id='{newest}'>{retract}</moderate>"
            order = retracting.read_order(room, who, Element.parse(moderate), NOW)
            retracting.carry_out(room, order, NOW)
    elif kind == "ask":
        tell(room, who, form(ns.MUC_REQUEST, muc__role="participant"))
    elif kind == "broadcast":
        filled = form(ns.MUC_CONFIG, muc__roomconfig_presencebroadcast=rest[0])
        owners.change(room, who, Element.parse(f"<query xmlns='{ns.MUC_OWNER}'>{filled}</query>"))
    elif kind == "destroy":
        owners.change(room, who, Element.parse(f"<query xmlns='{ns.MUC_OWNER}'><destroy/></query>"))
    else:
        var, value = ("whois", rest[0]) if kind == "whois" else rest
        field = f"<field var='muc#roomconfig_{var}'><value>{value}</value></field>"
        head = f"<field var='FORM_TYPE'><value>{ns.MUC_CONFIG}</value></field>"
        query = f"<query xmlns='{ns.MUC_OWNER}'><x xmlns='jabber:x:data' type='submit'>{head}{field}</x></query>"
        owners.change(room, who, Element.parse(query))


@given(st.lists(steps, max_size=40))
def test_no_sequence_of_steps_breaks_a_room(sequence: list) -> None:  # type: ignore[type-arg]
    room = make_room()
    enter(room, OWNER, "O")
    inside = {OWNER}
    room.output.clear()
    for step in sequence:
        if room.destroyed:
            break
        before = (dict(room.affiliations), dict(room.by_session), room.config)
        try:
            take(room, step)
        except StanzaError:
            assert not room.output, "a refusal tells nobody"
            assert (dict(room.affiliations), dict(room.by_session), room.config) == before, "and changes nothing"
        known = inside | set(room.by_session) | {step[1]}
        sent = list(unfolded(room.output))
        for to, stanza in sent:
            assert Jid.parse(stanza.get("to") or "") == to
            assert (stanza.get("from") or "").startswith(room.address)
            outside = step[0] == "invite" or (step[0] in ("affiliation", "register") and to.is_bare)
            assert to in known or outside, "only those inside hear what goes on"
        for to, stanza in sent:
            viewer = room.by_session.get(to)
            muc = stanza.find("x", ns.MUC_USER)
            if stanza.name == "presence" and viewer is not None and 110 not in codes(stanza):
                item = muc.find("item") if muc is not None else None
                assert item is not None
                assert item.get("jid") is None or room.sees_jids(viewer) or step[0] in ("affiliation", "role")
        room.output.clear()
        inside = set(room.by_session)
        if not room.destroyed:
            assert Affiliation.OWNER in room.affiliations.values()
        assert {jid for o in room.occupants.values() for jid in o.sessions} == set(room.by_session)
        assert {jid for audience in room.audiences.values() for jid in audience} == set(room.by_session)
        for nick, occupant in room.occupants.items():
            assert occupant.nick == nick
            assert occupant in room.by_bare[str(occupant.bare)]
            assert all(jid in room.audiences[room.sees_jids(occupant)] for jid in occupant.sessions)
            assert occupant.visible == (occupant.role.value in room.config.broadcast)
            assert occupant.sessions
            assert {jid.bare for jid in occupant.sessions} == {occupant.bare}
            assert occupant.role is not Role.NONE
            assert room.affiliation(occupant.bare) is not Affiliation.OUTCAST
        if room.config.members_only:
            assert all(room.affiliation(o.bare) is not Affiliation.NONE for o in room.occupants.values())
        assert len(room.occupants) <= BOUNDS.max_users
        assert len(room.history) <= BOUNDS.history


@given(affiliations, affiliations, affiliations)
def test_only_owners_make_or_unmake_admins(actor: Affiliation, old: Affiliation, new: Affiliation) -> None:
    try:
        check_affiliation_change(actor, old, new)
    except StanzaError:
        assert actor is not Affiliation.OWNER
    else:
        managers = {Affiliation.ADMIN, Affiliation.OWNER}
        assert actor is Affiliation.OWNER or (actor is Affiliation.ADMIN and not {old, new} & managers)


@given(affiliations, roles, affiliations, roles, roles)
def test_roles_are_changed_by_moderators_and_never_upwards(
    actor: Affiliation, actor_role: Role, target: Affiliation, target_role: Role, new: Role
) -> None:
    try:
        check_role_change(actor, actor_role, target, target_role, new)
    except StanzaError:
        return
    assert actor_role is Role.MODERATOR
    if new is Role.NONE:
        assert target.rank <= actor.rank
    elif new is Role.MODERATOR or target_role is Role.MODERATOR:
        assert actor in (Affiliation.ADMIN, Affiliation.OWNER)


@pytest.mark.parametrize(
    ("affiliation", "open_role", "moderated_role"),
    [
        (Affiliation.OWNER, Role.MODERATOR, Role.MODERATOR),
        (Affiliation.ADMIN, Role.MODERATOR, Role.MODERATOR),
        (Affiliation.MEMBER, Role.PARTICIPANT, Role.PARTICIPANT),
        (Affiliation.NONE, Role.PARTICIPANT, Role.VISITOR),
        (Affiliation.OUTCAST, Role.NONE, Role.NONE),
    ],
)
def test_roles_on_entry(affiliation: Affiliation, open_role: Role, moderated_role: Role) -> None:
    assert initial_role(affiliation, moderated=False) is open_role
    assert initial_role(affiliation, moderated=True) is moderated_role


def test_all_items_of_a_request_or_none() -> None:
    room = make_room()
    enter(room, OWNER, "O")
    with pytest.raises(StanzaError) as refused:
        lists.change(room, OWNER, items("<item jid='a@x.test' affiliation='member'/>", "<item nick='?' role='none'/>"))
    assert refused.value.condition == "item-not-found"
    assert list(room.affiliations) == ["owner@x.test"]
    both = ("<item jid='a@x.test' affiliation='owner'/>", "<item jid='a@x.test' affiliation='none'/>")
    with pytest.raises(StanzaError) as refused:
        lists.change(room, OWNER, items(*both, "<item jid='owner@x.test' affiliation='none'/>"))
    assert refused.value.condition == "conflict"
    assert list(room.affiliations) == ["owner@x.test"]


def test_a_bounce_takes_a_ghost_out() -> None:
    room = make_room()
    enter(room, OWNER, "O")
    enter(room, PEOPLE[1], "Ann")
    room.output.clear()
    gone = f"<error type='cancel'><service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error>"
    assert messages.bounced(room, PEOPLE[1], element(f"<message type='error'>{gone}</message>"))
    assert not messages.bounced(room, PEOPLE[2], element(f"<message type='error'>{gone}</message>"))
    refusal = gone.replace("service-unavailable", "policy-violation")
    assert not messages.bounced(room, PEOPLE[1], element(f"<message type='error'>{refusal}</message>"))
    assert not messages.bounced(room, PEOPLE[1], element("<message type='error'/>"))
    assert messages.bounced(room, PEOPLE[1], element("<presence type='error'/>"))
    entering.vanished(room, PEOPLE[1])
    assert list(room.occupants) == ["O"]
    assert [codes(stanza) for _, stanza in unfolded(room.output)] == [[333], [333, 110]]


def test_the_answer_to_who_enters_and_leaves_has_the_id_of_what_it_answers() -> None:
    room = make_room()
    enter(room, OWNER, "O")
    room.output.clear()
    came = element(f"<presence id='in'><x xmlns='{ns.MUC}'/></presence>")
    entering.available(room, PEOPLE[1], "Ann", came, NOW)
    entering.unavailable(room, PEOPLE[1], element("<presence type='unavailable' id='out'/>"))
    seen = [(to, stanza.get("type"), stanza.get("id")) for to, stanza in unfolded(room.output)
            if stanza.name == "presence" and stanza.get("from") == f"{room.address}/Ann"]  # fmt: skip
    assert sorted(seen, key=str) == sorted(
        [(OWNER, None, None), (PEOPLE[1], None, "in"), (OWNER, "unavailable", None), (PEOPLE[1], "unavailable", "out")],
        key=str,
    )


def test_the_creator_of_a_non_anonymous_room_is_told() -> None:
    room = make_room(locked=True, non_anonymous=True)
    stanza = element(f"<presence><x xmlns='{ns.MUC}'/></presence>")
    entering.available(room, OWNER, "O", stanza, NOW, created=True)
    assert codes(next(unfolded(room.output))[1]) == [100, 201, 110]
    owners.change(room, OWNER, Element.parse(
        f"<query xmlns='{ns.MUC_OWNER}'><x xmlns='jabber:x:data' type='cancel'/></query>"))  # fmt: skip
    assert room.is_over


@given(
    st.lists(st.integers(0, 1000), max_size=8),
    st.none() | st.integers(0, 8),
    st.none() | st.integers(0, 2000),
    st.none() | st.integers(0, 1000),
)
def test_history_gives_the_newest_within_every_limit(
    ages: list[int], most: int | None, chars: int | None, since: int | None
) -> None:
    moments = sorted(NOW + timedelta(seconds=age) for age in ages)
    history = History(5, [Entry(at, element(f"<message><body>{n}</body></message>")) for n, at in enumerate(moments)])
    limit = None if since is None else NOW + timedelta(seconds=since)
    chosen = history.select(Wanted(chars, most, limit), "room@x.test")
    numbers = [int(body.text) for stanza in chosen if (body := stanza.find("body")) is not None]
    assert numbers == list(range(len(ages) - len(numbers), len(ages)))
    assert len(numbers) <= min(5, 5 if most is None else most)
    assert chars is None or sum(len(stanza.to_xml()) for stanza in chosen) <= chars
    assert limit is None or all(moments[number] >= limit for number in numbers)
    if most is None and chars is None and limit is None:
        assert len(numbers) == min(5, len(ages))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("maxchars", "maxstanzas", "seconds", "since"), st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")))))  # fmt: skip
def test_whatever_is_asked_of_history_is_a_limit_or_a_bad_request(attrs: dict[str, str]) -> None:
    try:
        wanted = read_wanted(Element("x", ns.MUC, {}, (Element("history", ns.MUC, attrs),)), NOW)
    except StanzaError:
        assert attrs
    else:
        assert wanted.since is None or wanted.since.tzinfo is not None


values = st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20), max_size=3).map(tuple)
fields = st.sampled_from([
    "roomname", "persistentroom", "passwordprotectedroom", "roomsecret", "whois", "allowpm", "maxusers", "unknown",
])  # fmt: skip


@given(st.dictionaries(fields.map("muc#roomconfig_{}".format), values))
def test_a_configuration_is_taken_or_refused_and_survives_the_store(form: dict[str, tuple[str, ...]]) -> None:
    try:
        config = apply_form(RoomConfig(), form, BOUNDS)
    except StanzaError:
        assert form
    else:
        assert 0 <= config.max_users <= BOUNDS.max_users
        assert RoomConfig.from_json(config.to_json()) == config


def test_the_form_for_owners_says_what_is() -> None:
    room = make_room(password="p", non_anonymous=True, moderated=True, name="N", max_users=3, history=4)
    room.subject = Subject("s", "O", NOW)
    query = owners.read(room, OWNER)
    kind, found = read_form(query.elements()[0])
    assert kind == ns.MUC_CONFIG
    assert apply_form(RoomConfig(), found, BOUNDS) == room.config
    with pytest.raises(StanzaError):
        owners.read(room, PEOPLE[1])


def test_large_messages_are_heard_but_not_remembered() -> None:
    room = make_room()
    enter(room, OWNER, "O")
    room.output.clear()
    say(room, OWNER, f"<body>{'x' * 70_000}</body>")
    assert len(list(unfolded(room.output))) == 1
    assert len(room.history) == 0
    assert not room.recorded


def test_a_vcard_comes_without_the_address() -> None:
    room, relay = make_room(non_anonymous=False), Relay(lambda: "t1")
    enter(room, OWNER, "O")
    enter(room, PEOPLE[1], "Ann")
    iq = element(f"<iq type='get' id='a' from='{PEOPLE[1]}' to='{room.address}/O'><vCard xmlns='vcard-temp'/></iq>")
    to, asked = relay.ask(room, PEOPLE[1], "O", iq, iq.elements()[0])
    assert (to, asked.get("from")) == (OWNER.bare, f"{room.address}/Ann")
    card = "<vCard xmlns='vcard-temp'><FN>O</FN><JABBERID>owner@x.test</JABBERID></vCard>"
    answer = element(f"<iq type='result' id='t1' from='owner@x.test' to='{room.address}/Ann'>{card}</iq>")
    assert relay.answer(PEOPLE[3], answer) is None, "only who was asked may answer"
    passed = relay.answer(OWNER.bare, answer)
    assert passed is not None
    assert passed[0] == PEOPLE[1]
    assert "owner@x.test" not in passed[1].to_xml()
    assert (passed[1].get("id"), passed[1].get("from")) == ("a", f"{room.address}/O")
    assert relay.answer(OWNER.bare, answer) is None
