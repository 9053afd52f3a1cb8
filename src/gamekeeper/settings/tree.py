"""The keys of the document as a tree that can be walked: which exist, what each holds, its default."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from gamekeeper.settings.keys import Path
from gamekeeper.settings.schema import Document
from gamekeeper.settings.section import Section

ANY = "*"
"""Stands in a declared path for a name that the user gives: ("lines", "*", "promotion", "elo0")."""


@dataclass(frozen=True, slots=True)
class Key:
    """A declared key that holds a value (and no table of further declared keys)."""

    path: Path
    info: FieldInfo

    @property
    def default(self) -> object:
        """The value when nothing sets it; `None` for a key that is required, or that may be left out."""
        return None if self.info.is_required() else default_of(self.info)

    @property
    def is_text(self) -> bool:
        """Whether the value is a text, so that what a variable holds is taken as it stands."""
        return self.info.annotation is str

    @property
    def is_table(self) -> bool:
        """Whether the value is a table whose keys are the user's own."""
        return get_origin(_bare(self.info.annotation)) is dict


def default_of(info: FieldInfo) -> object:
    """The default of a field that has one."""
    return info.get_default(call_default_factory=True, validated_data={})


def declared(section: type[Section] = Document, at: Path = ()) -> Iterator[Key]:
    """All keys below a table, in the order of the schema."""
    for name, info in section.model_fields.items():
        inner, named = inner_section(info)
        if inner is None:
            yield Key((*at, name), info)
        else:
            yield from declared(inner, (*at, name, ANY) if named else (*at, name))


def inner_section(info: FieldInfo) -> tuple[type[Section] | None, bool]:
    """(the table a field holds, whether it holds many under names of the user's)."""
    annotation = _bare(info.annotation)
    if _is_section(annotation):
        return annotation, False
    if get_origin(annotation) is dict and _is_section(get_args(annotation)[1]):
        return get_args(annotation)[1], True
    return None, False


def find(path: Path) -> Key | None:
    """The declared key that holds the value at `path`: it, or the table or list that it is a part of."""
    section: type[Section] = Document
    parts = list(path)
    while parts:
        name = parts.pop(0)
        info = section.model_fields.get(name)
        if info is None:
            return None
        inner, named = inner_section(info)
        if inner is None:
            return Key(path[: len(path) - len(parts)], info)
        section = inner
        if named and parts:
            parts.pop(0)
    return None


def section_at(path: Path) -> type[Section] | None:
    """The table at `path`; `None` where there is none, or where its keys are the user's own."""
    section: type[Section] = Document
    parts = list(path)
    while parts:
        info = section.model_fields.get(parts.pop(0))
        if info is None:
            return None
        inner, named = inner_section(info)
        if inner is None:
            inner = _element(info)
            named = inner is not None
        if inner is None or (named and not parts):
            return None
        section = inner
        if named:
            parts.pop(0)
    return section


def known_keys(path: Path) -> list[str]:
    """The keys a table may hold; empty where any is allowed."""
    section = section_at(path)
    return sorted(section.model_fields) if section else []


def instances(path: Path, values: object) -> Iterator[Path]:
    """The paths in `values` that a declared path with `ANY` stands for."""
    if ANY not in path:
        yield path
        return
    at = path.index(ANY)
    table: object = values
    for part in path[:at]:
        table = table.get(part) if isinstance(table, dict) else None
    if isinstance(table, dict):
        for name in table:
            yield from instances((*path[:at], name, *path[at + 1 :]), values)


def value_at(values: object, path: Path) -> object:
    """The value at `path` in nested tables and lists; raises `KeyError` where there is none."""
    for part in path:
        if isinstance(values, dict) and part in values:
            values = values[part]
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            raise KeyError(part)
    return values


def _element(info: FieldInfo) -> type[Section] | None:
    """The table that the elements of a list are."""
    annotation = _bare(info.annotation)
    inner = get_args(annotation)[0] if get_origin(annotation) is list else None
    return inner if _is_section(inner) else None


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)
