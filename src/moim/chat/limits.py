"""What the settings allow, in the form that each part of the chat room takes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from moim.chat.archive import Limits as ArchiveLimits
from moim.chat.archive import Share
from moim.chat.feature import Feature
from moim.chat.hosts import rooms_host
from moim.chat.negotiation import Policy
from moim.chat.pep_store import Bounds
from moim.chat.rooms import RoomSettings
from moim.chat.settings import Settings
from moim.chat.strangers import Shares
from moim.chat.throttle import AuthThrottle
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


def pep_bounds(settings: Settings) -> Bounds:
    """How much each account may publish."""
    return Bounds(settings.pep_nodes, settings.pep_items, settings.pep_item_bytes, settings.pep_bytes)


def stranger_shares(settings: Settings) -> Shares:
    """How much of other domains reaches those who do not know the sender."""
    return Shares(
        settings.strangers_per_minute, settings.strangers_domain_per_minute, settings.strangers_account_per_minute
    )


def archive_limits(settings: Settings) -> ArchiveLimits:
    """What an archive keeps, and how much of it one request gets."""
    return ArchiveLimits(
        usual=settings.archive_default,
        listed=settings.archive_preferences,
        page=settings.archive_page,
        page_most=settings.archive_page_max,
        page_bytes=settings.archive_page_bytes,
        patience=settings.archive_patience_seconds,
        share=Share(settings.archive_days, settings.archive_messages, settings.archive_bytes),
    )


def room_settings(domain: str, settings: Settings) -> RoomSettings:
    """The rooms of a domain. Raises ConfigError."""
    return RoomSettings(
        host=rooms_host(domain, settings),
        creators=domain if settings.rooms_creation == "local" else "",
        occupants=settings.rooms_occupants,
        history=settings.rooms_history,
        rooms=settings.rooms_max,
        rooms_per_user=settings.rooms_per_user,
        rate=settings.rooms_stanzas_per_second,
        burst=settings.rooms_stanzas_burst,
        persistent=settings.rooms_persistent,
        history_bytes=settings.rooms_history_bytes,
        affiliations=settings.rooms_affiliations,
        vcard_bytes=settings.vcard_bytes,
        logged=settings.rooms_archive,
    )
