"""XMPP without I/O: addresses, elements, SCRAM and SASL, errors, stanzas, and a client's sign-in."""

from moim.proto.xmpp import ns
from moim.proto.xmpp.client import ClientLogin, Failed, Received, SignedIn, StartTlsNow
from moim.proto.xmpp.element import Element, XmlStream, archivable
from moim.proto.xmpp.errors import (
    STANZA_CONDITIONS,
    STREAM_CONDITIONS,
    StanzaError,
    error_reply,
    read_condition,
    stream_error,
)
from moim.proto.xmpp.jid import Jid, prepare_domain, prepare_local, prepare_resource
from moim.proto.xmpp.scram import ScramVerifier, made_up_verifier, make_verifier, saslprep
from moim.proto.xmpp.stanza import (
    STANZAS,
    SUBSCRIPTION_TYPES,
    as_client,
    check_iq,
    delay,
    iq_set,
    message_type,
    presence,
    priority_of,
    read_timestamp,
    result,
    timestamp,
)

__all__ = [
    "STANZAS",
    "STANZA_CONDITIONS",
    "STREAM_CONDITIONS",
    "SUBSCRIPTION_TYPES",
    "ClientLogin",
    "Element",
    "Failed",
    "Jid",
    "Received",
    "ScramVerifier",
    "SignedIn",
    "StanzaError",
    "StartTlsNow",
    "XmlStream",
    "archivable",
    "as_client",
    "check_iq",
    "delay",
    "error_reply",
    "iq_set",
    "made_up_verifier",
    "make_verifier",
    "message_type",
    "ns",
    "prepare_domain",
    "prepare_local",
    "prepare_resource",
    "presence",
    "priority_of",
    "read_condition",
    "read_timestamp",
    "result",
    "saslprep",
    "stream_error",
    "timestamp",
]
