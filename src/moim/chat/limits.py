"""What the settings allow, in the form that each part of the chat room takes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from moim.chat.archive import Limits as ArchiveLimits
from moim.chat.archive import Share
from moim.chat.contact_addresses import contact_forms
from moim.chat.feature import Feature
from moim.chat.hosts import Host
from moim.chat.negotiation import Policy
from moim.chat.offline import Limits as OfflineLimits
from moim.chat.pep_store import Bounds
from moim.chat.policies import Policies
from moim.chat.rooms import RoomSettings
from moim.chat.rooms import Share as RoomShare
from moim.chat.settings import DomainSettings, PersonSettings, Settings
from moim.chat.strangers import Shares
from moim.chat.throttle import AuthThrottle
from moim.chat.uploads import DAY, Quotas
from moim.proto.xmpp import Element
from moim.proto.xmpp.scram import ScramHash


def sign_in_policy(
    domain: str,
    settings: Settings,
    features: Sequence[Feature],
    *,
    caps: Element,
    hashes: Callable[[], Collection[ScramHash]],
    tokens: bool,
    register: bool,
) -> Policy:
    """What streams offer; ``caps`` are the capabilities of the server, ``hashes`` those of the stored passwords."""
    return Policy(
        domain,
        allow_plain=settings.allow_plain,
        channel_binding=settings.channel_binding,
        attempts=settings.auth_failures_per_connection,
        stream_features=(*(element for feature in features for element in feature.stream_features), caps),
        inline=tuple(element for feature in features for element in feature.sasl_inline),
        bind_inline=tuple(inline.var for feature in features for inline in feature.inline),
        tokens=tokens,
        hashes=hashes,
        register=settings.registration and register,
    )


def throttle(settings: Settings) -> AuthThrottle:
    """How often passwords may be tried."""
    return AuthThrottle(
        per_address=settings.auth_failures_per_address,
        per_account=settings.auth_failures_per_account,
        longest_wait=settings.auth_backoff_max_seconds,
    )


def pep_bounds(settings: PersonSettings) -> Bounds:
    """How much each account may publish."""
    return Bounds(settings.pep_nodes, settings.pep_items, settings.pep_item_bytes, settings.pep_bytes)


def private_bounds(settings: PersonSettings) -> tuple[int, int]:
    """How many kinds of private data one account may keep, and how many bytes of them."""
    return settings.private_items, settings.private_bytes


def stranger_shares(settings: DomainSettings) -> Shares:
    """How much of other domains reaches somebody who does not know the sender."""
    return Shares(
        settings.strangers_per_minute, settings.strangers_domain_per_minute, settings.strangers_account_per_minute
    )


def archive_limits(settings: Settings, policies: Policies, others: Callable[[], Mapping[str, Share]]) -> ArchiveLimits:
    """What an archive keeps, and how much of it one request gets; ``others`` have shares of their own."""
    return ArchiveLimits(
        usual=lambda owner: policies.of(owner).archive_default,
        fixed=lambda owner: not policies.of(owner).archive_choice,
        kept=lambda owner: policies.of(owner).archive,
        others=others,
        listed=settings.archive_preferences,
        page=settings.archive_page,
        page_most=settings.archive_page_max,
        page_bytes=settings.archive_page_bytes,
        patience=settings.archive_patience_seconds,
        share=archive_share(settings),
    )


def archive_share(settings: PersonSettings) -> Share:
    """What one archive keeps."""
    return Share(settings.archive_days, settings.archive_messages, settings.archive_bytes)


def offline_limits(settings: PersonSettings) -> OfflineLimits:
    """What is kept for one account that is away."""
    return OfflineLimits(settings.offline_messages, settings.offline_bytes)


def upload_quotas(settings: Settings) -> Quotas:
    """What people upload, each and all together."""
    return Quotas(
        file=settings.uploads_file_bytes,
        user=settings.uploads_user_bytes,
        day=settings.uploads_daily_bytes,
        total=settings.uploads_total_bytes,
        free=settings.uploads_free_bytes,
        files=settings.uploads_user_files,
        lifetime=settings.uploads_days * DAY,
        slot=settings.uploads_slot_seconds,
    )


def room_share(settings: PersonSettings) -> RoomShare:
    """What one person may do with rooms."""
    return RoomShare(settings.rooms_per_user, settings.rooms_stanzas_per_second, settings.rooms_stanzas_burst)


def room_settings(host: Host, *, apart: bool) -> RoomSettings:
    """The rooms of a domain. ``apart``: in the store they are told from those of the service domain by their host."""
    settings = host.settings
    return RoomSettings(
        host=host.rooms,
        apart=apart,
        creators=host.domain if settings.rooms_creation == "local" else "",
        occupants=settings.rooms_occupants,
        history=settings.rooms_history,
        rooms=settings.rooms_max,
        share=room_share(settings),
        persistent=settings.rooms_persistent,
        history_bytes=settings.rooms_history_bytes,
        affiliations=settings.rooms_affiliations,
        vcard_bytes=settings.vcard_bytes,
        logged=settings.rooms_archive,
        forms=contact_forms(settings),
    )
