"""Spaces: the lasting places of meetings, with a call ID and passcode for people and a secret for links."""

from __future__ import annotations

import hmac
import re
import secrets
import time
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlalchemy as sa

from moim.errors import LimitExceeded, NotFound, Unavailable, UsageError
from moim.meetings.tables import spaces as table
from moim.model import Address
from moim.store import Store

PAGE = 100
_MAX_PAGE = 1000
_NAME = 255
_CALL_ID_DIGITS = 9
_DRAWS = 20
_SECRET_BYTES = 16
_PASSCODE = re.compile(r"[0-9]{4,12}", re.ASCII)
_REFERENCE = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Space:
    """A space. ``call_id`` and ``passcode`` are digits; ``secret`` is the link's; ``created_at`` seconds since 1970."""

    id: str
    name: str
    call_id: str
    passcode: str = field(repr=False)
    secret: str = field(repr=False)
    owner: Address | None
    created_at: int

    def admits(self, *, passcode: str, secret: str) -> bool:
        """Whether the passcode or the secret is the right one; takes as long for every wrong one."""
        by_secret = _same(self.secret, secret)
        by_passcode = _same(self.passcode, passcode)
        return by_secret or by_passcode


def _same(right: str, given: str) -> bool:
    return bool(right) and hmac.compare_digest(right.encode(), given.encode())


def clean_name(text: str, *, longest: int = _NAME) -> str:
    """A name fit for display: one line, no control or formatting characters, composed form. May come out empty."""
    kept = (c if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or c == "\u200d" else " " for c in text)
    return unicodedata.normalize("NFC", " ".join("".join(kept).split()))[:longest].strip()


class Spaces:
    """The spaces of a site in its store."""

    def __init__(
        self, store: Store, *, passcode_digits: int, per_owner: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._digits = passcode_digits
        self._per_owner = per_owner
        self._clock = clock

    async def create(self, name: str, *, owner: Address | None = None, passcode: str | None = None) -> Space:
        """A new space with a call ID of its own. Raises UsageError for a bad name, LimitExceeded for a full owner."""
        shown = _name(name)
        code = _digits(self._digits) if passcode is None else _passcode(passcode)

        def work(connection: sa.Connection) -> Space:
            if owner is not None:
                owned = sa.select(sa.func.count()).select_from(table).where(table.c.owner == str(owner))
                if connection.scalar(owned) >= self._per_owner:  # type: ignore[operator]
                    raise LimitExceeded(f"{owner} owns {self._per_owner} spaces already", hint="remove one first")
            space = Space(
                id=str(uuid.uuid4()),
                name=shown,
                call_id=_free_call_id(connection),
                passcode=code,
                secret=secrets.token_urlsafe(_SECRET_BYTES),
                owner=owner,
                created_at=int(self._clock()),
            )
            connection.execute(table.insert().values(_row(space)))
            return space

        return await self._store.write(work)

    async def page(
        self, *, owner: Address | None = None, offset: int = 0, limit: int = PAGE
    ) -> tuple[list[Space], int]:
        """Spaces in the order they were made, newest first, and how many there are; of ``owner`` alone if given."""
        if offset < 0 or limit < 1:
            raise UsageError("offset and limit cannot be negative")
        chosen = table.select() if owner is None else table.select().where(table.c.owner == str(owner))

        def work(connection: sa.Connection) -> tuple[list[Space], int]:
            total = connection.scalar(sa.select(sa.func.count()).select_from(chosen.subquery())) or 0
            rows = connection.execute(
                chosen.order_by(table.c.created_at.desc(), table.c.call_id).offset(offset).limit(min(limit, _MAX_PAGE))
            )
            return [_space(row) for row in rows], total

        return await self._store.read(work)

    async def find(self, reference: str) -> Space | None:
        """The space with this GUID or call ID (spaces and dashes between its digits are for the eye), or None."""
        wanted = _reference(reference)
        if wanted is None:
            return None
        query = table.select().where(sa.or_(table.c.id == wanted, table.c.call_id == wanted.replace("-", "")))

        def work(connection: sa.Connection) -> Space | None:
            row = connection.execute(query).first()
            return _space(row) if row is not None else None

        return await self._store.read(work)

    async def get(self, reference: str) -> Space:
        """Like ``find``. Raises NotFound."""
        space = await self.find(reference)
        if space is None:
            raise NotFound("there is no such space", hint="see: moim space list")
        return space

    async def update(
        self, reference: str, *, name: str | None = None, passcode: str | None = None, regenerate_secret: bool = False
    ) -> Space:
        """Changes what is given. Raises NotFound, UsageError. A new secret makes every link handed out useless."""
        space = await self.get(reference)
        changes: dict[str, str] = {}
        if name is not None:
            changes["name"] = _name(name)
        if passcode is not None:
            changes["passcode"] = _passcode(passcode)
        if regenerate_secret:
            changes["secret"] = secrets.token_urlsafe(_SECRET_BYTES)
        if changes:
            await self._store.write(lambda c: c.execute(table.update().where(table.c.id == space.id).values(changes)))
        return await self.get(space.id)

    async def delete(self, reference: str) -> Space:
        """Removes a space and gives what it was. Raises NotFound."""
        space = await self.get(reference)
        await self._store.write(lambda connection: connection.execute(table.delete().where(table.c.id == space.id)))
        return space

    async def delete_owned(self, owner: Address) -> list[Space]:
        """Removes everything a person owns and gives what it was."""

        def work(connection: sa.Connection) -> list[Space]:
            rows = connection.execute(table.delete().where(table.c.owner == str(owner)).returning(*table.c))
            return [_space(row) for row in rows]

        return await self._store.write(work)


def _reference(text: str) -> str | None:
    folded = "".join(text.split()).lower()
    return folded if _REFERENCE.fullmatch(folded) else None


def _name(text: str) -> str:
    shown = clean_name(text)
    if not shown:
        raise UsageError("a space needs a name", hint="such as: Weekly planning")
    return shown


def _passcode(text: str) -> str:
    if not _PASSCODE.fullmatch(text):
        raise UsageError("a passcode is 4 to 12 digits", hint="leave it out to get a random one")
    return text


def _digits(count: int) -> str:
    return "".join(secrets.choice("0123456789") for _ in range(count))


def _free_call_id(connection: sa.Connection) -> str:
    # Never a leading zero: people and spreadsheets drop it.
    first = 10 ** (_CALL_ID_DIGITS - 1)
    for _ in range(_DRAWS):
        drawn = str(first + secrets.randbelow(9 * first))
        if connection.execute(sa.select(table.c.id).where(table.c.call_id == drawn)).first() is None:
            return drawn
    raise Unavailable("no free call ID was found", hint="remove spaces that nobody uses")


def _row(space: Space) -> dict[str, object]:
    return {
        "id": space.id,
        "name": space.name,
        "call_id": space.call_id,
        "passcode": space.passcode,
        "secret": space.secret,
        "owner": str(space.owner) if space.owner is not None else None,
        "created_at": space.created_at,
    }


def _space(row: sa.Row[tuple[object, ...]]) -> Space:
    values = dict(row._mapping)
    owner = values.pop("owner")
    return Space(owner=Address.parse(owner) if owner else None, **values)
