"""Backups of a store in use, restored to either engine, and everything that must not be restored."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gamekeeper.cli.main import entry
from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import StaleToken
from gamekeeper.core.jobs import EndReason
from gamekeeper.runtime.data_dir import only_coordinator
from gamekeeper.store import integrity, job_queue, leases
from gamekeeper.store.backup import FENCE_LEAP
from gamekeeper.store.engine import PostgresStore, Store
from tests.unit.store import server
from tests.unit.store.rig import Rig, TurnedClock, everything, touch

ENGINES = ("file", "postgres")


@dataclass
class Place:
    """A store for the command line: a data folder of its own, or a database beside it."""

    folder: Path
    url: str

    def open(self) -> Store:
        if self.url:
            return PostgresStore(self.url, SystemClock())
        return Store.open(self.folder / "gamekeeper.db", SystemClock())

    def run(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        monkeypatch.setenv("GAMEKEEPER_STORE__URL", self.url)
        return entry(["store", *words, "--data-dir", str(self.folder)])


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Place]:
    monkeypatch.chdir(tmp_path)
    made = 0

    def make(engine: str) -> Place:
        nonlocal made
        made += 1
        folder = tmp_path / f"data-{made}"
        folder.mkdir()
        return Place(folder, server.server().create(f"backup_{made}") if engine == "postgres" else "")

    return make


def fill(store: Store) -> Rig:
    """Something in most tables: a champion, a candidate, a finished, a live and a waiting job."""
    rig = Rig(store, TurnedClock())
    done = rig.running()
    rig.publish(done, 1)
    rig.finish(done)
    rig.running()
    rig.crown(rig.model(1))
    rig.finish(rig.running(), EndReason.OWN_ERROR)
    rig.job(parameters={"text": 'ä "quoted" \u2028 \\ end', "n": 2**60, "x": 0.1})
    return rig


def without_leap(state: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, apart from what a restore changes on purpose."""
    return {name: rows for name, rows in state.items() if name not in {"counters", "roles"}}


