"""What administrators are shown of federation: an overview, and a row per peer with its streams."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moim.federation.policies import Policies
from moim.federation.stream import Stream
from moim.proto.xmpp import s2s

if TYPE_CHECKING:
    from moim.federation.running import Running
    from moim.federation.service import Service


def overview(service: Service) -> dict[str, Any]:
    """What this node does. ``running`` is false while switched off, or while the site does not run."""
    running, settings = service.running, service.settings
    found: dict[str, Any] = {
        "node": service.site.here,
        "enabled": settings.enabled,
        "running": running is not None,
        "mode": settings.mode,
        "defaults": service.policies.of("").as_json(),
        "domains": list(running.chat.hosts) if running is not None else list(service.site.domains),
        "listeners": [{"name": one.name, "address": one.address, "port": one.port} for one in service.health()],
    }
    if running is not None:
        found |= {"streams": len(running.streams), "queuedBytes": running.outbox.total_bytes}
    return found


def peers(running: Running, policies: Policies) -> list[dict[str, Any]]:
    """A row per domain that a stream is open with, that something waits for, or that something went wrong with."""
    now = running.clock()
    streams: dict[str, list[Stream]] = {}
    for stream in running.streams:
        for remote in stream.remotes:
            streams.setdefault(remote, []).append(stream)
    rows = []
    for domain in sorted(streams.keys() | {peer.domain for peer in running.peers}):
        peer = running.peers.known(domain)
        policy = policies.of(domain)
        row: dict[str, Any] = {
            "domain": domain,
            "streams": [describe(one, now) for one in streams.get(domain, ())],
            "queue": running.outbox.count(domain),
            "queueBytes": running.outbox.size(domain),
            "policy": policy.as_json(),
        }
        if peer is not None:
            row |= {
                "sent": peer.sent,
                "received": peer.received,
                "returned": peer.returned,
                "opening": bool(peer.opening),
                "lastError": peer.last_error,
                "lastErrorAt": _moment(peer.last_error_at, now) if peer.last_error else None,
                "retryInSeconds": max(0, round(peer.retry_at - now)),
            }
        rows.append(row)
    return rows


def describe(stream: Stream, now: float) -> dict[str, Any]:
    """One stream. ``authenticated`` says by what, in each direction that is open."""
    pairs = {**stream.takes, **stream.sends}
    how = next(iter(pairs.values()), None)
    proof = _proof(stream)
    return {
        "direction": "both" if stream.sends and stream.takes else "in" if stream.incoming else "out",
        "openedBy": "them" if stream.incoming else "us",
        "state": "open" if pairs else "negotiating",
        "pairs": [{"local": local, "remote": remote} for local, remote in sorted(pairs)],
        "address": stream.address,
        "port": stream.port,
        "host": stream.host,
        "tls": {key: stream.tls.get(key) for key in ("version", "cipher")} if stream.secure and stream.tls else None,
        "authenticatedBy": how,
        "certificate": proof or "not proven",
        "certificateProblem": stream.doubts,
        "since": _moment(stream.since, now),
        "idleSeconds": round(now - max(stream.last_in, stream.last_out)),
    }


def _proof(stream: Stream) -> s2s.Proof | None:
    machine = stream.machine
    return machine.proof(stream.remote) if isinstance(machine, s2s.Incoming) else machine.proof


def _moment(at: float, now: float) -> str:
    return datetime.fromtimestamp(time.time() - (now - at), UTC).isoformat(timespec="seconds")
