"""Reads ``moim.toml``: the site's own keys, and for each room its section as that room's frozen Settings.

A room defines ``class Settings(Section)`` with a docstring under every field; ``app.py`` hands the classes in.
An unknown key is an error that suggests the nearest known one.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from moim.errors import ConfigError, UsageError
from moim.model import domain_name

DEV_OFFSET = 10_000
_NODE_NAME = re.compile(r"[a-z]([a-z0-9-]{0,30}[a-z0-9])?", re.ASCII)


class Section(BaseModel):
    """Base of every room's settings: frozen, no unknown keys, documented fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Ports(Section):
    """Which ports are bound. Catalogue numbers are the standard ones; the ``dev`` profile adds an offset."""

    profile: Literal["dev", "standard"] = "dev"
    """``standard`` binds the catalogue's ports; ``dev`` adds ``offset`` so that no privilege is needed."""
    offset: int = DEV_OFFSET
    """What ``dev`` adds to every catalogue port."""

    def bind(self, standard: int) -> int:
        """The port to bind (and to publish in SRV records and links) for a catalogue port."""
        return standard + (self.offset if self.profile == "dev" else 0)


class Node(Section):
    """One machine of the site."""

    address: str
    """The IP address this node listens on and that the name server publishes."""
    public_address: str = ""
    """What clients see in front of a static NAT; empty when it is the same."""

    @field_validator("address", "public_address")
    @classmethod
    def _is_ip(cls, value: str) -> str:
        if value:
            ipaddress.ip_address(value)
        return value

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the node."""
        return ipaddress.ip_address(self.address).is_loopback


class Nodes(Section):
    """The machines of the site by role."""

    inside: Node = Node(address="127.0.0.1")
    """The node with the users, the store and the media plane."""
    edge: Node = Node(address="127.0.0.2")
    """The node at the border: holds no user data and is reached from inside only."""
    others: dict[str, Node] = {}
    """Further inside nodes by name (``[nodes.others.inside2]``), each on a machine of its own: ``moim up --node NAME``.
    They share one database (``[store]``) and a bus (``[bus]``) with ``inside``."""

    @field_validator("others")
    @classmethod
    def _are_names(cls, value: dict[str, Node]) -> dict[str, Node]:
        for name in value:
            if not _NODE_NAME.fullmatch(name) or name in ("inside", "edge"):
                raise ValueError(f"'{name}' cannot be the name of a node: write it like inside2")
        return value


class Log(Section):
    """Logging."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe records that are kept."""


def checked_domain(value: str) -> str:
    """The canonical form of a domain in the settings. Raises ValueError with a sentence."""
    try:
        return domain_name(value)
    except UsageError as error:
        raise ValueError(error.message) from None


class SiteSettings(Section):
    """The keys at the top of ``moim.toml`` that belong to no room."""

    domain: str = "moim.test"
    """The domain of the users' addresses, and the service domain of discovery: the nodes are named in it."""
    hosted_domains: tuple[str, ...] = Field(default=(), max_length=64)
    """Further domains whose users this site serves: ``["example.net"]``. Each has its own people, group chat and
    records in the DNS, which lead to the same nodes."""
    ports: Ports = Ports()
    """Port profile."""
    nodes: Nodes = Nodes()
    """Addresses of the nodes."""
    log: Log = Log()
    """Logging."""

    @field_validator("domain")
    @classmethod
    def _is_domain(cls, value: str) -> str:
        return checked_domain(value)

    @field_validator("hosted_domains")
    @classmethod
    def _are_domains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(checked_domain(one) for one in value)

    @model_validator(mode="after")
    def _are_different(self) -> SiteSettings:
        nodes = {f"{node}.{self.domain}" for node in ("inside", "edge", *self.nodes.others)}
        for number, name in enumerate(self.hosted_domains):
            if name == self.domain or name in self.hosted_domains[:number]:
                raise ValueError(f"hosted_domains: {name} is there twice")
            if name in nodes:
                raise ValueError(f"hosted_domains: {name} is the name of a node")
        return self


SectionType = TypeVar("SectionType", bound=Section)


