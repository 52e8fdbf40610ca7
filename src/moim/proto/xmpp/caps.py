"""XEP-0115 entity capabilities: the hash over what an entity says of itself, which makes the answer cachable."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from moim.proto.xmpp import ns
from moim.proto.xmpp.element import Element

HASHES: Final = {"sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512"}
"""The hashes that are believed, by their name on the wire."""
_MAX_PARTS = 2000


def verification(info: Element, hash_name: str) -> str | None:
    """The verification string of a ``disco#info`` answer (XEP-0115 section 5.1).

    None when it cannot vouch for the answer: the hash is unknown, or the answer is one that section 5.4 calls
    ill-formed, or it has a ``<`` in its values, with which two different answers could have one hash.
    """
    algorithm = HASHES.get(hash_name)
    if algorithm is None:
        return None
    identities, features, forms = [], [], []
    for child in info.elements():
        if (child.ns, child.name) == (ns.DISCO_INFO, "identity"):
            identities.append("/".join(child.get(key) or "" for key in ("category", "type", "xml:lang", "name")))
        elif (child.ns, child.name) == (ns.DISCO_INFO, "feature"):
            features.append(child.get("var") or "")
        elif (child.ns, child.name) == (ns.DATA_FORMS, "x") and (parts := _form(child)) is not None:
            forms.append(parts)
    for found in (identities, features, [form[0] for form in forms]):
        if len(set(found)) != len(found):
            return None
    strings = [*sorted(identities, key=str.encode), *sorted(features, key=str.encode)]
    for parts in sorted(forms, key=lambda form: form[0].encode()):
        strings += parts
    if len(strings) > _MAX_PARTS or any("<" in text for text in strings):
        return None
    digest = hashlib.new(algorithm, "".join(f"{text}<" for text in strings).encode()).digest()
    return base64.b64encode(digest).decode("ascii")


def _form(form: Element) -> list[str] | None:
    """The strings of an extension form (XEP-0128), its type first; None when it does not count."""
    kind: str | None = None
    fields: list[tuple[str, list[str]]] = []
    for field in form.elements():
        if (field.ns, field.name) != (ns.DATA_FORMS, "field"):
            continue
        values = [child.text for child in field.elements() if (child.ns, child.name) == (ns.DATA_FORMS, "value")]
        if field.get("var") == "FORM_TYPE":
            if field.get("type") != "hidden" or not values:
                return None
            # Different values make it ill-formed: a ``<`` keeps the whole answer from being believed.
            kind = values[0] if len(set(values)) == 1 else "<"
        else:
            fields.append((field.get("var") or "", sorted(values, key=str.encode)))
    if kind is None:
        return None
    parts = [kind]
    for var, values in sorted(fields, key=lambda pair: pair[0].encode()):
        parts += [var, *values]
    return parts