@pytest.mark.parametrize("target", ENGINES)
@pytest.mark.parametrize("source", ENGINES)
def test_every_row_comes_back_on_either_engine(
    source: str, target: str, places: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a backup or a move to the other engine loses or changes a row, or hands out a token again."""
    origin, goal = places(source), places(target)
    with origin.open() as store:
        fill(store)
        attempt = Rig(store, TurnedClock()).r(job_queue.live_attempts)[0]
        before = store.read(everything)
        assert origin.run(monkeypatch, "backup", str(tmp_path / "b")) == 0
        lost_token = store.write(lambda w: w.next_token())
    assert goal.run(monkeypatch, "restore", str(tmp_path / "b")) == 0
    with goal.open() as store:
        assert store.read(integrity.check) == []
        after = store.read(everything)
        assert without_leap(after) == without_leap(before)
        counted = [
            (name, int(str(value)) + FENCE_LEAP * (name == "fence")) for name, value in before["counters"]
        ]
        assert after["counters"] == counted
        assert store.write(lambda w: w.next_token()) > lost_token + 1
        # Ids that the engine gives by itself go on, and the attempt that was live still is.
        store.write(lambda w: touch(w, "next"))
        Rig(store, TurnedClock()).decide("line/c4")
        assert store.read(lambda r: job_queue.attempt(r, attempt.id)).token == attempt.token
        with pytest.raises(StaleToken):
            store.write(lambda w: job_queue.end_from_here(w, attempt.id, lost_token, EndReason.KILLED, ""))
        assert store.read(integrity.check) == []
    assert goal.run(monkeypatch, "check") == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_backup_under_load_is_one_moment(
    engine: str, places: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a backup of a store in use mixes moments, blocks writers, or never ends."""
    place = places(engine)
    with place.open() as store:
        fill(store)
        stop = threading.Event()
        written = 0

        def write() -> None:
            nonlocal written
            while not stop.is_set():
                store.write(partial(touch, key=f"k{written}"))
                written += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            assert place.run(monkeypatch, "backup", str(tmp_path / "b")) == 0
        finally:
            stop.set()
            thread.join()
    assert written
    other = places("file")
    assert other.run(monkeypatch, "restore", str(tmp_path / "b")) == 0
    assert other.run(monkeypatch, "check") == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_store_that_is_there_is_set_aside_only_by_force(
    engine: str, places: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Breaks if a restore overwrites a store unasked, destroys it when asked, or a backup overwrites another."""
    place = places(engine)
    with place.open() as store:
        store.write(lambda w: touch(w, "old"))
    backup = str(tmp_path / "b")
    assert place.run(monkeypatch, "backup", backup) == 0
    assert place.run(monkeypatch, "backup", backup) == 5
    assert "exists already" in capsys.readouterr().err
    with place.open() as store:
        store.write(lambda w: touch(w, "newer"))
    assert place.run(monkeypatch, "restore", backup) == 5
    assert "--force" in capsys.readouterr().err
    assert place.run(monkeypatch, "restore", backup, "--force", "--json") == 0
    aside = json.loads(capsys.readouterr().out)["set_aside"]
    with place.open() as store:
        assert [line.job.spec.key for line in store.read(job_queue.listing)] == ["old"]
    if engine == "file":
        with Store.open(aside, SystemClock()) as store:
            assert len(store.read(job_queue.listing)) == 2
    else:
        with server.server().admin("backup_1") as raw:
            assert raw.execute(f"SELECT count(*) FROM {aside}.jobs").fetchone() == (2,)


def test_nothing_is_restored_under_a_running_coordinator(
    places: Callable[[str], Place],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks if the store is changed beneath a coordinator at work."""
    file, on_server = places("file"), places("postgres")
    backup = str(tmp_path / "b")
    with file.open() as store:
        store.write(lambda w: touch(w, "one"))
    assert file.run(monkeypatch, "backup", backup) == 0
    with only_coordinator(file.folder):
        assert file.run(monkeypatch, "restore", backup, "--force") == 5
    assert "a coordinator works on" in capsys.readouterr().err
    with on_server.open() as store:
        epoch = store.write(lambda w: leases.take_role(w, "coordinator", "process 7", 60))
        assert on_server.run(monkeypatch, "restore", backup, "--force") == 5
        assert "held by process 7" in capsys.readouterr().err
        store.write(lambda w: leases.release_role(w, "coordinator", epoch))
    assert on_server.run(monkeypatch, "restore", backup, "--force") == 0


def spoil(path: Path, at: int, words: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at, 0 if at >= 0 else 2)
        stream.write(words)


def test_a_damaged_backup_is_refused_and_changes_nothing(
    places: Callable[[str], Place],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks if a backup with a flipped byte, a missing file or an absurd manifest replaces a store."""
    place = places("postgres")
    with place.open() as store:
        fill(store)
        before = store.read(everything)
    damages: dict[str, Callable[[Path], object]] = {
        "flipped": lambda b: spoil(b / "jobs.jsonl", 5, b"~"),
        "missing": lambda b: (b / "jobs.jsonl").unlink(),
        "manifest": lambda b: (b / "manifest.json").write_text("[]"),
        "escape": lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace("jobs.jsonl", "../jobs.jsonl")
        ),
        "later": lambda b: (b / "manifest.json").write_text(
            (b / "manifest.json").read_text().replace('"format": 1', '"format": 2')
        ),
        "none": lambda b: (b / "manifest.json").unlink(),
    }
    for name, damage in damages.items():
        backup = tmp_path / name
        assert place.run(monkeypatch, "backup", str(backup)) == 0
        damage(backup)
        capsys.readouterr()
        assert place.run(monkeypatch, "restore", str(backup), "--force") in {1, 5}, name
        words = capsys.readouterr().err
        assert "error: " in words
        assert "hint: " in words
    with place.open() as store:
        assert store.read(everything) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: spoil(path, 0, b"\xff" * 40),
        lambda path: spoil(path, 4096 * 6, b"\x5a" * 4096 * 12),
        lambda path: path.write_bytes(path.read_bytes()[: 4096 * 9]),
        lambda path: path.write_bytes(path.read_bytes()[:50]),
    ],
    ids=["header", "middle", "cut short", "nearly nothing"],
)
def test_a_damaged_store_is_named_with_the_way_back(
    damage: Callable[[Path], object], places: Callable[[str], Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Breaks if damage is a trace, passes for sound, or gets into a backup; or the backup does not help."""
    place = places("file")
    with place.open() as store:
        rig = fill(store)
        for n in range(150):
            rig.job(key=f"k{n}")
    assert place.run(monkeypatch, "backup", str(tmp_path / "good")) == 0
    damage(place.folder / "gamekeeper.db")
    capsys.readouterr()
    assert place.run(monkeypatch, "check") == 1
    words = capsys.readouterr().err
    assert "restore" in words
    assert "Traceback" not in words
    assert place.run(monkeypatch, "backup", str(tmp_path / "bad")) == 1
    assert not (tmp_path / "bad").exists()
    assert "restore" in capsys.readouterr().err
    assert place.run(monkeypatch, "restore", str(tmp_path / "good"), "--force") == 0
    assert place.run(monkeypatch, "check") == 0


def test_garbage_in_the_log_is_not_taken_for_commits(
    places: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a write-ahead log with foreign bytes at its end spoils the store, or stops it from opening."""
    place = places("file")
    with place.open() as store:
        store.write(lambda w: touch(w, "one"))
        log = (place.folder / "gamekeeper.db-wal").read_bytes()
        (place.folder / "kept").write_bytes(log)
        content = (place.folder / "gamekeeper.db").read_bytes()
    (place.folder / "gamekeeper.db").write_bytes(content)
    (place.folder / "gamekeeper.db-wal").write_bytes(log + b"\xa5" * 9000)
    with place.open() as store:
        assert [line.job.spec.key for line in store.read(job_queue.listing)] == ["one"]
        assert store.read(integrity.check) == []
    assert place.run(monkeypatch, "check") == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_info_says_what_the_store_is(
    engine: str,
    places: Callable[[str], Place],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks if nobody can tell which store a command would work on, or a secret is shown."""
    place = places(engine)
    with place.open() as store:
        fill(store)
        store.write(lambda w: leases.take_role(w, "coordinator", "process 7", 60))
    assert place.run(monkeypatch, "info", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"]["jobs"] == 5
    assert told["roles"][0]["holder"] == "process 7"
    assert told["engine"] == ("sqlite" if engine == "file" else "postgresql")
    assert place.run(monkeypatch, "info") == 0
    assert "role coordinator: process 7" in capsys.readouterr().out
