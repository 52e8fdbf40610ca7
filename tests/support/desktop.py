"""A desktop for graphical clients on a host of a lab: a screen that nobody sees, a session bus, a keyboard and a mouse.

Without a window manager: windows open at the top left, keys go to the window under the mouse.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from pathlib import Path

from lab import Host

_SETTINGS = "[Settings]\ngtk-cursor-blink=false\ngtk-enable-animations=false\n"


class Desktop:
    """``home`` is its person's folder; ``pictures`` of the screen are kept there for whoever looks after a test."""

    def __init__(self, host: Host, home: Path) -> None:
        self._host, self.home = host, home
        runtime = home / "runtime"
        for folder, mode in ((runtime, 0o700), (home / ".config/gtk-4.0", 0o755), (home / ".config/gtk-3.0", 0o755)):
            folder.mkdir(parents=True, mode=mode)
        for version in ("3.0", "4.0"):
            (home / f".config/gtk-{version}/settings.ini").write_text(_SETTINGS)
        self._programs: list[subprocess.Popen[str]] = []
        self._variables = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "LC_ALL": "C.UTF-8",
            "GTK_A11Y": "none",
            "NO_AT_BRIDGE": "1",
            "GSK_RENDERER": "cairo",
        }
        screen = self.start("Xvfb", "-displayfd", "1", "-screen", "0", "1200x800x24", "-nolisten", "tcp")
        self._variables["DISPLAY"] = f":{_line(screen)}"
        bus = self.start("dbus-daemon", "--session", "--nofork", "--print-address=1")
        self._variables["DBUS_SESSION_BUS_ADDRESS"] = _line(bus)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts a program here."""
        with (self.home / f"{words[0]}.log").open("ab") as log:
            program = self._host.start(*words, environment=self._variables, errors=log)
        self._programs.append(program)
        return program

    def run(self, *words: str) -> str:
        """Runs a program here to its end and gives what it said."""
        program = self._host.start(*words, environment=self._variables)
        output, _ = program.communicate(timeout=30)
        assert program.returncode == 0, f"{' '.join(words)} ended with {program.returncode}"
        return output

    def window(self, title: str) -> str:
        """Waits until a window with this title can be seen; gives where it is and how big."""
        self.run("timeout", "30", "xdotool", "search", "--sync", "--onlyvisible", "--name", f"^{title}$")
        return self._geometry(title)

    def changed(self, title: str, before: str) -> None:
        """Waits until a window has another size than ``before``."""
        until = time.monotonic() + 30
        while self._geometry(title) in (before, ""):
            assert time.monotonic() < until, f"{title} stays as it is: see {self.picture('failed')}"
            time.sleep(0.1)
        self._settle(b"")

    def _geometry(self, title: str) -> str:
        found = self.run("bash", "-c", f"xdotool search --onlyvisible --name '^{title}$' getwindowgeometry || true")
        return found.partition("Geometry: ")[2].strip()

    def click(self, x: int, y: int, *, opens: str = "") -> None:
        """Clicks and waits until the screen shows what came of it; again and again until a window opens."""
        self._do("mousemove", str(x), str(y), "click", "1")
        for _ in range(20):
            if not opens or self._geometry(opens):
                return
            self.run("xdotool", "click", "1")
            time.sleep(1)
        raise AssertionError(f"{opens} never opened: see {self.picture('failed')}")

    def point(self, x: int, y: int) -> None:
        """Moves the mouse."""
        self.run("xdotool", "mousemove", str(x), str(y))
        self._settle(b"")

    def key(self, *names: str) -> None:
        """Presses keys and waits until the screen shows what came of it."""
        self._do("key", *names)

    def type(self, text: str) -> None:
        """Types text and waits until the screen shows it."""
        self._do("type", "--delay", "20", "--", text)

    def call(self, *words: str) -> None:
        """Runs a program that may change what the screen shows."""
        self.run(*words)
        self._settle(b"")

    def picture(self, name: str) -> Path:
        """Keeps what the screen shows."""
        path = self.home / f"{name}.png"
        self.run("scrot", "--overwrite", str(path))
        return path

    def _do(self, *words: str) -> None:
        before = self._look()
        self.run("xdotool", *words)
        self._settle(before)

    def _look(self) -> bytes:
        return hashlib.sha256(self.picture("screen").read_bytes()).digest()

    def _settle(self, before: bytes) -> None:
        """Waits until the screen differs from ``before`` and stays the same for a moment."""
        last, same = before, 0
        for _ in range(150):
            time.sleep(0.1)
            now = self._look()
            same = same + 1 if now == last != before else 0
            if same == 3:
                return
            last = now
        raise AssertionError(f"the screen never settled: see {self.home / 'screen.png'}")

    def close(self) -> None:
        """Ends what was started here, the last first."""
        for program in reversed(self._programs):
            program.terminate()
            try:
                program.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.communicate()


def _line(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    assert line, f"{program.args!r} did not start"
    return line
