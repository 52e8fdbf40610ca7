"""Publish and subscribe between rooms, and messages between nodes: in one process, or over NATS.

Commit first, publish second: a fact is a hint that something changed; the store is the truth.
"""

from moim.bus.local import Bus, BusChanged, Hub
from moim.bus.nats import NatsBus
from moim.bus.settings import Settings

__all__ = ["Bus", "BusChanged", "Hub", "NatsBus", "Settings"]
