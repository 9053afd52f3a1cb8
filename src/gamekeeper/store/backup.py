"""Backups: a folder with a manifest and either a copy of the SQLite file or the rows of all tables.

A backup of rows goes back to either engine, and so does a copy of a file: that is how a store moves from one to the
other. Nothing is called a backup before it was read back and found sound; nothing is replaced before the new one is.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from gamekeeper.core.errors import Corrupt, NotFound, Refused, StorageFull, UsageError
from gamekeeper.store import integrity
from gamekeeper.store.migration import HEAD, check_ours, known_versions, migrate, version_of
from gamekeeper.store.session import Link, Reading, worded
from gamekeeper.store.sqlite import SqliteLink, translated
from gamekeeper.store.transfer import Rows, count_rows, rows_in_file, write_rows

FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "gamekeeper.db"
MAX_MANIFEST = 1 << 20
PAGES = 4096
FENCE_LEAP = 1 << 32

Told = Callable[[str, int, int], None]
"""Progress: what is done, how much of it, out of how much."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. `kind`: "file" or "rows". `files`: name to (bytes, BLAKE3). `counts`: rows of each table."""

    kind: str
    schema: str
    created_at: float
    fence: int
    counts: dict[str, int]
    columns: dict[str, list[str]]
    files: dict[str, tuple[int, str]]

    def as_json(self) -> dict[str, object]:
        """The manifest as it is written."""
        return {
            "format": FORMAT, "kind": self.kind, "schema": self.schema, "created_at": self.created_at,
            "fence": self.fence, "counts": self.counts, "columns": self.columns,
            "files": {name: {"bytes": size, "blake3": digest} for name, (size, digest) in self.files.items()},
        }  # fmt: skip


def back_up_file(source: Path, target: Path, told: Told) -> Manifest:
    """Copy the SQLite store `source`, which may be in use, into the folder `target`, and read the copy back.

    Raises `Refused` when `target` exists, `NotFound` when there is no store, `Corrupt` when the store is damaged.
    """
    if not source.is_file():
        raise NotFound(f"there is no store at {source}", remedy="name its data folder with --data-dir")
    with _made_whole(target) as part:
        copy = part / DATABASE
        _copy_database(source, copy, told)
        link = SqliteLink(str(copy))
        try:
            # One file from now on, with no log beside it.
            told("verify", 0, 1)
            with worded(link):
                link.raw.execute("PRAGMA journal_mode = DELETE")
                manifest = _described(link, "file", {DATABASE: _digest(copy)})
        finally:
            link.close()
        told("verify", 1, 1)
        _write_manifest(part, manifest)
    return manifest


