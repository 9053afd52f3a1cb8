from __future__ import annotations

import ctypes
import errno
import io
import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from gamekeeper.core.errors import Corrupt, StorageFull
from gamekeeper.data.safe_files import (
    Digest,
    Publication,
    Staging,
    copy_verified,
    free_bytes,
    hash_file,
    publish,
    require_space,
    sweep_stale,
    write_atomic,
)

LARGE = random.Random(1).randbytes((2 << 20) + 5)
OLD = b"the old content"


def digest(data: bytes) -> Digest:
    return Digest(blake3(data).hexdigest(), len(data))


def temporary(folder: Path) -> list[Path]:
    return sorted(folder.glob(".*.part"))


def replace(folder: Path, on_step: Callable[[str], None]) -> None:
    write_atomic(folder / "state.json", LARGE, on_step=on_step)


def create(folder: Path, on_step: Callable[[str], None]) -> None:
    source = io.BytesIO(LARGE)
    assert (
        copy_verified(source, folder / "shard.npz", expected=digest(LARGE), on_step=on_step)
        is Publication.CREATED
    )


OPERATIONS = {"replace": (replace, "state.json"), "create": (create, "shard.npz")}


def steps_of(operation: Callable[[Path, Callable[[str], None]], None], folder: Path) -> list[str]:
    folder.mkdir()
    steps: list[str] = []
    operation(folder, steps.append)
    return steps


@pytest.mark.parametrize("name", OPERATIONS)
def test_durable_before_visible(name: str, tmp_path: Path) -> None:
    """The name is given before the bytes are on disk, or the folder is never synced: a power cut leaves half a file."""
    steps = steps_of(OPERATIONS[name][0], tmp_path / "a")
    naming = "rename" if name == "replace" else "link"
    assert steps[0] == "open"
    assert steps.count("write") >= 3
    assert steps.index("fsync") > max(i for i, step in enumerate(steps) if step == "write")
    assert steps[steps.index("fsync") + 1] == naming
    assert steps[steps.index(naming) + 1] == "fsync-folder"


@pytest.mark.parametrize(("name", "existing"), [("replace", False), ("replace", True), ("create", False)])
def test_killed_at_every_step(name: str, existing: bool, tmp_path: Path) -> None:
    """A process killed at some step leaves a half-written file under the final name, or blocks the next try."""
    operation, final = OPERATIONS[name]
    count = len(steps_of(operation, tmp_path / "all"))
    for kill_at in range(count):
        folder = tmp_path / str(kill_at)
        folder.mkdir()
        if existing:
            (folder / final).write_bytes(OLD)
        child = os.fork()
        if child == 0:
            remaining = [kill_at]

            def die(step: str, remaining: list[int] = remaining) -> None:
                if remaining[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                remaining[0] -= 1

            try:
                operation(folder, die)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, kill_at
        path = folder / final
        allowed = [LARGE, OLD] if existing else [LARGE]
        assert not path.exists() or path.read_bytes() in allowed, kill_at
        assert path.exists() or not existing
        assert {entry.name for entry in folder.iterdir()} - {final} == {
            file.name for file in temporary(folder)
        }
        sweep_stale(folder, modified_before=float("inf"))
        assert temporary(folder) == []
        if not path.exists() or name == "replace":
            operation(folder, lambda step: None)
        assert path.read_bytes() == LARGE


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("name", OPERATIONS)
def test_failing_at_every_step(name: str, code: int, tmp_path: Path) -> None:
    """A full or broken disk leaves a half-written or a temporary file, or the error is swallowed."""
    operation, final = OPERATIONS[name]
    steps = steps_of(operation, tmp_path / "all")
    for fail_at, failing in enumerate(steps):
        folder = tmp_path / str(fail_at)
        folder.mkdir()
        left = [fail_at]

        def fail(step: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise OSError(code, os.strerror(code))

        expected: type[Exception] = OSError if code == errno.EIO else StorageFull
        with pytest.raises(expected) as caught:
            operation(folder, fail)
        if code != errno.EIO:
            assert final in str(caught.value)
        assert temporary(folder) == [], failing
        visible = [entry.read_bytes() for entry in folder.iterdir()]
        assert visible in ([], [LARGE])
        assert visible == [] or fail_at > max(i for i, step in enumerate(steps) if step in ("rename", "link"))


def test_a_really_full_disk(tmp_path: Path) -> None:
    """ENOSPC from the kernel, not from a test's hook, is not recognised."""

    def write_to_full_device() -> None:
        with Staging(tmp_path, "full") as staging:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, staging._descriptor)
            os.close(full)
            staging.write(b"x")

    with pytest.raises(StorageFull) as caught:
        write_to_full_device()
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_limited_file_size(tmp_path: Path) -> None:
    """Partial writes, as a nearly full disk makes them, lose bytes or are taken for success."""
    real = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:1000]))
        write_atomic(tmp_path / "a", LARGE[:100_001])
    assert (tmp_path / "a").read_bytes() == LARGE[:100_001]


