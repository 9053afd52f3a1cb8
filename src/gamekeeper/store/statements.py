"""Statements, built once with SQLAlchemy Core and compiled once for the engine that runs them.

A compiled statement is sent straight to the driver: per call there is neither a cache lookup over the expression tree
nor type processing, of which the schema (whole numbers, reals and text) needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table, bindparam, insert, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from gamekeeper.store.schema import CONDITIONS

Value = str | int | float | None

SQLITE: Dialect = sqlite.dialect()


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL with positional parameters: `names` in order, and the values fixed when the statement was built."""

    sql: str
    names: tuple[str, ...]
    fixed: Mapping[str, Value]

    def arguments(self, given: Mapping[str, Value]) -> Sequence[Value]:
        """The parameters in order. Raises `KeyError` when one is missing."""
        if not self.fixed:
            return [given[name] for name in self.names]
        return [given[name] if name in given else self.fixed[name] for name in self.names]


class Statement:
    """A statement of the module that defines it; parameters are its `bindparam` names."""

    __slots__ = ("_clause", "_compiled")

    def __init__(self, clause: Executable) -> None:
        self._clause = clause
        self._compiled: Compiled | None = None

    def compiled(self) -> Compiled:
        """The statement as the driver takes it."""
        if self._compiled is None:
            self._compiled = _compile(self._clause, SQLITE)
        return self._compiled


def _compile(clause: Executable, dialect: Dialect) -> Compiled:
    element = cast(ClauseElement, clause)
    compiled = cast(SQLCompiler, element.compile(dialect=dialect))
    fixed = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
    return Compiled(compiled.string, tuple(compiled.positiontup or ()), fixed)


def sql(words: str) -> Statement:
    """A statement in SQL for both engines, with `:name` parameters and the conditions of the schema as `{name}`."""
    return Statement(text(words.format_map(CONDITIONS)))


def adding(table: Table, *columns: str, returning: str | None = None) -> Statement:
    """An INSERT of one row into all named columns (all of the table's, less "id", when none is named)."""
    names = columns or tuple(column.name for column in table.columns if column.name != "id")
    clause = insert(table).values({name: bindparam(name) for name in names})
    return Statement(clause if returning is None else clause.returning(table.c[returning]))
