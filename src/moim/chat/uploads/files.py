"""Files on disk and their rows: room is reserved first, filled once and whole, and given back in the end.

A row is there before the first byte, so that quotas count what is under way. The bytes go to a file of their own in
``incoming`` and get their name only when all of them are on disk; a file without a row is rubbish and is swept away.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from moim.chat.uploads.tables import files as table
from moim.errors import Conflict, LimitExceeded, MoimError, ProtocolError, Unavailable
from moim.store import Store

DAY = 86_400.0
_SWEEP_S = 600.0
_SWEEP_ROWS = 500
_GRACE_S = 3600.0  # a file this young may be one that another node is just putting in place
_BUFFER = 1 << 20
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)

_log = logging.getLogger("moim.chat.uploads")


@dataclass(frozen=True, slots=True)
class Quotas:
    """Bounds in bytes; ``lifetime`` and ``slot`` in seconds, a ``lifetime`` of 0 is for ever.

    ``free`` is what has to stay free on the disk, ``files`` how many one person may have.
    """

    file: int
    user: int
    day: int
    total: int
    free: int
    files: int
    lifetime: float
    slot: float


@dataclass(frozen=True, slots=True)
class Upload:
    """A slot, or the file that fills it. Times are seconds since the epoch."""

    id: str
    owner: str
    name: str
    type: str
    size: int
    created_at: float
    expires_at: float
    stored: bool


class NoRoom(LimitExceeded):
    """A quota is used up. ``whose`` it is; ``retry_at`` when there is room again (epoch seconds), if that is known."""

    def __init__(self, whose: Literal["user", "site"], message: str, retry_at: float | None = None) -> None:
        super().__init__(message)
        self.whose = whose
        self.retry_at = retry_at


class Files:
    """Every uploaded file of the site, in ``folder``. ``quotas`` are those of a bare JID, or of a domain."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        quotas: Callable[[str], Quotas],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.quotas = quotas
        self._store = store
        self._folder = folder
        self._incoming = folder / "incoming"
        self._clock = clock
        self._receiving: set[str] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Makes the folder and begins to sweep. Raises Unavailable when the folder cannot be had."""
        try:
            await asyncio.to_thread(self._incoming.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"the folder for uploads {self._folder} cannot be made: {error.strerror}") from error
        self._sweeper = asyncio.create_task(self._sweep_for_ever(), name="chat:uploads")

    async def stop(self) -> None:
        """Ends the sweeping."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None

    def path(self, identifier: str) -> Path:
        """Where a stored file lies."""
        return self._folder / identifier[:2] / identifier

    async def find(self, identifier: str) -> Upload | None:
        """The slot or file of an id from a URL, unless its time is over."""
        if not _ID.fullmatch(identifier):
            return None
        query = sa.select(table).where(table.c.id == identifier)
        row = await self._store.read(lambda connection: connection.execute(query).first())
        return _upload(row) if row is not None and row.expires_at > self._clock() else None

    # --- in -----------------------------------------------------------------------------------------------------

    async def reserve(self, owner: str, name: str, size: int, kind: str) -> Upload:
        """A slot for a file of exactly ``size`` bytes. Raises NoRoom."""
        quotas = self.quotas(owner)
        now = self._clock()
        try:
            free = (await asyncio.to_thread(shutil.disk_usage, self._folder)).free
        except OSError as error:
            raise Unavailable(f"the folder for uploads cannot be read: {error.strerror}") from error
        if free - size < quotas.free:
            _log.warning("an upload of %s (%d bytes) is refused: the disk has %d bytes left", owner, size, free)
            raise NoRoom("site", "the server's disk is full")
        upload = Upload(secrets.token_hex(16), owner, name, kind, size, now, now + quotas.slot, False)
        await self._store.write(lambda connection: self._reserve(connection, upload, quotas))
        return upload

    def _reserve(self, connection: sa.Connection, upload: Upload, quotas: Quotas) -> None:
        now, size = upload.created_at, upload.size
        used = sa.select(sa.func.coalesce(sa.func.sum(table.c.size), 0)).where(table.c.expires_at > now)
        own = used.where(table.c.owner == upload.owner).add_columns(sa.func.count())
        taken, count = connection.execute(own).one()
        if taken + size > quotas.user or count >= quotas.files:
            raise NoRoom("user", "your uploads take as much room as they may")
        today = sa.select(table.c.created_at, table.c.size).where(
            table.c.owner == upload.owner, table.c.created_at > now - DAY
        )
        rows = connection.execute(today.order_by(table.c.created_at)).all()
        over = sum(row.size for row in rows) + size - quotas.day
        if over > 0:
            for row in rows:
                over -= row.size
                if over <= 0:
                    raise NoRoom("user", "you have uploaded as much as you may in a day", row.created_at + DAY)
            raise NoRoom("user", "the file is larger than all that you may upload in a day")
        if connection.execute(used).scalar_one() + size > quotas.total:
            _log.warning("an upload of %s (%d bytes) is refused: the site's quota is used up", upload.owner, size)
            raise NoRoom("site", "the server has no more room for uploads")
        connection.execute(sa.insert(table).values(**asdict(upload)))

    async def receive(self, upload: Upload, pieces: AsyncIterator[bytes], kind: str) -> None:
        """Fills a slot with ``pieces``, whole or not at all; ``kind`` is the media type that counts.

        Raises Conflict when it is filled or being filled, ProtocolError when the size is not the one of the slot,
        Unavailable when the disk does not take it; and whatever ``pieces`` raises.
        """
        if upload.stored or upload.id in self._receiving:
            raise Conflict("this slot is used already")
        self._receiving.add(upload.id)
        draft = self._incoming / f"{upload.id}.{secrets.token_hex(4)}"
        try:
            await self._write(draft, upload.size, pieces)
            await asyncio.to_thread(self._put_in_place, draft, upload.id)
            try:
                filled = await self._store.write(lambda connection: self._fill(connection, upload, kind))
            except BaseException:
                await asyncio.to_thread(self.path(upload.id).unlink, missing_ok=True)
                raise
            if not filled:
                await asyncio.to_thread(self.path(upload.id).unlink, missing_ok=True)
                raise Conflict("this slot is used already, or its time is over")
        except FileExistsError:
            raise Conflict("this slot is used already") from None
        except TimeoutError:
            raise  # an OSError by descent, but the peer's fault
        except OSError as error:
            _log.error("an upload of %s could not be stored: %s", upload.owner, error)
            raise Unavailable("the file could not be stored", hint="check the disk's free space") from error
        finally:
            self._receiving.discard(upload.id)
            await asyncio.shield(asyncio.to_thread(draft.unlink, missing_ok=True))

    async def _write(self, draft: Path, size: int, pieces: AsyncIterator[bytes]) -> None:
        descriptor = await asyncio.to_thread(os.open, draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        file = os.fdopen(descriptor, "wb")
        try:
            taken, buffer = 0, bytearray()
            async for piece in pieces:
                taken += len(piece)
                if taken > size:
                    raise ProtocolError(f"more than the {size} bytes of the slot")
                buffer += piece
                if len(buffer) >= _BUFFER:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
            if taken != size:
                raise ProtocolError(f"{taken} bytes, not the {size} of the slot")
            await asyncio.to_thread(self._finish, file, bytes(buffer))
        finally:
            await asyncio.shield(asyncio.to_thread(file.close))

    @staticmethod
    def _finish(file: Any, rest: bytes) -> None:
        file.write(rest)
        file.flush()
        os.fsync(file.fileno())

    def _put_in_place(self, draft: Path, identifier: str) -> None:
        place = self.path(identifier)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        os.link(draft, place)  # unlike a rename it never replaces what another node was faster with
        for folder in (place.parent, self._folder):  # its name has to outlive a power cut as the row does
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _fill(self, connection: sa.Connection, upload: Upload, kind: str) -> bool:
        now, lifetime = self._clock(), self.quotas(upload.owner).lifetime
        end = now + lifetime if lifetime else now + 1000 * 365 * DAY
        slot = sa.update(table).where(table.c.id == upload.id, table.c.stored.is_(False))
        return connection.execute(slot.values(stored=True, expires_at=end, type=kind)).rowcount == 1

    # --- out ----------------------------------------------------------------------------------------------------

    async def forget(self, owner: str) -> None:
        """Deletes everything that an account uploaded."""
        await self._delete(table.c.owner == owner)

    async def sweep(self) -> int:
        """Deletes files and slots whose time is over; gives how many."""
        return await self._delete(table.c.expires_at <= self._clock())

    async def _delete(self, which: sa.ColumnElement[bool]) -> int:
        count = 0
        while True:
            query = sa.select(table.c.id).where(which).limit(_SWEEP_ROWS)
            found = await self._store.read(lambda connection, query=query: connection.scalars(query).all())  # type: ignore[misc]
            if not found:
                return count
            await asyncio.to_thread(self._unlink, found)
            gone = sa.delete(table).where(table.c.id.in_(found))
            await self._store.write(lambda connection, gone=gone: connection.execute(gone))  # type: ignore[misc]
            count += len(found)

    def _unlink(self, identifiers: Any) -> None:
        for identifier in identifiers:
            self.path(identifier).unlink(missing_ok=True)

    async def _sweep_for_ever(self) -> None:
        strays = True
        while True:
            try:
                if count := await self.sweep():
                    _log.info("%d uploads are over and deleted", count)
                if strays and (count := await self.sweep_strays()):
                    _log.info("%d files without a row deleted from %s", count, self._folder)
                strays = False
            except (MoimError, OSError) as error:
                _log.error("uploads that are over could not be deleted: %s", error)
            await asyncio.sleep(_SWEEP_S)

    async def sweep_strays(self) -> int:
        """Deletes what a crash left on disk without a row; gives how many."""
        names = await asyncio.to_thread(self._on_disk)
        count = 0
        for at in range(0, len(names), _SWEEP_ROWS):
            part = names[at : at + _SWEEP_ROWS]
            query = sa.select(table.c.id).where(table.c.id.in_([path.name for path in part]))
            known = set(await self._store.read(lambda connection, query=query: connection.scalars(query).all()))  # type: ignore[misc]
            for path in part:
                if path.name not in known:
                    await asyncio.to_thread(path.unlink, missing_ok=True)
                    count += 1
        return count

    def _on_disk(self) -> list[Path]:
        before = self._clock() - _GRACE_S
        found = (path for folder in self._folder.iterdir() if folder.is_dir() for path in folder.iterdir())
        return [path for path in found if path.is_file() and path.stat().st_mtime < before]


def _upload(row: sa.Row[Any]) -> Upload:
    return Upload(row.id, row.owner, row.name, row.type, row.size, row.created_at, row.expires_at, row.stored)
