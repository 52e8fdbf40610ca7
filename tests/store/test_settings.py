"""Where the store is: urls that can be meant, and the password's file."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from moim.errors import ConfigError
from moim.store import Settings


def test_without_a_url_the_store_is_a_file(tmp_path: Path) -> None:
    assert Settings().database(tmp_path) is None


@pytest.mark.parametrize(
    "url", ["mysql://a/b", "postgresql://", "postgresql://u:secret@h/db", "no url", "postgresql://h"]
)
def test_urls_that_cannot_be_used_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        Settings(url=url)


def test_the_password_comes_from_a_private_file(tmp_path: Path) -> None:
    settings = Settings(url="postgresql://moim@db/moim", password_file="db.password")
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.database(tmp_path)
    secret = tmp_path / "db.password"
    secret.write_text("s3cret\n")
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        settings.database(tmp_path)
    secret.chmod(0o600)
    url = settings.database(tmp_path)
    assert url is not None
    assert url.password == "s3cret"
    assert "s3cret" not in str(url)


def test_a_password_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="password_file without"):
        Settings(password_file="x").database(tmp_path)
