"""The server's side of SASL as XMPP uses it (RFC 6120 section 6), free of XML: mechanism names and decoded bytes.

Each call returns the one step that follows. What needs the directory is a step too (``NeedVerifier``,
``NeedPassword``, ``NeedToken``); the driver asks, and calls ``verifier``, ``password_checked`` or ``token_checked``
with the answer.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from moim.errors import ProtocolError
from moim.proto.xmpp.hashed_token import HT_BINDINGS, read_initial
from moim.proto.xmpp.jid import Jid, prepare_domain, prepare_local
from moim.proto.xmpp.scram import Outcome, ScramHash, ScramServer, Verifier, saslprep

Condition = Literal[
    "aborted",
    "account-disabled",
    "credentials-expired",
    "encryption-required",
    "incorrect-encoding",
    "invalid-authzid",
    "invalid-mechanism",
    "malformed-request",
    "mechanism-too-weak",
    "not-authorized",
    "temporary-auth-failure",
]
"""Failure conditions of RFC 6120 section 6.5."""

# Whoever reads these has given no proof yet: they speak of the program, never of the account.
_SAID = {
    Outcome.UNKNOWN_BINDING: "this program binds to TLS as TLS 1.3 does not allow; a newer version may sign in",
    Outcome.DOWNGRADE: "this program was kept from seeing what the server offers, or is too old to use it",
}
_MAX_ENCODED = 8192
_MAX_PLAIN = 2048
_SCRAM: dict[str, ScramHash] = {
    "SCRAM-SHA-256-PLUS": "SCRAM-SHA-256",
    "SCRAM-SHA-256": "SCRAM-SHA-256",
    "SCRAM-SHA-1-PLUS": "SCRAM-SHA-1",
    "SCRAM-SHA-1": "SCRAM-SHA-1",
}


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send these bytes and wait for the response."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Success:
    """The client is ``local`` of this domain; ``data`` goes along with the success."""

    local: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The exchange failed. ``reason`` is for the log only, ``text`` for the client."""

    condition: Condition
    reason: str
    local: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class NeedVerifier:
    """Look up the SCRAM verifier of ``local`` and call ``verifier``; for no such account pass a made-up one."""

    local: str
    mechanism: ScramHash


@dataclass(frozen=True, slots=True)
class NeedPassword:
    """Check the password of ``local`` and call ``password_checked``."""

    local: str
    password: str


@dataclass(frozen=True, slots=True)
class NeedToken:
    """Check ``proof``, made with a token of ``local`` for this mechanism over ``binding``; call ``token_checked``."""

    local: str
    mechanism: str
    proof: bytes
    binding: bytes


Need = NeedVerifier | NeedPassword | NeedToken
Step = Challenge | Success | Failure | NeedVerifier | NeedPassword | NeedToken


