"""The layers of the settings, and how they are laid over one another.

Tables are merged key by key; a list or any other value replaces the one below it. Every value remembers the place it
came from, and every value that was replaced is noted.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from gamekeeper.core.errors import SettingsError
from gamekeeper.settings.keys import Layer, Origin, Path, spell
from gamekeeper.settings.places import parse_key, split_assignment
from gamekeeper.settings.reading import MAX_DEPTH, Table, deeper, too_many_parts
from gamekeeper.settings.tree import find

ENV_PREFIX = "GAMEKEEPER_"
RESERVED_VARIABLES = frozenset(
    {
        "GAMEKEEPER_JOB_DIR",
        "GAMEKEEPER_CONFIG",
        "GAMEKEEPER_URL",
        "GAMEKEEPER_TOKEN",
        "GAMEKEEPER_LOG_JSON",
        "GAMEKEEPER_RUN",
    }
)
RESERVED_PREFIXES = ("GAMEKEEPER_TEST_",)
MAX_PARTS = 16


@dataclass(frozen=True, slots=True)
class Assignment:
    """One value set from outside the file."""

    path: Path
    value: object = field(repr=False)
    origin: Origin


@dataclass(frozen=True, slots=True)
class Override:
    """A value that a stronger layer replaced: the key, where it was set, and where it was set again."""

    path: Path
    weaker: Origin
    stronger: Origin


@dataclass(slots=True)
class Stack:
    """Layers laid over one another, the weakest first."""

    values: Table = field(default_factory=dict, repr=False)
    origins: dict[Path, Origin] = field(default_factory=dict)
    overrides: list[Override] = field(default_factory=list)

    def lay(self, values: Mapping[str, object], origin_of: Callable[[Path], Origin]) -> None:
        """Put a layer on top."""
        self._merge(self.values, values, origin_of, ())

    def origin(self, path: Path) -> Origin | None:
        """Where the value at `path`, or the nearest table around it, was set; `None` for a default."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return None

    def _merge(
        self, into: Table, values: Mapping[str, object], origin_of: Callable[[Path], Origin], at: Path
    ) -> None:
        for key, value in values.items():
            path = (*at, key)
            present = into.get(key)
            if isinstance(value, dict) and (key not in into or isinstance(present, dict)):
                nested = present if isinstance(present, dict) else {}
                into[key] = nested
                self.origins.setdefault(path, origin_of(path))
                self._merge(nested, value, origin_of, path)
                continue
            earlier = self.origins.get(path)
            if earlier is not None and earlier.layer is not origin_of(path).layer:
                self.overrides.append(Override(path, earlier, origin_of(path)))
            if key in into:
                for stale in [known for known in self.origins if known[: len(path)] == path]:
                    del self.origins[stale]
            into[key] = value
            self._mark(path, value, origin_of)

    def _mark(self, path: Path, value: object, origin_of: Callable[[Path], Origin]) -> None:
        self.origins[path] = origin_of(path)
        if isinstance(value, dict):
            for key, nested in value.items():
                self._mark((*path, str(key)), nested, origin_of)
        elif isinstance(value, list):
            for number, nested in enumerate(value):
                self._mark((*path, str(number)), nested, origin_of)


def from_environment(
    environment: Mapping[str, str], below: Table, report: Callable[[SettingsError], None]
) -> list[Assignment]:
    """What the `GAMEKEEPER_*` variables set. `below` are the layers under them, whose names variables may mean."""
    found: list[Assignment] = []
    for variable in sorted(environment):
        if not variable.startswith(ENV_PREFIX) or variable in RESERVED_VARIABLES:
            continue
        if variable.startswith(RESERVED_PREFIXES):
            continue
        parts = variable.removeprefix(ENV_PREFIX).lower().split("__")
        if not all(parts) or len(parts) > MAX_PARTS:
            report(
                SettingsError(
                    f"{variable!r:.200} names no settings key",
                    remedy="write the parts of a key with two underscores between them: "
                    "GAMEKEEPER_COORDINATOR__PORT",
                )
            )
            continue
        path = _path(parts, below)
        origin = Origin(Layer.ENVIRONMENT, variable)
        _collect(found, path, environment[variable], origin, report)
    return found


def from_flags(
    given: Iterable[str], flags: Mapping[str, object], report: Callable[[SettingsError], None]
) -> list[Assignment]:
    """What flags set: `given` are texts of `--set KEY=VALUE`, `flags` values of options of their own by dotted key."""
    found: list[Assignment] = []
    for text in given:
        try:
            path, assigned = split_assignment(text)
        except ValueError:
            report(
                SettingsError(
                    f"--set {_before_value(text)!r:.80} is not of the form KEY=VALUE",
                    remedy="for example: --set coordinator.lease_s=20",
                )
            )
            continue
        if len(path) > MAX_PARTS:
            report(SettingsError(f"--set {spell(path):.80}… names no settings key", remedy="shorten it"))
            continue
        _collect(found, path, assigned, Origin(Layer.FLAG, f"--set {spell(path)}"), report)
    for key, plain in flags.items():
        if plain is not None:
            path = parse_key(key)
            value = str(plain) if isinstance(plain, os.PathLike) else plain
            found.append(Assignment(path, value, Origin(Layer.FLAG, option_of(path))))
    return found


def option_of(path: Path) -> str:
    """The option a command offers for a key: --data-dir."""
    return "--" + path[-1].replace("_", "-")


def variable_of(path: Path) -> str:
    """The variable that sets a key; it can be written for names of letters, digits and single underscores."""
    return ENV_PREFIX + "__".join(re.sub(r"\W", "_", part) for part in path).upper()


def nested(path: Path, value: object) -> Table:
    """A document that holds `value` at `path` and nothing else."""
    document: object = value
    for part in reversed(path):
        document = {part: document}
    assert isinstance(document, dict)  # noqa: S101 - a path has at least one part
    return document


def literal(path: Path, text: str) -> object:
    """The value a text stands for: the text itself where the key holds text, else a TOML literal if it is one."""
    key = find(path)
    if key is not None and key.is_text and key.path == path:
        return text
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if "\n" in text or too_many_parts(text):
        return text
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return text if deeper(document, MAX_DEPTH) else document["value"]


def _collect(
    found: list[Assignment],
    path: Path,
    text: str,
    origin: Origin,
    report: Callable[[SettingsError], None],
) -> None:
    if re.search(r"[\ud800-\udfff]", text):
        report(SettingsError(f"{origin}: the value is not UTF-8 text", remedy="set it anew"))
        return
    found.append(Assignment(path, literal(path, text), origin))


def _before_value(text: str) -> str:
    """What may be shown of an argument that was not understood: its value may be a secret."""
    return text.partition("=")[0]


def _path(parts: list[str], below: Table) -> Path:
    """The key a variable means: where a name of the user's fits but for case and hyphens, that one."""
    path: list[str] = []
    table: object = below
    for part in parts:
        names = list(table) if isinstance(table, dict) else []
        alike = [one for one in names if re.sub(r"\W", "_", one).lower() == part]
        name = part if part in names or not alike else alike[0]
        path.append(name)
        table = table.get(name) if isinstance(table, dict) else None
    return tuple(path)
