"""The admin API of a running site, for tests that would else start a program for each question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from moim.console import read_token
from moim.settings import load_frame


class AdminApi:
    """Requests with the site's token; ``path`` is below ``/api/v1``."""

    def __init__(self, root: Path) -> None:
        frame = load_frame(root).settings
        self._client = httpx.Client(
            base_url=f"http://{frame.nodes.inside.address}:{frame.ports.bind(8445)}/api/v1",
            headers={"Authorization": f"Bearer {read_token(root)}"},
            trust_env=False,
            timeout=60,
        )

    def get(self, path: str) -> Any:
        return self._client.get(path).raise_for_status().json()

    def put(self, path: str, given: Any) -> Any:
        return self._client.put(path, json=given).raise_for_status().json()

    def post_lines(self, path: str, given: Any) -> list[Any]:
        """The JSON objects that come in the lines of the answer."""
        answer = self._client.post(path, json=given).raise_for_status()
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def delete(self, path: str) -> None:
        self._client.delete(path).raise_for_status()