def test_write_atomic_replaces(tmp_path: Path) -> None:
    """Old content survives in part, or an empty content is refused."""
    for content in (b"a" * 1000, b"b", b""):
        write_atomic(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_publish_never_overwrites(tmp_path: Path) -> None:
    """The second of two files under one name replaces the first."""
    for name, content in (("first", b"1"), ("second", b"2")):
        (tmp_path / name).write_bytes(content)
    final = tmp_path / "final"
    steps: list[str] = []
    assert publish(tmp_path / "first", final) is Publication.CREATED
    assert publish(tmp_path / "second", final, on_step=steps.append) is Publication.EXISTED
    assert final.read_bytes() == b"1"
    assert (tmp_path / "second").read_bytes() == b"2"
    assert not (tmp_path / "first").exists()
    assert steps[-1] == "fsync-folder", "a name found taken is reported durable without being so"
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "gone", tmp_path / "other")


def test_one_of_many_publishers_wins(tmp_path: Path) -> None:
    """Two writers of one name both believe that theirs is visible."""
    outcomes: list[tuple[Publication, bytes]] = []
    barrier = threading.Barrier(8)

    def run(content: bytes) -> None:
        with Staging(tmp_path, "x") as staging:
            staging.write(content)
            barrier.wait()
            outcomes.append((staging.publish(tmp_path / "x"), content))

    threads = [threading.Thread(target=run, args=(bytes([i]) * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [content for outcome, content in outcomes if outcome is Publication.CREATED]
    assert len(outcomes) == 8
    assert winners == [(tmp_path / "x").read_bytes()]
    assert temporary(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.EMLINK])
def test_publish_without_hard_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links cannot be published to, or is published to by overwriting."""

    def no_links(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)
    for name in ("first", "second"):
        (tmp_path / name).write_text(name)
    final = tmp_path / "final"
    assert publish(tmp_path / "first", final) is Publication.CREATED
    assert publish(tmp_path / "second", final) is Publication.EXISTED
    assert final.read_text() == "first"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["final", "second"]


def test_neither_links_nor_renameat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can give a name only once, a file is published by overwriting after all."""

    def no_links(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(ctypes, "CDLL", lambda *arguments, **options: object())
    (tmp_path / "first").write_bytes(b"1")
    with pytest.raises(OSError, match="neither hard links nor renameat2"):
        publish(tmp_path / "first", tmp_path / "final")
    assert [entry.name for entry in tmp_path.iterdir()] == ["first"]


def test_other_link_errors_are_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken disk is taken for one without links."""

    def broken(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "link", broken)
    (tmp_path / "first").write_bytes(b"1")
    with pytest.raises(OSError, match="broken"):
        publish(tmp_path / "first", tmp_path / "final")


def test_a_link_is_not_published(tmp_path: Path) -> None:
    """A job hands in a link to somebody else's file and it becomes visible as data."""
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "temp").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic"):
        publish(tmp_path / "temp", tmp_path / "final")
    assert not (tmp_path / "final").exists()


@pytest.mark.parametrize("sent", [b"", LARGE[:-1], LARGE + b"x", LARGE + LARGE, LARGE[:-1] + b"\0", b"other"])
def test_copy_refuses_other_bytes(sent: bytes, tmp_path: Path) -> None:
    """Truncated, grown or changed data becomes visible, or more than promised is stored."""
    written: list[str] = []
    with pytest.raises(Corrupt) as caught:
        copy_verified(io.BytesIO(sent), tmp_path / "a", expected=digest(LARGE), on_step=written.append)
    assert list(tmp_path.iterdir()) == []
    assert caught.value.remedy
    assert digest(LARGE).hash in str(caught.value)
    assert written.count("write") <= 4
    with pytest.raises(Corrupt):
        copy_verified(io.BytesIO(b"x"), tmp_path / "empty", expected=digest(b""))
    copy_verified(io.BytesIO(b""), tmp_path / "empty", expected=digest(b""))
    assert (tmp_path / "empty").read_bytes() == b""


def test_copy_of_what_exists(tmp_path: Path) -> None:
    """Sending a file twice is an error, or leaves its temporary file."""
    for outcome in (Publication.CREATED, Publication.EXISTED):
        assert copy_verified(io.BytesIO(LARGE), tmp_path / "a", expected=digest(LARGE)) is outcome
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_staging_is_removed_when_left(tmp_path: Path) -> None:
    """An upload that is given up stays on disk for ever, or its digest is wrong."""
    with Staging(tmp_path, "n" * 300) as staging:
        for start in range(0, 5000, 700):
            staging.write(memoryview(LARGE)[start : min(start + 700, 5000)])
        assert staging.digest == digest(LARGE[:5000])
        assert [staging.path] == temporary(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hash_file(tmp_path: Path) -> None:
    """A file's hash is not that of its bytes."""
    for size in (0, 1, 1 << 20, (2 << 20) + 5):
        (tmp_path / "a").write_bytes(LARGE[:size])
        assert hash_file(tmp_path / "a") == digest(LARGE[:size])


def test_space(tmp_path: Path) -> None:
    """A disk is filled although the room was asked for, or a reserve is not kept."""
    status = os.statvfs(tmp_path)
    free = free_bytes(tmp_path)
    assert 0 < free <= status.f_bfree * status.f_frsize
    require_space(tmp_path, 1)
    for needed, reserve in ((free * 2, 0), (1, free * 2)):
        with pytest.raises(StorageFull) as caught:
            require_space(tmp_path, needed, reserve=reserve)
        assert str(needed) in str(caught.value)
        assert caught.value.remedy


def test_sweep_takes_only_stale_temporary_files(tmp_path: Path) -> None:
    """A live writer's file, data, or somebody's hidden file is removed."""
    for name, age in ((".a.0123.part", 50), (".b.0123.part", 200), ("c.part", 50), (".d", 50), ("e", 50)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (age, age))
    (tmp_path / ".folder.part").mkdir()
    (tmp_path / ".link.part").symlink_to(tmp_path / "e")
    assert sweep_stale(tmp_path, modified_before=50) == []
    assert sweep_stale(tmp_path, modified_before=100) == [tmp_path / ".a.0123.part"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".b.0123.part", ".d", ".folder.part", ".link.part", "c.part", "e",
    ]  # fmt: skip


def test_sweep_meets_a_file_that_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that finishes during the sweep makes the sweep fail."""
    (tmp_path / ".a.part").write_bytes(b"x")
    real = os.unlink

    def gone(path: str) -> None:
        real(path)
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "unlink", gone)
    assert sweep_stale(tmp_path, modified_before=float("inf")) == []
