"""The parts of the chat room of one node, made and bound to each other: the one list of what clients can use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from moim.chat import entity_time, jid_escaping, limits, session_request, version
from moim.chat.account_changes import AccountChanges, account_removed
from moim.chat.accounts import Accounts, Session
from moim.chat.administration import Administration, administrators
from moim.chat.archive import Archive
from moim.chat.archive.rows import Record
from moim.chat.avatars import Avatars
from moim.chat.block_lists import BlockLists
from moim.chat.blocking import Blocking
from moim.chat.bookmarks import Bookmarks, bookmarks_config
from moim.chat.carbons import Carbons
from moim.chat.cluster import Cluster, RoomsHome, Seats
from moim.chat.commands import Commands
from moim.chat.contact_addresses import contact_addresses
from moim.chat.contacts import People
from moim.chat.csi import client_state
from moim.chat.disco import Discovery
from moim.chat.external import Attachments, ExternalComponents
from moim.chat.external_services import ExternalServices, Relays
from moim.chat.fast import FastTokens
from moim.chat.feature import Feature, hooks
from moim.chat.hosts import component_host, rooms_host, uploads_host
from moim.chat.last_activity import LastActivity
from moim.chat.message_of_the_day import MessageOfTheDay
from moim.chat.offline import OfflineMessages
from moim.chat.outage_status import outage_status
from moim.chat.pep import Pep
from moim.chat.pep_events import PepEvents
from moim.chat.pep_store import PepStore
from moim.chat.ping import ping
from moim.chat.plane import Plane
from moim.chat.presence import Presence
from moim.chat.private import PrivateStorage
from moim.chat.push import Push, Registrations
from moim.chat.refusals import Refusals
from moim.chat.registration import Registrar, Registration
from moim.chat.remote import RemoteStanzas
from moim.chat.remote_readers import RemoteReaders
from moim.chat.rooms import Rooms
from moim.chat.roster import RosterPushes, RosterRequests
from moim.chat.rosters import Rosters
from moim.chat.routing import Component, Federation, Router
from moim.chat.rtbl import SharedBlockLists, source
from moim.chat.sessions import Sessions
from moim.chat.settings import Settings
from moim.chat.spam_reports import SpamReports, receivers
from moim.chat.strangers import Strangers, Watched
from moim.chat.stream_management import StreamManagement
from moim.chat.subscribing import Subscriptions
from moim.chat.undelivered import Undelivered
from moim.chat.uploads import Files, Uploads
from moim.chat.users import Users
from moim.chat.vcard import VCards
from moim.chat.verifiers import Verifiers
from moim.errors import ConfigError
from moim.proto.xmpp import Element, Jid, StanzaError, ns, stream_error
from moim.store import Store


class Parts:
    """The room's parts while it runs, made in the order in which they need each other."""

    def __init__(
        self,
        plane: Plane,
        domain: str,
        settings: Settings,
        store: Store,
        users: Users,
        federation: Federation | None,
        relays: Relays | None,
        secret: bytes,
        *,
        files: Files | None = None,
        web_base: Callable[[], str] = str,
        registrar: Registrar | None = None,
        external: Attachments | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.plane = plane
        self.accounts = Accounts()
        self.people = People(
            users,
            domain,
            default_contacts=settings.default_contacts,
            limit=settings.default_contacts_limit,
            max_age=settings.directory_refresh_seconds,
        )
        self.rosters = Rosters(store, self.people, group=settings.default_contacts_group, alone=cluster is None)
        self.block_lists = BlockLists(domain, store)
        self.pushes = RosterPushes(self.accounts, self.plane)
        self.verifiers = Verifiers(users, secret)
        self.tokens = self._make_tokens(domain, settings, store, users, secret) if settings.fast else None
        self.registration = self._make_registration(domain, settings, registrar)
        self.archive = self._make_archive(domain, settings, store) if settings.archive else None
        self.offline = OfflineMessages(
            domain,
            accounts=self.accounts,
            plane=self.plane,
            store=store,
            bounce=self._bounce,
            max_messages=settings.offline_messages,
            max_bytes=settings.offline_bytes,
            alone=cluster is None,
            archive=self.archive,
        )
        subscriptions = Subscriptions(
            domain,
            accounts=self.accounts,
            people=self.people,
            plane=self.plane,
            rosters=self.rosters,
            block_lists=self.block_lists,
            pushes=self.pushes,
            remote=self._remote,
            max_items=settings.max_roster_items,
        )
        roster_requests = RosterRequests(
            self.rosters,
            self.pushes,
            max_items=settings.max_roster_items,
            after_removal=subscriptions.after_removal,
        )
        discovery = Discovery("Moim", accounts=self.accounts, rosters=self.rosters)
        self.reports = SpamReports(
            domain,
            to=receivers(settings.admins, settings.abuse_addresses),
            deliver=lambda batch: self.router.deliver(batch),
        )
        self.blocking = Blocking(
            self.block_lists,
            reports=self.reports,
            accounts=self.accounts,
            plane=self.plane,
            visibility=self,
            max_items=settings.max_blocked,
        )
        pep_store = PepStore(
            store,
            limits.pep_bounds(settings),
            alone=cluster is None,
        )
        events = PepEvents(
            pep_store, accounts=self.accounts, rosters=self.rosters, block_lists=self.block_lists, plane=self.plane
        )
        self.pep = pep = Pep(
            domain,
            pep_store,
            events,
            plane=self.plane,
            max_caps=settings.caps_cache,
            defaults={
                ns.BOOKMARKS: bookmarks_config(settings.pep_items),
                ns.DISPLAYED: bookmarks_config(settings.pep_items),  # XEP-0490 section 3.1 asks for the same
            },
        )
        avatars = Avatars(pep, pep_store, events, accounts=self.accounts, refresh=self._refresh)
        bookmarks = Bookmarks(pep, pep_store)
        private = PrivateStorage(
            store,
            elsewhere={(ns.STORAGE_BOOKMARKS, "storage"): bookmarks},
            max_items=settings.private_items,
            max_bytes=settings.private_bytes,
        )
        vcards = VCards(
            users=users,
            store=store,
            avatars=avatars,
            related=lambda owner, other: self.strangers.related(owner, other),
            max_bytes=settings.vcard_bytes,
        )
        self.pep_store, self.private, self.vcards = pep_store, private, vcards

        self.external = self._make_external(domain, external) if external is not None else None
        self.push = self._make_push(domain, settings, store) if settings.push else None
        self.uploads = self._make_uploads(domain, settings, files, web_base, secret) if files is not None else None

        self.management = self._make_management(settings)
        administration = Administration(
            domain,
            users=users,
            accounts=self.accounts,
            rosters=self.rosters,
            plane=self.plane,
            end_account=lambda bare, error: self.sessions.end_account(bare, error),
        )
        motd = MessageOfTheDay(domain, store, accounts=self.accounts, plane=self.plane)
        commands = Commands((*administration.commands, *motd.commands), allowed=administrators(settings.admins))

        # Every feature that clients can use. What is not listed here does not exist, and is not announced.
        self.features = (
            *((self.archive.feature,) if self.archive is not None else ()),  # before what waits for its messages
            avatars.feature,
            self.blocking.feature,
            self.reports.feature,
            bookmarks.feature,
            Carbons(self.plane).feature,
            client_state(self.plane),
            *([commands.feature, motd.feature] if settings.admins else []),
            outage_status(settings.outage_status_addresses),
            contact_addresses(
                admin=settings.admin_addresses, abuse=settings.abuse_addresses, support=settings.support_addresses
            ),
            discovery.feature,
            pep.caps.feature,
            entity_time.feature,
            jid_escaping.feature,
            LastActivity(store, accounts=self.accounts, rosters=self.rosters).feature,
            self.offline.feature,
            pep.feature,
            ping(self.rosters),
            private.feature,
            roster_requests.feature,
            session_request.feature,
            self.management.feature,
            vcards.feature,
            version.feature,
            *((ExternalServices(relays).feature,) if relays is not None else ()),
            *((self.uploads.feature,) if self.uploads is not None else ()),
            *((self.push.feature,) if self.push is not None else ()),
            *((self.external.feature,) if self.external is not None else ()),
            *((self.tokens.feature,) if self.tokens is not None else ()),
            *((self.registration.feature,) if self.registration is not None else ()),
        )
        self.rooms = self._house_rooms(domain, settings, store, cluster) if settings.rooms else None
        own = [component for component in (self.rooms, self.uploads) if component is not None]
        components: dict[str, Component] = {component.host: component for component in own}
        components |= self.external.components if self.external is not None else {}
        if len(components) < len(own) + (len(self.external.components) if self.external is not None else 0):
            raise ConfigError("two parts of the chat service have the same domain", hint="see the keys chat.…_host")
        discovery.describe(self.features, [(component.host, component.name) for component in own])

        self.presence = Presence(
            domain,
            accounts=self.accounts,
            plane=self.plane,
            rosters=self.rosters,
            block_lists=self.block_lists,
            features=self.features,
            remote=self._remote,
            max_directed=settings.max_directed_presence,
        )
        self.refusals = Refusals(self._bounce)
        self.strangers = self._make_strangers(domain, settings, components)
        self._counts_strangers = settings.strangers_per_minute > 0
        if federation is not None:
            federation = Watched(federation, self.strangers.wrote)
        lists = [source(uri) for uri in settings.shared_block_lists]
        self.shared_lists = (
            SharedBlockLists(domain, lists, send=self._remote, refusals=self.refusals) if lists else None
        )
        self.plane.servers.short_way = self._short_way
        self.router = Router(
            domain,
            accounts=self.accounts,
            people=self.people,
            plane=self.plane,
            block_lists=self.block_lists,
            offline=self.offline,
            archive=self.archive,
            presence=self.presence,
            subscriptions=subscriptions,
            features=self.features,
            federation=federation,
            components=components,
            gateways=self.external.components if self.external is not None else (),
        )
        self.undelivered = Undelivered(
            domain, accounts=self.accounts, plane=self.plane, offline=self.offline, refuse=self._bounce
        )
        readers = RemoteReaders(events, rosters=self.rosters, send=self._remote)
        events.elsewhere = readers
        self.hosts = (domain, *components)
        self.remote_stanzas = RemoteStanzas(
            domain,
            router=self.router,
            people=self.people,
            presence=self.presence,
            subscriptions=subscriptions,
            components=components,
            hears=(readers,),
            gate=self.strangers if self._counts_strangers else None,
            lists=self.shared_lists,
        )
        policy = limits.sign_in_policy(
            domain,
            settings,
            self.features,
            caps=discovery.caps(f"xmpp:{domain}"),
            hashes=users.scram_hashes,
            tokens=self.tokens is not None,
            register=self.registration is not None,
        )
        self.sessions = Sessions(
            policy=policy,
            plane=self.plane,
            accounts=self.accounts,
            router=self.router,
            presence=self.presence,
            verifiers=self.verifiers,
            throttle=limits.throttle(settings),
            features=self.features,
            management=self.management,
            on_bound=lambda session: self.changes.bound(session),
            tokens=self.tokens,
            strangers=self.registration.stranger if self.registration is not None else None,
            records=self._recorded,
            secret=secret,
            max_per_account=settings.max_sessions_per_user,
            max_pending=settings.max_pending_stanzas,
            bind_timeout=2 * settings.handshake_seconds,
        )
        self.changes = AccountChanges(
            accounts=self.accounts,
            people=self.people,
            rosters=self.rosters,
            pushes=self.pushes,
            sessions=self.sessions,
            tokens=self.tokens,
            registration=self.registration,
            features=self.features,
            also=(self.rooms.account_removed,) if self.rooms is not None else (),
        )
        if cluster is not None:
            cluster.attach(self)

    def _make_tokens(self, domain: str, settings: Settings, store: Store, users: Users, secret: bytes) -> FastTokens:
        return FastTokens(
            domain,
            store=store,
            lookup=users.scram,
            secret=secret,
            lifetime=settings.fast_days * 86_400,
            renew_after=settings.fast_renew_hours * 3600,
            clients=settings.fast_clients,
        )

    def _make_registration(self, domain: str, settings: Settings, registrar: Registrar | None) -> Registration | None:
        if registrar is None or not (settings.password_changes or settings.registration):
            return None
        return Registration(
            domain,
            registrar,
            open_to_strangers=settings.registration,
            per_hour=settings.registrations_per_hour,
            farewell=lambda session, last: self.sessions.farewell(session, last, account_removed()),
        )

    def _make_archive(self, domain: str, settings: Settings, store: Store) -> Archive:
        return Archive(
            domain,
            limits.archive_limits(settings),
            store=store,
            plane=self.plane,
            accounts=self.accounts,
            local=self.people.__contains__,
            contact=self._contact,
            refuse=self._unarchived,
        )

    def _make_strangers(self, domain: str, settings: Settings, exempt: Collection[str]) -> Strangers:
        return Strangers(
            domain,
            limits.stranger_shares(settings),
            accounts=self.accounts,
            rosters=self.rosters,
            refusals=self.refusals,
            exempt=exempt,
            direct=lambda remote, on: self.plane.servers.look_again(remote),
        )

    def _short_way(self, remote: str) -> bool:
        """Whether messages of a domain may be delivered before anybody looks at them: they are counted afterwards."""
        if self.shared_lists is not None:
            return False
        return not self._counts_strangers or (self.archive is not None and not self.strangers.judges(remote))

    @property
    def counts(self) -> dict[str, int]:
        """What was refused and reported since the start."""
        return {
            "spam_reports": self.reports.counts.total(),
            "refused_strangers": self.refusals.counts["strangers"],
            "refused_listed": self.refusals.counts["block list"],
            "listed_addresses": len(self.shared_lists) if self.shared_lists is not None else 0,
        }

    def _recorded(self, ticket: int, records: Sequence[Record]) -> None:
        if self._counts_strangers:
            self.strangers.carried(records)
        if self.push is not None:
            self.push.recorded(records)
        if self.archive is None:
            raise AssertionError("records are made of nobody's messages")
        self.archive.records(ticket, records)

    async def _contact(self, owner: str, address: str) -> bool:
        return (await self.rosters.get(owner)).item(address).listed

    def _unarchived(self, senders: Collection[str]) -> None:
        """The messages of these sessions were delivered, but cannot be kept: they must not count as taken."""
        error = stream_error("resource-constraint", "the server cannot store messages at the moment")
        for address in senders:
            if (session := self.accounts.session(Jid.parse(address))) is not None:
                self.sessions.end(session, error)

    def _make_management(self, settings: Settings) -> StreamManagement:
        def tell(pick: Callable[[Feature], Callable[[Session], None] | None]) -> Callable[[Session], None]:
            def all_of_them(session: Session) -> None:
                for hook in hooks(self.features, pick):
                    hook(session)

            return all_of_them

        return StreamManagement(
            self.plane,
            longest=settings.resume_seconds,
            waiting=settings.resume_waiting,
            end=lambda session, error: self.sessions.end(session, error),
            again=lambda stanzas: self.undelivered.take(stanzas),
            detached=tell(lambda feature: feature.on_detached),
            resumed=tell(lambda feature: feature.on_resumed),
        )

    def _make_external(self, domain: str, attachments: Attachments) -> ExternalComponents:
        for host in attachments.secrets:
            component_host("components", host, domain)
        return ExternalComponents(
            attachments, take=self._from_component, deliver=lambda batch: self.router.deliver(batch)
        )

    def _from_component(self, to: Jid, stanza: Element) -> None:
        """What a component says is judged like what another domain says; its ``from`` was checked."""
        if to.domain in self.hosts:
            self.remote_stanzas.take(stanza)
        else:
            self.router.deliver([(to, stanza)])

    def _make_push(self, domain: str, settings: Settings, store: Store) -> Push:
        return Push(
            domain,
            Registrations(store, most=settings.push_registrations),
            plane=self.plane,
            deliver=lambda batch: self.router.deliver(batch),
            summary=settings.push_summary,
            per_minute=settings.push_per_minute,
        )

    def _make_uploads(
        self, domain: str, settings: Settings, files: Files, base: Callable[[], str], secret: bytes
    ) -> Uploads:
        return Uploads(
            uploads_host(domain, settings),
            domain,
            files=files,
            base=base,
            secret=secret,
            per_minute=settings.uploads_per_minute,
            deliver=lambda batch: self.router.deliver(batch),
        )

    def _house_rooms(self, domain: str, settings: Settings, store: Store, cluster: Cluster | None) -> Rooms | RoomsHome:
        if cluster is None:
            return self._make_rooms(domain, settings, store)
        return RoomsHome(
            rooms_host(domain, settings),
            domain,
            lambda guarded, seats: self._make_rooms(domain, settings, guarded, seats),
            cluster=cluster,
            store=store,
            accounts=self.accounts,
            refuse=self._bounce,
        )

    def _make_rooms(self, domain: str, settings: Settings, store: Store, seats: Seats | None = None) -> Rooms:
        return Rooms(
            limits.room_settings(domain, settings),
            store=store,
            seats=seats,
            deliver=lambda batch: self.router.deliver(batch),
            fan_out=lambda stanza, audience, skip: self.router.fan_out(stanza, audience, skip),
            archive=self.archive.rooms if self.archive is not None else None,
        )

    def _bounce(self, message: Element, error: StanzaError) -> None:
        self.router.reply(message, error)

    def _remote(self, stanza: Element) -> None:
        self.router.remote(stanza)

    def _refresh(self, owner: str) -> None:
        self.presence.refresh(owner)

    def hide(self, owner: str, addresses: frozenset[str]) -> None:
        """See ``Presence``, which is made after the features."""
        self.presence.hide(owner, addresses)

    def unhide(self, owner: str, addresses: frozenset[str]) -> None:
        """See ``Presence``, which is made after the features."""
        self.presence.unhide(owner, addresses)
