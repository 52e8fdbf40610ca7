"""Makes, checks and ends tokens: each belongs to one account, one program and one mechanism (XEP-0484 section 4).

A token is derived from a secret on disk, a random salt in the database and the account's verifier. So neither a copy
of the database nor one of the file is worth anything alone, and a new password ends every token at that moment.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from moim.chat import sasl2
from moim.chat.fast.tables import tokens
from moim.chat.feature import Feature
from moim.chat.signing_in import Checked
from moim.proto.xmpp import Element, sasl
from moim.proto.xmpp.hashed_token import HT_BINDINGS, proof
from moim.proto.xmpp.scram import ScramHash, Verifier
from moim.store import Store

_BASIS: ScramHash = "SCRAM-SHA-256"
_SALT = 16
_NOBODY = secrets.token_urlsafe(32)

_log = logging.getLogger("moim.chat.fast")

Lookup = Callable[[str, ScramHash], Awaitable[Verifier | None]]

_mine = sa.and_(tokens.c.owner == sa.bindparam("owner_"), tokens.c.client == sa.bindparam("client_"))
_find = sa.select(tokens).where(_mine).order_by(tokens.c.slot.desc())  # the new one first
_used = (
    tokens.update()
    .where(_mine, tokens.c.salt == sa.bindparam("salt_"), tokens.c.count < sa.bindparam("count_"))
    .values(slot="current", count=sa.bindparam("count_"))
)
_promoted = tokens.update().where(_mine, tokens.c.salt == sa.bindparam("salt_")).values(slot="current")
_ended = tokens.delete().where(_mine)
_replaced = tokens.delete().where(_mine, tokens.c.slot == "current", tokens.c.salt != sa.bindparam("salt_"))
_waiting = tokens.delete().where(_mine, tokens.c.slot == "new")


class FastTokens:
    """The tokens of accounts, which are named by their bare JIDs.

    ``lookup`` finds an account's verifier, None for one that may not sign in. ``lifetime`` and ``renew_after`` are
    seconds; a token older than ``renew_after`` is replaced when it is used. ``clients`` bounds one account's programs.
    """

    def __init__(
        self,
        *,
        store: Store,
        lookup: Lookup,
        secret: bytes,
        lifetime: float,
        renew_after: float,
        clients: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._lookup = lookup
        self._key = hmac.digest(secret, b"fast tokens", "sha256")
        self._lifetime = lifetime
        self._renew_after = renew_after
        self._clients = clients
        self._clock = clock
        self.feature = Feature(
            name="XEP-0484 tokens for the next sign-in", on_start=self._clean, on_account_removed=self.revoke
        )

    async def check(self, owner: str, client: str, need: sasl.NeedToken, use: sasl2.Fast) -> Checked:
        """Whether the proof was made with a token of this account and client. Raises Unavailable.

        A count that is not higher than every earlier one is refused: somebody repeats what they overheard.
        """
        key = _hashed(client)
        mine = {"owner_": owner, "client_": key}
        rows: Sequence[sa.Row[Any]] = await self._store.read(lambda c: c.execute(_find, mine).all())
        verifier = await self._lookup(owner, _BASIS)
        row = self._matching(rows, verifier, need)
        if row is None or verifier is None:
            return Checked(None)
        now = self._clock()
        if row.expires_at <= now:
            return Checked(None, expired=True)
        if not await self._use(row, mine, use):
            _log.warning("a token of %s was used again with a count that had been seen: refused", owner)
            return Checked(None)
        reply = proof(self._token(row, verifier), "Responder", need.binding)
        return Checked(reply, renew=not use.invalidate and now - row.issued_at > self._renew_after)

    def _matching(
        self, rows: Sequence[sa.Row[Any]], verifier: Verifier | None, need: sasl.NeedToken
    ) -> sa.Row[Any] | None:
        for row in rows:
            if verifier is not None and row.mechanism == need.mechanism:
                expected = proof(self._token(row, verifier), "Initiator", need.binding)
                if hmac.compare_digest(expected, need.proof):
                    return row
        hmac.compare_digest(proof(_NOBODY, "Initiator", need.binding), need.proof)
        return None

    async def _use(self, row: sa.Row[Any], mine: dict[str, str], use: sasl2.Fast) -> bool:
        this = mine | {"salt_": row.salt}

        def work(connection: sa.Connection) -> bool:
            # Every token from before one that is used ends (XEP-0484 section 3.5).
            connection.execute(_replaced, this)
            if use.count is not None:
                fresh: bool = connection.execute(_used, this | {"count_": use.count}).rowcount == 1
            else:
                fresh = connection.execute(_promoted, this).rowcount == 1
            if use.invalidate and fresh:
                connection.execute(_ended, mine)
            return fresh

        if row.slot == "current" and use.count is None and not use.invalidate:
            return True
        return await self._store.write(work)

    async def issue(self, owner: str, client: str, mechanism: str) -> Element | None:
        """A new token, besides the one in use until it is used itself. None when the account cannot have one."""
        verifier = await self._lookup(owner, _BASIS)
        if verifier is None or mechanism not in HT_BINDINGS:
            return None
        now = self._clock()
        row = {
            "owner": owner,
            "client": _hashed(client),
            "slot": "new",
            "mechanism": mechanism,
            "salt": secrets.token_bytes(_SALT),
            "issued_at": now,
            "expires_at": now + self._lifetime,
            "count": -1,
        }
        mine = {"owner_": row["owner"], "client_": row["client"]}

        def work(connection: sa.Connection) -> sa.Row[Any]:
            connection.execute(_waiting, mine)
            connection.execute(tokens.insert().values(row))
            self._bound(connection, str(row["owner"]))
            return connection.execute(_find, mine).first()  # type: ignore[return-value]

        made = await self._store.write(work)
        return sasl2.token(self._token(made, verifier), datetime.fromtimestamp(made.expires_at, UTC))

    def _bound(self, connection: sa.Connection, owner: str) -> None:
        """Ends the tokens of the programs that were away the longest, when an account has too many."""
        latest = sa.select(tokens.c.client).where(tokens.c.owner == owner).group_by(tokens.c.client)
        over = connection.scalars(latest.order_by(sa.func.max(tokens.c.issued_at).desc()).offset(self._clients)).all()
        for client in over:
            connection.execute(_ended, {"owner_": owner, "client_": client})

    async def revoke(self, bare: str) -> None:
        """Ends every token of an account (bare JID)."""
        await self._store.write(lambda connection: connection.execute(tokens.delete().where(tokens.c.owner == bare)))

    async def _clean(self) -> None:
        over = tokens.delete().where(tokens.c.expires_at <= self._clock())
        await self._store.write(lambda connection: connection.execute(over))

    def _token(self, row: sa.Row[Any], verifier: Verifier) -> str:
        parts = (row.owner.encode(), row.client.encode(), row.mechanism.encode(), row.salt, verifier.stored_key)
        seed = b"".join(len(part).to_bytes(2) + part for part in parts)
        return base64.urlsafe_b64encode(hmac.digest(self._key, seed, "sha256")).decode().rstrip("=")


def _hashed(client: str) -> str:
    return hashlib.sha256(client.encode()).hexdigest()
