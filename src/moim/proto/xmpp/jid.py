"""XMPP addresses (JIDs), in one canonical form so that equal addresses are equal strings.

RFC 7622 as it is deployed: the maps of Nodeprep and Resourceprep (RFC 6122: NFKC, case folding of the localpart),
which Prosody, ejabberd and most clients apply, over the code points that today's Unicode assigns. Domains are kept as
U-labels, which is their form on the wire.
"""

from __future__ import annotations

import encodings.idna
import ipaddress
import re
import stringprep
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from moim.errors import ProtocolError

MAX_PART = 1023
"""Bytes in UTF-8 that each part may have (RFC 7622 section 3.1)."""

_PLAIN_LOCAL = re.compile(r"[a-z0-9._+~!#$%*=?^`{|}()\[\];,-]{1,1023}", re.ASCII)
_PLAIN_RESOURCE = re.compile(r"[A-Za-z0-9._+=:/@~-]{1,1023}", re.ASCII)
_HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_LOCAL_FORBIDDEN = frozenset("\"&'/:<>@")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490 section 3.1
_ESCAPES = {f"{ord(char):02x}": char for char in " \"&'/:<>@\\"}
_ESCAPED = {char: code for code, char in _ESCAPES.items()}
_CACHED_LENGTH = 256
_ROUNDS = 4


def _prohibited(char: str) -> bool:
    return (
        unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn")
        or stringprep.in_table_c12(char)
        or stringprep.in_table_c22(char)
        or stringprep.in_table_c4(char)
        or stringprep.in_table_c6(char)
        or stringprep.in_table_c7(char)
        or stringprep.in_table_c8(char)
        or stringprep.in_table_c9(char)
    )


def _breaks_bidi(text: str) -> bool:
    """The rule of RFC 3454 section 6: right-to-left text must not be mixed, and must stand at both ends."""
    kinds = [unicodedata.bidirectional(char) for char in text]
    if not any(kind in ("R", "AL") for kind in kinds):
        return False
    return "L" in kinds or kinds[0] not in ("R", "AL") or kinds[-1] not in ("R", "AL")


def _map(text: str, *, fold: bool) -> str:
    for _ in range(_ROUNDS):
        # Space of any width maps to the ASCII one in NFKC; zero-width characters map to nothing (table B.1).
        step = unicodedata.normalize("NFKC", "".join(char for char in text if not stringprep.in_table_b1(char)))
        if fold:
            step = unicodedata.normalize("NFKC", step.casefold())
        if step == text:
            return text
        text = step
    raise ProtocolError("a part of the address has no stable form")


def prepare_local(text: str) -> str:
    """The canonical localpart. Raises ProtocolError when ``text`` cannot be one (RFC 7622 section 3.3)."""
    if _PLAIN_LOCAL.fullmatch(text):
        return text
    _bound(text, "local part")
    mapped = _map(text, fold=True)
    _bound(mapped, "local part")
    if any(char in _LOCAL_FORBIDDEN or char.isspace() or _prohibited(char) for char in mapped) or _breaks_bidi(mapped):
        raise ProtocolError("the local part of the address has a character that is not allowed there")
    return mapped


def escape_local(text: str) -> str:
    """Any text as a localpart: characters that may not stand there are written as ``\\20`` and so on (XEP-0106).

    Raises ProtocolError when even that is none: empty, too long, or with a space at an end.
    """
    if text != text.strip(" "):
        raise ProtocolError("a name with a space at an end cannot be part of an address")
    codes = "|".join(_ESCAPES)
    # A backslash is escaped only where it would read as the beginning of an escape.
    plain = re.sub(rf"\\(?={codes})", r"\\5c", text)
    return prepare_local(
        "".join(f"\\{_ESCAPED[char]}" if char in _ESCAPED and char != "\\" else char for char in plain)
    )


def unescape_local(local: str) -> str:
    """What ``escape_local`` was given, as people are to see it."""
    found = re.sub(rf"\\({'|'.join(_ESCAPES)})", lambda match: _ESCAPES[match[1]], local)
    return local if found != found.strip(" ") else found