@dataclass(frozen=True)
class Site:
    """A site directory and everything that its ``moim.toml`` says.

    ``root`` holds ``moim.toml``, ``ca.pem`` (public), ``inside/`` and ``edge/`` (each private to its
    node), ``run/`` and ``log/``. ``here`` is the name of the inside node that this program is: what the rooms know as
    the inside node, its address and its private directory, are always this one's.
    """

    root: Path
    settings: SiteSettings
    sections: Mapping[str, Section]
    here: str = "inside"

    @property
    def domain(self) -> str:
        """The service domain, canonical form: the one that the nodes are named in."""
        return self.settings.domain

    @property
    def domains(self) -> tuple[str, ...]:
        """Every domain whose users this site serves, the service domain first."""
        return (self.settings.domain, *self.settings.hosted_domains)

    @property
    def ca_file(self) -> Path:
        """The site authority's certificate in PEM: what clients are to trust."""
        return self.root / "ca.pem"

    @property
    def run(self) -> Path:
        """Sockets and process files; mode 0700; rebuilt at every start."""
        return self.root / "run"

    def node_dir(self, node: str) -> Path:
        """A node's private directory, mode 0700."""
        return self.root / node

    def host(self, node: str) -> str:
        """The DNS name of a node: ``inside.example.com``."""
        return f"{self.here if node == 'inside' else node}.{self.domain}"

    @property
    def peers(self) -> Mapping[str, Node]:
        """The other inside nodes by name."""
        return self.settings.nodes.others

    @property
    def inside_nodes(self) -> Mapping[str, Node]:
        """Every inside node by name, in the same order on all of them."""
        nodes = self.settings.nodes
        return dict(sorted({self.here: nodes.inside, **nodes.others}.items()))

    def as_node(self, name: str) -> Site:
        """The site as the inside node ``name`` sees it. Raises ConfigError when there is none."""
        if name == self.here:
            return self
        nodes = self.settings.nodes
        if name not in nodes.others:
            raise ConfigError(
                f"moim.toml has no inside node '{name}'",
                hint=f"known: {', '.join(self.inside_nodes)}; add [nodes.others.{name}]",
            )
        others = {self.here: nodes.inside, **nodes.others}
        mine = others.pop(name)
        moved = self.settings.model_copy(update={"nodes": nodes.model_copy(update={"inside": mine, "others": others})})
        return replace(self, settings=moved, here=name)

    def section(self, kind: type[SectionType]) -> SectionType:
        """A room's settings by their class."""
        for value in self.sections.values():
            if isinstance(value, kind):
                return value
        raise ConfigError(f"no room of this program registered {kind.__module__}.{kind.__name__}")


def read_secret(root: Path, name: str) -> str:
    """The one line of a secret's file; a relative ``name`` starts at ``root``.

    Raises ConfigError when it cannot be read, is empty, or may be read by others than its owner.
    """
    path = root / name
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the secret {path} cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"others may read the secret {path}", hint=f"chmod 600 {path}")
    if not text or "\n" in text:
        raise ConfigError(f"the secret {path} is not one line", hint="write the secret alone into it")
    return text


def load(root: Path, rooms: Mapping[str, type[Section]]) -> Site:
    """Reads ``root/moim.toml``. ``rooms`` maps section names to the rooms' Settings classes.

    Raises ConfigError naming the file, the key and the next step.
    """
    raw, path = _read(root)
    own = {key: value for key, value in raw.items() if key not in rooms}
    site = _validate(SiteSettings, own, path, "", also=tuple(rooms))
    sections = {name: _validate(kind, raw.get(name, {}), path, name) for name, kind in rooms.items()}
    return Site(root.resolve(), site, sections)


def load_frame(root: Path) -> Site:
    """Reads what belongs to no room, and looks at nothing else: for programs that run or watch a site from outside."""
    raw, path = _read(root)
    own = {key: value for key, value in raw.items() if key in SiteSettings.model_fields}
    return Site(root.resolve(), _validate(SiteSettings, own, path, ""), {})


def _read(root: Path) -> tuple[dict[str, Any], Path]:
    path = root / "moim.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), path
    except FileNotFoundError:
        raise ConfigError(
            f"there is no site in {root.absolute()}", hint=f"make one with: moim up --site {root}"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _validate(kind: type[SectionType], raw: Any, path: Path, where: str, also: tuple[str, ...] = ()) -> SectionType:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        found = error.errors()
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        key = ".".join(str(part) for part in (*((where,) if where else ()), *first["loc"]))
        if first["type"] != "extra_forbidden":
            raise ConfigError(f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}") from None
        known = _keys_at(kind, tuple(str(part) for part in first["loc"][:-1]))
        if len(first["loc"]) == 1:
            known += also
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(known))}"
        raise ConfigError(f"{path}: unknown key '{key}'", hint=hint) from None


def _keys_at(kind: type[BaseModel], inner: tuple[str, ...]) -> tuple[str, ...]:
    model, parts = kind, iter(inner)
    for part in parts:
        field = model.model_fields.get(part)
        found: Any = field.annotation if field is not None else None
        if get_origin(found) is dict:
            next(parts, None)  # the names in it are free
            found = get_args(found)[1]
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            return ()
        model = found
    return tuple(model.model_fields)
