"""TURN credentials: their form, the rotation of the secret, who gets which address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import stat
from pathlib import Path

from moim.edge.ice import IceServers, TurnSecrets
from moim.edge.settings import IceSettings

SETTINGS = IceSettings(credential_s=3600, rotate_s=86400)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def make(tmp_path: Path, clock: Clock) -> TurnSecrets:
    turn_secrets = TurnSecrets(tmp_path / "inside" / "turn.json", SETTINGS, clock=clock)
    turn_secrets.load()
    return turn_secrets


def test_a_credential_is_signed_with_the_newest_secret(tmp_path: Path) -> None:
    turn_secrets = make(tmp_path, Clock())
    user, password, end = turn_secrets.credential("alice@moim.test/웹 1")
    assert user == "1800003600:alice@moim.test___1"
    assert end == 1_800_003_600
    mac = hmac.new(turn_secrets.values()[0].encode(), user.encode(), hashlib.sha1).digest()
    assert password == base64.b64encode(mac).decode()


def test_the_secret_survives_a_restart_with_mode_0600(tmp_path: Path) -> None:
    clock = Clock()
    first = make(tmp_path, clock)
    assert make(tmp_path, clock).values() == first.values()
    assert stat.S_IMODE((tmp_path / "inside" / "turn.json").stat().st_mode) == 0o600


def test_rotation_keeps_the_old_secret_until_its_last_credential_ended(tmp_path: Path) -> None:
    clock = Clock()
    turn_secrets = make(tmp_path, clock)
    (old,) = turn_secrets.values()
    clock.now += SETTINGS.rotate_s - 1
    assert not turn_secrets.rotate()
    clock.now += 1
    assert turn_secrets.rotate()
    new, still = turn_secrets.values()
    assert (still, new != old) == (old, True)
    clock.now += SETTINGS.credential_s - 1
    assert not turn_secrets.rotate()
    clock.now += 1
    assert turn_secrets.rotate()
    assert turn_secrets.values() == (new,)


def test_a_broken_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "inside" / "turn.json"
    path.parent.mkdir()
    path.write_text("[{}]")
    assert len(make(tmp_path, Clock()).values()) == 1


def test_each_side_gets_its_address(tmp_path: Path) -> None:
    turn_secrets = make(tmp_path, Clock())

    def servers(*, inside: bool = True, enabled: bool = True) -> IceServers:
        return IceServers(
            turn_secrets, public="2001:db8::5", private="10.0.0.5", port=3478, inside=inside, enabled=enabled
        )

    (outside,) = servers().issue("carol", True)
    (inside,) = servers().issue("carol", False)
    assert outside["urls"] == ["turn:[2001:db8::5]:3478?transport=udp"]
    assert inside["urls"] == ["turn:10.0.0.5:3478?transport=udp"]
    assert outside.keys() == {"urls", "username", "credential"}
    assert servers(inside=False).issue("carol", False) == []
    assert servers(enabled=False).issue("carol", True) == []
