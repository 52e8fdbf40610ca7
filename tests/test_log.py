"""The log: secrets never reach the file, the session's identifier does."""

import contextlib
import logging
from pathlib import Path

import pytest

from moim import log


@pytest.mark.parametrize(
    "line",
    [
        "password=geheim",
        "{'password': 'geheim', 'user': 'alice'}",
        "Authorization: Basic geheim",
        "Authorization: Bearer geheim",
        "GET /meeting/1?secret=geheim&name=x",
        "Cookie: geheim",
        '"token": "geheim"',
    ],
)
def test_secrets_are_taken_out(line: str) -> None:
    assert "geheim" not in log.redact(line)


def test_the_rest_stays() -> None:
    assert log.redact("alice signed in from 127.0.0.1") == "alice signed in from 127.0.0.1"


def test_records_carry_their_session(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        log.configure(path=tmp_path / "x.log")
        with log.session("c2s-7"):
            logging.getLogger("moim.test").info("signed in, password=geheim")
        text = (tmp_path / "x.log").read_text()
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers, root.level = before, level
    assert "[c2s-7] signed in, password=[hidden]" in text


def test_a_full_file_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_FILE_BYTES", 1000)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    (tmp_path / "x.log").write_text("earlier\n" * 100)
    try:
        log.configure(path=tmp_path / "x.log")
        for number in range(80):
            logging.getLogger("moim.test").info("line %d of 이 기록", number)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers, root.level = before, level
    files = sorted(tmp_path.glob("x.log*"))
    assert len(files) == 5
    assert all(file.stat().st_size <= 1000 for file in files)
    assert "line 79 of 이 기록" in (tmp_path / "x.log").read_text()


def test_a_full_disk_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    try:
        log.configure(path=Path("/dev/full"))
        for number in range(3):
            logging.getLogger("moim.test").info("line %d", number)
    finally:
        for handler in root.handlers:
            with contextlib.suppress(OSError):
                handler.close()
        root.handlers, root.level = before, level
    assert capsys.readouterr().err == "error: /dev/full cannot be written: No space left on device\n"
