"""The folder artifact store: files named by their content.

    ROOT/staging/ATTEMPT-TOKEN-HASH.part   bytes on their way in; the token fences them
    ROOT/blake3/ab/HASH                    verified, immutable, fsynced before the name exists
    ROOT/refused/HASH-ATTEMPT              refused files, kept for a person to look at, with their reason beside them

Only `publish` makes a file visible. All functions block; the coordinator calls them off its event loop.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from gamekeeper.core.artifacts import Upload
from gamekeeper.core.errors import StorageFull, UsageError
from gamekeeper.core.receipts import is_hash

REFUSED_KEPT = 20
HASH_PIECE = 1 << 20
_STAGED_NAME = re.compile(r"([0-9]{1,19})-([0-9]{1,19})-([0-9a-f]{64})\.part\Z")


class FolderStore:
    """The artifacts below one folder. `min_free_bytes` is the room on the disk that uploads may not use."""

    def __init__(self, root: Path, *, max_bytes: int, min_free_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._staging = root / "staging"
        self._published = root / "blake3"
        self._refused = root / "refused"
        for folder in (self._staging, self._published, self._refused):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the artifact of this hash lies when it is visible."""
        if not is_hash(digest):
            raise UsageError(f"{digest!r:.80} is not a hash of 64 hexadecimal digits")
        return self._published / digest[:2] / digest

    def holds(self, digest: str, size: int) -> bool:
        """Whether the file is there with that many bytes."""
        try:
            return self.path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def staged(self, upload: Upload) -> int:
        """How many bytes of this upload have arrived."""
        try:
            return (self.staging_path(upload)).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, upload: Upload, offset: int, chunk: bytes) -> int:
        """Add `chunk`, whose first byte belongs at `offset`; returns the bytes arrived so far.

        Bytes that have arrived already are skipped, and a chunk that would leave a gap is not taken, so a repeated
        or reordered call does no harm. Raises `UsageError` beyond `max_bytes`, `StorageFull` without room.
        """
        path = self.staging_path(upload)
        have = self.staged(upload)
        if offset > have:
            return have
        if offset + len(chunk) > self.max_bytes:
            raise UsageError(
                f"upload of {upload.hash[:12]} exceeds the {self.max_bytes} bytes a file may have",
                remedy="publish smaller files, or raise [artifacts] max_bytes",
            )
        rest = memoryview(chunk)[have - offset :]
        if not rest:
            return have
        self._check_room(len(rest))
        with _room_or_error(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                written = 0
                while written < len(rest):
                    written += os.pwrite(descriptor, rest[written:], have + written)
            finally:
                os.close(descriptor)
        return have + len(rest)

    def digest(self, upload: Upload) -> str:
        """BLAKE3 of the staged bytes."""
        hasher = blake3()
        with (self.staging_path(upload)).open("rb") as stream:
            while piece := stream.read(HASH_PIECE):
                hasher.update(piece)
        return hasher.hexdigest()

    def staging_path(self, upload: Upload) -> Path:
        """The staging file, for a validator to read."""
        return self._staging / _file_name(upload)

    def publish(self, upload: Upload) -> None:
        """Make a verified staging file visible under its hash: fsync, rename, fsync of the folder.

        A file that is there already stays; the staged copy is dropped.
        """
        source, target = self.staging_path(upload), self.path(upload.hash)
        if target.exists():
            source.unlink(missing_ok=True)
            return
        with _room_or_error(target):
            target.parent.mkdir(exist_ok=True)
            with source.open("rb") as stream:
                os.fchmod(stream.fileno(), 0o444)
                os.fsync(stream.fileno())
            source.rename(target)
            for folder in (target.parent, self._published):
                _sync_folder(folder)

    def set_aside(self, upload: Upload, reason: Mapping[str, object]) -> None:
        """Keep a refused file and its reason for a person; only the newest `REFUSED_KEPT` are kept."""
        name = f"{upload.hash}-{upload.attempt}"
        source = self.staging_path(upload)
        if source.exists():
            source.replace(self._refused / name)
            (self._refused / f"{name}.json").write_text(json.dumps(reason, sort_keys=True), encoding="utf-8")
        kept = sorted(
            (entry for entry in self._refused.iterdir() if entry.suffix == ".json"),
            key=lambda entry: (entry.stat().st_mtime_ns, entry.name),
        )
        for entry in kept[:-REFUSED_KEPT]:
            entry.with_suffix("").unlink(missing_ok=True)
            entry.unlink(missing_ok=True)

    def discard(self, upload: Upload) -> None:
        """Forget what has arrived of an upload."""
        self.staging_path(upload).unlink(missing_ok=True)

    def discard_attempt(self, attempt: int, token: int) -> None:
        """Forget all uploads of an attempt that has ended."""
        for entry in self._staging.glob(f"{attempt:d}-{token:d}-*.part"):
            entry.unlink(missing_ok=True)

    def sweep(self, live: frozenset[tuple[int, int]]) -> int:
        """Remove staging files that belong to no live (attempt, token); returns how many."""
        removed = 0
        for entry in self._staging.iterdir():
            match = _STAGED_NAME.match(entry.name)
            if match is None or (int(match[1]), int(match[2])) not in live:
                entry.unlink(missing_ok=True)
                removed += 1
        return removed

    def free_bytes(self) -> int:
        """Room left on the disk."""
        return shutil.disk_usage(self.root).free

    def _check_room(self, size: int) -> None:
        free = self.free_bytes()
        if free - size < self._min_free_bytes:
            raise StorageFull(
                f"the artifact store has {free} bytes free and keeps {self._min_free_bytes} in reserve",
                remedy="free disk space below the data folder, or lower [artifacts] min_free_bytes",
            )


@contextmanager
def _room_or_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                f"no room to write {path.name}", remedy="free disk space below the data folder"
            ) from error
        raise


def _file_name(upload: Upload) -> str:
    upload.check()
    return f"{upload.attempt}-{upload.token}-{upload.hash}.part"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
