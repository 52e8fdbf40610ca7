"""The keys that the two ends of the tunnel pin: made once when a site is created, private ones with mode 0600."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from moim.errors import Unavailable


@dataclass(frozen=True, slots=True)
class EdgeKeys:
    """The edge node's files: its own host key, and the one public key that may dial in."""

    host_key: Path
    authorized: Path


@dataclass(frozen=True, slots=True)
class InsideKeys:
    """The inside node's files: its own client key, and the one host key that the edge may show."""

    client_key: Path
    known_host: Path


def edge_keys(root: Path) -> EdgeKeys:
    """Where the edge node of the site in ``root`` keeps its files."""
    return EdgeKeys(root / "edge" / "ssh_host_key", root / "edge" / "authorized_key.pub")


def inside_keys(root: Path) -> InsideKeys:
    """Where the inside node of the site in ``root`` keeps its files."""
    return InsideKeys(root / "inside" / "edge" / "client_key", root / "inside" / "edge" / "known_host.pub")


def create_keys(root: Path) -> None:
    """Makes both Ed25519 key pairs for the site in ``root`` and gives each side the other's public half.

    A pair whose four files are all there is left alone, so that a second call changes nothing. Raises Unavailable
    when the files cannot be written.
    """
    edge, inside = edge_keys(root), inside_keys(root)
    if all(path.exists() for path in (edge.host_key, edge.authorized, inside.client_key, inside.known_host)):
        return
    host, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    try:
        for folder in (edge.host_key.parent, inside.client_key.parent.parent, inside.client_key.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(edge.host_key, _private(host))
        write_private(inside.client_key, _private(client))
        write_public(edge.authorized, _public(client, "moim-inside"))
        write_public(inside.known_host, _public(host, "moim-edge"))
    except OSError as error:
        raise Unavailable(f"the tunnel's keys cannot be written: {error}", hint="check the site directory") from error


def write_private(path: Path, data: bytes) -> None:
    """Writes a secret with mode 0600 from its first byte on, in one step."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """Writes a file that everybody may read, in one step."""
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _private(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def _public(key: Ed25519PrivateKey, comment: str) -> bytes:
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line + b" " + comment.encode() + b"\n"