def back_up_rows(link: Link, target: Path, rows: Callable[[str], Rows], told: Told) -> Manifest:
    """Write all rows that the snapshot open on `link` sees into the folder `target`; `rows` reads those of a table."""
    with _made_whole(target) as part:
        files: dict[str, tuple[int, str]] = {}
        columns: dict[str, list[str]] = {}
        counts = count_rows(link)
        for done, table in enumerate(sorted(counts)):
            told("export", done, len(counts))
            found = rows(table)
            columns[table] = list(found.columns)
            path = part / f"{table}.jsonl"
            with path.open("xb") as stream:
                for row in found.rows:
                    stream.write(json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
                _flush(stream)
            files[path.name] = _digest(path)
        told("export", len(counts), len(counts))
        problems = integrity.check(Reading(link, 0.0))
        if problems:
            raise _unsound(link.path, problems)
        manifest = Manifest(
            "rows", version_of(link) or HEAD, _now_of(link), _fence(link), counts, columns, files
        )
        _write_manifest(part, manifest)
    return manifest


def read_manifest(folder: Path, told: Told) -> Manifest:
    """The manifest of a backup whose files are all there and unchanged.

    Raises `NotFound` when there is none, `Refused` for one of a later version, `Corrupt` for a damaged one.
    """
    path = folder / MANIFEST
    try:
        with path.open("rb") as stream:
            document = json.loads(stream.read(MAX_MANIFEST + 1)[:MAX_MANIFEST])
        found = _manifest_of(document)
    except OSError as error:
        raise NotFound(
            f"{folder} is no backup: {MANIFEST} cannot be read ({error.strerror})",
            remedy="name the folder that `gamekeeper store backup` made",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, f"{MANIFEST} is no manifest") from error
    if document["format"] != FORMAT or found.schema not in known_versions():
        raise Refused(
            f"the backup {folder} was made by a later version of Gamekeeper (format {document['format']},"
            f" schema {found.schema})",
            remedy="install that version or a later one",
        )
    for done, (name, wanted) in enumerate(sorted(found.files.items())):
        told("verify", done, len(found.files))
        try:
            seen = _digest(folder / name)
        except OSError as error:
            raise _damaged(folder, f"{name} cannot be read ({error.strerror})") from error
        if seen != wanted:
            raise _damaged(folder, f"{name} is not what was written")
    return found


def restore_to_file(folder: Path, manifest: Manifest, place: Path, *, force: bool, told: Told) -> Path | None:
    """Make the SQLite store `place` from a backup; where the earlier one was set aside to, if there was one.

    Nobody may work on the store meanwhile. Raises `Refused` when there is a store and not `force`.
    """
    if place.exists() and not force:
        raise Refused(
            f"there is a store at {place} already",
            remedy="use --force to set it aside and put the backup in its place",
        )
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        if manifest.kind == "file":
            shutil.copyfile(folder / DATABASE, part, follow_symlinks=False)
        link = SqliteLink(str(part))
        try:
            with worded(link):
                problems = _rebuilt(link, folder, manifest, told)
        finally:
            link.close()
        if problems:
            raise _unsound(str(folder), problems)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        aside = _set_aside(place) if place.exists() else None
        part.replace(place)
        _sync_folder(place.parent)
        return aside
    except OSError as error:
        raise _cannot_write(place, error) from error
    finally:
        part.unlink(missing_ok=True)


def restore_to_server(folder: Path, manifest: Manifest, link: Link, told: Told) -> None:
    """Write a backup into the empty schema of the transaction open on `link`."""
    write_rows(link, manifest.schema, _rows_of(folder, manifest), told)
    leap(link)
    problems = integrity.check(Reading(link, 0.0))
    if problems:
        raise _unsound(str(folder), problems)


def _rebuilt(link: SqliteLink, folder: Path, manifest: Manifest, told: Told) -> list[str]:
    """Bring a fresh file, or a copy, to the newest schema with all the rows: what is wrong with it then."""
    if manifest.kind == "rows":
        link.raw.execute("PRAGMA foreign_keys = OFF")
        link.begin()
        write_rows(link, manifest.schema, _rows_of(folder, manifest), told)
        link.commit()
    migrate(link)
    link.begin()
    leap(link)
    link.commit()
    return integrity.check(Reading(link, 0.0))


def leap(link: Link) -> None:
    """Let tokens go on far beyond all that were handed out after the backup, and free all roles.

    Whoever holds a token of the future that was lost finds it neither valid nor ever handed out again.
    """
    link.execute(f"UPDATE counters SET value = value + {FENCE_LEAP} WHERE name = 'fence'")  # noqa: S608 - a number
    link.execute("UPDATE roles SET released = 1")


# --- parts


def _copy_database(source: Path, copy: Path, told: Told) -> None:
    target = None
    origin = SqliteLink(str(source), read_only=True)
    try:
        origin.prepare()
        check_ours(origin)
        # One snapshot for all steps: writers go on meanwhile, and the copy never starts anew because of them.
        origin.begin_reading()
        origin.raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
        target = sqlite3.connect(copy)
        origin.raw.backup(
            target, pages=PAGES, progress=lambda _, left, total: told("copy", total - left, total), sleep=0
        )
        origin.rollback()
    except sqlite3.Error as error:
        raise translated(error, str(source)) or error from error
    finally:
        origin.close()
        if target is not None:
            target.close()
    with copy.open("rb") as stream:
        os.fsync(stream.fileno())


def _described(link: SqliteLink, kind: str, files: dict[str, tuple[int, str]]) -> Manifest:
    schema = version_of(link) or HEAD
    # Rules speak of the newest schema; of an earlier one, only the engine can say whether it is whole.
    problems = integrity.check(Reading(link, 0.0)) if schema == HEAD else integrity.damage(Reading(link, 0.0))
    if problems:
        raise _unsound(link.path, problems)
    fence = _fence(link) if schema == HEAD else 0
    return Manifest(kind, schema, _now_of(link), fence, count_rows(link), {}, files)


def _now_of(link: Link) -> float:
    words = (
        "SELECT (julianday('now') - 2440587.5) * 86400.0" if isinstance(link, SqliteLink) else _SERVER_TIME
    )
    return float(link.rows(words, ())[0][0])


_SERVER_TIME = "SELECT extract(epoch FROM clock_timestamp())"


def _fence(link: Link) -> int:
    return int(link.rows("SELECT value FROM counters WHERE name = 'fence'", ())[0][0])


def _manifest_of(document: dict[str, object]) -> Manifest:
    files, counts, columns = document["files"], document["counts"], document["columns"]
    assert isinstance(files, dict) and isinstance(counts, dict) and isinstance(columns, dict)  # noqa: S101, PT018
    kind, schema = str(document["kind"]), str(document["schema"])
    tables = [str(table) for table in counts]
    names = [DATABASE] if kind == "file" else [f"{table}.jsonl" for table in tables]
    if kind not in {"file", "rows"} or sorted(files) != sorted(names):
        raise ValueError(kind)
    if not all(word.isascii() and word.replace("_", "a").isalnum() for word in tables):
        raise ValueError("table")
    return Manifest(
        kind, schema, float(str(document["created_at"])), int(str(document["fence"])),
        {table: int(str(n)) for table, n in counts.items()},
        {str(table): [str(name) for name in names] for table, names in columns.items()},
        {str(name): (int(entry["bytes"]), str(entry["blake3"])) for name, entry in files.items()},
    )  # fmt: skip


def _rows_of(folder: Path, manifest: Manifest) -> Callable[[str], Rows]:
    if manifest.kind == "rows":
        return lambda table: rows_in_file(folder / f"{table}.jsonl", manifest.columns[table])

    def from_copy(table: str) -> Rows:
        raw = sqlite3.connect(f"file:{folder / DATABASE}?mode=ro&immutable=1", uri=True)
        cursor = raw.execute(f'SELECT * FROM "{table}" ORDER BY 1')  # noqa: S608 - a table of ours
        return Rows(tuple(column[0] for column in cursor.description), _until_closed(raw, cursor))

    return from_copy


def _until_closed(raw: sqlite3.Connection, cursor: sqlite3.Cursor) -> Iterator[list[object]]:
    try:
        for row in cursor:
            yield list(row)
    finally:
        raw.close()


def _digest(path: Path) -> tuple[int, str]:
    hasher, size = blake3(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb") as stream:
        while chunk := stream.read(1 << 20):
            hasher.update(chunk)
            size += len(chunk)
    return size, hasher.hexdigest()


def _write_manifest(part: Path, manifest: Manifest) -> None:
    with (part / MANIFEST).open("xb") as stream:
        stream.write(json.dumps(manifest.as_json(), indent=1, sort_keys=True).encode() + b"\n")
        _flush(stream)


def _flush(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """A folder that gets its name only when all of it is written."""
    if os.path.lexists(target):
        raise Refused(f"{target} exists already", remedy="name a folder that does not exist yet")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir(mode=0o700)
        yield part
        _sync_folder(part)
        part.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _set_aside(place: Path) -> Path:
    """Move a store and what lies beside it out of the way."""
    number = 1
    while (aside := place.with_name(f"{place.name}.before-restore-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        beside = place.with_name(place.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    return aside


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(target: Path, error: OSError) -> StorageFull | UsageError:
    words = f"{target} cannot be written: {error.strerror or error}"
    if error.errno in {28, 122}:
        return StorageFull(words, remedy="free disk space, then try again")
    return UsageError(words, remedy="choose another place, or correct its permissions")


def _damaged(folder: Path, why: str) -> Corrupt:
    return Corrupt(f"the backup {folder} is damaged: {why}", remedy="use another backup; nothing was changed")


def _unsound(where: str, problems: list[str]) -> Corrupt:
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Corrupt(
        f"{where} is not sound: {problems[0]}{more}",
        remedy="see `gamekeeper store check`, and use an earlier backup; nothing was changed",
    )
