"""Checking settings: the document when it is sound, and otherwise everything that is wrong with it, in words."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gamekeeper.core.errors import SettingsError, UsageError
from gamekeeper.data.array_contract import Contract
from gamekeeper.policy.continuous_loop import reachability
from gamekeeper.settings.keys import Layer, Origin, Path, spell
from gamekeeper.settings.layers import Stack, variable_of
from gamekeeper.settings.line_schema import LineSection
from gamekeeper.settings.masking import masked
from gamekeeper.settings.rules import Problem, crossed, exclusive, suspicious
from gamekeeper.settings.schema import Document
from gamekeeper.settings.timings import Timings
from gamekeeper.settings.tree import ANY, declared, find, known_keys, value_at

MOST_PROBLEMS = 200
CLOSE_ENOUGH = 0.5


@dataclass(frozen=True, slots=True)
class Findings:
    """What looking at all sources found. `document` is `None` when there is a problem."""

    stack: Stack
    folder: FilePath
    document: Document | None
    problems: tuple[Problem, ...]

    def usable(self) -> Document:
        """The document. Raises `SettingsError` with the first problem, and how many more there are."""
        if self.document is not None:
            return self.document
        first, more = self.problems[0], len(self.problems) - 1
        place = f"{first.place}: " if first.place else ""
        rest = f" (and {more} more; `gamekeeper config check` lists them)" if more else ""
        raise SettingsError(f"{place}{first.message}{rest}", remedy=first.remedy)

    def warnings(self) -> tuple[Problem, ...]:
        """What is legal, and yet hardly meant so; nothing while there are problems."""
        return tuple(suspicious(self.document, self.stack)) if self.document is not None else ()


def examine(stack: Stack, source: str, folder: FilePath, earlier: Sequence[SettingsError]) -> Findings:
    """Check the layers in `stack`. `source` names the file in messages, `earlier` are problems that are known."""
    problems = [Problem("", "", error.message, error.remedy) for error in earlier]
    document = None
    try:
        document = Document.model_validate(stack.values, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[:MOST_PROBLEMS]
        problems += [_explain(one, stack) for one in found]
    except RecursionError:
        problems.append(Problem("", source, "tables or lists are nested too deeply", "flatten them"))
    problems += [*crossed(stack), *exclusive(stack)]
    for name, section in _lines(stack, document):
        told = any(one.key.startswith(f"{spell(('lines', name))}.") for one in problems)
        problems += _line_problems(name, section, folder, stack, source, told=told)
    if document is not None:
        problems += _timing_problems(document, stack)
    if problems:
        document = None
    return Findings(stack, folder, document, tuple(problems[:MOST_PROBLEMS]))


def _lines(stack: Stack, document: Document | None) -> Iterator[tuple[str, LineSection]]:
    """The lines whose own keys are all sound, also where another part of the document is not."""
    if document is not None:
        yield from document.lines.items()
        return
    lines = stack.values.get("lines")
    for name, values in lines.items() if isinstance(lines, dict) else ():
        try:
            yield name, LineSection.model_validate(values, strict=True)
        except (ValidationError, RecursionError):
            continue


def _line_problems(
    name: str, section: LineSection, folder: FilePath, stack: Stack, source: str, *, told: bool
) -> Iterator[Problem]:
    try:
        Contract.from_mapping(section.contract)
    except UsageError as error:
        path: Path = ("lines", name, "contract")
        yield Problem(
            spell(path), str(stack.origin(path) or source), f"{spell(path)}: {error.message}", error.remedy
        )
    path = ("lines", name)
    # A crossed threshold is the cause of what cannot be reached, and is told already.
    if not told and (unreachable := reachability(section.to_line(name, folder))):
        yield Problem(
            spell(path),
            str(stack.origin(path) or source),
            f"{spell(path)}: the loop could never turn: {'; '.join(unreachable)}",
            "change the named settings so that every stage can be reached from an empty store",
        )


def _timing_problems(document: Document, stack: Stack) -> Iterator[Problem]:
    path = ("coordinator", "lease_s")
    try:
        Timings.of(document.coordinator.lease_s).check()
    except SettingsError as error:
        yield Problem(spell(path), str(stack.origin(path) or ""), error.message, error.remedy)


def _explain(problem: ErrorDetails, stack: Stack) -> Problem:
    path = tuple(str(part) for part in problem["loc"] if part != "[key]")
    origin = stack.origin(path)
    place, key = str(origin or ""), spell(path)
    if problem["type"] == "extra_forbidden":
        return Problem(key, place, f"unknown key {key}", _suggestion(path, origin))
    if problem["type"] == "missing":
        return Problem(key, place, f"{key} is missing", "add it; `gamekeeper init` writes an example")
    reason = problem["msg"][:1].lower() + problem["msg"][1:]
    if problem["loc"][-1:] == ("[key]",):
        return Problem(key, place, f"{key}: the name {path[-1]!r:.80} cannot be used: {reason}", "rename it")
    return Problem(
        key,
        place,
        f"{key} = {shown(path, stack.values)} cannot be used: {reason}",
        "correct the value; `gamekeeper init` writes a commented example",
    )


def _suggestion(path: Path, origin: Origin | None) -> str:
    """The key that was meant, as it must be written where it was set; else the keys there are."""
    known = known_keys(path[:-1])
    candidates = [key.path for key in declared() if ANY not in key.path]
    together = [one for one in candidates if "_".join(one) == "_".join(path)]
    near = difflib.get_close_matches(path[-1], known, n=1, cutoff=CLOSE_ENOUGH)
    elsewhere = [one for one in candidates if one[-1] == path[-1]]
    meant: Path | None = None
    if together:
        meant = together[0]
    elif near:
        meant = (*path[:-1], near[0])
    elif len(elsewhere) == 1:
        meant = elsewhere[0]
    if meant is None:
        return f"known keys here: {', '.join(known)}"
    if origin is not None and origin.layer is Layer.ENVIRONMENT:
        return f"did you mean {variable_of(meant)!r}?"
    if origin is not None and origin.layer is Layer.FLAG:
        return f"did you mean '--set {spell(meant)}=…'?"
    beside = meant[:-1] == path[:-1]
    return f"did you mean {spell(meant[-1:] if beside else meant)!r}?"


def shown(path: Path, values: object) -> str:
    """The value at `path`, as far as a message may show it."""
    try:
        value = value_at(values, path)
    except KeyError:
        return "(nothing)"
    key = find(path)
    value = masked(path if key is None else key.path + path[len(key.path) :], value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"{value!r:.60}"


def listed(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """Problems as JSON objects."""
    return [
        {"key": one.key, "place": one.place, "message": one.message, "remedy": one.remedy} for one in problems
    ]
