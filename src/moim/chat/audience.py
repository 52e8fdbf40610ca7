"""Who hears the same, as the plane wants it: session numbers, made anew only when somebody comes or goes.

A room says one thing to hundreds. What can be done once per change of its occupants is not done for every message.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from moim.proto.xmpp import Jid


class Audience:
    """Full JIDs, split by whoever delivers into sessions that the plane reaches by itself and all others."""

    __slots__ = ("_far", "_near", "_open", "_sids", "_stamp")

    def __init__(self) -> None:
        self._near: dict[Jid, int] = {}
        self._far: dict[Jid, None] = {}
        self._open: dict[Jid, None] = {}
        self._sids: list[int] = []
        self._stamp: object = None

    def __len__(self) -> int:
        return len(self._near) + len(self._far) + len(self._open)

    def __iter__(self) -> Iterator[Jid]:
        yield from self._near
        yield from self._far
        yield from self._open

    def __contains__(self, jid: object) -> bool:
        return jid in self._near or jid in self._far or jid in self._open

    def add(self, jid: Jid) -> None:
        """Takes a full JID in; it is looked up when something is said next."""
        if jid not in self:
            self._open[jid] = None

    def discard(self, jid: Jid) -> None:
        """Leaves a full JID out."""
        if self._near.pop(jid, None) is not None:
            self._sids = []
        self._far.pop(jid, None)
        self._open.pop(jid, None)

    def reach(
        self, stamp: object, find: Callable[[Jid], int | None], skip: Collection[Jid] = ()
    ) -> tuple[list[int], list[Jid]]:
        """The sessions that the plane reaches, and the JIDs that it does not; without those in ``skip``.

        ``find`` gives the number of a session, or None. Its answers hold for as long as ``stamp`` is the same.
        """
        if stamp != self._stamp:
            self._open = dict.fromkeys(self)
            self._near, self._far, self._sids = {}, {}, []
            self._stamp = stamp
        if self._open:
            for jid in self._open:
                sid = find(jid)
                if sid is None:
                    self._far[jid] = None
                else:
                    self._near[jid] = sid
            self._open = {}
            self._sids = []
        if self._near and not self._sids:
            self._sids = list(self._near.values())
        if not skip:
            return self._sids, list(self._far)
        left_out = {self._near[jid] for jid in skip if jid in self._near}
        return [sid for sid in self._sids if sid not in left_out], [jid for jid in self._far if jid not in skip]
