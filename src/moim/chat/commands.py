"""XEP-0050 ad-hoc commands of the server: a client shows a form, the person fills it in, the server does it.

A command is at most one form long. Who may not run commands sees none, and cannot tell which there are.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from moim.chat.feature import Feature, Iq, NodeView, Payload
from moim.errors import MoimError
from moim.proto.xmpp import Element, Jid, StanzaError, ns
from moim.proto.xmpp.dataform import Field, form, read_form

COMMANDS: Final = "http://jabber.org/protocol/commands"
_OPEN_SECONDS: Final = 600.0
_MAX_OPEN: Final = 16
"""Forms that one person may have open; the oldest is forgotten."""

Values = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command says when it is done: a sentence, or fields under names to read, or both."""

    note: str = ""
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked, and which of the hosted domains."""

    by: Jid
    domain: str


@dataclass(frozen=True, slots=True)
class Command:
    """One command. ``fields`` are asked for first; none: it runs at once. ``run`` gets who asked and the answers.

    ``run`` raises StanzaError or MoimError; the sentence is shown and the form stays open.
    """

    node: str
    name: str
    run: Callable[[Asked, Values], Awaitable[Outcome]]
    fields: tuple[Field, ...] = ()
    form_type: str = ""
    filled: Callable[[Asked], tuple[Field, ...]] | None = None
    """The fields with what there is now, where there is something to change."""


class Commands:
    """Answers ``commands`` requests to a domain from those whom ``allowed`` lets: a bare JID, and the domain."""

    def __init__(
        self,
        commands: Sequence[Command],
        *,
        allowed: Callable[[Jid, str], bool],
        offered: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commands = {command.node: command for command in commands}
        self._allowed = allowed
        self._clock = clock
        self._open: dict[tuple[Asked, str], tuple[str, float]] = {}
        self.feature = Feature(
            name="XEP-0050 ad-hoc commands",
            domain_vars=lambda domain: (COMMANDS,) if offered(domain) else (),
            server_iq={("set", COMMANDS, "command"): self._command},
            server_node=self._node,
            account_iq={("set", COMMANDS, "command"): self._own_command},
            account_node=self._own_node,
        )

    async def _own_node(self, iq: Iq, node: str) -> NodeView | None:
        """The domain's commands at the address of who may give them: programs look there too, people find none."""
        if not iq.own:
            return None
        empty = NodeView(("automation", "command-list", "Commands"), (COMMANDS,), ()) if node == COMMANDS else None
        return self._node(iq, node) or empty

    async def _own_command(self, iq: Iq) -> Payload:
        if not iq.own:
            raise StanzaError("service-unavailable")
        return await self._command(iq)

    def _node(self, iq: Iq, node: str) -> NodeView | None:
        if not self._allowed(iq.sender.bare, iq.to.domain):
            return None
        if node == COMMANDS:
            items = tuple((command.node, command.name) for command in self._commands.values())
            return NodeView(("automation", "command-list", "Commands"), (COMMANDS,), items)
        command = self._commands.get(node)
        if command is None:
            return None
        return NodeView(("automation", "command-node", command.name), (COMMANDS, ns.DATA_FORMS), ())

    async def _command(self, iq: Iq) -> Payload:
        if not self._allowed(iq.sender.bare, iq.to.domain):
            raise StanzaError("forbidden", "only administrators of this server may do this")
        asked = Asked(iq.sender, iq.to.domain)
        command = self._commands.get(iq.payload.get("node") or "")
        if command is None:
            raise StanzaError("item-not-found", "there is no such command")
        action, session = iq.payload.get("action") or "execute", iq.payload.get("sessionid")
        if session is None:
            if action not in ("execute", "next", "complete"):
                raise _malformed("bad-action", "nothing is going on that could be cancelled")
            if not command.fields:
                return (await self._run(command, asked, secrets.token_urlsafe(12), {}),)
            fields = command.filled(asked) if command.filled is not None else command.fields
            return (self._ask(command, self._begin(asked, command), fields),)
        self._check(asked, session, command)
        if action == "cancel":
            self._open.pop((asked, session), None)
            return (_element(command, session, "canceled"),)
        if action not in ("execute", "next", "complete"):
            raise _malformed("bad-action", "this command has one page only")
        given = iq.payload.find("x", ns.DATA_FORMS)
        if given is None:
            raise _malformed("bad-payload", "the form is missing")
        return (await self._run(command, asked, session, read_form(given)[1]),)

    def _begin(self, asked: Asked, command: Command) -> str:
        now = self._clock()
        for key in [key for key, (_, since) in self._open.items() if since < now - _OPEN_SECONDS]:
            del self._open[key]
        mine = [key for key in self._open if key[0] == asked]
        for key in mine[: max(len(mine) - _MAX_OPEN + 1, 0)]:
            del self._open[key]
        session = secrets.token_urlsafe(12)
        self._open[asked, session] = (command.node, now)
        return session

    def _check(self, asked: Asked, session: str, command: Command) -> None:
        node, since = self._open.get((asked, session), ("", 0.0))
        if node != command.node:
            raise _malformed("bad-sessionid", "this form is not open; begin anew")
        if since < self._clock() - _OPEN_SECONDS:
            del self._open[asked, session]
            raise StanzaError(
                "not-allowed", "the form was open for too long; begin anew", kind="cancel",
                application=Element("session-expired", COMMANDS),
            )  # fmt: skip

    def _ask(self, command: Command, session: str, fields: Sequence[Field], problem: str = "") -> Element:
        kind = command.form_type or command.node
        children = [
            Element("actions", COMMANDS, {"execute": "complete"}, (Element("complete", COMMANDS),)),
            form("form", kind, fields, title=command.name),
        ]
        if problem:
            children.append(Element("note", COMMANDS, {"type": "error"}, (problem,)))
        return _element(command, session, "executing", children)

    async def _run(self, command: Command, asked: Asked, session: str, values: Values) -> Element:
        missing = [f.label for f in command.fields if f.required and not any(values.get(f.var, ()))]
        try:
            if missing:
                raise StanzaError("bad-request", f"missing: {', '.join(missing)}")
            outcome = await command.run(asked, values)
        except (StanzaError, MoimError) as error:
            text = error.text if isinstance(error, StanzaError) else str(error)
            if not command.fields:
                raise StanzaError("internal-server-error", text, kind="wait") from error
            return self._ask(command, session, command.fields, text or "this cannot be done")
        self._open.pop((asked, session), None)
        children = []
        if outcome.fields:
            children.append(form("result", command.form_type or command.node, outcome.fields, title=command.name))
        if outcome.note:
            children.append(Element("note", COMMANDS, {"type": "info"}, (outcome.note,)))
        return _element(command, session, "completed", children)


def _element(command: Command, session: str, status: str, children: Sequence[Element] = ()) -> Element:
    return Element("command", COMMANDS, {"node": command.node, "sessionid": session, "status": status}, tuple(children))


def _malformed(condition: str, text: str) -> StanzaError:
    return StanzaError("bad-request", text, kind="modify", application=Element(condition, COMMANDS))
