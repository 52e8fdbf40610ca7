"""Which services a domain has: three SRV questions at the same time, judged in their order of priority (D2).

``_cisco-uds`` before ``_cuplogin``: either means inside. Only ``_collab-edge`` means outside. None means manual
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from moim.discovery.actions import Failed, Nothing, QueryAddress, QuerySrv, Records, Srv
from moim.discovery.outcome import Failure, StepResult
from moim.discovery.run import Answers, Flow, Run, Stop, Wait, dns_code, minutes

# (service, its name in the DNS, the exclusion that leaves it out)
QUESTIONS = (
    ("uds", "_cisco-uds._tcp", "CUCM"),
    ("cup", "_cuplogin._tcp", "CUP"),
    ("edge", "_collab-edge._tls", ""),
)
_GRACE = 0.15


@dataclass(frozen=True, slots=True)
class Located:
    """Records by service in the order to try.

    ``remembered``: an answer was not asked for, because the last one still lives.
    ``exists``: some answer shows that the domain is there.
    """

    uds: tuple[Srv, ...] = ()
    cup: tuple[Srv, ...] = ()
    edge: tuple[Srv, ...] = ()
    remembered: bool = False
    exists: bool = False


@dataclass(slots=True)
class _Question:
    service: str
    name: str
    answer: Records | Nothing | Failed | None = None
    ms: float | None = None
    """None: not asked now."""
    usable: tuple[Srv, ...] = field(default=())

    @property
    def what(self) -> str:
        return f"SRV {self.name}"

    def take(self, answer: Records | Nothing | Failed) -> None:
        self.answer = answer
        if isinstance(answer, Records):
            # RFC 2782: the target "." says that the service is decidedly not available.
            self.usable = tuple(record for record in answer.records if record.target and record.port)


def order(records: Sequence[Srv], pick: Callable[[], float]) -> tuple[Srv, ...]:
    """RFC 2782: by priority, and within one by repeated weighted choice. ``pick`` draws from [0, 1)."""
    ordered: list[Srv] = []
    for priority in sorted({record.priority for record in records}):
        # Weight 0 goes first, so that it has a chance (a very small one) beside the others.
        group = sorted((r for r in records if r.priority == priority), key=lambda record: record.weight != 0)
        while group:
            chosen = int(pick() * (sum(record.weight for record in group) + 1))
            running = 0
            for index, record in enumerate(group):
                running += record.weight
                if running >= chosen:
                    ordered.append(group.pop(index))
                    break
    return tuple(ordered)


def locate(run: Run, *, use_memory: bool, only: str = "") -> Flow[Located]:
    """Asks (or remembers) and tells every answer. ``only`` asks for one service.

    Raises Stop when nothing was found and a question had no answer: then nobody can know.
    """
    questions = [
        _Question(service, f"{name}.{run.target.voice_domain}")
        for service, name, exclusion in QUESTIONS
        if exclusion not in run.target.excluded and only in ("", service)
    ]
    if use_memory:
        for question in questions:
            kept = run.memory.fresh(question.what, run.wall)
            if kept is not None and isinstance(kept.answer, Records | Nothing):
                question.take(kept.answer)
    remembered = any(question.answer is not None for question in questions)
    # A positive answer in memory settles the matter for everything of lower priority.
    end = next((rank for rank, question in enumerate(questions) if question.usable), len(questions))
    open_questions = [question for question in questions[:end] if question.answer is None]
    if open_questions:
        replies = yield Wait(tuple(QuerySrv(question.name) for question in open_questions), _decided, _GRACE)
        for question, reply in zip(open_questions, replies, strict=True):
            if reply is None:
                continue
            result = reply.result if isinstance(reply.result, Records | Nothing | Failed) else Failed("rubbish")
            question.take(result)
            question.ms = reply.elapsed * 1000
            if not isinstance(result, Failed):
                run.memory.keep(question.what, result, run.wall)
    for question in questions:
        _tell(run, question)
    found = {question.service: order(question.usable, run.pick) for question in questions if question.usable}
    lost = [question for question in questions if isinstance(question.answer, Failed)]
    if lost and not found:
        failed = lost[0].answer
        assert isinstance(failed, Failed)
        raise Stop(Failure.of(dns_code(failed), "network", name=lost[0].name, server=failed.server))
    exists = any(
        isinstance(q.answer, Records) or (isinstance(q.answer, Nothing) and q.answer.exists) for q in questions
    )
    return Located(**found, remembered=remembered, exists=exists)


def _tell(run: Run, question: _Question) -> None:
    """Tells one answer; an answer that did not come is replaced by the last known one."""
    answer, what, name, ms = question.answer, question.what, question.name, question.ms or 0.0
    why = "" if question.usable or question.service == "edge" else "why-next-service"
    listed = ", ".join(f"{r.priority} {r.weight} {r.target}:{r.port}" for r in question.usable[:6])
    if answer is None:
        run.step("srv", "srv-not-awaited", "skipped", what=what, name=name)
    elif isinstance(answer, Failed):
        old = run.memory.stale(what, run.wall)
        last = old is not None and isinstance(old.answer, Records)
        why = "why-last-result" if last else why
        run.step("srv", dns_code(answer), "failed", what=what, where=answer.server, ms=ms, why=why, name=name)
        if old is not None and isinstance(old.answer, Records):
            question.take(old.answer)
            run.step("cache", "srv-stale", "ok", what=what, name=name, minutes=minutes(old.age(run.wall)))
    elif question.ms is None:
        kept = run.memory.fresh(what, run.wall)
        left = round(kept.left(run.wall)) if kept is not None else 0
        code = "srv-remembered" if question.usable else "srv-none-remembered"
        result: StepResult = "ok" if question.usable else "none"
        run.step("cache", code, result, what=what, why=why, name=name, records=listed, seconds=left)
    elif question.usable:
        run.step("srv", "srv-found", "ok", what=what, where=answer.server, ms=ms, name=name, records=listed)
    else:
        code = "srv-not-offered" if isinstance(answer, Records) else "srv-none" if answer.exists else "srv-no-name"
        run.step("srv", code, "none", what=what, where=answer.server, ms=ms, why=why, name=name)


def nothing_found(run: Run, located: Located) -> Flow[Failure]:
    """Why no service was found: the domain does not exist, or it does and has no such records."""
    domain = run.target.voice_domain
    if not located.exists:
        answer = yield from run.ask(QueryAddress(domain))
        result, ms = answer.result, answer.elapsed * 1000
        if isinstance(result, Nothing) and not result.exists:
            run.step(
                "address", "domain-unknown", "none", what=f"A/AAAA {domain}", where=result.server, ms=ms, domain=domain
            )
            return Failure.of("no-such-domain", "network", domain=domain)
    return Failure.of("no-services", "manual", domain=domain)


def _decided(answers: Answers) -> bool:
    """Whether a record was found and everything of higher priority is answered."""
    for answer in answers:
        if answer is None:
            return False
        if isinstance(answer.result, Records) and any(
            record.target and record.port for record in answer.result.records
        ):
            return True
    return True
