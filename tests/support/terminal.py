"""A program for terminals, in a tmux server of its own: typed to, and looked at."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from leftovers import marked


class Terminal:
    """One program in a tmux server of its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._socket = str(folder / "tmux")
        self._variables = {
            "PATH": os.environ["PATH"], "TERM": "xterm", "LC_ALL": "C.UTF-8", **marked(), **variables
        }  # fmt: skip

    async def tmux(self, *words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "tmux", "-S", self._socket, "-u", *words, env=self._variables, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.decode()

    async def type(self, line: str) -> None:
        await self.tmux("send-keys", "-l", line)
        await self.tmux("send-keys", "Enter")

    async def shows(self, text: str) -> str:
        """Waits until ``text`` is on the screen; a terminal tells of no event, so it is looked at again and again."""
        screen = ""
        for _ in range(200):
            screen = await self.tmux("capture-pane", "-p")
            if text in screen:
                return screen
            await asyncio.sleep(0.1)
        raise AssertionError(f"never showed {text!r}:\n{screen}")
