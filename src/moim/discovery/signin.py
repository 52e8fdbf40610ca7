"""Signs in over XMPP for real: which servers, in which order, until one takes the password."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moim.discovery.actions import Failed, LoggedIn, Nothing, QuerySrv, Records, Srv, XmppLogin
from moim.discovery.outcome import Failure, StepResult
from moim.discovery.run import Flow, Run, Stop, Wait, dns_code, failure_of, worst
from moim.discovery.srv import order

_XMPP_PORT = 5222
_MAX_SERVERS = 8
_OFFERED: tuple[str, StepResult] = ("srv-found", "ok")
_NOT_OFFERED: tuple[str, StepResult] = ("srv-not-offered", "none")


@dataclass(frozen=True, slots=True)
class Place:
    """An XMPP server to try. ``port`` 0: not known; ``direct``: TLS from the first byte, else STARTTLS."""

    host: str
    port: int
    direct: bool


def sign_in(run: Run, places: Sequence[Place]) -> Flow[None]:
    """Signs in at the first of ``places`` that is of use; those of the DNS when they are not known to the port.

    Raises Stop with the failure to show.
    """
    assert run.address is not None
    candidates = [place for place in places if place.port]
    if not candidates:
        candidates = yield from _from_dns(run)
    if not candidates:
        candidates = [Place(place.host, _XMPP_PORT, place.direct) for place in places]
    if not candidates:
        raise Stop(Failure.of("no-xmpp-server", "network", domain=run.address.domain))
    for place in candidates:
        run.service("xmpp", place.host, place.port, "xmpps" if place.direct else "xmpp")
    failures: list[Failure] = []
    for index, place in enumerate(candidates[:_MAX_SERVERS]):
        failure = yield from _try(run, place, more=index + 1 < len(candidates))
        if failure is None:
            return
        failures.append(failure)
        if failure.kind in ("credentials", "refused"):
            raise Stop(failure)
    raise Stop(worst(failures))


def _try(run: Run, place: Place, *, more: bool) -> Flow[Failure | None]:
    assert run.address is not None
    where = f"{place.host}:{place.port}"
    while True:
        addresses = yield from run.resolve(place.host)
        if isinstance(addresses, Failed):
            return failure_of(addresses, service="XMPP", where=where)
        answer = yield from run.ask(
            XmppLogin(
                place.host, place.port, addresses, place.direct, str(run.address), run.address.local, run.password or ""
            )
        )
        result, ms = answer.result, answer.elapsed * 1000
        if isinstance(result, LoggedIn):
            run.signed_in = True
            run.jid = result.jid
            run.service("xmpp", place.host, place.port, "xmpps" if place.direct else "xmpp", used=True)
            shown = f"{where} ({result.address})" if result.address else where
            run.step(
                "sign-in", "signed-in-xmpp", "ok", what=f"XMPP {run.address}", where=shown, ms=ms,
                jid=result.jid, mechanism=result.mechanism,
            )  # fmt: skip
            return None
        failed = result if isinstance(result, Failed) else Failed("rubbish")
        failure = failure_of(failed, service="XMPP", where=where)
        why = "why-next-server" if more and failure.kind not in ("credentials", "refused") else ""
        run.failed("sign-in", failure, what=f"XMPP {run.address}", where=where, ms=ms, why=why)
        if failed.reason != "credentials" or not (yield from run.credentials(again=True)):
            return failure


def _from_dns(run: Run) -> Flow[list[Place]]:
    """XEP-0368: direct TLS and STARTTLS records are asked for at once and ordered as one set."""
    assert run.address is not None
    names = [f"{service}.{run.address.domain}" for service in ("_xmpps-client._tcp", "_xmpp-client._tcp")]
    answers = yield Wait(tuple(QuerySrv(name) for name in names))
    records: dict[Srv, bool] = {}
    for name, direct, answer in zip(names, (True, False), answers, strict=True):
        assert answer is not None
        result, ms, what = answer.result, answer.elapsed * 1000, f"SRV {name}"
        if isinstance(result, Records):
            usable = [record for record in result.records if record.target and record.port]
            listed = ", ".join(f"{r.priority} {r.weight} {r.target}:{r.port}" for r in usable[:6])
            code, told = _OFFERED if usable else _NOT_OFFERED
            run.step("srv", code, told, what=what, where=result.server, ms=ms, name=name, records=listed)
            for record in usable:
                records.setdefault(record, direct)
        elif isinstance(result, Nothing):
            code = "srv-none" if result.exists else "srv-no-name"
            run.step("srv", code, "none", what=what, where=result.server, ms=ms, name=name)
        else:
            failed = result if isinstance(result, Failed) else Failed("rubbish")
            run.step("srv", dns_code(failed), "failed", what=what, where=failed.server, ms=ms, name=name)
    ordered = order(list(records), run.pick)
    return [Place(record.target, record.port, records[record]) for record in ordered]
