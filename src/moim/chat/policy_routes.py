"""The admin API of policies: which there are and who has them, and what counts for one person and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from moim.chat.policies import Policies, bare_jid
from moim.errors import UsageError
from moim.model import Address


class Profile(Protocol):
    """What the directory has of a person."""

    @property
    def address(self) -> Address: ...
    @property
    def policy(self) -> str: ...
    @property
    def department(self) -> str: ...


class Directory(Protocol):
    """The people of every domain."""

    async def get(self, address: str) -> Profile:
        """A person. Raises NotFound, UsageError."""
        ...

    async def policies(self, *, departments: bool) -> Sequence[tuple[Address, str, str]]:
        """Everybody with a policy of their own, or also with a department: address, policy, department."""
        ...


class Chat(Protocol):
    """The chat service, running or not."""

    @property
    def policies(self) -> Policies: ...


def policy_routes(chat: Chat, people: Directory) -> list[BaseRoute]:
    """``GET /chat/policies`` and ``GET /chat/limits/{address}``; errors are mapped by the console's frame."""

    async def policies(_request: Request) -> Response:
        found = chat.policies
        having: Counter[str] = Counter()
        missing: Counter[str] = Counter()
        for _, policy, department in await people.policies(departments=True):
            given = found.which(policy, department)
            having[given.name] += 1
            missing[given.missing] += 1
        listed = [
            {
                "name": name,
                "departments": list(policy.departments),
                "people": having[name],
                "limits": policy.model_dump(mode="json", exclude_unset=True, exclude={"departments"}),
            }
            for name, policy in found.named.items()
        ]
        unknown = [{"name": name, "people": count} for name, count in sorted(missing.items()) if name]
        return JSONResponse({"policies": listed, "missing": unknown})

    async def limits(request: Request) -> Response:
        profile = await people.get(request.path_params["address"])
        bare = bare_jid(profile.address)
        if bare is None:
            raise UsageError(f"{profile.address} cannot use chat: the name part is not possible in an XMPP address")
        given = chat.policies.which(profile.policy, profile.department)
        counting = chat.policies.limits(bare.rpartition("@")[2], given.name)
        answer: dict[str, Any] = {
            "address": str(profile.address),
            "policy": given.name,
            "by": given.by,
            "missing": given.missing,
            "limits": [{"key": one.key, "value": one.value, "from": one.source} for one in counting],
        }
        return JSONResponse(answer)

    return [
        Route("/chat/policies", policies, methods=["GET"]),
        Route("/chat/limits/{address}", limits, methods=["GET"]),
    ]
