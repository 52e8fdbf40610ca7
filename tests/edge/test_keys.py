"""The tunnel's keys at site creation."""

from __future__ import annotations

import stat
from pathlib import Path

import asyncssh

from moim.edge.keys import create_keys, edge_keys, inside_keys, write_private


def test_each_side_pins_the_other(tmp_path: Path) -> None:
    create_keys(tmp_path)
    edge, inside = edge_keys(tmp_path), inside_keys(tmp_path)
    host, client = asyncssh.read_private_key(edge.host_key), asyncssh.read_private_key(inside.client_key)
    assert host.algorithm == client.algorithm == b"ssh-ed25519"
    assert asyncssh.read_public_key(inside.known_host).public_data == host.public_data
    assert asyncssh.read_public_key(edge.authorized).public_data == client.public_data
    for path in (edge.host_key, inside.client_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    create_keys(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    create_keys(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert len(before) == 4


def test_a_private_file_never_has_another_mode(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