def prepare_resource(text: str) -> str:
    """The canonical resourcepart. Raises ProtocolError when ``text`` cannot be one (RFC 7622 section 3.4)."""
    if _PLAIN_RESOURCE.fullmatch(text):
        return text
    _bound(text, "resource")
    mapped = _map(text, fold=False)
    _bound(mapped, "resource")
    if any(_prohibited(char) for char in mapped) or _breaks_bidi(mapped):
        raise ProtocolError("the resource of the address has a character that is not allowed there")
    return mapped


@lru_cache(maxsize=4096)
def prepare_domain(text: str) -> str:
    """The canonical domainpart: lower case, U-labels, no final dot; or an IP address, IPv6 in brackets.

    Raises ProtocolError when ``text`` cannot be one (RFC 7622 section 3.2).
    """
    _bound(text, "domain")
    if text.startswith("["):
        return _ipv6(text)
    labels = [_label(label) for label in _DOTS.split(_DOTS.sub(".", text).removesuffix("."))]
    if sum(len(ascii_form) + 1 for _, ascii_form in labels) > 254:
        raise ProtocolError("the domain of the address is too long")
    return ".".join(unicode_form for unicode_form, _ in labels)


def _label(label: str) -> tuple[str, str]:
    if not 0 < len(label) <= 255:
        raise ProtocolError("the domain of the address has an empty or overlong label")
    if label.isascii() and not label.lower().startswith("xn--"):
        unicode_form = ascii_form = label.lower()
    else:
        try:
            ascii_form = encodings.idna.ToASCII(label).decode("ascii").lower()
            unicode_form = encodings.idna.ToUnicode(ascii_form)
        except (UnicodeError, IndexError):
            raise ProtocolError("the domain of the address is not an internationalised domain name") from None
    if not _HOST_LABEL.fullmatch(ascii_form) or any(_prohibited(char) for char in unicode_form):
        raise ProtocolError("the domain of the address is not a domain name")
    return unicode_form, ascii_form


def _ipv6(text: str) -> str:
    try:
        if not text.endswith("]") or "%" in text:
            raise ValueError
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    except ValueError:
        raise ProtocolError("the domain of the address is not an IPv6 address") from None


def _bound(text: str, part: str) -> None:
    if not text:
        raise ProtocolError(f"the {part} of the address is empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ProtocolError(f"the {part} of the address is not text") from None
    if size > MAX_PART:
        raise ProtocolError(f"the {part} of the address is longer than {MAX_PART} bytes")


@dataclass(frozen=True, slots=True, order=True)
class Jid:
    """``local@domain/resource``. ``local`` and ``resource`` are empty when absent; every part is canonical.

    Build it with ``parse`` or ``of``, which canonicalise; the plain constructor trusts its arguments.
    """

    local: str
    domain: str
    resource: str = ""

    @classmethod
    def parse(cls, text: str) -> Jid:
        """Reads a JID in any form a peer may send. Raises ProtocolError saying which part is wrong."""
        return _parse_cached(text) if len(text) <= _CACHED_LENGTH else _parse(text)

    @classmethod
    def of(cls, local: str, domain: str, resource: str = "") -> Self:
        """A JID from its parts, each canonicalised."""
        return cls(
            prepare_local(local) if local else "",
            prepare_domain(domain),
            prepare_resource(resource) if resource else "",
        )

    @property
    def bare(self) -> Jid:
        """The same without a resource."""
        return Jid(self.local, self.domain) if self.resource else self

    @property
    def is_bare(self) -> bool:
        """Whether there is no resource."""
        return not self.resource

    def with_resource(self, resource: str) -> Jid:
        """The full JID of a canonical ``resource``."""
        return Jid(self.local, self.domain, resource)

    def __str__(self) -> str:
        bare = f"{self.local}@{self.domain}" if self.local else self.domain
        return f"{bare}/{self.resource}" if self.resource else bare


def _parse(text: str) -> Jid:
    if len(text) > 3 * MAX_PART + 2:
        raise ProtocolError("the address is too long")
    bare, slash, resource = text.partition("/")
    local, at, domain = bare.rpartition("@")
    if (slash and not resource) or (at and not local):
        raise ProtocolError("a part of the address is empty")
    return Jid.of(local, domain, resource)


_parse_cached = lru_cache(maxsize=4096)(_parse)
