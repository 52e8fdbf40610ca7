"""Runs Prosody or ejabberd on the host of a lab that this program is started on, as its input says, line by line.

``{"kind", "root", "domain", …}`` starts a server (after stopping the one before) with these arguments of its class;
the answer is an empty line, or the error. The server ends with the input.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ejabberd_server import EjabberdServer
from prosody_server import ProsodyServer


def _make(kind: str, root: str, domain: str, accounts: dict[str, str], **more: Any) -> ProsodyServer | EjabberdServer:
    given = {key: value.encode() if key in ("chain", "key", "trusted") else value for key, value in more.items()}
    if kind == "prosody":
        return ProsodyServer(Path(root), domain, accounts, places={}, c2s_port=5222, s2s_port=5269, **given)
    return EjabberdServer(Path(root), domain, accounts, c2s_port=5222, s2s_port=5269, **given)


def main() -> None:
    """Serves one line after the other."""
    server: ProsodyServer | EjabberdServer | None = None
    try:
        for line in sys.stdin:
            if server is not None:
                server.stop()
            server = _make(**json.loads(line))
            try:
                server.start()
                print(flush=True)
            except AssertionError as error:
                print(json.dumps(str(error)), flush=True)
    finally:
        if server is not None:
            server.stop()


if __name__ == "__main__":
    main()
