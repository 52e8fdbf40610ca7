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


def test_hosted_domains_come_after_the_service_domain(tmp_path: Path) -> None:
    site = load(write(tmp_path, 'domain = "a.test"\nhosted_domains = ["B.test", "bücher.test"]'), {})
    assert site.domain == "a.test"
    assert site.domains == ("a.test", "b.test", "xn--bcher-kva.test")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ('["A.test"]', "there twice"),
        ('["b.test", "B.TEST"]', "there twice"),
        ('["edge.a.test"]', "the name of a node"),
        ('["not a domain"]', "not a domain name"),
        (str([f"d{number}.test" for number in range(65)]), "at most 64"),
    ],
)
def test_hosted_domains_that_cannot_be(tmp_path: Path, names: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(write(tmp_path, f'domain = "a.test"\nhosted_domains = {names}'), {})


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
        ("[nodes.others.inside2]\naddres = '127.0.0.1'", "unknown key 'nodes.others.inside2.addres'", "'address'"),
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


SUBCLUSTER = '[nodes.inside]\naddress = "10.0.0.1"\n[nodes.others.inside2]\naddress = "10.0.0.2"\n'


def test_the_site_as_each_of_its_inside_nodes_sees_it(tmp_path: Path) -> None:
    site = load(write(tmp_path, 'domain = "x.test"\n' + SUBCLUSTER), {})
    second = site.as_node("inside2")
    assert (site.host("inside"), second.host("inside")) == ("inside.x.test", "inside2.x.test")
    assert (site.settings.nodes.inside.address, second.settings.nodes.inside.address) == ("10.0.0.1", "10.0.0.2")
    assert (list(site.peers), list(second.peers)) == (["inside2"], ["inside"])
    assert site.inside_nodes == second.inside_nodes
    assert site.as_node("inside") is site
    with pytest.raises(ConfigError, match="no inside node 'inside3'"):
        site.as_node("inside3")


@pytest.mark.parametrize("name", ["edge", "inside", "Inside2", "a.b", "-x"])
def test_names_that_no_node_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a node"):
        load(write(tmp_path, f'[nodes.others."{name}"]\naddress = "10.0.0.2"\n'), {})