def mechanisms(
    *,
    encrypted: bool,
    channel_binding: bool,
    plain: bool,
    hashes: Collection[ScramHash] = ("SCRAM-SHA-256", "SCRAM-SHA-1"),
) -> tuple[str, ...]:
    """The mechanisms to offer, best first. PLAIN needs encryption, whatever the settings say."""
    known: tuple[ScramHash, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-1")
    bare = tuple(name for name in known if name in hashes)
    plus = tuple(f"{name}-PLUS" for name in bare) if channel_binding else ()
    return (*plus, *bare, *(("PLAIN",) if plain and encrypted else ()))


def decode(text: str) -> bytes:
    """The bytes of an ``<auth/>`` or ``<response/>``: ``=`` alone is empty. Raises ProtocolError if not base64."""
    stripped = text.strip()
    if stripped in ("", "="):
        return b""
    if len(stripped) > _MAX_ENCODED:
        raise ProtocolError("the SASL data is too long")
    try:
        return binascii.a2b_base64(stripped, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("the SASL data is not base64") from None


def encode(data: bytes) -> str:
    """The text for SASL bytes; ``=`` stands for none (RFC 6120 section 6.4.2)."""
    return base64.b64encode(data).decode() if data else "="


class SaslServer:
    """One authentication attempt on one stream.

    ``domain``: prepared. ``offered``: the names of the mechanisms. ``bindings``: the connection's channel bindings by
    type. ``nonce``: fresh printable text. ``protection``: what SCRAM says of the offer, by hash (XEP-0474).
    """

    def __init__(
        self,
        *,
        domain: str,
        offered: Collection[str],
        bindings: Mapping[str, bytes],
        nonce: str,
        protection: Mapping[ScramHash, str] | None = None,
    ) -> None:
        self._domain = domain
        self._offered = offered
        self._bindings = bindings
        self._nonce = nonce
        self._protection = protection or {}
        self._mechanism = ""
        self._scram: ScramServer | None = None
        self._stage: Literal["new", "initial", "lookup", "final", "done"] = "new"
        self._local = ""
        self._authzid = ""

    def start(self, mechanism: str, initial: bytes | None) -> Step:
        """The client chose ``mechanism``; ``initial`` is its initial response, None when it sent none."""
        if self._stage != "new":
            return self._fail("malformed-request", "a second start in one exchange")
        if mechanism not in self._offered:
            return self._fail("invalid-mechanism", f"mechanism {mechanism[:40]!r} is not offered")
        self._mechanism = mechanism
        self._stage = "initial"
        return Challenge(b"") if initial is None else self.respond(initial)

    def respond(self, data: bytes) -> Step:
        """The client's next bytes."""
        try:
            if self._stage == "initial":
                return self._first(data)
            if self._stage == "final":
                return self._final(data)
        except ProtocolError as error:
            return self._fail("malformed-request", error.message)
        return self._fail("malformed-request", "a response out of order")

    def _first(self, data: bytes) -> Step:
        self._stage = "lookup"
        if self._mechanism == "PLAIN":
            return self._plain(data)
        if self._mechanism in HT_BINDINGS:
            return self._token(data)
        hash_name = _SCRAM[self._mechanism]
        self._scram = ScramServer(
            hash_name,
            nonce=self._nonce,
            plus=self._mechanism.endswith("-PLUS"),
            plus_offered=any(name.endswith("-PLUS") for name in self._offered),
            bindings=self._bindings,
            protection=self._protection.get(hash_name, ""),
        )
        self._scram.first(data)
        self._local = self._local_of(self._scram.username)
        self._authzid = self._scram.authzid
        return NeedVerifier(self._local, hash_name)

    def _plain(self, data: bytes) -> Step:
        parts = data.split(b"\0")
        if len(data) > _MAX_PLAIN or len(parts) != 3:
            return self._fail("malformed-request", "the PLAIN message has not three parts")
        try:
            self._authzid, name, password = (part.decode() for part in parts)
        except UnicodeDecodeError:
            return self._fail("malformed-request", "the PLAIN message is not UTF-8")
        self._local = self._local_of(saslprep(name))
        if not password:
            return self._fail("not-authorized", "empty password")
        return NeedPassword(self._local, password)

    def _token(self, data: bytes) -> Step:
        name, shown = read_initial(data)
        kind = HT_BINDINGS[self._mechanism]
        self._local = self._local_of(saslprep(name))
        return NeedToken(self._local, self._mechanism, shown, self._bindings[kind] if kind else b"")

    def _local_of(self, name: str) -> str:
        """The account a client means; some send the whole address instead of the name (RFC 6120 section 6.3.8)."""
        if "@" not in name:
            return prepare_local(name)
        local, at, domain = name.rpartition("@")
        if at and prepare_domain(domain) == self._domain:
            name = local
        return prepare_local(name)

    def verifier(self, verifier: Verifier) -> Step:
        """The answer to ``NeedVerifier``."""
        if self._stage != "lookup" or self._scram is None:
            return self._fail("malformed-request", "a verifier out of order")
        self._stage = "final"
        return Challenge(self._scram.challenge(verifier))

    def password_checked(self, right: bool) -> Step:
        """The answer to ``NeedPassword``."""
        if self._stage != "lookup":
            return self._fail("malformed-request", "a password check out of order")
        if not right:
            return self._fail("not-authorized", "wrong password or no such account")
        return self._authorised(None)

    def token_checked(self, reply: bytes | None, *, expired: bool = False) -> Step:
        """The answer to ``NeedToken``: what proves the server in turn, or None for a token that does not fit.

        ``expired``: it fits, but its time is over.
        """
        if self._stage != "lookup":
            return self._fail("malformed-request", "a token check out of order")
        if reply is None:
            if expired:
                return self._fail("credentials-expired", "the token is not valid any more")
            return self._fail("not-authorized", "wrong token or no such account")
        return self._authorised(reply)

    def _final(self, data: bytes) -> Step:
        if self._scram is None:
            return self._fail("malformed-request", "a response out of order")
        outcome, reply = self._scram.final(data)
        if outcome is Outcome.ACCEPTED:
            return self._authorised(reply)
        wrong = outcome is Outcome.WRONG_PROOF
        reason = "wrong password or no such account" if wrong else outcome.value
        return self._fail("not-authorized", reason, text=_SAID.get(outcome, ""))

    def _authorised(self, data: bytes | None) -> Step:
        """Acting for somebody else is not possible here: an authorisation identity must be the account's own."""
        if self._authzid:
            try:
                same = Jid.parse(self._authzid) == Jid(self._local, self._domain)
            except ProtocolError:
                same = False
            if not same:
                return self._fail("invalid-authzid", "the authorisation identity is not the account's own")
        self._stage = "done"
        return Success(self._local, data)

    def _fail(self, condition: Condition, reason: str, *, text: str = "") -> Failure:
        self._stage = "done"
        return Failure(condition, reason, self._local, text)
