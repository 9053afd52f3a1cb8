"""Statements, built once with SQLAlchemy Core and compiled once for each engine that runs them.

A compiled statement is sent straight to the driver: per call there is neither a cache lookup over the expression tree
nor type processing, of which the schema (whole numbers, reals and text) needs none.

Words of our own, for what the engines spell differently: `IN LIST(:ids)` takes a Python list as one parameter, and
`FOR UPDATE`, with `SKIP LOCKED` or without, is left out where one writer holds the whole database anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from sqlalchemy import Column, Double, Table, Text, bindparam, insert, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from gamekeeper.store.encoding import list_json
from gamekeeper.store.schema import CONDITIONS

Value = str | int | float | None | Sequence[int] | Sequence[str]

SQLITE: Final[Dialect] = sqlite.dialect()
POSTGRESQL: Final[Dialect] = psycopg.dialect(paramstyle="format")  # type: ignore[no-untyped-call]

_LIST = re.compile(r"\bIN LIST\(:(\w+)\)")
_LOCK = re.compile(r"\s+FOR UPDATE( OF \w+)?( SKIP LOCKED)?")


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL with positional parameters: `names` in order, and the values fixed when the statement was built.

    `lists` are the places of parameters that hold a list, where the driver takes it as JSON text. `many`: the form that
    takes whole columns as arrays instead of being sent once for each row, where the engine is faster so. `single`: the
    form for lists of one element, which need no table of their own.
    """

    sql: str
    names: tuple[str, ...]
    fixed: Mapping[str, Value]
    lists: tuple[int, ...] = ()
    many: str | None = None
    single: str | None = None

    def arguments(self, given: Mapping[str, Value]) -> Sequence[Value]:
        """The parameters in order. Raises `KeyError` when one is missing."""
        return self._spelt(self._values(given))

    def call(self, given: Mapping[str, Value]) -> tuple[str, Sequence[Value]]:
        """What to send: the statement, in the form that suits its lists, and its parameters in order."""
        values = self._values(given)
        if not self.lists:
            return self.sql, values
        if self.single is not None and all(len(cast("Sequence[int]", values[at])) == 1 for at in self.lists):
            for at in self.lists:
                values[at] = cast("Sequence[int]", values[at])[0]
            return self.single, values
        return self.sql, self._spelt(values)

    def _values(self, given: Mapping[str, Value]) -> list[Value]:
        if not self.fixed:
            return [given[name] for name in self.names]
        return [given[name] if name in given else self.fixed[name] for name in self.names]

    def _spelt(self, values: list[Value]) -> list[Value]:
        for at in self.lists:
            values[at] = list_json(cast("Sequence[int] | Sequence[str]", values[at]))
        return values


class Statement:
    """A statement of the module that defines it; parameters are its `bindparam` names."""

    __slots__ = ("_clause", "_compiled", "_many")

    def __init__(
        self,
        clause: Executable | Callable[[Dialect], Executable],
        many: Callable[[Sequence[str]], str] | None = None,
    ) -> None:
        self._clause = clause
        self._many = many
        self._compiled: dict[Dialect, Compiled] = {}

    def compiled(self, dialect: Dialect = SQLITE) -> Compiled:
        """The statement as the driver of this engine takes it."""
        found = self._compiled.get(dialect)
        if found is None:
            clause = self._clause(dialect) if not isinstance(self._clause, Executable) else self._clause
            found = self._compiled[dialect] = _compile(clause, dialect, self._many)
        return found


def _compile(clause: Executable, dialect: Dialect, many: Callable[[Sequence[str]], str] | None) -> Compiled:
    element = cast(ClauseElement, clause)
    compiled = cast(SQLCompiler, element.compile(dialect=dialect))
    fixed = {name: bound.value for name, bound in compiled.binds.items() if not bound.required}
    names = tuple(compiled.positiontup or ())
    if dialect is SQLITE:
        lists = tuple(place for place, name in enumerate(names) if name.startswith(_LIST_MARK))
        single = compiled.string.replace(_EACH, "= ?") if lists else None
        return Compiled(compiled.string, tuple(map(_unmarked, names)), fixed, lists, single=single)
    return Compiled(
        compiled.string, tuple(map(_unmarked, names)), fixed, (), many(names) if many is not None else None
    )


_LIST_MARK = "list__"
_EACH = "IN (SELECT value FROM json_each(?))"


def _unmarked(name: str) -> str:
    return name.removeprefix(_LIST_MARK)


def sql(words: str) -> Statement:
    """A statement in SQL for both engines, with `:name` parameters and the conditions of the schema as `{name}`."""
    return Statement(partial(_spelt, words.format_map(CONDITIONS)))


def _spelt(words: str, dialect: Dialect) -> Executable:
    if dialect is SQLITE:
        words = _LIST.sub(rf"IN (SELECT value FROM json_each(:{_LIST_MARK}\1))", _LOCK.sub("", words))  # noqa: S608
    else:
        words = _LIST.sub(r"= ANY(:\1)", words)
    return text(words)


def adding(table: Table, *columns: str, returning: str | None = None) -> Statement:
    """An INSERT of one row into all named columns (all of the table's, less "id", when none is named)."""
    names = columns or tuple(column.name for column in table.columns if column.name != "id")
    clause = insert(table).values({name: bindparam(name) for name in names})
    if returning is not None:
        return Statement(clause.returning(table.c[returning]))
    return Statement(clause, partial(_add_many, table))


def changing(table: Table, *, keys: Sequence[str], columns: Sequence[str], guard: str = "") -> Statement:
    """An UPDATE of `columns` in the one row that has these `keys`, provided `guard` (SQL over its columns) holds.

    Parameters are named as the columns they fill or compare.
    """
    condition = f" AND {guard.format_map(CONDITIONS)}" if guard else ""
    sets = ", ".join(f"{name} = :{name}" for name in columns)
    where = " AND ".join(f"{name} = :{name}" for name in keys)
    words = f"UPDATE {table.name} SET {sets} WHERE {where}{condition}"  # noqa: S608 - names of the schema
    return Statement(text(words), partial(_change_many, table, tuple(keys), tuple(columns), condition))


def _add_many(table: Table, names: Sequence[str]) -> str:
    columns = ", ".join(names)
    return f"INSERT INTO {table.name} ({columns}) SELECT * FROM unnest({_arrays(table, names)})"  # noqa: S608


def _change_many(
    table: Table, keys: Sequence[str], columns: Sequence[str], condition: str, names: Sequence[str]
) -> str:
    """One UPDATE from arrays. The given values are called `given_NAME`, so that `condition` speaks of the row's own."""
    given = ", ".join(f"given_{name}" for name in names)
    sets = ", ".join(f"{name} = given_{name}" for name in columns)
    where = " AND ".join(f"{name} = given_{name}" for name in keys)
    source = f"unnest({_arrays(table, names)}) AS given ({given})"
    return f"UPDATE {table.name} SET {sets} FROM {source} WHERE {where}{condition}"  # noqa: S608


def _arrays(table: Table, names: Sequence[str]) -> str:
    return ", ".join(f"CAST(%s AS {_array_type(table.c[name])})" for name in names)


def _array_type(column: Column[Any]) -> str:
    if isinstance(column.type, Text):
        return "text[]"
    return "double precision[]" if isinstance(column.type, Double) else "bigint[]"
