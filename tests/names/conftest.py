"""A site, and its name server in both views on free ports of loopback addresses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from moim.names import Service, Settings
from moim.names.zone import View
from moim.settings import Site, SiteSettings

MakeService = Callable[..., Service]
Start = Callable[..., Awaitable[Service]]


@pytest.fixture
def make_service() -> MakeService:
    """``make_service("inside", domain=…, port=…, **[names] keys)`` → a Service that is not started."""

    def make(
        view: View,
        domain: str = "example.test",
        port: int | None = 0,
        hosted: Sequence[str] = (),
        **names: object,
    ) -> Service:
        settings = SiteSettings.model_validate({"domain": domain, "hosted_domains": hosted})
        site = Site(Path("/nonexistent"), settings, {"names": Settings.model_validate(names)})
        return Service(site, view=view, node="inside" if view == "inside" else "edge", port=port)

    return make


@pytest.fixture
async def start(make_service: MakeService) -> AsyncIterator[Start]:
    """The same, running until the test ends."""
    async with AsyncExitStack() as stack:

        async def begin(view: View, **rest: object) -> Service:
            service = make_service(view, **rest)
            await service.start()
            stack.push_async_callback(service.stop)
            return service

        yield begin
