"""Several processes on one PostgreSQL: what one does under a role, and what happens when another takes it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import Busy, RoleHeld, StaleToken
from gamekeeper.runtime.executor import RoleLost, check_role
from gamekeeper.store import event_log, integrity, leases
from gamekeeper.store.engine import PostgresStore
from gamekeeper.store.session import Reading, Writing
from tests.unit.store import server
from tests.unit.store.rig import touch
from tests.waiting import until

ROLE = "coordinator"


@pytest.fixture
def url() -> Iterator[str]:
    place = server.fresh()
    yield place
    server.release(place)


@pytest.fixture
def pair(url: str) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """Two processes' worth of stores on one database."""
    with PostgresStore(url, SystemClock(), idle_s=1.0) as one, PostgresStore(url, SystemClock()) as two:
        yield one, two


def test_a_role_cannot_be_taken_between_the_check_and_its_effects(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    """Breaks if a deposed leader's transaction commits after the new one has begun to act."""
    one, two = pair
    epoch = one.write(lambda w: leases.take_role(w, ROLE, "one", 30))
    checked, go = threading.Event(), threading.Event()

    def effect(w: Writing) -> None:
        check_role(w, ROLE, epoch)
        checked.set()
        assert go.wait(10)
        touch(w, "of one")

    with ThreadPoolExecutor(2) as pool:
        effecting = pool.submit(one.write, effect)
        assert checked.wait(10)
        taking = pool.submit(two.write, lambda w: leases.take_role(w, ROLE, "two", 30, displace=True))
        until(lambda: _waits_for_lock(two))
        assert not taking.done()
        go.set()
        effecting.result(10)
        assert taking.result(10) > epoch

    def again(w: Writing) -> None:
        check_role(w, ROLE, epoch)
        touch(w, "too late")

    with pytest.raises(RoleLost):
        one.write(again)
    names = [each.event.name for each in two.read(lambda r: event_log.newest(r, 10))]
    assert names == ["coordinator-started", "job-submitted", "coordinator-started"]


def _waits_for_lock(store: PostgresStore) -> bool:
    def look(r: Reading) -> int:
        words = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return int(r.conn.exec_driver_sql(words).scalar() or 0)

    return store.read(look) > 0


def test_a_leader_that_falls_silent_amid_a_write_holds_nobody_up(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    """Breaks if a paused process keeps its locks, so that nobody can take over from it."""
    one, two = pair
    epoch = one.write(lambda w: leases.take_role(w, ROLE, "one", 1))
    silent, go = threading.Event(), threading.Event()

    def pause(w: Writing) -> None:
        check_role(w, ROLE, epoch)
        touch(w, "half done")
        silent.set()
        assert go.wait(20)
        touch(w, "after the pause")

    with ThreadPoolExecutor(1) as pool:
        paused = pool.submit(one.write, pause)
        assert silent.wait(10)
        later = two.write(lambda w: leases.take_role(w, ROLE, "two", 30, displace=True))
        go.set()
        with pytest.raises(Busy, match="lost"):
            paused.result(10)
    assert later > epoch
    with pytest.raises(StaleToken):
        one.write(lambda w: leases.renew_role(w, ROLE, epoch, 30))
    assert [each.event.name for each in two.read(lambda r: event_log.newest(r, 10))] == [
        "coordinator-started"
    ] * 2


def test_of_many_that_take_a_free_role_one_gets_it(url: str) -> None:
    """Breaks if two processes that start at once both become leader."""
    stores = [PostgresStore(url, SystemClock()) for _ in range(4)]
    gate = threading.Barrier(4, timeout=20)

    def take(store: PostgresStore) -> int:
        gate.wait()
        try:
            return store.write(lambda w: leases.take_role(w, ROLE, "me", 30))
        except RoleHeld:
            return 0

    with ThreadPoolExecutor(4) as pool:
        epochs = list(pool.map(take, stores))
    for store in stores:
        store.close()
    assert len([epoch for epoch in epochs if epoch]) == 1


def test_positions_have_no_gap_and_ids_come_in_commit_order(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    """Breaks if two writing processes leave a gap in the log, or one event is visible before an earlier one."""
    pair[0].write(lambda w: touch(w, "first of its class"))
    seen: list[int] = []
    stop = threading.Event()

    def write(store: PostgresStore, name: str) -> None:
        for n in range(40):
            store.write(lambda w, n=n: touch(w, f"{name}{n}"))  # type: ignore[misc]

    def follow() -> None:
        while not stop.is_set():
            last = seen[-1] if seen else 0
            seen.extend(
                each.position for each in pair[0].read(partial(event_log.after, position=last, limit=100))
            )

    with ThreadPoolExecutor(3) as pool:
        following = pool.submit(follow)
        writing = [pool.submit(write, store, str(at)) for at, store in enumerate(pair)]
        try:
            for each in writing:
                each.result(60)
            until(lambda: len(seen) >= 81)
        finally:
            stop.set()
        following.result(60)
    assert seen == list(range(1, 82))
    assert pair[0].read(integrity.check) == []


def test_the_stores_time_is_the_databases(url: str) -> None:
    """Breaks if two coordinators whose clocks differ disagree about when a lease ends."""

    class Skewed(SystemClock):
        def now(self) -> float:
            return super().now() + 3600

    with PostgresStore(url, Skewed()) as fast, PostgresStore(url, SystemClock()) as right:
        times = [fast.read(lambda r: r.now), right.write(lambda w: w.now), fast.write(lambda w: w.now)]
        assert times == sorted(times)
        assert times[-1] - times[0] < 60
        assert abs(fast.clock.now() - right.clock.now()) < 60


def test_a_commit_with_work_is_heard_of_by_other_processes_only(
    pair: tuple[PostgresStore, PostgresStore],
) -> None:
    """Breaks if another process's work is found by the timer alone, or every commit of our own wakes us."""
    heard = [0, 0]

    def hear(which: int) -> None:
        heard[which] += 1

    for which, store in enumerate(pair):
        store.listen(lambda which=which: hear(which))  # type: ignore[misc]
    until(lambda: heard == [1, 1])
    pair[0].write(lambda w: touch(w, "work"))
    until(lambda: heard[1] == 2)
    pair[0].write(lambda w: w.next_token())
    pair[1].write(lambda w: touch(w, "more"))
    until(lambda: heard[0] == 2)
    assert heard == [2, 2]
