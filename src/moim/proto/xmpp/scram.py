"""SCRAM, both sides as machines: RFC 5802 and RFC 7677, with channel binding and downgrade protection (XEP-0474).

Channel bindings are bytes by type: ``tls-exporter`` (RFC 9266) and ``tls-server-end-point`` (RFC 5929 section 4).

The server never says whether an account exists: a name without a verifier runs the whole exchange against made-up
values that stay the same for that name, and fails at the end like a wrong password.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from moim.errors import ProtocolError

ScramHash = Literal["SCRAM-SHA-1", "SCRAM-SHA-256"]

_DIGESTS: dict[str, str] = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
_SIZES: dict[str, int] = {"SCRAM-SHA-1": 20, "SCRAM-SHA-256": 32}
_MAX_MESSAGE = 4096
_MAX_NONCE = 512
_MAX_SALT = 256
_MIN_ITERATIONS = 4096  # RFC 7677 section 4
_MAX_ITERATIONS = 1_000_000  # above, a hostile server only burns the client's processor
_NONCE = re.compile(r"[\x21-\x2b\x2d-\x7e]+", re.ASCII)
_COUNT = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_CB_NAME = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)


class Verifier(Protocol):
    """What a server keeps instead of a password: read-only ``salt``, ``iterations`` and the two keys (RFC 5802 3)."""

    @property
    def salt(self) -> bytes: ...
    @property
    def iterations(self) -> int: ...
    @property
    def stored_key(self) -> bytes: ...
    @property
    def server_key(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """A verifier as plain data."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class Outcome(Enum):
    """How a server's exchange ended."""

    ACCEPTED = "accepted"
    WRONG_PROOF = "wrong proof"
    UNKNOWN_BINDING = "the client binds the channel in a way that this connection does not have"
    BINDING_MISMATCH = "channel binding does not match this connection"
    DOWNGRADE = "the client was kept from seeing the -PLUS mechanisms"


