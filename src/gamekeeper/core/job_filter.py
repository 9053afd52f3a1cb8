"""Which jobs an operation on many is about: a filter that people write as words and programs as fields.

`state=failed,dead line=connect4 reason~'out of memory' older=2d`: all conditions must hold; values of one condition,
separated by commas, are alternatives. Words are split as a shell does, so that quotes hold spaces together.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from gamekeeper.core.errors import UsageError
from gamekeeper.core.jobs import JobState

MAX_VALUES = 50
MAX_IDS = 10_000
MAX_TEXT = 200
MAX_FILTER = 300_000
LONGEST_S = 100 * 365 * 86400
_EXAMPLE = "write conditions as in: state=failed line=connect4 reason~'out of memory' older=2d"
_WORD = re.compile(r"([a-z]+)(=|~)(.*)", re.DOTALL)
_AGE = re.compile(r"([0-9]{1,9})([smhdw])\Z")
_SECONDS: Mapping[str, int] = {"w": 7 * 86400, "d": 86400, "h": 3600, "m": 60, "s": 1}
_LISTS = ("state", "line", "kind", "purpose", "producer")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Conditions on a job; an empty one holds for all.

    ids: any of these. state, line, kind, purpose, producer: any of these. reason: the text that the reason of its state
    contains, in upper or lower case. older, newer: its age in whole seconds since it was submitted, at least, at most.
    """

    ids: tuple[int, ...] = ()
    state: tuple[JobState, ...] = ()
    line: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    purpose: tuple[str, ...] = ()
    producer: tuple[str, ...] = ()
    reason: str = ""
    older: int | None = None
    newer: int | None = None

    def __post_init__(self) -> None:
        """Raise `UsageError` for conditions that mean nothing."""
        for name in _LISTS:
            for value in getattr(self, name):
                _check_text(name, value)
            if len(getattr(self, name)) > MAX_VALUES:
                raise UsageError(f"{name} has more than {MAX_VALUES} values", remedy="use several operations")
        if len(self.ids) > MAX_IDS or any(not 0 < one < 1 << 62 for one in self.ids):
            raise UsageError(f"ids must be numbers of jobs, at most {MAX_IDS}")
        if len(self.reason) > MAX_TEXT or not self.reason.isprintable():
            raise UsageError(f"reason must be at most {MAX_TEXT} printable characters")
        for name in ("older", "newer"):
            age = getattr(self, name)
            if age is not None and not 0 <= age <= LONGEST_S:
                raise UsageError(f"{name} is {age} s: it must be an age, as in {name}=2d")
        if self.older is not None and self.newer is not None and self.older > self.newer:
            raise UsageError("no job is older than it is new", remedy="set older to less than newer")

    @property
    def is_empty(self) -> bool:
        """Whether it holds for every job."""
        return all(getattr(self, each.name) == each.default for each in fields(self))

    def __str__(self) -> str:
        """The words that `parse` makes this filter of."""
        words = [f"id={','.join(map(str, self.ids))}"] if self.ids else []
        for name in _LISTS:
            values = getattr(self, name)
            if values:
                words.append(f"{name}={','.join(map(_escaped, values))}")
        if self.reason:
            words.append(f"reason~{self.reason}")
        words += [
            f"{name}={_age_in_words(age)}"
            for name, age in (("older", self.older), ("newer", self.newer))
            if age is not None
        ]
        return shlex.join(words)


def parse(text: str, ids: Sequence[int] = ()) -> JobFilter:
    """The filter that `text` writes, restricted to `ids` if some are given. Raises `UsageError` with an example."""
    if len(text) > MAX_FILTER:
        raise UsageError(f"a filter of more than {MAX_FILTER} characters is not taken", remedy=_EXAMPLE)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(
            f"the filter {text!r:.120} cannot be read: {str(error).lower()}", remedy=_EXAMPLE
        ) from error
    given: dict[str, object] = {"ids": tuple(ids)} if ids else {}
    for word in words:
        name, value = _condition(word)
        if name in given:
            raise UsageError(
                f"{name} is given twice", remedy="separate alternatives by commas: state=failed,dead"
            )
        given[name] = value
    return JobFilter(**given)  # type: ignore[arg-type]


def _condition(word: str) -> tuple[str, object]:
    match = _WORD.match(word)
    if match is None:
        raise UsageError(f"{word!r:.80} is no condition", remedy=_EXAMPLE)
    name, sign, value = match.groups()
    if (sign == "~") is not (name == "reason") and name in {*_LISTS, "id", "older", "newer", "reason"}:
        wanted = "~ (contains)" if name == "reason" else "="
        raise UsageError(f"{name} is compared by {wanted}", remedy=_EXAMPLE)
    if name == "reason":
        if not value:
            raise UsageError("reason~ needs a text to look for", remedy=_EXAMPLE)
        return name, value
    if name in {"older", "newer"}:
        return name, _age(name, value)
    if name == "id":
        return "ids", tuple(_number(one) for one in value.split(","))
    if name not in _LISTS:
        raise UsageError(
            f"{name!r:.40} is nothing jobs are chosen by",
            remedy=f"use id, {', '.join(_LISTS)}, reason, older or newer",
        )
    values = tuple(_split(value))
    if name == "state":
        unknown = [one for one in values if one not in set(JobState)]
        if unknown:
            raise UsageError(f"{unknown[0]!r:.60} is not a job state", remedy=f"use {', '.join(JobState)}")
        return name, tuple(map(JobState, values))
    return name, values


def _split(value: str) -> list[str]:
    """Alternatives; a backslash before a comma or backslash makes it part of the text."""
    parts, current, escaped = [], "", False
    for char in value:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == ",":
            parts.append(current)
            current = ""
        else:
            current += char
    if escaped:
        raise UsageError(f"{value!r:.80} ends with a lone backslash", remedy="write it twice")
    return [*parts, current]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _check_text(name: str, value: str) -> None:
    # An empty purpose or producer is a real one: "purpose=" finds jobs that have none.
    if (
        (not value and name not in {"purpose", "producer"})
        or len(value) > MAX_TEXT
        or not value.isprintable()
    ):
        raise UsageError(f"{name}={value!r:.60} names nothing", remedy=_EXAMPLE)


def _number(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise UsageError(f"{value!r:.40} is not a job number", remedy="write ids as in: id=17,18")
    return int(value)


def _age(name: str, value: str) -> int:
    match = _AGE.match(value)
    if match is None:
        raise UsageError(
            f"{name}={value!r:.40} is no age", remedy=f"write it as in: {name}=90s, {name}=2h, {name}=3d"
        )
    return int(match.group(1)) * _SECONDS[match.group(2)]


def _age_in_words(seconds: int) -> str:
    unit = next(unit for unit, size in _SECONDS.items() if seconds % size == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"
