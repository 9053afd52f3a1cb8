"""The input cache: what leaves it is what its name says, and it stays within its bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
import pytest
from blake3 import blake3

from gamekeeper.agent.input_cache import InputCache, free_bytes
from gamekeeper.agent.transport import Coordinator
from gamekeeper.core.errors import Corrupt, StorageFull, Unreachable
from gamekeeper.protocol import InputFile


class Source:
    """A coordinator of which only downloads are used; `break_after` bytes the next one breaks off."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []
        self.break_after: int | None = None

    def add(self, data: bytes) -> InputFile:
        digest = blake3(data).hexdigest()
        self.blobs[digest] = data
        return InputFile(hash=digest, bytes=len(data), name="m.npz", metadata={})

    @asynccontextmanager
    async def download(self, digest: str, offset: int) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append((digest, offset))
        data, cut = self.blobs[digest], self.break_after
        self.break_after = None

        async def pieces() -> AsyncIterator[bytes]:
            for start in range(offset, len(data) if cut is None else cut, 100):
                yield data[start : min(start + 100, len(data) if cut is None else cut)]
            if cut is not None:
                raise Unreachable("broken off")

        yield pieces()


Provide = Callable[[InputFile, str], Path]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(tmp_path: Path) -> InputCache:
    return InputCache(tmp_path / "cache", 10_000, 0)


@pytest.fixture
def provide(cache: InputCache, source: Source, tmp_path: Path) -> Provide:
    def call(file: InputFile, name: str) -> Path:
        target = tmp_path / name
        anyio.run(cache.provide, cast(Coordinator, source), file, target)
        return target

    return call


def test_a_second_use_needs_no_download(provide: Provide, source: Source) -> None:
    """Every training job would otherwise fetch its whole window again."""
    file = source.add(b"a" * 500)
    assert provide(file, "one").read_bytes() == provide(file, "two").read_bytes() == b"a" * 500
    assert len(source.asked) == 1


def test_a_broken_download_goes_on_where_it_stopped(provide: Provide, source: Source) -> None:
    """On a bad line a large model would never arrive."""
    file = source.add(bytes(range(250)) * 4)
    source.break_after = 300
    with pytest.raises(Unreachable):
        provide(file, "one")
    assert provide(file, "one").read_bytes() == bytes(range(250)) * 4
    assert [offset for _, offset in source.asked] == [0, 300]


@pytest.mark.parametrize("wrong", [b"b" * 500, b"a" * 400, b"a" * 600])
def test_wrong_bytes_are_refused_and_not_kept(provide: Provide, source: Source, wrong: bytes) -> None:
    """A job must never read something else than it was given by hash."""
    file = source.add(b"a" * 500)
    source.blobs[file.hash] = wrong
    with pytest.raises(Corrupt):
        provide(file, "one")
    source.blobs[file.hash] = b"a" * 500
    assert provide(file, "one").read_bytes() == b"a" * 500


def test_a_file_changed_by_a_job_is_fetched_again(provide: Provide, source: Source) -> None:
    """The cache and the job share one file; what a job wrote must not reach the next one."""
    file = source.add(b"a" * 500)
    target = provide(file, "one")
    target.chmod(0o600)
    target.write_bytes(b"z" * 500)
    assert provide(file, "two").read_bytes() == b"a" * 500
    assert len(source.asked) == 2


def test_the_least_recently_used_go_first(
    provide: Provide, source: Source, cache: InputCache, tmp_path: Path
) -> None:
    """A cache without a bound fills the disk; one that drops the champion fetches it for every job."""
    files = [source.add(bytes([number]) * 3000) for number in range(4)]
    for number in (0, 1, 2, 0, 3):
        target = provide(files[number], f"use-{number}")
        assert target.read_bytes() == bytes([number]) * 3000
    assert cache.bytes_held <= 10_000
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == sorted(
        files[number].hash for number in (0, 2, 3)
    )


def test_the_cache_is_known_after_a_restart(provide: Provide, source: Source, tmp_path: Path) -> None:
    """A restarted agent must find its inputs, and not what an interrupted download left."""
    file = source.add(b"a" * 500)
    provide(file, "one")
    (tmp_path / "cache" / "junk.part").write_bytes(b"x")
    again = InputCache(tmp_path / "cache", 10_000, 0)
    assert again.bytes_held == 500
    anyio.run(again.provide, cast(Coordinator, source), file, tmp_path / "two")
    assert len(source.asked) == 1
    assert not (tmp_path / "cache" / "junk.part").exists()


def test_the_disk_is_never_filled_to_the_brim(source: Source, tmp_path: Path) -> None:
    """An agent that takes the last byte cannot even record how its jobs end."""
    cache = InputCache(tmp_path / "cache", 1 << 40, free_bytes(tmp_path) + (1 << 30))
    with pytest.raises(StorageFull, match="bytes free"):
        anyio.run(cache.provide, cast(Coordinator, source), source.add(b"a"), tmp_path / "one")
    assert source.asked == []


def test_what_was_shipped_from_here_need_not_come_back(
    provide: Provide, source: Source, cache: InputCache, tmp_path: Path
) -> None:
    """On one machine the trainer reads what the players wrote: no byte of it needs to travel twice."""
    made = tmp_path / "made"
    made.write_bytes(b"shard" * 100)
    file = source.add(b"shard" * 100)
    cache.keep(made, file.hash, 500)
    made.unlink()
    assert provide(file, "one").read_bytes() == b"shard" * 100
    assert source.asked == []
