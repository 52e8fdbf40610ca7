"""Binds meetings: spaces over the store, the media plane on its UDP port, people over WebSockets."""

from __future__ import annotations

import logging
from collections.abc import Callable

from moim import _native
from moim.bus import Bus
from moim.errors import NotFound
from moim.meetings.admission import Admission, WebSessions
from moim.meetings.live import Event, IceServers, Live
from moim.meetings.settings import Settings
from moim.meetings.signalling import Signalling
from moim.meetings.spaces import Space, Spaces
from moim.model import Address, ServiceState, ServiceStatus, UserRemoved
from moim.net.pump import Pump
from moim.settings import Site
from moim.store import Store

_log = logging.getLogger("moim.meetings")


class Service:
    """Meetings of the inside node. ``spaces`` works as soon as it is built; ``start`` opens the media port.

    ``sessions`` knows the web app's users, ``ice`` the relays; ``links`` gives the public base URL of the web app,
    ``https://edge.example.com``. ``port`` 0 takes a free one.
    """

    def __init__(
        self,
        site: Site,
        store: Store,
        bus: Bus,
        *,
        sessions: WebSessions,
        ice: IceServers,
        links: Callable[[], str],
        port: int | None = None,
        node: str = "inside",
    ) -> None:
        settings = site.section(Settings)
        here = site.settings.nodes.inside
        self._bus = bus
        self._node = node
        self._links = links
        self.sessions = sessions
        self._address = here.address
        self._port = site.settings.ports.bind(settings.media_port) if port is None else port
        self._announced = tuple(
            dict.fromkeys(ip for ip in (here.address, here.public_address, *settings.media_addresses) if ip)
        )
        self._engine = _native.Sfu(
            max_participants=settings.max_participants,
            max_subscriptions=settings.max_meeting,
            connect_timeout=settings.media_timeout_s,
            lost_timeout=settings.lost_timeout_s,
            max_video_bitrate=settings.max_video_bitrate,
            min_video_bitrate=min(settings.min_video_bitrate, settings.max_video_bitrate),
        )
        self.spaces = Spaces(store, passcode_digits=settings.passcode_digits, per_owner=settings.max_spaces_per_user)
        self.live = Live(
            self._engine, ice, max_meeting=settings.max_meeting, max_participants=settings.max_participants
        )
        self.admission = Admission(self.spaces, sessions)
        self.signalling = Signalling(
            self.admission,
            self.live,
            join_timeout_s=settings.join_timeout_s,
            messages_per_second=settings.messages_per_second,
            max_connections=settings.max_connections,
        )
        self._pump: Pump[Event] = Pump(self._engine, self.live.handle)
        self._cancel: Callable[[], None] | None = None

    @property
    def port(self) -> int:
        """The UDP port of the media plane."""
        return self._port

    @property
    def media(self) -> tuple[tuple[str, int], ...]:
        """Addresses and ports of the media plane: what a relay must be able to reach."""
        return tuple((address, self._port) for address in self._announced)

    def link(self, space: Space) -> str:
        """The link to hand to guests."""
        return f"{self._links().rstrip('/')}/meeting/{space.call_id}?secret={space.secret}"

    async def remove_space(self, reference: str, *, owner: Address | None = None) -> Space:
        """Removes a space and ends the meeting in it. Raises NotFound, also when ``owner`` is given and owns it not."""
        space = await self.spaces.get(reference)
        if owner is not None and space.owner != owner:
            raise NotFound("you have no such space")
        await self.spaces.delete(space.id)
        self.live.end_space(space.id)
        _log.info("the space %s was removed", space.call_id)
        return space

    async def start(self) -> None:
        """Binds the media port. Raises Unavailable when it cannot be had."""
        port = self._engine.listen(self._address, self._port, candidates=self._candidates())
        self._port = port
        self._pump.start()
        self._cancel = self._bus.subscribe(UserRemoved, self._user_removed)

    def _candidates(self) -> list[str]:
        if self._port == 0:
            return []  # a port of the kernel's choice is known, and announced, by the plane alone
        return [f"[{ip}]:{self._port}" if ":" in ip else f"{ip}:{self._port}" for ip in self._announced]

    async def stop(self) -> None:
        """Hangs up on everybody and closes the media port."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None
        self.live.end_all()
        await self.signalling.stop()
        self._pump.stop()
        self._engine.stop()

    def health(self) -> list[ServiceStatus]:
        """The media port."""
        started = self._cancel is not None
        state: ServiceState = "running" if self._engine.running() else "failed" if started else "stopped"
        detail = f"{len(self.live)} participants" if len(self.live) else ""
        return [ServiceStatus("media", self._node, "udp", self._address, self._port, state, detail)]

    async def _user_removed(self, fact: UserRemoved) -> None:
        """Whoever is gone leaves the meetings; with them go their spaces, which nobody could manage any more."""
        self.live.end_user(fact.address)
        for space in await self.spaces.delete_owned(fact.address):
            self.live.end_space(space.id)
            _log.info("the space %s went with its owner", space.call_id)
