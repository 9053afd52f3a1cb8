"""Reads and writes: isolation, group commit, errors, and what happens when the file cannot be used."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gamekeeper.core.errors import (
    Busy,
    Corrupt,
    NotAllowed,
    Refused,
    StorageFull,
    UsageError,
)
from gamekeeper.core.events import NodeLost
from gamekeeper.store import controls, event_log, integrity, job_queue, writer
from gamekeeper.store.engine import FileStore, Store
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.statements import sql
from tests.unit.store.rig import VIOLATED, WRONG, Rig, TurnedClock, everything, spec, touch
from tests.waiting import until

_BREAK = sql("UPDATE jobs SET state = 'nonsense'")
_DELETE = sql("DELETE FROM controls")
_WRONG = sql("SELECT absent FROM jobs")


def keys(r: Reading) -> set[str | None]:
    """The keys of all jobs."""
    return {line.job.spec.key for line in job_queue.listing(r, limit=10_000)}


def open_file(folder: Path) -> FileStore:
    store = Store.open(folder / "gamekeeper.db", TurnedClock())
    assert isinstance(store, FileStore)
    return store


def test_an_error_undoes_all_of_its_write_and_reaches_its_caller(rig: Rig) -> None:
    """Breaks if part of a failed write stays, or its error gets lost."""
    rig.job(key="before")
    before = rig.store.read(everything)

    def fails(w: Writing) -> None:
        touch(w, "never")
        w.emit(NodeLost("n"))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        rig.store.write(fails)
    assert rig.store.read(everything) == before
    rig.job(key="after")
    assert rig.store.read(keys) == {"before", "after"}


def test_the_database_checks_states_itself(rig: Rig) -> None:
    """Breaks if a state outside the vocabulary can be stored."""
    rig.job()
    with pytest.raises(VIOLATED, match=r"known_state|ended_when_final"):
        rig.store.write(lambda w: w.run(_BREAK))


def test_a_savepoint_undoes_only_what_is_inside(rig: Rig) -> None:
    """Breaks if a failed action inside a decision takes the others with it, or leaves its events."""

    def three(w: Writing) -> None:
        touch(w, "one")
        try:
            with w.savepoint():
                touch(w, "two")
                with w.savepoint():
                    touch(w, "three")
                raise Refused("no")
        except Refused:
            touch(w, "four")

    rig.store.write(three)
    assert rig.store.read(keys) == {"one", "four"}
    assert len(rig.r(event_log.after, 0, 10)) == 2


def test_a_read_cannot_write(rig: Rig) -> None:
    """Breaks if a view changes what it looks at."""
    with pytest.raises(NotAllowed, match="may not be written"):
        rig.store.read(lambda r: Writing.run(r, _DELETE))  # type: ignore[arg-type]
    rig.job()


def test_a_read_sees_one_snapshot(tmp_path: Path) -> None:
    """Breaks if a view mixes two states of the store."""
    with open_file(tmp_path) as store:
        store.write(lambda w: touch(w, "one"))

        def look(r: Reading) -> tuple[set[str | None], set[str | None]]:
            first = keys(r)
            store.write(lambda w: touch(w, "two"))
            return first, keys(r)

        assert store.read(look) == ({"one"}, {"one"})
        assert store.read(keys) == {"one", "two"}


def test_a_caller_sees_its_own_write(rig: Rig) -> None:
    """Breaks if a result is handed out before the commit that others can see."""
    for n in range(20):
        rig.store.write(partial(touch, key=str(n)))
        assert str(n) in rig.store.read(keys)


def test_transactions_do_not_nest(rig: Rig) -> None:
    """Breaks if a write inside a write hangs, or a nested one is committed apart."""
    with pytest.raises(RuntimeError):
        rig.store.write(lambda _: rig.store.write(lambda w: touch(w, "inner")))
    rig.job(key="after")
    assert rig.store.read(keys) == {"after"}


def test_the_async_face_means_the_same(rig: Rig) -> None:
    """Breaks if awaiting a read or write loses results or errors."""

    async def talk() -> set[str | None]:
        await asyncio.gather(*(rig.store.awrite(partial(touch, key=str(n))) for n in range(30)))
        with pytest.raises(UsageError):
            await rig.store.awrite(lambda w: job_queue.submit(w, spec(seed=2**70)))
        return await rig.store.aread(keys)

    assert asyncio.run(talk()) == {str(n) for n in range(30)}


def test_a_cancelled_caller_that_waits_writes_nothing(tmp_path: Path) -> None:
    """Breaks if a request that was given up before its turn is still executed."""
    entered, go = threading.Event(), threading.Event()

    def hold(w: Writing) -> None:
        entered.set()
        assert go.wait(10)

    async def talk(store: FileStore) -> None:
        blocker = asyncio.ensure_future(store.awrite(hold))
        assert await asyncio.to_thread(entered.wait, 10)
        given_up = asyncio.ensure_future(store.awrite(lambda w: touch(w, "given up")))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        go.set()
        await blocker

    with open_file(tmp_path) as store:
        asyncio.run(talk(store))
        assert store.read(keys) == set()


def test_many_callers_share_a_commit_and_no_error_harms_another(tmp_path: Path) -> None:
    """Breaks if group commit loses a write, mixes up results, lets one error spread, or commits one by one."""
    with open_file(tmp_path) as store:
        entered, go = threading.Event(), threading.Event()

        def hold(w: Writing) -> None:
            entered.set()
            assert go.wait(10)

        def work(n: int) -> str:
            def write(w: Writing) -> str:
                job_id = touch(w, str(n))
                if n % 3 == 0:
                    raise Refused(f"no {n}")
                if n % 3 == 1 and n % 2:
                    w.run(_BREAK)
                return f"{n}:{job_id}"

            result = store.write(write)
            assert str(n) in store.read(keys)
            return result

        with ThreadPoolExecutor(32) as pool:
            blocker = pool.submit(store.write, hold)
            assert entered.wait(10)
            before = store.commits
            futures = {n: pool.submit(work, n) for n in range(24)}
            until(lambda: store.waiting() >= 24)
            go.set()
            blocker.result()
            expected = set()
            for n, future in futures.items():
                if n % 3 == 0:
                    with pytest.raises(Refused, match=f"no {n}$"):
                        future.result()
                elif n % 3 == 1 and n % 2:
                    with pytest.raises(sqlite3.IntegrityError):
                        future.result()
                else:
                    assert future.result().startswith(f"{n}:")
                    expected.add(str(n))
        assert store.read(keys) == expected
        assert store.commits - before <= 3
        assert store.read(integrity.check) == []


def test_closing_serves_what_waits_and_refuses_what_comes_later(tmp_path: Path) -> None:
    """Breaks if an accepted write is dropped at the end, or a closed store hangs its callers."""
    store = open_file(tmp_path)
    futures = [store._submit(partial(touch, key=str(n))) for n in range(50)]
    store.close()
    assert all(future.done() for future in futures)
    for call in (lambda: store.write(lambda w: touch(w, "x")), lambda: store.read(keys)):
        with pytest.raises(Refused, match="is closed"):
            call()
    store.close()
    with open_file(tmp_path) as again:
        assert again.read(keys) == {str(n) for n in range(50)}


def test_a_closed_store_in_memory_is_closed(rig: Rig) -> None:
    """Breaks if a closed store answers from freed memory."""
    store = Store.open(":memory:", TurnedClock())
    store.close()
    store.close()
    with pytest.raises(Refused, match="is closed"):
        store.read(keys)


def test_a_store_outlives_its_process(tmp_path: Path) -> None:
    """Breaks if what was acknowledged is gone after a reopen, or tokens start again."""
    with open_file(tmp_path) as store:
        token = store.write(lambda w: w.next_token())
        store.write(lambda w: controls.set_value(w, "phase", "turning"))
    with open_file(tmp_path) as store:
        assert store.write(lambda w: w.next_token()) > token
        assert store.read(lambda r: controls.value(r, "phase")) == "turning"
        assert store.read(lambda r: controls.value(r, "none")) is None


def test_every_connection_is_durable_and_checks_references(tmp_path: Path) -> None:
    """Breaks if the store runs without flush, write-ahead log or foreign keys."""
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}

    def pragmas(r: Reading) -> dict[str, Any]:
        return {name: r.conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted}

    with open_file(tmp_path) as store:
        assert store.read(pragmas) == wanted
        assert store.write(pragmas) == wanted


def test_sqlalchemy_cannot_end_the_transaction(rig: Rig) -> None:
    """Breaks if a query through SQLAlchemy's connection commits or rolls back what the store has begun."""

    def write(w: Writing) -> None:
        touch(w, "one")
        w.conn.exec_driver_sql("SELECT 1")
        w.conn.commit()
        w.conn.rollback()
        touch(w, "two")
        raise Refused("no")

    with pytest.raises(Refused):
        rig.store.write(write)
    assert rig.store.read(keys) == set()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Breaks if damage is an unreadable trace, or is overwritten."""
    path = tmp_path / "gamekeeper.db"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match=r"gamekeeper\.db") as caught:
        Store.open(path, TurnedClock())
    assert "backup" in caught.value.remedy
    assert path.read_bytes() == content


def test_damage_inside_is_named_when_it_is_met(tmp_path: Path) -> None:
    """Breaks if a damaged page passes for a fault of the program."""
    with open_file(tmp_path) as store:
        for n in range(200):
            store.write(partial(touch, key=str(n)))
    path = tmp_path / "gamekeeper.db"
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\x5a" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises(Corrupt), open_file(tmp_path) as store:
        store.read(keys)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """Breaks if our tables are written into somebody else's file."""
    path = tmp_path / "gamekeeper.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(Refused, match="another program") as caught:
        Store.open(path, TurnedClock())
    assert caught.value.remedy
    assert path.read_bytes() == before


