"""What is known of a person, and which values are taken: the shape shared by the store, UDS, CSV and the admin API."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moim.errors import ProtocolError, UsageError
from moim.model import Address
from moim.proto.xmpp.jid import prepare_local

FIELDS: dict[str, int] = {
    "display_name": 255,
    "first_name": 255,
    "last_name": 255,
    "email": 254,
    "phone": 64,
    "mobile": 64,
    "title": 255,
    "department": 255,
    "manager": 255,
    "policy": 64,
}
"""The fields that can be set, with the characters each may have."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One person. Texts are empty when nothing is known; times are seconds since 1970 (UTC)."""

    id: str
    address: Address
    display_name: str = ""
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    phone: str = ""
    mobile: str = ""
    title: str = ""
    department: str = ""
    manager: str = ""
    policy: str = ""
    account_type: str = "local"
    disabled: bool = False
    created_at: int = 0
    updated_at: int = 0

    @property
    def name(self) -> str:
        """What to show: the display name, else the first and last name, else the address's name part."""
        return self.display_name or f"{self.first_name} {self.last_name}".strip() or self.address.local


def canonical(address: Address | str, domains: Sequence[str]) -> Address:
    """An address of this site in its one form. Raises UsageError when it cannot be one or is of another domain."""
    parsed = Address.parse(address) if isinstance(address, str) else address
    if parsed.domain not in domains:
        ends = " or ".join(f"@{one}" for one in domains[:8])
        raise UsageError(f"{parsed} is not of a domain of this site", hint=f"addresses here end in {ends}")
    return Address(canonical_local(parsed.local), parsed.domain)


def canonical_local(local: str) -> str:
    """A name part in the form that chat uses too (RFC 7622 section 3.3). Raises UsageError."""
    try:
        return prepare_local(local)
    except ProtocolError as error:
        raise UsageError(f"'{local[:64]}' cannot be the name part of an address: {error.message}") from None


def checked_fields(given: Mapping[str, str]) -> dict[str, str]:
    """Values for the store: NFC, trimmed. Raises UsageError naming the field that cannot be taken."""
    values: dict[str, str] = {}
    for field, value in given.items():
        limit = FIELDS.get(field)
        if limit is None:
            raise UsageError(f"there is no field '{field}'", hint=f"fields: {', '.join(FIELDS)}")
        text = unicodedata.normalize("NFC", value).strip()
        if len(text) > limit:
            raise UsageError(f"{field} is longer than {limit} characters")
        if any(unicodedata.category(char) in ("Cc", "Cs", "Cn") for char in text):
            raise UsageError(f"{field} has characters that cannot be shown")
        values[field] = text
    email = values.get("email", "")
    if email and (email.count("@") != 1 or email.startswith("@") or email.endswith("@") or " " in email):
        raise UsageError(f"'{email}' is not an e-mail address")
    return values
