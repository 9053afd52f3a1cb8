"""Files of ours, written whole or not at all, and files of people, read within bounds; with clear errors."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gamekeeper.core.errors import Refused, UsageError


def make_folder(path: Path) -> None:
    """Make a folder and see that it can be written. Raises `UsageError` with the cause and the remedy."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(
            f"the data directory {path} cannot be written: {error.strerror or error}",
            remedy="choose another with --data-dir, or correct its permissions",
        ) from error


def read_document(path: Path, most: int = 2 << 20) -> object:
    """What a file of at most `most` bytes holds: TOML by its name, JSON else; "-" is standard input, as JSON.

    Raises `UsageError` when it cannot be read or understood.
    """
    import json
    import sys
    import tomllib

    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(most + 1)
        else:
            with path.open("rb") as file:
                content = file.read(most + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}", remedy="name a file that is there"
        ) from error
    if len(content) > most:
        raise UsageError(f"{path} is longer than {most} bytes", remedy="split it")
    try:
        text = content.decode("utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be understood: {error}", remedy="write TOML (*.toml) or JSON"
        ) from error


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write a text file that is not there yet; with `force`, over one that is.

    Raises `Refused` when it is there, `UsageError` when it cannot be written.
    """
    if not force and os.path.lexists(path):
        raise Refused(f"{path} exists already", remedy="use --force to overwrite it, or name another file")
    write_whole(path, text)


def write_whole(path: Path, text: str) -> None:
    """Write a text file through a temporary one beside it: readers see the earlier or the whole new content."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written: {error.strerror or error}",
            remedy="check the folder and its permissions",
        ) from error
