"""The long form: ``python -m hostile --minutes 60`` sends hostile stanzas and prints what it finds, to be had again.

A world lives for some hundred steps; its seed and the number of steps name a finding. After each world the readers of
``parsers.py`` have their turn.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from hostile import parsers
from hostile.faces import Faces
from hostile.neighbour import Neighbour
from hostile.world import World


def one(seed: str, steps: int, *, say: bool = False) -> int:
    """Lets a world of each kind live, then gives the readers their turn; the number of steps.
    Raises AssertionError with what was found.
    """
    asyncio.run(_worlds(seed, steps, say=say))
    rng = random.Random(seed)
    for _ in range(2 * steps):
        try:
            parsers.once(rng)
        except AssertionError as error:
            raise AssertionError(f"--seed {seed}\n{error}") from None
    return 3 * steps


async def _worlds(seed: str, steps: int, *, say: bool) -> None:
    for kind in (World, Neighbour, Faces):
        with tempfile.TemporaryDirectory(prefix="moim-hostile-") as folder:
            async with kind(Path(folder) / "site", seed) as world:
                for number in range(steps):
                    try:
                        await world.step()
                    except AssertionError as error:
                        raise AssertionError(f"--seed {seed} --steps {number + 1} {kind.__name__}\n{error}") from None
                    if say:
                        print(number, world.last[:2000], flush=True)


def main() -> int:
    """Runs until the time is over; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", help="one world alone")
    parser.add_argument("--steps", type=int, default=300, help="steps of a world")
    parser.add_argument("--say", action="store_true", help="print every step")
    options = parser.parse_args()
    if options.seed is not None:
        one(options.seed, options.steps, say=options.say)
        return 0
    end = time.monotonic() + options.minutes * 60
    begun, steps, worlds, found = time.monotonic(), 0, 0, 0
    while time.monotonic() < end:
        seed = f"{random.SystemRandom().getrandbits(48):012x}"
        worlds += 1
        try:
            steps += one(seed, options.steps)
        except AssertionError as error:
            found += 1
            print(f"FOUND {error}\n", flush=True)
        if worlds % 10 == 0:
            took = time.monotonic() - begun
            print(f"{took:.0f} s, {worlds} worlds, {steps} steps, {steps / took:.0f}/s, {found} findings", flush=True)
    print(f"{worlds} worlds, {steps} steps without a finding, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
