"""Reading a settings file: bounded, and with the line of every key. Light to import, for commands that need one key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath

from gamekeeper.core.errors import SettingsError
from gamekeeper.settings.keys import Path
from gamekeeper.settings.places import line_numbers

FILE_NAME = "gamekeeper.toml"
MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_KEY_PARTS = 64
"""The parser's time grows with the square of a key's parts."""

Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class FileText:
    """A decoded file, unchecked beyond its syntax, and the line of each of its keys."""

    values: Table
    lines: Mapping[Path, int]


def read_document(path: FilePath) -> Table:
    """The decoded TOML of `path`, unchecked beyond its syntax. Raises `SettingsError`."""
    return _decoded(path, read_text(path))


def read_file(path: FilePath) -> FileText:
    """The decoded TOML of `path` with the line of each key. Raises `SettingsError`."""
    text = read_text(path)
    values = _decoded(path, text)
    return FileText(values, line_numbers(text))


def read_text(path: FilePath) -> str:
    """The text of `path`. Raises `SettingsError` when there is none, or it is no text of moderate size."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(
            f"{path} does not exist", remedy="write one with `gamekeeper init`, or name another with --config"
        ) from None
    except IsADirectoryError:
        raise SettingsError(f"{path} is a folder", remedy=f"name a file in it: {path / FILE_NAME}") from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", remedy="check its permissions"
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes", remedy="is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(
            f"{path}:{line}: not valid TOML: byte {error.start} is not UTF-8 text",
            remedy="save the file as UTF-8; is this the right file?",
        ) from None


def _decoded(path: FilePath, text: str) -> Table:
    for number, line in enumerate(text.split("\n"), 1):
        if too_many_parts(line):
            raise SettingsError(
                f"{path}:{number}: a key of more than {MAX_KEY_PARTS} parts", remedy="correct that line"
            )
    try:
        values: Table = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:
        message = str(error).replace("end of document", f"line {len(text.splitlines())}, column 0")
        raise _not_toml(path, message) from None
    if deeper(values, MAX_DEPTH):
        raise _too_deep(path)
    return values


def _not_toml(path: FilePath, message: str) -> SettingsError:
    place = re.search(r" \(at line (\d+), column \d+\)", message)
    where = f"{path}:{place.group(1)}" if place else str(path)
    reason = message.replace(place.group(), "") if place else message
    return SettingsError(f"{where}: not valid TOML: {reason:.200}", remedy="correct that line")


def _too_deep(path: FilePath) -> SettingsError:
    return SettingsError(
        f"{path}: tables or lists are nested more than {MAX_DEPTH} deep", remedy="flatten them"
    )


def too_many_parts(line: str) -> bool:
    """Whether a line may hold a key of more than `MAX_KEY_PARTS` parts."""
    return max(part.count(".") for part in re.split(r"[=,\[\]{}]", line)) > MAX_KEY_PARTS


def deeper(values: object, levels: int) -> bool:
    """Whether tables and lists are nested more than `levels` deep; walks level by level, so any depth is safe."""
    layer = [values]
    for _ in range(levels):
        layer = [
            nested
            for one in layer
            for nested in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
        if not layer:
            return False
    return any(isinstance(one, dict | list) for one in layer)
