"""The ``[chat]`` section of ``moim.toml``."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Literal

from pydantic import Field, field_validator

from moim.settings import Section


class PersonSettings(Section):
    """What may differ from person to person."""

    max_sessions_per_user: int = Field(default=32, ge=1, le=1000)
    """Resources that one account may have bound at once."""
    max_roster_items: int = Field(default=2000, ge=1, le=100_000)
    """Contacts that one account may add by itself."""
    federation: bool = True
    """Let people write to and hear from other domains, as far as ``[federation]`` has it. Off, what they send there is
    refused, and to others they are not there."""
    strangers: bool = True
    """Let people of other domains come to those who do not know them. Off, only contacts and those who were written to
    within a day get through."""
    strangers_account_per_minute: int = Field(default=60, ge=1)
    """Messages, requests for contact and other requests per minute that all people of other domains who never dealt
    with an account may send to it together, if ``strangers_per_minute`` is not 0."""
    max_blocked: int = Field(default=500, ge=1, le=10_000)
    """Addresses that one account may block. All block lists are kept in memory."""
    offline_messages: int = Field(default=1000, ge=0, le=100_000)
    """Messages kept for one account while it is away; 0 keeps none. A sender hears when there is no room."""
    offline_bytes: int = Field(default=4_194_304, ge=0)
    """Bytes of messages kept for one account while it is away."""
    archive: bool = True
    """Keep the messages that people send and get, so that all their devices see the same (XEP-0313). Off, nothing is
    kept any more and nobody is shown what was; that goes when its time is over."""
    archive_default: Literal["always", "roster", "never"] = "always"
    """Whose messages are archived until an account chooses for itself: everybody's, those of contacts, or nobody's."""
    archive_choice: bool = True
    """Let people choose for themselves which of their messages are archived. Off, ``archive_default`` counts."""
    archive_days: int = Field(default=365, ge=0, le=36_500)
    """Days after which archived messages go; 0 keeps them for ever."""
    archive_messages: int = Field(default=1_000_000, ge=100)
    """Messages that one archive, of an account or of a room, keeps; beyond that the oldest go."""
    archive_bytes: int = Field(default=1_073_741_824, ge=1_000_000)
    """Bytes of messages that one archive keeps, likewise."""
    rooms_per_user: int = Field(default=100, ge=0, le=10_000)
    """Rooms that one person may have made, as long as these exist; 0: nobody makes any."""
    rooms_stanzas_per_second: float = Field(default=20.0, gt=0)
    """Stanzas that one person may send to rooms per second in the long run; more are refused."""
    rooms_stanzas_burst: int = Field(default=200, ge=10)
    """Stanzas that one person may send to rooms at once."""
    uploads: bool = True
    """Offer to upload files (XEP-0363): over HTTP, on the web app's origin. In a policy: whether its people may."""
    uploads_file_bytes: int = Field(default=104_857_600, ge=1)
    """The largest file. Through the edge no request is larger than ``edge.limits.body_bytes``."""
    uploads_user_bytes: int = Field(default=2_147_483_648, ge=1)
    """Bytes of all files that one person keeps here at once."""
    uploads_user_files: int = Field(default=10_000, ge=1)
    """Files that one person keeps here at once."""
    uploads_daily_bytes: int = Field(default=1_073_741_824, ge=1)
    """Bytes that one person may upload in 24 hours."""
    uploads_days: float = Field(default=90.0, ge=0)
    """Days after which a file is deleted; 0 keeps files for ever."""
    uploads_per_minute: int = Field(default=60, ge=1)
    """Files that one person may ask to upload in a minute."""
    push: bool = True
    """Let people's programs be woken through their makers' servers (XEP-0357)."""
    private_items: int = Field(default=100, ge=1, le=10_000)
    """Kinds of private data (XEP-0049) that one account's clients may keep."""
    private_bytes: int = Field(default=524_288, ge=1000)
    """Bytes of private data of one account."""
    pep_nodes: int = Field(default=100, ge=1, le=10_000)
    """Nodes of personal eventing (XEP-0163) that one account may have."""
    pep_items: int = Field(default=1000, ge=1, le=100_000)
    """Items that one node may keep; what its 'max' means."""
    pep_item_bytes: int = Field(default=131_072, ge=1000, le=250_000)
    """The largest item: an avatar needs some 100,000."""
    pep_bytes: int = Field(default=4_194_304, ge=10_000)
    """Bytes of all items of one account."""
    vcard_bytes: int = Field(default=131_072, ge=1000, le=250_000)
    """The largest vCard that a user may store, picture included."""
    password_changes: bool = True
    """Let people change their password in their chat program (XEP-0077)."""


