"""The portal's JSON interface: sign-in, session, site, and discovery as a stream of steps."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

import moim
from moim.errors import AuthError, LimitExceeded, MoimError, UsageError
from moim.model import Address
from moim.net import http_errors
from moim.net.http_json import json_object
from moim.net.listener import client_key
from moim.net.rate import RateLimit
from moim.portal.caller import Caller
from moim.portal.sessions import Opened, Sessions

COOKIE = "moim_session"
LANGUAGES = ("ko", "en")
_MAX_BODY = 16 * 1024
_MAX_STEPS = 500
_NO_STORE = {"Cache-Control": "no-store"}
_log = logging.getLogger("moim.portal.api")


class Profile(Protocol):
    """A person as far as the portal shows them."""

    @property
    def address(self) -> Address:
        """Their address."""
        ...

    @property
    def name(self) -> str:
        """What to call them."""
        ...


class Users(Protocol):
    """Who may sign in; the directory has it."""

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        """Whether the password is right; it never is for a domain that is not hosted here.

        Raises LimitExceeded while the account or source has to wait.
        """
        ...

    async def profile(self, address: Address) -> Profile | None:
        """A person, or None."""
        ...


class Discover(Protocol):
    """Runs discovery for an address and yields each step as it happens, as a JSON object; the outcome comes last.

    Steps have the fields of ``moim.discovery.Step``, the outcome is the one object with a ``location``. ``outside``
    chooses the name server: the one that a client at the caller's place would ask.
    """

    def __call__(self, address: Address, *, outside: bool) -> AsyncIterator[Mapping[str, Any]]: ...


class Api:
    """The handlers. ``websocket_url`` is where browsers inside find the chat service.

    ``files_origin`` is the origin in links of files, which lie on the portal's own origin too.
    """

    def __init__(
        self,
        *,
        domains: Sequence[str],
        users: Users,
        discover: Discover,
        sessions: Sessions,
        websocket_url: Callable[[], str],
        files_origin: Callable[[], str],
        discoveries_per_minute: int,
        discovery_seconds: float,
    ) -> None:
        self._domains = domains
        self._users = users
        self._discover = discover
        self._sessions = sessions
        self._websocket_url = websocket_url
        self._files_origin = files_origin
        self._discoveries = RateLimit(per_s=discoveries_per_minute / 60, burst=discoveries_per_minute)
        self._discovery_seconds = discovery_seconds

    def routes(self) -> list[BaseRoute]:
        """Everything below ``/api``."""
        return [
            Route("/api/site", self._site, methods=["GET"]),
            Route("/api/session", self._session, methods=["GET"]),
            Route("/api/login", self._login, methods=["POST"]),
            Route("/api/logout", self._logout, methods=["POST"]),
            Route("/api/discover", self._run_discovery, methods=["POST"]),
        ]

    def chat_url(self, caller: Caller) -> str:
        """Where this caller's browser reaches the chat service: its own origin when it came through the edge."""
        return f"{caller.websocket_origin}/xmpp-websocket" if caller.outside else self._websocket_url()

    async def _site(self, request: Request) -> Response:
        caller: Caller = request.state.caller
        answer = {
            "domain": self._domains[0],
            "domains": list(self._domains),
            "xmppWebsocket": self.chat_url(caller),
            "filesOrigin": self._files_origin(),
            "outside": caller.outside,
            "languages": LANGUAGES,
            "version": moim.__version__,
        }
        return JSONResponse(answer, headers=_NO_STORE)

    async def _session(self, request: Request) -> Response:
        renewed = self._sessions.renew(request.cookies.get(COOKIE, ""))
        if renewed is None:
            raise AuthError("nobody is signed in here", hint="sign in")
        address, token = renewed
        return JSONResponse(await self._signed_in(address, token), headers=_NO_STORE)

    async def _login(self, request: Request) -> Response:
        caller: Caller = request.state.caller
        given = await _texts(request, "address", "password")
        address = Address.parse(given["address"])
        # A foreign domain is checked like a wrong password: the answer tells nobody which addresses exist.
        right = await self._users.verify_password(str(address), given["password"], source=caller.source)
        profile = await self._users.profile(address) if right else None
        if profile is None:
            raise AuthError("the address or the password is not right", hint="check both and try again")
        self._sessions.close(request.cookies.get(COOKIE, ""))
        opened = self._sessions.open(profile.address)
        answer = JSONResponse(await self._signed_in(profile.address, opened.token), headers=_NO_STORE)
        _set_cookie(answer, opened, caller)
        return answer

    async def _signed_in(self, address: Address, token: str) -> dict[str, str]:
        profile = await self._users.profile(address)
        if profile is None:
            self._sessions.end_user(address)
            raise AuthError("this account is gone", hint="ask your administrator")
        return {"address": str(profile.address), "displayName": profile.name, "token": token}

    async def _logout(self, request: Request) -> Response:
        await json_object(request, limit=_MAX_BODY)
        self._sessions.close(request.cookies.get(COOKIE, ""))
        answer = Response(status_code=204, headers=_NO_STORE)
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=request.state.caller.secure)
        return answer

    async def _run_discovery(self, request: Request) -> Response:
        caller: Caller = request.state.caller
        wait = self._discoveries.wait(client_key(caller.source), asyncio.get_running_loop().time())
        if wait > 0:
            raise LimitExceeded("too many look-ups from here", hint=f"try again in {max(1, round(wait))} seconds")
        given = await _texts(request, "address")
        address = Address.parse(given["address"])
        if address.domain not in self._domains:
            ends = " or ".join(f"@{domain}" for domain in self._domains[:8])
            raise UsageError(f"this server does not host {address.domain}", hint=f"addresses here end in {ends}")
        return StreamingResponse(
            self._lines(address, caller.outside), media_type="application/x-ndjson", headers=_NO_STORE
        )

    async def _lines(self, address: Address, outside: bool) -> AsyncIterator[bytes]:
        count = 0
        try:
            async with asyncio.timeout(self._discovery_seconds):
                async for step in self._discover(address, outside=outside):
                    count += 1
                    if count > _MAX_STEPS:
                        raise LimitExceeded(f"discovery took more than {_MAX_STEPS} steps")
                    if "location" in step:
                        yield _line("outcome", {key: value for key, value in step.items() if key != "steps"})
                    else:
                        yield _line("step", step)
        except TimeoutError:
            yield _line("error", http_errors.body("peer-timeout", "discovery took too long"))
        except MoimError as error:
            yield _line("error", http_errors.body(http_errors.code_of(error), error.message, error.hint))
        except Exception:
            _log.exception("discovery for a browser crashed")
            yield _line("error", http_errors.body("internal", "the server made a mistake"))


def _line(kind: str, value: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, **value}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


async def _texts(request: Request, *fields: str) -> dict[str, str]:
    """These text fields of a JSON body."""
    value = await json_object(request, limit=_MAX_BODY)
    if not all(isinstance(value.get(name), str) for name in fields):
        raise UsageError(f"the request lacks: {', '.join(fields)}")
    return {name: value[name] for name in fields}


def _set_cookie(answer: Response, opened: Opened, caller: Caller) -> None:
    answer.set_cookie(
        COOKIE, opened.key, max_age=opened.lifetime, path="/", httponly=True, samesite="strict", secure=caller.secure
    )
