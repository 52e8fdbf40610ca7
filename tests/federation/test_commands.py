"""`moim federation …` where no site runs: a sentence and the next step, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from moim import app
from running_site import MOIM


@pytest.mark.parametrize("words", [("check", "b.example"), ("reset", "b.example")])
def test_without_a_running_site(tmp_path: Path, words: tuple[str, str]) -> None:
    site = tmp_path / "site"
    app.create_site(site, domain="a.example", demo=False, ports="dev", inside="127.0.0.1", edge_address="127.0.0.2")
    command = [str(MOIM), "federation", *words, "--site", str(site)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (5, "")
    first, *more = done.stderr.splitlines()
    assert first == "error: federation does not run"
    assert [line.strip() for line in more] == ["start the site: moim up, with federation.enabled"]