class PolicySettings(PersonSettings):
    """What counts for some people instead of what their domain has."""

    departments: tuple[str, ...] = Field(default=(), max_length=1000)
    """Departments, as in the directory, whose people have this policy unless they have one of their own."""


class DomainSettings(PersonSettings):
    """What each hosted domain may have of its own."""

    allow_plain: bool = False
    """Offer SASL PLAIN under TLS, for clients without SCRAM. The server then sees passwords while people sign in."""
    default_contacts: bool = True
    """Everybody of the domain is in everybody's contact list, with presence, until one of the two changes that."""
    default_contacts_limit: int = Field(default=200, ge=2, le=2000)
    """Domains with more users than this have no default contacts: lists and presence would grow with the square."""
    default_contacts_group: str = Field(default="", max_length=200)
    """The group that default contacts are shown in; empty for none."""
    admins: tuple[str, ...] = ()
    """Addresses of people who may administer this server with their client's commands (XEP-0133)."""
    admin_addresses: tuple[str, ...] = ()
    """Whom to write to about this server, as URIs (mailto:, xmpp:, https:); shown to everybody (XEP-0157)."""
    abuse_addresses: tuple[str, ...] = ()
    """Whom to tell of abuse from this server, likewise."""
    support_addresses: tuple[str, ...] = ()
    """Whom its users ask for help, likewise."""
    strangers_per_minute: int = Field(default=30, ge=0)
    """Messages, requests for contact and other requests per minute that one person elsewhere may send to people of
    the domain who never dealt with them; 0 lets everything in, whatever the other two keys say."""
    strangers_domain_per_minute: int = Field(default=300, ge=1)
    """The same for all people of another domain together."""
    rooms: bool = True
    """Offer group chat (XEP-0045)."""
    rooms_host: str = ""
    """The domain of group chat; empty for ``rooms.`` and the site's domain."""
    rooms_creation: Literal["local", "everybody"] = "local"
    """Who may make rooms: the people of the domain, or everybody who reaches the service."""
    rooms_persistent: bool = False
    """Whether a new room stays when everybody has left, unless its owner decides otherwise."""
    rooms_max: int = Field(default=10_000, ge=1, le=100_000)
    """Rooms that there may be at once."""
    rooms_occupants: int = Field(default=500, ge=2, le=10_000)
    """The most occupants of a room; owners may choose fewer."""
    rooms_history: int = Field(default=50, ge=0, le=1000)
    """Messages that a room remembers and shows to those who enter; owners may choose fewer."""
    rooms_history_bytes: int = Field(default=1_048_576, ge=10_000)
    """Characters of all messages that a room remembers, whatever their number."""
    rooms_archive: bool = True
    """Whether a new room keeps an archive (XEP-0313), unless its owner decides otherwise; entering tells."""
    rooms_affiliations: int = Field(default=5000, ge=10, le=100_000)
    """Members, admins, owners and banned people that one room may have, all together."""
    uploads_host: str = ""
    """The domain of the upload service; empty for ``upload.`` and the site's domain."""
    registration: bool = False
    """Let anybody make an account in a chat program, and people remove theirs (XEP-0077). Off, only you add people."""


