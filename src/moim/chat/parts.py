"""The parts of the chat room of one node, made and bound to each other: the one list of what clients can use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from moim.chat import entity_time, jid_escaping, limits, session_request, version
from moim.chat.account_changes import AccountChanges, account_removed
from moim.chat.accounts import Accounts, Session
from moim.chat.administration import Administration, administrators
from moim.chat.archive import Archive, Share
from moim.chat.archive.rows import Record
from moim.chat.avatars import Avatars
from moim.chat.block_lists import BlockLists
from moim.chat.blocking import Blocking
from moim.chat.bookmarks import Bookmarks, bookmarks_config
from moim.chat.bookmarks_node import BookmarksNode
from moim.chat.carbons import Carbons
from moim.chat.cluster import Cluster, RoomsHome, Seats
from moim.chat.commands import Commands
from moim.chat.contact_addresses import contact_addresses, contact_forms
from moim.chat.contacts import People
from moim.chat.csi import client_state
from moim.chat.disco import Discovery
from moim.chat.external import Attachments, ExternalComponents
from moim.chat.external_services import ExternalServices, Relays
from moim.chat.fast import FastTokens
from moim.chat.feature import Feature, hooks
from moim.chat.hosts import Hosts, component_host
from moim.chat.last_activity import LastActivity
from moim.chat.message_of_the_day import MessageOfTheDay
from moim.chat.offline import OfflineMessages
from moim.chat.other_domains import Guarded, OtherDomains
from moim.chat.outage_status import outage_status
from moim.chat.pep import Pep
from moim.chat.pep_events import PepEvents
from moim.chat.pep_store import PepStore
from moim.chat.ping import ping
from moim.chat.plane import Plane
from moim.chat.policies import Policies
from moim.chat.presence import Presence
from moim.chat.private import PrivateStorage
from moim.chat.push import Push, Registrations
from moim.chat.refusals import Refusals
from moim.chat.registration import Registrar, Registration
from moim.chat.remote import RemoteStanzas
from moim.chat.remote_readers import RemoteReaders
from moim.chat.rooms import Rooms, RoomServices
from moim.chat.rooms import Share as RoomShare
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
        hosts: Hosts,
        policies: Policies,
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
        self.domains = hosts
        self.policies = policies
        self.accounts = Accounts()
        self.people = People(users, hosts, max_age=settings.directory_refresh_seconds)
        self.rosters = Rosters(
            store,
            self.people,
            group=lambda owner: hosts.settings(owner).default_contacts_group,
            alone=cluster is None,
        )
        self.block_lists = BlockLists(store)
        self.pushes = RosterPushes(self.accounts, self.plane)
        self.verifiers = Verifiers(users, secret)
        self.tokens = self._make_tokens(settings, store, users, secret) if settings.fast else None
        self.registration = self._make_registration(hosts, settings, registrar)
        archived = policies.any(lambda counts: counts.archive)
        self.archive = self._make_archive(hosts, settings, store) if archived else None
        self.offline = OfflineMessages(
            accounts=self.accounts,
            plane=self.plane,
            store=store,
            bounce=self._bounce,
            limits=lambda owner: limits.offline_limits(policies.of(owner)),
            alone=cluster is None,
            archive=self.archive,
        )

        def most_contacts(owner: str) -> int:
            return policies.of(owner).max_roster_items

        subscriptions = Subscriptions(
            hosts,
            accounts=self.accounts,
            people=self.people,
            plane=self.plane,
            rosters=self.rosters,
            block_lists=self.block_lists,
            pushes=self.pushes,
            remote=self._remote,
            max_items=most_contacts,
        )
        roster_requests = RosterRequests(
            self.rosters,
            self.pushes,
            max_items=most_contacts,
            after_removal=subscriptions.after_removal,
        )
        discovery = Discovery("Moim", accounts=self.accounts, rosters=self.rosters)
        informed = {
            name: receivers(host.settings.admins, host.settings.abuse_addresses) for name, host in hosts.items()
        }
        self.reports = SpamReports(
            to=lambda domain: informed[domain],
            deliver=lambda batch: self.router.deliver(batch),
        )
        self.blocking = Blocking(
            self.block_lists,
            reports=self.reports,
            accounts=self.accounts,
            plane=self.plane,
            visibility=self,
            max_items=lambda owner: policies.of(owner).max_blocked,
        )
        pep_store = PepStore(
            store,
            lambda owner: limits.pep_bounds(policies.of(owner)),
            alone=cluster is None,
        )
        events = PepEvents(
            hosts,
            pep_store,
            accounts=self.accounts,
            rosters=self.rosters,
            block_lists=self.block_lists,
            plane=self.plane,
        )
        self.pep = pep = Pep(
            pep_store,
            events,
            plane=self.plane,
            max_caps=settings.caps_cache,
            defaults={
                ns.BOOKMARKS: bookmarks_config,
                ns.DISPLAYED: bookmarks_config,  # XEP-0490 section 3.1 asks for the same
            },
        )
        subscriptions.on_seen = pep.seen
        avatars = Avatars(pep, pep_store, events, accounts=self.accounts, refresh=self._refresh)
        bookmarks = Bookmarks(pep, pep_store)
        private = PrivateStorage(
            store,
            elsewhere={(ns.STORAGE_BOOKMARKS, "storage"): bookmarks},
            bounds=lambda owner: limits.private_bounds(policies.of(owner)),
        )
        vcards = VCards(
            users=users,
            store=store,
            avatars=avatars,
            related=lambda owner, other: self.strangers.related(owner, other),
            max_bytes=lambda owner: policies.of(owner).vcard_bytes,
        )
        self.pep_store, self.private, self.vcards = pep_store, private, vcards

        self.external = self._make_external(hosts, external) if external is not None else None
        self.push = self._make_push(hosts, settings, store) if policies.any(lambda counts: counts.push) else None
        self.uploads = self._make_uploads(hosts, files, web_base, secret) if files is not None else None

        self.management = self._make_management(settings)
        administration = Administration(
            users=users,
            accounts=self.accounts,
            rosters=self.rosters,
            plane=self.plane,
            end_account=lambda bare, error: self.sessions.end_account(bare, error),
            end=lambda session, error: self.sessions.end(session, error),
            policies=policies.named,
        )
        admins = {name: host.settings.admins for name, host in hosts.items()}
        motd = MessageOfTheDay(
            [name for name, people in admins.items() if people], store, accounts=self.accounts, plane=self.plane
        )
        commands = Commands(
            (*administration.commands, *motd.commands),
            allowed=administrators(admins),
            offered=lambda domain: bool(admins[domain]),
        )

        self.refusals = Refusals(self._bounce)
        components: dict[str, Component] = {}
        self.other_domains = OtherDomains(
            hosts,
            policies.of,
            accounts=self.accounts,
            plane=self.plane,
            visibility=self,
            related=lambda owner, other: self.strangers.related(owner, other),
            refusals=self.refusals,
            exempt=components,
        )
        # Every feature that clients can use. What is not listed here does not exist, and is not announced.
        self.features = (
            *((self.archive.feature,) if self.archive is not None else ()),  # before what waits for its messages
            avatars.feature,
            self.blocking.feature,
            self.reports.feature,
            bookmarks.feature,
            BookmarksNode(pep, private).feature,
            Carbons(self.plane).feature,
            client_state(self.plane),
            *([commands.feature, motd.feature] if any(admins.values()) else []),
            outage_status(settings.outage_status_addresses),
            contact_addresses(hosts.settings),
            discovery.feature,
            pep.caps.feature,
            entity_time.feature,
            jid_escaping.feature,
            LastActivity(store, accounts=self.accounts, rosters=self.rosters).feature,
            self.offline.feature,
            self.other_domains.feature,
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
        self.rooms = self._house_rooms(hosts, store, cluster) if any(host.rooms for host in hosts.values()) else None
        for part in (self.rooms, self.uploads):
            components |= dict.fromkeys(part.hosts, part) if part is not None else {}
        if self.external is not None:
            if twice := components.keys() & self.external.components.keys():
                raise ConfigError(f"two parts of the chat service have the same domain: {min(twice)}")
            components |= self.external.components

        def services(domain: str) -> list[tuple[str, str]]:
            named = ((hosts[domain].rooms, "Rooms"), (hosts[domain].uploads, "File upload"))
            return [(host, name) for host, name in named if host in components]

        discovery.describe(self.features, services)

        self.presence = Presence(
            hosts,
            accounts=self.accounts,
            plane=self.plane,
            rosters=self.rosters,
            block_lists=self.block_lists,
            features=self.features,
            remote=self._remote,
            max_directed=settings.max_directed_presence,
        )
        self.strangers = self._make_strangers(hosts, components)
        self._counts_strangers = any(host.settings.strangers_per_minute > 0 for host in hosts.values())
        if federation is not None:
            federation = Guarded(Watched(federation, self.strangers.wrote), self.other_domains.lets_out)
        lists = [source(uri) for uri in settings.shared_block_lists]
        self.shared_lists = (
            SharedBlockLists(hosts.primary, lists, send=self._remote, refusals=self.refusals) if lists else None
        )
        self.plane.servers.short_way = self._short_way
        self.plane.servers.open = self.other_domains.open
        self.router = Router(
            hosts,
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
            leaves=self.other_domains.check,
        )
        self.undelivered = Undelivered(
            hosts, accounts=self.accounts, plane=self.plane, offline=self.offline, refuse=self._bounce
        )
        readers = RemoteReaders(events, rosters=self.rosters, send=self._remote)
        events.elsewhere = readers
        self.hosts = (*hosts, *components)
        self.remote_stanzas = RemoteStanzas(
            hosts,
            router=self.router,
            people=self.people,
            presence=self.presence,
            subscriptions=subscriptions,
            components=components,
            hears=(readers,),
            gates=(*((self.strangers,) if self._counts_strangers else ()), self.other_domains),
            lists=self.shared_lists,
        )
        offers = {
            name: limits.sign_in_policy(
                name,
                host.settings,
                self.features,
                caps=discovery.caps(name, f"xmpp:{name}"),
                hashes=users.scram_hashes,
                tokens=self.tokens is not None,
                register=self.registration is not None,
            )
            for name, host in hosts.items()
        }
        self.sessions = Sessions(
            policies=offers,
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
            max_per_account=lambda bare: policies.of(bare).max_sessions_per_user,
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
            policies=policies,
            also=(self.rooms.account_removed,) if self.rooms is not None else (),
        )
        if cluster is not None:
            cluster.attach(self)

    def _make_tokens(self, settings: Settings, store: Store, users: Users, secret: bytes) -> FastTokens:
        return FastTokens(
            store=store,
            lookup=users.scram,
            secret=secret,
            lifetime=settings.fast_days * 86_400,
            renew_after=settings.fast_renew_hours * 3600,
            clients=settings.fast_clients,
        )

    def _make_registration(self, hosts: Hosts, settings: Settings, registrar: Registrar | None) -> Registration | None:
        offering = self.policies.any(lambda counts: counts.password_changes)
        if registrar is None or not (offering or any(host.settings.registration for host in hosts.values())):
            return None
        return Registration(
            registrar,
            open_to_strangers=lambda domain: hosts[domain].settings.registration,
            changes=lambda whose: self.policies.of(whose).password_changes,
            per_hour=settings.registrations_per_hour,
            farewell=lambda session, last: self.sessions.farewell(session, last, account_removed()),
        )

    def _make_archive(self, hosts: Hosts, settings: Settings, store: Store) -> Archive:
        shares = {name: limits.archive_share(host.settings) for name, host in hosts.items()}
        special = {name for name, share in shares.items() if share != limits.archive_share(settings)}

        def others() -> dict[str, Share]:
            """Those of the accounts and rooms that keep more or less than is usual, by their domain or policy."""
            found = {bare: shares[name] for bare in self.people if (name := bare.rpartition("@")[2]) in special}
            found |= {bare: limits.archive_share(self.policies.of(bare)) for bare in self.policies}
            of_rooms = {hosts[name].rooms: shares[name] for name in special}
            for room in self.rooms.addresses() if self.rooms is not None and special else ():
                if (share := of_rooms.get(room.rpartition("@")[2])) is not None:
                    found[room] = share
            return found

        return Archive(
            limits.archive_limits(settings, self.policies, others),
            store=store,
            plane=self.plane,
            accounts=self.accounts,
            local=self.people.__contains__,
            contact=self._contact,
            refuse=self._unarchived,
        )

    def _make_strangers(self, hosts: Hosts, exempt: Collection[str]) -> Strangers:
        return Strangers(
            hosts,
            lambda whose: limits.stranger_shares(self.policies.of(whose)),
            accounts=self.accounts,
            rosters=self.rosters,
            refusals=self.refusals,
            exempt=exempt,
            look_again=self.plane.servers.look_again,
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
            "refused_by_policy": self.refusals.counts["policy"],
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
            dealt_with=self._dealt_with,
            detached=tell(lambda feature: feature.on_detached),
            resumed=tell(lambda feature: feature.on_resumed),
        )

    async def _dealt_with(self, session: Session) -> None:
        await self.sessions.dealt_with(session)
        if self.archive is not None:
            await self.archive.settled()  # what the plane delivered of it

    def _make_external(self, hosts: Hosts, attachments: Attachments) -> ExternalComponents:
        for host in attachments.secrets:
            component_host("components", host, hosts)
        return ExternalComponents(
            attachments, take=self._from_component, deliver=lambda batch: self.router.deliver(batch)
        )

    def _from_component(self, to: Jid, stanza: Element) -> None:
        """What a component says is judged like what another domain says; its ``from`` was checked."""
        if to.domain in self.hosts:
            self.remote_stanzas.take(stanza)
        else:
            self.router.deliver([(to, stanza)])

    def _make_push(self, hosts: Hosts, settings: Settings, store: Store) -> Push:
        return Push(
            hosts,
            Registrations(store, most=settings.push_registrations),
            plane=self.plane,
            may=lambda owner: self.policies.of(owner).push,
            deliver=lambda batch: self.router.deliver(batch),
            summary=settings.push_summary,
            per_minute=settings.push_per_minute,
        )

    def _make_uploads(self, hosts: Hosts, files: Files, base: Callable[[], str], secret: bytes) -> Uploads:
        return Uploads(
            {host.uploads: name for name, host in hosts.items() if host.uploads},
            files=files,
            base=base,
            secret=secret,
            may=lambda owner: self.policies.of(owner).uploads,
            per_minute=lambda owner: self.policies.of(owner).uploads_per_minute,
            deliver=lambda batch: self.router.deliver(batch),
            forms=lambda domain: contact_forms(hosts.settings(domain)),
        )

    def _house_rooms(self, hosts: Hosts, store: Store, cluster: Cluster | None) -> RoomServices | RoomsHome:
        if cluster is None:
            return self._make_rooms(hosts, store)
        return RoomsHome(
            [host.rooms for host in hosts.values() if host.rooms],
            hosts,
            lambda guarded, seats: self._make_rooms(hosts, guarded, seats),
            cluster=cluster,
            store=store,
            accounts=self.accounts,
            refuse=self._bounce,
        )

    def _make_rooms(self, hosts: Hosts, store: Store, seats: Seats | None = None) -> RoomServices:
        return RoomServices(
            [
                Rooms(
                    limits.room_settings(host, apart=name != hosts.primary),
                    store=store,
                    seats=seats,
                    deliver=lambda batch: self.router.deliver(batch),
                    fan_out=lambda stanza, audience, skip: self.router.fan_out(stanza, audience, skip),
                    archive=self.archive.rooms if self.archive is not None and host.settings.archive else None,
                    share=self._room_share,
                )
                for name, host in hosts.items()
                if host.rooms
            ]
        )

    def _room_share(self, person: Jid) -> RoomShare | None:
        """That of somebody of this site; people of elsewhere have the service's."""
        return limits.room_share(self.policies.of(str(person.bare))) if person.domain in self.domains else None

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
