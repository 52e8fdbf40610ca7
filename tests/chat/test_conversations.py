"""Whole conversations, as the scripts in ``conversations/`` tell them, over the real plane.

A script is lines. ``# …`` is for people; ``set key = value`` (first) is a setting of ``[chat]``. Then steps:

``alice/phone connects`` · ``… connects again`` (the older connection ends with ``conflict``) · ``… disconnects`` ·
``… drops`` · ``… is closed with CONDITION`` · ``… receives nothing`` · ``… sends`` and ``… receives``, then stanzas.

What is received must come in that order; it may have more attributes and children than the script lists. The value
``*`` is any, an empty attribute must be absent. ``receives in any order`` takes its stanzas as they come.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moim.proto.xmpp import Element

SCRIPTS = sorted((Path(__file__).parent / "conversations").glob("*.txt"))
_STEP = re.compile(r"(?P<who>\w+/\w+) (?P<what>[a-z ]+?)(?: with (?P<detail>[a-z-]+))?")

Matches = Callable[[Element, Element], str]
Stanzas = Callable[[str], list[Element]]


def read(path: Path) -> tuple[dict[str, Any], list[tuple[str, str, str, str, str]]]:
    """Settings, and steps: where it stands, who, what, its detail, and the text below."""
    options: dict[str, Any] = {"default_contacts": False}
    steps: list[tuple[str, str, str, str, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        where = f"{path.name}:{number}: {line}"
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("set "):
            key, value = (part.strip() for part in line[4:].split("="))
            options[key] = int(value) if value.isdigit() else value == "true"
        elif line[0].isspace():
            steps[-1] = (*steps[-1][:4], steps[-1][4] + line.strip())
        else:
            step = _STEP.fullmatch(line)
            assert step is not None, f"{where}: no such step"
            steps.append((where, step["who"], step["what"], step["detail"] or "", ""))
    return options, steps


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
async def test_conversation(path: Path, new_house: Any, matches: Matches, stanzas: Stanzas) -> None:
    options, steps = read(path)
    house = await new_house(**options)
    clients: dict[str, Any] = {}
    for where, who, what, detail, text in steps:
        client = clients.get(who)
        if what in ("connects", "connects again"):
            clients[who] = await house.client(*who.split("/")).connect()
            if what == "connects again":
                assert client is not None, where
                assert (await client.ended()).condition == "conflict", where
            continue
        assert client is not None, f"{where}: not connected"
        if what == "sends":
            for stanza in stanzas(text):
                client.send(stanza)
        elif what == "receives":
            for expected in stanzas(text):
                got = await client.receive(where)
                why = matches(expected, got)
                assert not why, f"{where}\n{why}\nexpected {expected.to_xml()}\ngot {got.to_xml()}"
        elif what == "receives in any order":
            left = stanzas(text)
            while left:
                got = await client.receive(where)
                found = next((expected for expected in left if not matches(expected, got)), None)
                assert found is not None, f"{where}\ngot {got.to_xml()}\nnot in {[e.to_xml() for e in left]}"
                left.remove(found)
        elif what == "receives nothing":
            for other in clients.values():
                await other.settle()
            await client.quiet()
        elif what == "disconnects":
            await client.close()
        elif what == "drops":
            client.drop()
        elif what == "is closed":
            failure = await client.ended()
            assert failure is not None, where
            assert failure.condition == detail, f"{where}: {failure}"
        else:
            raise AssertionError(f"{where}: no such step")
