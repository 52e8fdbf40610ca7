"""What the documents point at is there: pages that they link, and files that they name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
_MADE = {ROOT / "fuzz/found", ROOT / "src/moim/portal/static", ROOT / "tests/artifacts/web"}
"""What is made when it is needed."""
_FILE = re.compile(r"`((?:bench|crates|docs|fuzz|scripts|src|tests)/[\w./-]*)(?:::\w+)?`")


def test_links_lead_somewhere() -> None:
    missing = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        linked = {page.parent / link for link in _LINK.findall(text)}
        named = {ROOT / file for file in _FILE.findall(text)}
        missing += [f"{page.name}: {path}" for path in (linked | named) - _MADE if not path.exists()]
    assert missing == []