@pytest.mark.parametrize("where", ["missing/gamekeeper.db", "."])
def test_a_place_where_no_store_can_be_is_named(tmp_path: Path, where: str) -> None:
    """Breaks if a missing folder is made in silence, or a folder is taken for a file."""
    with pytest.raises(UsageError, match="cannot be opened") as caught:
        Store.open(tmp_path / where, TurnedClock())
    assert caught.value.remedy


def test_a_folder_without_write_access_is_named(tmp_path: Path) -> None:
    """Breaks if lacking rights end in a trace instead of a remedy."""
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            # Root writes anywhere; a folder that is a device file refuses even root.
            with pytest.raises(UsageError):
                Store.open("/proc/gamekeeper.db", TurnedClock())
            return
        with pytest.raises(UsageError, match="cannot be opened"):
            Store.open(folder / "gamekeeper.db", TurnedClock())
    finally:
        folder.chmod(0o700)


def test_more_callers_than_a_commit_takes(tmp_path: Path) -> None:
    """Breaks if requests beyond the size of one group are dropped or never served."""
    with open_file(tmp_path) as store:
        futures = [store._submit(partial(touch, key=str(n))) for n in range(writer.BATCH_MAX + 50)]
        assert len({future.result(30) for future in futures}) == len(futures)


def test_more_readers_than_connections_are_kept(tmp_path: Path) -> None:
    """Breaks if many readers at once wait for one another, or leave connections open."""
    readers = 9
    gate = threading.Barrier(readers, timeout=10)

    def look(r: Reading) -> int:
        gate.wait()
        return len(keys(r))

    with open_file(tmp_path) as store:
        store.write(lambda w: touch(w, "one"))
        with ThreadPoolExecutor(readers) as pool:
            assert list(pool.map(lambda _: store.read(look), range(readers))) == [1] * readers
        assert len(store._idle) <= readers // 2