def saslprep(text: str) -> str:
    """Prepares a name or password (RFC 4013). Raises ProtocolError when it has characters that are not allowed."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    for char in prepared:
        if unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn") or any(
            table(char)
            for table in (
                stringprep.in_table_c12,
                stringprep.in_table_c4,
                stringprep.in_table_c6,
                stringprep.in_table_c7,
                stringprep.in_table_c8,
                stringprep.in_table_c9,
            )
        ):
            raise ProtocolError("the name or password has a character that is not allowed there")
    kinds = [unicodedata.bidirectional(char) for char in prepared]
    if any(kind in ("R", "AL") for kind in kinds) and (
        "L" in kinds or kinds[0] not in ("R", "AL") or kinds[-1] not in ("R", "AL")
    ):
        raise ProtocolError("the name or password mixes writing directions")
    return prepared


def make_verifier(mechanism: ScramHash, password: str, salt: bytes, iterations: int) -> ScramVerifier:
    """Derives the verifier of a password; takes milliseconds per 10,000 iterations, so keep it off the event loop."""
    digest = _DIGESTS[mechanism]
    salted = hashlib.pbkdf2_hmac(digest, saslprep(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", digest)
    return ScramVerifier(
        salt, iterations, hashlib.new(digest, client_key).digest(), hmac.digest(salted, b"Server Key", digest)
    )


def made_up_verifier(
    mechanism: ScramHash, username: str, secret: bytes, *, salt_size: int, iterations: int
) -> Verifier:
    """The verifier shown for an account that does not exist: the same salt for the same name, and keys nobody has."""

    def derive(purpose: bytes, size: int) -> bytes:
        block = hmac.digest(secret, b"\0".join((purpose, mechanism.encode(), username.encode())), "sha512")
        return block[:size]

    size = _SIZES[mechanism]
    return ScramVerifier(derive(b"salt", salt_size), iterations, derive(b"stored", size), derive(b"server", size))


def downgrade_hash(mechanism: ScramHash, mechanisms: Collection[str], types: Collection[str]) -> str:
    """What the attribute ``h`` says of the mechanisms and channel-binding types that were offered (XEP-0474 section 5).

    ``types`` are empty when no channel bindings were announced.
    """
    offer = b"\x1e".join(sorted(name.encode() for name in mechanisms))
    if types:
        offer += b"\x1f" + b"\x1e".join(sorted(name.encode() for name in types))
    return base64.b64encode(hashlib.new(_DIGESTS[mechanism], offer).digest()).decode()


def _text(message: bytes) -> str:
    if len(message) > _MAX_MESSAGE:
        raise ProtocolError("the SCRAM message is too long")
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ProtocolError("the SCRAM message is not UTF-8") from None
    if "\0" in text:
        raise ProtocolError("the SCRAM message has a NUL")
    return text


def _attributes(message: bytes) -> tuple[str, list[tuple[str, str]]]:
    text = _text(message)
    return text, _split(text)


def _split(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in text.split(","):
        if len(part) < 2 or part[1] != "=" or not (part[0].isascii() and part[0].isalpha()):
            raise ProtocolError("the SCRAM message is not a list of attributes")
        pairs.append((part[0], part[2:]))
    return pairs


def _unescape(name: str) -> str:
    if "=" not in name:
        return name
    if re.sub("=2C|=3D", "", name).count("="):
        raise ProtocolError("the SCRAM name is not escaped as it should be")
    return name.replace("=2C", ",").replace("=3D", "=")


def _escape(name: str) -> str:
    return name.replace("=", "=3D").replace(",", "=2C")


def _unbase64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True) if text else b""
    except (binascii.Error, ValueError):
        raise ProtocolError("the SCRAM message has an attribute that is not base64") from None


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left) ^ int.from_bytes(right)).to_bytes(len(left))


class ScramServer:
    """One exchange: ``first`` with the client's first message, ``challenge`` with a verifier, ``final`` with its proof.

    ``plus`` is whether the client chose the -PLUS mechanism, ``plus_offered`` whether this server offered it on this
    connection, ``bindings`` the connection's channel bindings by type, ``protection`` the ``downgrade_hash`` of what
    was offered (empty: none is sent). Every method raises ProtocolError on bad input.
    """

    def __init__(
        self,
        mechanism: ScramHash,
        *,
        nonce: str,
        plus: bool,
        plus_offered: bool,
        bindings: Mapping[str, bytes],
        protection: str = "",
    ) -> None:
        self.mechanism: ScramHash = mechanism
        self.username = ""
        self.authzid = ""
        self._digest = _DIGESTS[mechanism]
        self._own_nonce = nonce
        self._plus = plus
        self._plus_offered = plus_offered
        self._bindings = bindings
        self._binding = b""
        self._protection = protection
        self._gs2 = ""
        self._refusal: Outcome | None = None
        self._client_first = ""
        self._server_first = ""
        self._verifier: Verifier | None = None

    def first(self, message: bytes) -> None:
        """Reads the client's first message; ``username`` and ``authzid`` are known afterwards."""
        text = _text(message)
        flag, comma, rest = text.partition(",")
        authzid, comma2, bare = rest.partition(",")
        if not comma or not comma2 or (authzid and not authzid.startswith("a=")):
            raise ProtocolError("the SCRAM message does not begin with a GS2 header")
        self._gs2 = f"{flag},{authzid},"
        self.authzid = _unescape(authzid[2:])
        self._check_flag(flag)
        pairs = _split(bare)
        if len(pairs) < 2 or pairs[0][0] != "n" or pairs[1][0] != "r":
            raise ProtocolError("the SCRAM message has no name and nonce where they belong")
        self.username = saslprep(_unescape(pairs[0][1]))
        nonce = pairs[1][1]
        if not self.username or not _NONCE.fullmatch(nonce) or len(nonce) > _MAX_NONCE:
            raise ProtocolError("the SCRAM message has an empty name or an unusable nonce")
        self._client_first = bare
        self._nonce = nonce + self._own_nonce

    def _check_flag(self, flag: str) -> None:
        if flag.startswith("p="):
            if not self._plus or not _CB_NAME.fullmatch(flag[2:]):
                raise ProtocolError("the SCRAM message binds a channel in a mechanism without channel binding")
            bound = self._bindings.get(flag[2:])
            if bound is None:
                self._refusal = Outcome.UNKNOWN_BINDING
            else:
                self._binding = bound
        elif flag not in ("n", "y") or self._plus:
            raise ProtocolError("the SCRAM message has a channel binding flag that does not fit the mechanism")
        elif flag == "y" and self._plus_offered:
            self._refusal = Outcome.DOWNGRADE

    def challenge(self, verifier: Verifier) -> bytes:
        """The server's first message for the named account's verifier, or a made-up one."""
        self._verifier = verifier
        salt = base64.b64encode(verifier.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={verifier.iterations}"
        if self._protection:
            self._server_first += f",h={self._protection}"
        return self._server_first.encode()

    def final(self, message: bytes) -> tuple[Outcome, bytes]:
        """Checks the client's final message. With ACCEPTED comes the server's final message, else empty bytes."""
        if self._verifier is None:
            raise ProtocolError("the SCRAM messages came out of order")
        text = _text(message)
        without_proof, _, shown = text.rpartition(",p=")
        pairs = _split(without_proof)
        if [name for name, _ in pairs[:2]] != ["c", "r"] or any(name in "mp" for name, _ in pairs[2:]):
            raise ProtocolError("the SCRAM final message has not the attributes it should")
        proof = _unbase64(shown)
        if len(proof) != _SIZES[self.mechanism]:
            raise ProtocolError("the SCRAM proof has the wrong length")
        nonce_ok = hmac.compare_digest(pairs[1][1].encode(), self._nonce.encode())
        expected = self._gs2.encode() + self._binding
        binding_ok = hmac.compare_digest(_unbase64(pairs[0][1]), expected)
        auth_message = f"{self._client_first},{self._server_first},{without_proof}".encode()
        signature = hmac.digest(self._verifier.stored_key, auth_message, self._digest)
        client_key = _xor(proof, signature)
        stored = hashlib.new(self._digest, client_key).digest()
        proof_ok = hmac.compare_digest(stored, self._verifier.stored_key)
        if self._refusal is not None:
            return self._refusal, b""
        if not (nonce_ok and proof_ok):
            return Outcome.WRONG_PROOF, b""
        if not binding_ok:
            return Outcome.BINDING_MISMATCH, b""
        reply = hmac.digest(self._verifier.server_key, auth_message, self._digest)
        return Outcome.ACCEPTED, b"v=" + base64.b64encode(reply)


class ScramClient:
    """One exchange: send ``first()``, then ``final(challenge)``; sign-in counts once ``verify(success)`` returned.

    ``binding``: the connection's bytes of ``binding_type``, used when ``plus``. ``plus_seen``: whether the server
    offered any -PLUS mechanism; when it did not although we could, the flag ``y`` lets the server notice a downgrade.
    ``protection``: the ``downgrade_hash`` of what the server seemed to offer; one that the server sends must be equal.
    """

    def __init__(
        self,
        mechanism: ScramHash,
        username: str,
        password: str,
        *,
        nonce: str,
        plus: bool = False,
        plus_seen: bool = False,
        binding: bytes | None = None,
        binding_type: str = "tls-exporter",
        protection: str = "",
        authzid: str = "",
    ) -> None:
        if not _NONCE.fullmatch(nonce):
            raise ValueError("the nonce must be printable ASCII without commas")
        self._digest = _DIGESTS[mechanism]
        self._password = saslprep(password).encode()
        self._nonce = nonce
        self._binding = binding if plus else None
        if plus:
            flag = f"p={binding_type}"
        else:
            flag = "y" if binding is not None and not plus_seen else "n"
        self._gs2 = f"{flag},{f'a={_escape(authzid)}' if authzid else ''},"
        self._bare = f"n={_escape(saslprep(username))},r={nonce}"
        self._protection = protection
        self._signature = b""

    def first(self) -> bytes:
        """The client's first message."""
        return (self._gs2 + self._bare).encode()

    def final(self, challenge: bytes) -> bytes:
        """The client's final message. Raises ProtocolError when the challenge is broken, or weaker than allowed."""
        text, pairs = _attributes(challenge)
        if [name for name, _ in pairs[:3]] != ["r", "s", "i"]:
            raise ProtocolError("the server's SCRAM challenge has not the attributes it should")
        nonce, salt, count = (value for _, value in pairs[:3])
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce) or not _NONCE.fullmatch(nonce):
            raise ProtocolError("the server's SCRAM challenge does not continue our nonce")
        said = next((value for name, value in pairs[3:] if name == "h"), "")
        if said and self._protection and not hmac.compare_digest(said.encode(), self._protection.encode()):
            raise ProtocolError(
                "what the server says it offers is not what arrived here: somebody in between changed the offer"
            )
        iterations = int(count) if _COUNT.fullmatch(count) else 0
        salt_bytes = _unbase64(salt)
        if not _MIN_ITERATIONS <= iterations <= _MAX_ITERATIONS or not 0 < len(salt_bytes) <= _MAX_SALT:
            raise ProtocolError("the server's SCRAM challenge has an iteration count or salt that is not acceptable")
        salted = hashlib.pbkdf2_hmac(self._digest, self._password, salt_bytes, iterations)
        client_key = hmac.digest(salted, b"Client Key", self._digest)
        stored_key = hashlib.new(self._digest, client_key).digest()
        server_key = hmac.digest(salted, b"Server Key", self._digest)
        bound = base64.b64encode(self._gs2.encode() + (self._binding or b"")).decode()
        without_proof = f"c={bound},r={nonce}"
        auth_message = f"{self._bare},{text},{without_proof}".encode()
        proof = _xor(client_key, hmac.digest(stored_key, auth_message, self._digest))
        self._signature = hmac.digest(server_key, auth_message, self._digest)
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, success: bytes) -> None:
        """Checks the server's final message. Raises ProtocolError when the server does not know the password."""
        _, pairs = _attributes(success)
        if (
            not self._signature
            or pairs[0][0] != "v"
            or not hmac.compare_digest(_unbase64(pairs[0][1]), self._signature)
        ):
            raise ProtocolError("the server did not prove that it knows the account")
