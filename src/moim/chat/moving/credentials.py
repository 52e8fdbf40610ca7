"""What other servers kept of a password, as ``urn:xmpp:pie:0#scram`` (XEP-0227 version 1.1), both ways."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Final

from moim.errors import ProtocolError
from moim.proto.xmpp import Element
from moim.proto.xmpp.scram import ScramHash, ScramVerifier

SCRAM: Final = "urn:xmpp:pie:0#scram"
_SIZES: Final[Mapping[ScramHash, int]] = {"SCRAM-SHA-1": 20, "SCRAM-SHA-256": 32}
_MAX_SALT: Final = 256
_MAX_ITERATIONS: Final = 1_000_000


def read_credentials(elements: Iterable[Element]) -> dict[ScramHash, ScramVerifier]:
    """The verifiers in ``<scram-credentials/>`` elements; hashes that are not known here are left out.

    Raises ProtocolError for values that cannot be right.
    """
    found: dict[ScramHash, ScramVerifier] = {}
    for element in elements:
        for name in _SIZES:
            if element.get("mechanism") == name:
                found[name] = _read(element, _SIZES[name])
    return found


def _read(element: Element, size: int) -> ScramVerifier:
    values = {child.name: child.text.strip() for child in element.elements() if child.ns == SCRAM}
    count = values.get("iter-count", "")
    if not (count.isascii() and count.isdigit() and len(count) < 9 and 0 < int(count) <= _MAX_ITERATIONS):
        raise ProtocolError("the number of iterations of a password is not possible")
    salt, stored, server = (_decode(values.get(name, "")) for name in ("salt", "stored-key", "server-key"))
    if len(stored) != size and len(server) != size:
        # COMPAT: ejabberd 23.01 encodes its base64 texts once more (2023-01).
        salt, stored, server = (_decode(part.decode("latin-1")) for part in (salt, stored, server))
    if len(stored) != size or len(server) != size or not 0 < len(salt) <= _MAX_SALT:
        raise ProtocolError("the keys of a password have the wrong size")
    return ScramVerifier(salt, int(count), stored, server)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("the keys of a password are not base64") from None


def write_credentials(known: Mapping[ScramHash, ScramVerifier]) -> list[Element]:
    """The elements for an export."""
    return [_write(name, verifier) for name, verifier in known.items()]


def _write(name: str, verifier: ScramVerifier) -> Element:
    values = {
        "iter-count": str(verifier.iterations),
        "salt": base64.b64encode(verifier.salt).decode(),
        "server-key": base64.b64encode(verifier.server_key).decode(),
        "stored-key": base64.b64encode(verifier.stored_key).decode(),
    }
    children = [Element(key, SCRAM, {}, (text,)) for key, text in values.items()]
    return Element("scram-credentials", SCRAM, {"mechanism": name}, children)
