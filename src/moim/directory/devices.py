"""Devices of users: every user gets a soft client, ``CSF<USER>``, whose configuration file has its name."""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from moim.directory.tables import devices
from moim.model import Address

_MODEL = "Cisco Unified Client Services Framework"
_NAME_LENGTH = 15  # of a device of this type, prefix included
_PLAIN = re.compile(r"[A-Z0-9]{1,12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Device:
    """One device: ``id`` is its key in UDS, ``name`` the one that configuration files carry."""

    id: str
    name: str
    type: str
    model: str
    description: str
    protocol: str


def client_name(address: Address, attempt: int = 0) -> str:
    """``CSFALICE``; names that do not fit (letters and digits, 12 at most) or are taken end in a digest instead."""
    upper = address.local.upper()
    if attempt == 0 and _PLAIN.fullmatch(upper):
        return f"CSF{upper}"
    digest = base64.b32encode(hashlib.sha256(f"{attempt}:{address}".encode()).digest()).decode()
    letters = re.sub(r"[^A-Z0-9]", "", upper, flags=re.ASCII)[:4]
    return f"CSF{letters}{digest}"[:_NAME_LENGTH]


def new_client(connection: sa.Connection, user_id: str, address: Address, shown: str) -> dict[str, Any]:
    """The row of a new user's soft client, with a name that is free."""
    attempt = 0
    while True:
        name = client_name(address, attempt)
        if not connection.scalar(sa.select(sa.exists().where(devices.c.name == name))):
            break
        attempt += 1
    return {
        "id": uuid.uuid4().hex,
        "user_id": user_id,
        "name": name,
        "type": "Phone",
        "model": _MODEL,
        "description": shown[:255],
        "protocol": "SIP",
    }


def of_user(connection: sa.Connection, user_id: str) -> list[Device]:
    """A user's devices by name."""
    rows = connection.execute(sa.select(devices).where(devices.c.user_id == user_id).order_by(devices.c.name))
    return [_device(row) for row in rows]


def by_name(connection: sa.Connection, name: str) -> tuple[Device, str] | None:
    """A device and its owner's id."""
    row = connection.execute(sa.select(devices).where(devices.c.name == name)).one_or_none()
    return (_device(row), row.user_id) if row is not None else None


def _device(row: sa.Row[Any]) -> Device:
    return Device(row.id, row.name, row.type, row.model, row.description, row.protocol)
