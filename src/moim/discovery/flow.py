"""The whole way from an address or link to a signed-in user, and the decisions on it (D1, D2, D4, D5, D6)."""

from __future__ import annotations

from moim.discovery.actions import Srv
from moim.discovery.inside import Direct, sign_in_at
from moim.discovery.outcome import Failure
from moim.discovery.outside import sign_in_through
from moim.discovery.run import Flow, Run, Stop
from moim.discovery.signin import Place, sign_in
from moim.discovery.srv import Located, locate, nothing_found
from moim.discovery.target import EXCLUDABLE


def discover_flow(run: Run) -> Flow[None]:
    """Runs to its end; ``run.error`` holds the failure when there was one."""
    try:
        _tell_target(run)
        if run.target.excluded.issuperset(EXCLUDABLE):
            run.step("decision", "all-excluded", "none", why="why-manual")
            raise Stop(Failure.of("all-excluded", "manual"))
        located = yield from locate(run, use_memory=True)
        try:
            yield from _follow(run, located)
        except Stop as stop:
            # What was remembered may be from before the servers moved: once more with fresh answers.
            if not located.remembered or stop.failure.kind not in ("network", "manual"):
                raise
            run.memory.forget()
            run.forget_addresses()
            run.step("cache", "memory-wrong", "failed", why="why-ask-again")
            yield from _follow(run, (yield from locate(run, use_memory=False)))
    except Stop as stop:
        run.error = stop.failure


def _tell_target(run: Run) -> None:
    target = run.target
    code = f"{target.source}-read" if target.voice_domain == target.domain else "link-read-voice"
    what = str(target.address) if target.address is not None else target.domain
    run.step(
        "input", code, "ok", what=what, why="why-ask-srv", domain=target.domain, voice=target.voice_domain
    )  # fmt: skip
    if target.ignored:
        run.step("input", "link-ignored", "skipped", names=", ".join(target.ignored[:8]))
    for name in sorted(target.excluded):
        run.step("input", f"excluded-{name.lower()}", "skipped")


def _follow(run: Run, located: Located) -> Flow[None]:
    if located.uds:
        run.location = "inside"
        run.step("decision", "inside-uds", "ok", why="why-inside")
        try:
            yield from sign_in_at(run, Direct(), _servers(located.uds), ())
        except Stop as stop:
            yield from _by_the_edge(run, located, stop)
    elif located.cup:
        run.location = "inside"
        run.step("decision", "inside-cup", "ok", why="why-inside-cup")
        yield from _im_only(run, located.cup)
    elif located.edge:
        run.location = "outside"
        run.step("decision", "outside", "ok", why="why-outside")
        yield from sign_in_through(run, located.edge)
    else:
        run.location = "manual"
        failure = yield from nothing_found(run, located)
        run.step("decision", "manual", "none", why="why-manual")
        raise Stop(failure)


def _by_the_edge(run: Run, located: Located, stop: Stop) -> Flow[None]:
    """One zone for inside and outside (no split view): the records say inside, but only the edge can be reached."""
    if stop.failure.kind != "network" or run.signed_in or stop.failure.code == "out-of-time":
        raise stop
    edge = located.edge
    if not edge:
        try:
            edge = (yield from locate(run, use_memory=True, only="edge")).edge
        except Stop:
            raise stop from None
    if not edge:
        raise stop
    run.location = "outside"
    run.step("decision", "outside-after-inside", "ok", why="why-outside")
    yield from sign_in_through(run, edge)


def _im_only(run: Run, records: tuple[Srv, ...]) -> Flow[None]:
    """Only ``_cuplogin``: an IM and Presence server without a user data service beside it."""
    run.authenticator = "im-and-presence"
    for record in records:
        run.service("im-and-presence", record.target, record.port, "https")
    if not (yield from run.credentials()):
        run.step("password", "no-password", "skipped", why="why-stop-without-password")
        return
    if run.wants_sign_in:
        yield from sign_in(run, [Place(record.target, 0, direct=False) for record in records])
    run.product_mode = "im-only"
    run.step("decision", "mode-im-only", "ok", count=0)


def _servers(records: tuple[Srv, ...]) -> list[tuple[str, int]]:
    return [(record.target, record.port) for record in records]
