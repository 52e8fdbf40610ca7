"""What the chat service looks for in stanzas, read from its source: names, namespaces, attributes, values, requests.

A feature that is added tomorrow is in here tomorrow: whatever it compares with is in its source as a literal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import moim.chat
import moim.proto.xmpp
from moim.proto.xmpp import ns

Key = tuple[str, str, str]
"""Type, namespace and name of a request's payload."""

_SPACES = {name: value for name, value in vars(ns).items() if name.isupper() and isinstance(value, str)}
_SHORT = 60


@dataclass
class Words:
    """The words of one module or of all."""

    names: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    spaces: set[str] = field(default_factory=set)
    elements: set[tuple[str, str]] = field(default_factory=set)
    """Namespace and name of elements that are looked for."""
    requests: set[Key] = field(default_factory=set)

    def add(self, other: Words) -> None:
        """Takes another's words in."""
        for kind in ("names", "attributes", "texts", "spaces", "elements", "requests"):
            getattr(self, kind).update(getattr(other, kind))


@cache
def all_words() -> Words:
    """The words of every module."""
    words = Words()
    for module in modules().values():
        words.add(module)
    words.spaces.update(_SPACES.values())
    return words


@cache
def modules() -> dict[str, Words]:
    """The words of each module of the chat service and of its protocol, by the module's name."""
    found: dict[str, Words] = {}
    for package in (moim.chat, moim.proto.xmpp):
        folder = Path(package.__file__ or "").parent
        for path in sorted(folder.rglob("*.py")):
            if "migrations" not in path.parts:
                name = ".".join((package.__name__, *path.relative_to(folder).with_suffix("").parts))
                found[name] = _read(ast.parse(path.read_text()))
    return found


def words_for(space: str, name: str) -> Words:
    """The words of the modules in which an element is mentioned."""
    words = Words()
    for module in modules().values():
        if (space, name) in module.elements or any(key[1:] == (space, name) for key in module.requests):
            words.add(module)
    return words


def _read(tree: ast.Module) -> Words:
    words = Words()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) <= _SHORT:
            words.texts.add(node.value)
        elif isinstance(node, ast.Attribute) and (space := _space(node)) is not None:
            words.spaces.add(space)
        elif isinstance(node, ast.Tuple):
            _tuple(node, words)
        elif isinstance(node, ast.Call):
            _call(node, words)
    words.texts -= {text for text in words.texts if not text.isprintable()}
    return words


def _tuple(node: ast.Tuple, words: Words) -> None:
    match [_space(part) or _text(part) or "" for part in node.elts]:
        case [("get" | "set") as kind, space, str(name)] if space in _SPACES.values() and name:
            words.requests.add((kind, space, name))
        case [space, str(name)] if space in _SPACES.values() and name:
            words.elements.add((space, name))


def _call(node: ast.Call, words: Words) -> None:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = _text(node.args[0]) if node.args else None
    if not first:
        return
    if called in ("find", "Element", "with_name"):
        words.names.add(first)
        space = _space(node.args[1]) if len(node.args) > 1 else None
        if space is not None:
            words.elements.add((space, first))
        if called == "Element" and len(node.args) > 2 and isinstance(node.args[2], ast.Dict):
            words.attributes.update(key for key in map(_text, _present(node.args[2].keys)) if key)
    elif called == "get":
        words.attributes.add(first)


def _present(keys: list[ast.expr | None]) -> Iterator[ast.expr]:
    return (key for key in keys if key is not None)


def _space(node: ast.expr) -> str | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ns":
        return _SPACES.get(node.attr)
    return None


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