def test_a_wrong_query_is_a_fault_of_the_program(rig: Rig) -> None:
    """Breaks if a programming error is told to the user as a full disk or a damaged file."""
    with pytest.raises(WRONG, match="absent"):
        rig.store.read(lambda r: r.rows(_WRONG))
    with pytest.raises(WRONG, match="absent"):
        rig.store.write(lambda w: w.rows(_WRONG))


def test_a_full_disk_fails_its_write_and_nothing_else(tmp_path: Path) -> None:
    """Breaks if running out of room corrupts the store, is acknowledged, or cannot be got over."""
    with open_file(tmp_path) as store:
        store.write(lambda w: touch(w, "before"))
        raw = store._link.raw
        pages = raw.execute("PRAGMA page_count").fetchone()[0]
        raw.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull, match="cannot be written") as caught:
            store.write(lambda w: job_queue.submit(w, spec(key="big", parameters={"x": "y" * 1_000_000})))
        assert "disk" in caught.value.remedy
        assert store.read(keys) == {"before"}
        raw.execute("PRAGMA max_page_count = 1000000")
        store.write(lambda w: touch(w, "after"))
        assert store.read(keys) == {"before", "after"}
        assert store.read(integrity.check) == []


def test_a_foreign_lock_is_busy_and_passes(tmp_path: Path) -> None:
    """Breaks if another program's lock hangs the store for good or looks like damage."""
    with open_file(tmp_path) as store:
        store._link.raw.execute("PRAGMA busy_timeout = 1")
        other = sqlite3.connect(tmp_path / "gamekeeper.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(Busy, match="locked by another process") as caught:
                store.write(lambda w: touch(w, "x"))
            assert caught.value.retry_after_s > 0
        finally:
            other.execute("ROLLBACK")
            other.close()
        store.write(lambda w: touch(w, "y"))
        assert store.read(keys) == {"y"}


def test_a_caller_that_ends_the_transaction_itself_harms_nobody_in_silence(tmp_path: Path) -> None:
    """Breaks if a stray COMMIT inside a write passes unnoticed."""
    with open_file(tmp_path) as store:
        with pytest.raises(sqlite3.OperationalError):
            store.write(lambda w: store._link.raw.execute("COMMIT"))
        store.write(lambda w: touch(w, "after"))
        assert store.read(keys) == {"after"}
