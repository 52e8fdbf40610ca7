"""The admin API of moving: pieces of one user at a time come in, and a whole export goes out as a stream."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from xml.sax.saxutils import quoteattr

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from moim.chat.moving.credentials import read_credentials
from moim.chat.moving.service import Moving
from moim.chat.moving.writing import HEAD, TAIL
from moim.errors import NotFound, ProtocolError, UsageError
from moim.model import Address
from moim.net.http_json import json_object
from moim.proto.xmpp import Element, Jid, prepare_local
from moim.proto.xmpp.scram import ScramHash, ScramVerifier

_MAX_BODY: Final = 8 * 1024 * 1024
_MAX_PIECES: Final = 2000

_log = logging.getLogger("moim.chat.moving")


class Adoption(Protocol):
    """What is needed of the directory: accounts with the passwords that they had elsewhere."""

    async def take(
        self,
        address: str,
        *,
        password: str | None = None,
        scram: Mapping[ScramHash, ScramVerifier] | None = None,
        name: str = "",
        dry_run: bool = False,
    ) -> str:
        """``added``, ``same``, or ``other-password`` for an account that is here with another one."""
        ...

    async def credentials(self, address: Address) -> Mapping[ScramHash, ScramVerifier]:
        """What is kept of a password."""
        ...


class Directory(Protocol):
    """The people of every domain."""

    @property
    def adoption(self) -> Adoption: ...

    async def addresses(self) -> Sequence[Address]:
        """Every account."""
        ...


class Chat(Protocol):
    """The chat service."""

    async def moving(self) -> Moving:
        """See ``chat.Service``."""
        ...


def admin_routes(chat: Chat, people: Directory) -> list[BaseRoute]:
    """``POST /chat/import`` and ``GET /chat/export``; errors are raised and mapped by the console's frame."""

    async def take(request: Request) -> Response:
        given = await json_object(request, limit=_MAX_BODY)
        moving = await chat.moving()
        return JSONResponse(await _take(moving, people.adoption, given))

    async def give(request: Request) -> Response:
        moving = await chat.moving()
        users = await people.addresses()
        if wanted := request.query_params.get("user"):
            users = [address for address in users if wanted in (str(address), str(Jid.parse(str(address))))]
            if not users:
                raise NotFound(f"there is no user {wanted}", hint="see them all with: moim user list")
        _log.info("an export of %d accounts, with their credentials, begins", len(users))
        return StreamingResponse(_export(moving, people.adoption, users), media_type="application/xml")

    handlers: Sequence[tuple[str, Callable[[Request], Awaitable[Response]], str]] = (
        ("/chat/import", take, "POST"),
        ("/chat/export", give, "GET"),
    )
    return [Route(path, handler, methods=[method]) for path, handler, method in handlers]


async def _take(moving: Moving, adoption: Adoption, given: dict[str, Any]) -> dict[str, Any]:
    """``{"user", "password"?, "pieces": [XML, …], "first": bool, "dry_run": bool}``, the answer as of ``Outcome``.

    Only the ``first`` request of a user makes or compares the account.
    """
    user, password, texts = given.get("user"), given.get("password"), given.get("pieces", [])
    dry_run, first = given.get("dry_run") is True, given.get("first") is True
    if not isinstance(user, str) or not isinstance(texts, list) or not (password is None or isinstance(password, str)):
        raise UsageError("'user' is a text, 'password' a text when it is there, and 'pieces' a list of texts")
    if len(texts) > _MAX_PIECES:
        raise UsageError(f"at most {_MAX_PIECES} pieces are taken at once")
    try:
        jid = Jid.parse(user)
        if jid.domain not in moving.hosts or not jid.local or jid.resource:
            raise UsageError(f"'{user}' is not a user of {' or '.join([*moving.hosts][:8])}")
        owner = Jid(prepare_local(jid.local), jid.domain)
        pieces = [Element.parse(text) for text in texts]
    except (ProtocolError, TypeError) as error:
        raise UsageError(f"a piece or the address of '{user[:200]}' cannot be read: {error}") from error
    secrets = [piece for piece in pieces if piece.name == "scram-credentials"]
    rest = [piece for piece in pieces if piece.name != "scram-credentials"]
    account = ""
    if first:
        try:
            scram = read_credentials(secrets)
        except ProtocolError as error:
            raise UsageError(f"the password of '{user[:200]}' cannot be taken: {error.message}") from error
        account = await adoption.take(
            str(owner), password=password, scram=scram, name=_display_name(rest), dry_run=dry_run
        )
        if account == "added" and not dry_run:
            _log.info("%s was taken over from another server", owner)
    outcome = await moving.taking(owner.domain, dry_run=dry_run).take(str(owner), rest)
    return {"account": account, **outcome.to_json()}


def _display_name(pieces: Sequence[Element]) -> str:
    for piece in pieces:
        if piece.name == "vCard":
            name = piece.find("FN") or piece.find("NICKNAME")
            text = " ".join(name.text.split()) if name is not None else ""
            return text if len(text) <= 255 and text.isprintable() else ""
    return ""


async def _export(moving: Moving, adoption: Adoption, users: Sequence[Address]) -> AsyncIterator[bytes]:
    giving = moving.giving()
    yield f"{HEAD}\n".encode()
    for domain in moving.hosts:
        yield f"<host jid={quoteattr(domain)}>\n".encode()
        for address in users:
            owner = Jid.parse(str(address))
            if owner.domain == domain:
                async for piece in giving.user(str(owner), await adoption.credentials(address)):
                    yield piece.encode()
        yield b"</host>"
    yield TAIL.encode()
