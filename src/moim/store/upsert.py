"""One ``insert`` for every backend, with ``on_conflict_do_update`` and ``on_conflict_do_nothing`` in SQLite's shape.

PostgreSQL writes the same clauses the same way; only its compiler asks for one attribute more.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles

__all__ = ["insert"]


def _for_postgresql(clause: Any, visit: str, compiler: Any, **options: Any) -> str:
    clause.constraint_target = None  # the target is always named by its columns
    text: str = getattr(compiler, visit)(clause, **options)
    return text


@compiles(OnConflictDoUpdate, "postgresql")
def _update(clause: OnConflictDoUpdate, compiler: Any, **options: Any) -> str:
    return _for_postgresql(clause, "visit_on_conflict_do_update", compiler, **options)


@compiles(OnConflictDoNothing, "postgresql")
def _nothing(clause: OnConflictDoNothing, compiler: Any, **options: Any) -> str:
    return _for_postgresql(clause, "visit_on_conflict_do_nothing", compiler, **options)