class Settings(DomainSettings):
    """Instant messaging and presence."""

    domains: dict[str, DomainSettings] = Field(default={}, max_length=65)
    """What is otherwise in one of the site's domains: ``[chat.domains."example.net"]`` with any of the keys before this
    one. What is not named there counts as in ``[chat]``."""
    policies: dict[str, PolicySettings] = Field(default={}, max_length=100)
    """What is otherwise for some people: ``[chat.policies.sales]`` with any of the keys from
    ``max_sessions_per_user`` to ``password_changes``. ``moim user policy ADDRESS sales`` gives it to a person,
    ``departments = ["Sales"]`` in it to all of a department. What is not named there counts as in the person's domain.
    """
    channel_binding: bool = True
    """Offer the SCRAM -PLUS mechanisms (RFC 9266) where TLS gives the keys for them."""
    directory_refresh_seconds: float = Field(default=30.0, ge=1)
    """How old the list of users may be when somebody signs in, besides the changes that the directory tells of."""
    websocket_origins: tuple[str, ...] = ()
    """Origins of web pages that may connect by WebSocket, besides the site's own web app."""
    max_stanza_bytes: int = Field(default=262_144, ge=10_000, le=262_144)
    """The largest stanza of a signed-in client (RFC 6120 section 13.12)."""
    handshake_seconds: float = Field(default=30.0, ge=1)
    """A connection that has not signed in by then is closed."""
    resume_seconds: int = Field(default=600, ge=0, le=86_400)
    """How long a session waits for a client that lost its connection (XEP-0198); 0: it ends at once."""
    resume_waiting: int = Field(default=20_000, ge=1)
    """Sessions that may wait like that at the same time."""
    max_directed_presence: int = Field(default=500, ge=1, le=10_000)
    """Addresses that one session may show directed presence to at once."""
    max_pending_stanzas: int = Field(default=1000, ge=10, le=100_000)
    """Stanzas of one session that may wait for the database; a client that sends more is disconnected."""
    archive_page: int = Field(default=50, ge=1, le=1000)
    """Messages in one answer of an archive when the client does not say how many it wants."""
    archive_page_max: int = Field(default=250, ge=1, le=1000)
    """Messages in one answer of an archive at the most."""
    archive_page_bytes: int = Field(default=524_288, ge=10_000, le=4_194_304)
    """Bytes of messages in one answer of an archive at the most."""
    archive_preferences: int = Field(default=500, ge=0, le=10_000)
    """Addresses that an account may list as always or as never archived, each."""
    archive_patience_seconds: float = Field(default=30.0, ge=1)
    """How long the disk may refuse messages that were delivered already before the streams of their senders end."""
    outage_status_addresses: tuple[str, ...] = ()
    """Pages, best on another machine, that tell whether this server is down on purpose (XEP-0455)."""
    shared_block_lists: tuple[str, ...] = ()
    """Lists of addresses that send spam, as pubsub nodes: ``xmpp:SERVICE?node=NODE``. Nothing of theirs is let in."""
    caps_cache: int = Field(default=2000, ge=10)
    """Kinds of clients whose verified capabilities (XEP-0115) are remembered."""
    lease_seconds: float = Field(default=5.0, ge=1, le=120)
    """With several inside nodes: how long after its last word, in the database and on the bus, a node is taken for
    dead. Its users' presence ends then, and its rooms go on at another node; half a second later at the most."""
    sign_ins_per_second: float = Field(default=200.0, ge=0)
    """With several inside nodes: new connections that are let in, so that those of a node that died do not overrun the
    one that is left. More are sent to another node or told to wait; 0 lets everybody in."""
    sign_ins_burst: int = Field(default=2000, ge=1)
    """New connections that are let in at once after a quiet time."""
    bosh: bool = True
    """Offer XMPP over HTTP requests (BOSH) at ``/http-bind`` of the web app's origin."""
    bosh_wait_seconds: int = Field(default=50, ge=5, le=300)
    """The longest that a request of BOSH waits for news; less than proxies on the way are ready to wait."""
    bosh_inactivity_seconds: int = Field(default=60, ge=10, le=600)
    """Seconds that a client of BOSH may stay away between two requests."""
    bosh_sessions: int = Field(default=5000, ge=1)
    """Sessions by BOSH at once."""
    bosh_sessions_per_address: int = Field(default=100, ge=1)
    """Sessions by BOSH of one client address at once."""
    uploads_url: str = Field(default="", pattern=r"^(https?://[^/?#\s]+)?$")
    """The origin in the links of uploaded files, like ``https://files.example.com``; empty for where guests go."""
    uploads_dir: str = ""
    """The folder that uploaded files are kept in; empty for ``inside/uploads`` of the site."""
    uploads_total_bytes: int = Field(default=53_687_091_200, ge=1)
    """Bytes of all files of the site."""
    uploads_free_bytes: int = Field(default=1_073_741_824, ge=0)
    """Bytes that uploads leave free on the disk."""
    uploads_slot_seconds: float = Field(default=300.0, ge=5)
    """Seconds in which an upload has to begin after it was granted."""
    fast: bool = True
    """Let programs sign in again by a token instead of the password (XEP-0484)."""
    fast_days: float = Field(default=21.0, gt=0, le=3650)
    """How long a token is valid; a program that is away for longer needs the password again."""
    fast_renew_hours: float = Field(default=24.0, ge=0)
    """The age at which a token that is used is replaced by a new one."""
    fast_clients: int = Field(default=32, ge=1, le=1000)
    """Programs of one account that may have tokens; those that are away for the longest lose theirs."""
    registrations_per_hour: float = Field(default=3.0, gt=0)
    """Accounts that one client address may make per hour, if ``registration`` is on."""
    push_summary: Literal["none", "count", "sender", "body"] = "count"
    """What those servers are told: nothing, how many messages wait, also who wrote last, also the words."""
    push_per_minute: int = Field(default=60, ge=1)
    """How often one program may be woken in a minute; what is more waits."""
    push_registrations: int = Field(default=20, ge=1, le=1000)
    """Programs of one account that may be woken."""
    components: dict[str, str] = Field(default={}, max_length=64)
    """External components (XEP-0114): each one's domain, and the file with its secret; mode 0600, relative to the site.
    """
    components_address: str = "127.0.0.1"
    """The address that components connect to; empty for the inside node's. There is no TLS: this is for programs on
    the same machine, or on a network of servers alone."""
    components_port: int = Field(default=5347, ge=1, le=65535)
    """Catalogue port for components; nothing listens while there are none."""
    auth_failures_per_connection: int = Field(default=3, ge=1, le=20)
    """Wrong passwords after which a connection is closed."""
    auth_failures_per_address: int = Field(default=20, ge=1)
    """Wrong passwords from one client address before it has to wait: longer each time, then forgotten again."""
    auth_failures_per_account: int = Field(default=10, ge=1)
    """Wrong passwords for one account before unknown addresses have to wait; those it signed in from go free."""
    auth_backoff_max_seconds: float = Field(default=600.0, ge=1)
    """The longest wait after wrong passwords."""

    @field_validator("policies")
    @classmethod
    def _have_names(cls, value: dict[str, PolicySettings]) -> dict[str, PolicySettings]:
        taken: dict[str, str] = {}
        for name, policy in value.items():
            if not 0 < len(name) <= 64 or not name.isprintable() or name != unicodedata.normalize("NFC", name).strip():
                raise ValueError(f"'{name[:64]}' cannot be the name of a policy: write it like sales")
            for department in policy.departments:
                key = department_key(department)
                if taken.setdefault(key, name) != name:
                    raise ValueError(f"the department {department} has two policies: {taken[key]} and {name}")
        return value


@lru_cache(maxsize=4096)
def department_key(text: str) -> str:
    """A department's name in the form in which names are compared."""
    return unicodedata.normalize("NFC", text).strip().casefold()
