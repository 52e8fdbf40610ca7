"""moim.toml: defaults, sections of rooms, and errors that name the key and suggest the right one."""

from pathlib import Path

import pytest

from moim.errors import ConfigError
from moim.settings import Section, load


class Chat(Section):
    port: int = 5222
    """A port."""


def write(root: Path, text: str) -> Path:
    (root / "moim.toml").write_text(text, encoding="utf-8")
    return root


def test_defaults_and_sections(tmp_path: Path) -> None:
    site = load(write(tmp_path, 'domain = "Example.COM"\n[chat]\nport = 1\n'), {"chat": Chat})
    assert site.domain == "example.com"
    assert site.section(Chat).port == 1
    assert site.settings.ports.bind(5222) == 15222
    assert site.settings.nodes.inside.loopback


def test_standard_ports_have_no_offset(tmp_path: Path) -> None:
    site = load(write(tmp_path, '[ports]\nprofile = "standard"\n'), {})
    assert site.settings.ports.bind(5222) == 5222


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("domian = 'x.test'", "unknown key 'domian'", "'domain'"),
        ("[chta]\nport = 1", "unknown key 'chta'", "'chat'"),
        ("[chat]\nprot = 1", "unknown key 'chat.prot'", "'port'"),
        ("[nodes.inside]\naddres = '127.0.0.1'", "unknown key 'nodes.inside.addres'", "'address'"),
        ("[chat]\nport = 'x'", "chat.port", ""),
        ("domain = ", "cannot be read", ""),
    ],
)
def test_errors_name_the_key(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {"chat": Chat})
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_no_site_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="moim up"):
        load(tmp_path, {})
