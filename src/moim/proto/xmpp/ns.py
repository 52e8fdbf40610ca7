"""The XML namespaces of XMPP, by the short names that the code uses. Each line ends with where it is defined."""

from __future__ import annotations

from typing import Final

# RFC 6120
CLIENT: Final = "jabber:client"
SERVER: Final = "jabber:server"
STREAMS: Final = "http://etherx.jabber.org/streams"
STREAM_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-streams"
STANZA_ERRORS: Final = "urn:ietf:params:xml:ns:xmpp-stanzas"
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND: Final = "urn:ietf:params:xml:ns:xmpp-bind"

# RFC 3921 (the session request that RFC 6121 dropped; old clients still send it)
SESSION: Final = "urn:ietf:params:xml:ns:xmpp-session"

# RFC 6121
ROSTER: Final = "jabber:iq:roster"
ROSTER_VERSIONING: Final = "urn:xmpp:features:rosterver"
PRE_APPROVAL: Final = "urn:xmpp:features:pre-approval"

# RFC 7395
FRAMING: Final = "urn:ietf:params:xml:ns:xmpp-framing"

DATA_FORMS: Final = "jabber:x:data"  # XEP-0004
LAST: Final = "jabber:iq:last"  # XEP-0012
DISCO_INFO: Final = "http://jabber.org/protocol/disco#info"  # XEP-0030
DISCO_ITEMS: Final = "http://jabber.org/protocol/disco#items"  # XEP-0030
MUC: Final = "http://jabber.org/protocol/muc"  # XEP-0045
MUC_USER: Final = "http://jabber.org/protocol/muc#user"  # XEP-0045
MUC_ADMIN: Final = "http://jabber.org/protocol/muc#admin"  # XEP-0045
MUC_OWNER: Final = "http://jabber.org/protocol/muc#owner"  # XEP-0045
MUC_CONFIG: Final = "http://jabber.org/protocol/muc#roomconfig"  # XEP-0045
MUC_INFO: Final = "http://jabber.org/protocol/muc#roominfo"  # XEP-0045
MUC_REQUEST: Final = "http://jabber.org/protocol/muc#request"  # XEP-0045
MUC_UNIQUE: Final = "http://jabber.org/protocol/muc#unique"  # XEP-0307
MUC_REGISTER: Final = "http://jabber.org/protocol/muc#register"  # XEP-0045
MUC_STABLE_ID: Final = "http://jabber.org/protocol/muc#stable_id"  # XEP-0045
STORAGE_BOOKMARKS: Final = "storage:bookmarks"  # XEP-0048
PRIVATE: Final = "jabber:iq:private"  # XEP-0049
VCARD: Final = "vcard-temp"  # XEP-0054
RSM: Final = "http://jabber.org/protocol/rsm"  # XEP-0059
PUBSUB: Final = "http://jabber.org/protocol/pubsub"  # XEP-0060
COMMANDS: Final = "http://jabber.org/protocol/commands"  # XEP-0050
PUBSUB_ERRORS: Final = "http://jabber.org/protocol/pubsub#errors"  # XEP-0060
PUBSUB_EVENT: Final = "http://jabber.org/protocol/pubsub#event"  # XEP-0060
PUBSUB_OWNER: Final = "http://jabber.org/protocol/pubsub#owner"  # XEP-0060
AVATAR_DATA: Final = "urn:xmpp:avatar:data"  # XEP-0084
AVATAR_METADATA: Final = "urn:xmpp:avatar:metadata"  # XEP-0084
CHAT_STATES: Final = "http://jabber.org/protocol/chatstates"  # XEP-0085
CAPS: Final = "http://jabber.org/protocol/caps"  # XEP-0115
VERSION: Final = "jabber:iq:version"  # XEP-0092
BLOCKING: Final = "urn:xmpp:blocking"  # XEP-0191
BLOCKING_ERRORS: Final = "urn:xmpp:blocking:errors"  # XEP-0191
VCARD_UPDATE: Final = "vcard-temp:x:update"  # XEP-0153
SM: Final = "urn:xmpp:sm:3"  # XEP-0198
PING: Final = "urn:xmpp:ping"  # XEP-0199
TIME: Final = "urn:xmpp:time"  # XEP-0202
COMPONENT: Final = "jabber:component:accept"  # XEP-0114
HTTP_BIND: Final = "http://jabber.org/protocol/httpbind"  # XEP-0124
XBOSH: Final = "urn:xmpp:xbosh"  # XEP-0206
EXTERNAL_SERVICES: Final = "urn:xmpp:extdisco:2"  # XEP-0215
DELAY: Final = "urn:xmpp:delay"  # XEP-0203
DIRECT_INVITATION: Final = "jabber:x:conference"  # XEP-0249
HINTS: Final = "urn:xmpp:hints"  # XEP-0334
HATS: Final = "urn:xmpp:hats:0"  # XEP-0317
STANZA_IDS: Final = "urn:xmpp:sid:0"  # XEP-0359
PUSH: Final = "urn:xmpp:push:0"  # XEP-0357
PUSH_SUMMARY: Final = "urn:xmpp:push:summary"  # XEP-0357
HTTP_UPLOAD: Final = "urn:xmpp:http:upload:0"  # XEP-0363
SELF_PING: Final = "http://jabber.org/protocol/muc#self-ping-optimization"  # XEP-0410
OCCUPANT_ID: Final = "urn:xmpp:occupant-id:0"  # XEP-0421
CHANNEL_SEARCH: Final = "urn:xmpp:channel-search:0:search"  # XEP-0433
CHANNEL_SEARCH_PARAMS: Final = "urn:xmpp:channel-search:0:search-params"  # XEP-0433
CHANNEL_SEARCH_ORDER: Final = "urn:xmpp:channel-search:0:order"  # XEP-0433
CHANNEL_SEARCH_ERRORS: Final = "urn:xmpp:channel-search:0:error"  # XEP-0433
AVATAR_CONVERSION: Final = "urn:xmpp:pep-vcard-conversion:0"  # XEP-0398
BOOKMARKS: Final = "urn:xmpp:bookmarks:1"  # XEP-0402
BIND2: Final = "urn:xmpp:bind:0"  # XEP-0386
SASL2: Final = "urn:xmpp:sasl:2"  # XEP-0388
CHANNEL_BINDING: Final = "urn:xmpp:sasl-cb:0"  # XEP-0440
FAST: Final = "urn:xmpp:fast:0"  # XEP-0484
REGISTER: Final = "jabber:iq:register"  # XEP-0077
REGISTER_FEATURE: Final = "http://jabber.org/features/iq-register"  # XEP-0077
DATA_VALIDATE: Final = "http://jabber.org/protocol/xdata-validate"  # XEP-0122
RECEIPTS: Final = "urn:xmpp:receipts"  # XEP-0184
FORWARD: Final = "urn:xmpp:forward:0"  # XEP-0297
ARCHIVE: Final = "urn:xmpp:mam:2"  # XEP-0313 and XEP-0441
CHAT_MARKERS: Final = "urn:xmpp:chat-markers:0"  # XEP-0333
REPORTING: Final = "urn:xmpp:reporting:1"  # XEP-0377
ENCRYPTED: Final = "urn:xmpp:eme:0"  # XEP-0380
OMEMO: Final = "urn:xmpp:omemo:2"  # XEP-0384
OMEMO_AXOLOTL: Final = "eu.siacs.conversations.axolotl"  # XEP-0384 up to version 0.3
CARBONS: Final = "urn:xmpp:carbons:2"  # XEP-0280
CARBONS_RULES: Final = "urn:xmpp:carbons:rules:0"  # XEP-0280
CSI: Final = "urn:xmpp:csi:0"  # XEP-0352
RETRACTION: Final = "urn:xmpp:message-retract:1"  # XEP-0424
MODERATION: Final = "urn:xmpp:message-moderate:1"  # XEP-0425
MODERATION_0: Final = "urn:xmpp:message-moderate:0"  # XEP-0425 up to version 0.2
RETRACTION_0: Final = "urn:xmpp:message-retract:0"  # XEP-0424 up to version 0.3
FASTENING: Final = "urn:xmpp:fasten:0"  # XEP-0422
REACTIONS: Final = "urn:xmpp:reactions:0"  # XEP-0444
DISPLAYED: Final = "urn:xmpp:mds:displayed:0"  # XEP-0490

# Between servers
DIALBACK: Final = "jabber:server:dialback"  # XEP-0220
DIALBACK_FEATURE: Final = "urn:xmpp:features:dialback"  # XEP-0220
BIDI: Final = "urn:xmpp:bidi"  # XEP-0288
BIDI_FEATURE: Final = "urn:xmpp:features:bidi"  # XEP-0288
