"""PostgreSQL fails in every way it can: what was acknowledged stays, the rest never was, and the store goes on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg
import pytest

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import Busy, GamekeeperError, NotAllowed, StorageFull, UsageError
from gamekeeper.core.jobs import AttemptState, EndReason
from gamekeeper.store import event_log, integrity, job_queue, places
from gamekeeper.store.engine import PostgresStore, Store
from gamekeeper.store.postgres import PostgresLink
from gamekeeper.store.server_errors import said_by_server
from gamekeeper.store.session import Reading, Writing
from tests.unit.store import server
from tests.unit.store.rig import Rig, TurnedClock, touch
from tests.waiting import until


@pytest.fixture
def url() -> Iterator[str]:
    place = server.fresh()
    yield place
    server.release(place)


def keys(store: Store) -> set[str | None]:
    return {line.job.spec.key for line in store.read(lambda r: job_queue.listing(r, limit=1000))}


def cut(store: PostgresStore, url: str) -> None:
    """Let the server end the writer's connection."""
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute("SELECT pg_terminate_backend(%s)", (store._link.backend,))


def test_a_connection_cut_amid_a_write_undoes_it_and_is_made_again(url: str) -> None:
    """Breaks if half a transaction stays, the caller is told it may be there, or the store stays deaf."""
    with PostgresStore(url, SystemClock()) as store:
        store.write(lambda w: touch(w, "before"))

        def write(w: Writing) -> None:
            touch(w, "lost")
            cut(store, url)
            touch(w, "too")

        with pytest.raises(Busy, match="lost before a commit") as caught:
            store.write(write)
        assert "nothing was written" in caught.value.remedy
        store.write(lambda w: touch(w, "after"))
        assert keys(store) == {"before", "after"}


def test_a_connection_cut_while_idle_is_not_noticed(url: str) -> None:
    """Breaks if a restart of the server between two calls costs a caller its call."""
    with PostgresStore(url, SystemClock()) as store:
        store.write(lambda w: touch(w, "one"))
        assert keys(store) == {"one"}
        with psycopg.connect(url, autocommit=True) as raw:
            raw.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        store.write(lambda w: touch(w, "two"))
        assert keys(store) == {"one", "two"}


def test_one_callers_lost_connection_fails_its_whole_group_alike(url: str) -> None:
    """Breaks if a caller whose savepoint was done is told of success though the commit never came."""
    with PostgresStore(url, SystemClock()) as store, ThreadPoolExecutor(4) as pool:

        def hold(w: Writing) -> None:
            until(lambda: store.waiting() >= 2)

        def break_off(w: Writing) -> None:
            cut(store, url)
            touch(w, "x")

        first = pool.submit(store.write, hold)
        until(lambda: store._link.in_transaction)
        done = pool.submit(store.write, lambda w: touch(w, "done in vain"))
        until(lambda: store.waiting() >= 1)
        breaks = pool.submit(store.write, break_off)
        first.result(20)
        for each in (done, breaks):
            with pytest.raises(Busy):
                each.result(20)
        assert keys(store) == set()


def test_a_server_that_restarts_loses_nothing_acknowledged(url: str) -> None:
    """Breaks if an acknowledged write is gone after a crash of the server, or callers are not told to come again."""
    here = server.server()
    with PostgresStore(url, SystemClock()) as store:
        for n in range(20):
            store.write(partial(touch, key=str(n)))
        here.stop()
        try:
            with pytest.raises(Busy) as caught:
                store.write(lambda w: touch(w, "while it is away"))
            assert caught.value.retry_after_s > 0
            with pytest.raises(Busy):
                keys(store)
        finally:
            here.start()

        def again() -> bool:
            try:
                store.write(lambda w: touch(w, "back"))
            except Busy:
                return False
            return True

        until(again)
        assert keys(store) == {*map(str, range(20)), "back"}
        assert store.read(integrity.check) == []


# --- simulated crashes at every statement and every commit


@dataclass
class Faulty:
    """Cuts the connection before the n-th thing that is sent, or after the n-th commit was carried out."""

    at: int
    after_commit: bool = False
    sent: int = 0
    commits: int = 0
    struck: bool = False
    words: list[str] = field(default_factory=list)

    def install(self, link: PostgresLink, monkeypatch: pytest.MonkeyPatch) -> None:
        plain_send, plain_ready = link._send, link._ready

        def send(words: str) -> bytes:
            commit = words.endswith("COMMIT")
            if not self.after_commit:
                self._strike_if_due(link, words)
            answer = plain_send(words)
            if commit:
                self.commits += 1
                if self.after_commit and self.commits == self.at:
                    self.struck = True
                    assert link._raw is not None
                    link._raw.close()
                    raise psycopg.OperationalError("the answer to the commit was lost")
            return answer

        def ready() -> Any:
            cursor = plain_ready()
            if not self.after_commit:
                self._strike_if_due(link, "statement")
            return cursor

        monkeypatch.setattr(link, "_send", send)
        monkeypatch.setattr(link, "_ready", ready)

    def _strike_if_due(self, link: PostgresLink, words: str) -> None:
        self.sent += 1
        if self.sent == self.at:
            self.struck = True
            self._cut(link)

    def _cut(self, link: PostgresLink) -> None:
        assert link._raw is not None
        with server.server().admin() as raw:
            raw.execute("SELECT pg_terminate_backend(%s)", (link._raw.info.backend_pid,))


def steps(rig: Rig) -> list[Callable[[], object]]:
    """A job's whole life, each step a write of its own that may be repeated."""
    memory: dict[str, Any] = {}

    def enrol() -> None:
        memory["node"] = memory.get("node") or rig.node()

    def connect() -> None:
        rig.connect(memory["node"], "agent")

    def submit() -> None:
        memory["job"] = rig.w(lambda w: touch(w, "key"))

    def grant() -> None:
        live = rig.r(job_queue.live_attempts)
        memory["attempt"] = (
            live[0] if live else rig.w(job_queue.grant, memory["job"], memory["node"], "agent")
        )

    def publish() -> None:
        rig.publish(memory["attempt"], 1)

    def finish() -> None:
        one = memory["attempt"]
        rig.w(job_queue.finish, one.id, one.token, AttemptState.SUCCEEDED, EndReason.FINISHED)

    return [enrol, connect, submit, grant, publish, finish]


def live_through(url: str, faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run all steps, each until it is acknowledged: what people were told meanwhile."""
    clock, told = TurnedClock(), []
    with server.open_store(url, clock) as store:
        rig = Rig(store, clock)
        faulty.install(store._link, monkeypatch)
        for step in steps(rig):
            for _ in range(3):
                try:
                    step()
                    break
                except Busy as error:
                    told.append(error.message)
                    clock.seconds += 1
            else:
                raise AssertionError(f"{step.__name__} never came through: {told}")
        rig.check()
        assert [one.state for one in rig.r(job_queue.attempts_of, 1)] == [AttemptState.SUCCEEDED]
        events = [each.event.name for each in rig.r(event_log.after, 0, 100)]
        for once in ("job-submitted", "attempt-leased", "artifact-accepted", "attempt-ended"):
            assert events.count(once) == 1, events
    return told


def test_a_cut_before_any_statement_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if losing the connection at any one point loses or doubles what was done, or is not got over."""
    at, struck = 1, 0
    while True:
        faulty, url = Faulty(at), server.fresh()
        with monkeypatch.context() as patches:
            told = live_through(url, faulty, patches)
        server.release(url)
        if not faulty.struck:
            break
        struck += 1
        assert len(told) <= 1
        at += 1
    assert struck > 40, "every statement and every commit was a place to fail at"


def test_a_lost_answer_to_any_commit_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a commit whose answer was lost is told as undone, or repeating the call does it twice."""
    at = 1
    while True:
        faulty, url = Faulty(at, after_commit=True), server.fresh()
        with monkeypatch.context() as patches:
            told = live_through(url, faulty, patches)
        server.release(url)
        if not faulty.struck:
            break
        assert [re.search("whether it was applied is unknown", words) is not None for words in told] == [True]
        at += 1
    assert at > 5


# --- words


def test_secrets_are_in_no_message() -> None:
    """Breaks if a password can be read in an error, a name or a representation."""
    secret = "pass%40word"
    addresses = [
        f"postgresql://me:{secret}@127.0.0.1:1/db",
        f"postgresql://me:{secret}@127.0.0.1:1/db?sslmode=nonsense",
        f"postgresql://me:{secret}@127.0.0.1:port/db",
        f"postgresql://me:{secret}%zz@127.0.0.1:1/db",
        f"postgresql://me:{secret}@[::1/db",
    ]
    for url in addresses:
        with pytest.raises(GamekeeperError) as caught:
            PostgresStore(url, SystemClock())
        shown = f"{caught.value.message} {caught.value.remedy} {caught.value!r} {places.shown(url)}"
        assert "pass" not in shown.replace("PGPASSWORD", "").replace(".pgpass", "").replace("password", "")
        assert "postgresql://" in caught.value.message
        assert caught.value.remedy


def test_a_server_that_cannot_be_used_is_named_with_the_remedy() -> None:
    """Breaks if a missing database, user or server is a trace, or all sound alike."""
    here = server.server().url()
    with pytest.raises(UsageError, match="does not exist") as caught:
        PostgresStore(server.server().url("nowhere"), SystemClock())
    assert "createdb" in caught.value.remedy
    with pytest.raises(NotAllowed, match="does not let us in"):
        PostgresStore(here.replace("postgres:@", "stranger:@"), SystemClock())
    with pytest.raises(Busy, match="does not answer"):
        PostgresStore("postgresql://me@127.0.0.1:1/db", SystemClock())


def test_every_error_of_the_server_has_its_words() -> None:
    """Breaks if an error of operation is told as a fault of the program, or the other way round."""
    cases: dict[type[psycopg.Error], type[GamekeeperError] | None] = {
        psycopg.errors.DiskFull: StorageFull, psycopg.errors.DeadlockDetected: Busy,
        psycopg.errors.SerializationFailure: Busy, psycopg.errors.LockNotAvailable: Busy,
        psycopg.errors.AdminShutdown: Busy, psycopg.errors.TooManyConnections: Busy,
        psycopg.errors.ReadOnlySqlTransaction: NotAllowed, psycopg.errors.InsufficientPrivilege: NotAllowed,
        psycopg.errors.UntranslatableCharacter: UsageError, psycopg.errors.UndefinedColumn: None,
        psycopg.errors.UniqueViolation: None, psycopg.errors.CheckViolation: None,
    }  # fmt: skip
    for kind, wanted in cases.items():
        found = said_by_server(kind("words"), "postgresql://x")
        assert (None if found is None else type(found)) is wanted, kind


def test_a_read_only_server_is_told_as_such(url: str) -> None:
    """Breaks if a replica is taken for the primary, or its refusal for damage."""
    with psycopg.connect(url, autocommit=True) as raw:
        name = raw.info.dbname
        raw.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    try:
        with pytest.raises(NotAllowed, match="may not be written"):
            PostgresStore(url, SystemClock())
    finally:
        with psycopg.connect(url, autocommit=True) as raw:
            raw.execute("SET default_transaction_read_only = off")
            raw.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")


def test_an_error_passed_over_harms_only_its_caller(url: str) -> None:
    """Breaks if a statement's error that its caller swallowed fails the others of the group, or is told as success."""
    with PostgresStore(url, SystemClock()) as store, ThreadPoolExecutor(3) as pool:

        def swallow(w: Writing) -> None:
            touch(w, "swallowed")
            with pytest.raises(psycopg.Error):
                store._link.rows("SELECT 1/0", ())

        def hold(w: Writing) -> None:
            until(lambda: store.waiting() >= 2)

        held = pool.submit(store.write, hold)
        until(lambda: store._link.in_transaction)
        bad = pool.submit(store.write, swallow)
        until(lambda: store.waiting() >= 1)
        good = pool.submit(store.write, lambda w: touch(w, "good"))
        held.result(20)
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            bad.result(20)
        good.result(20)
        assert keys(store) == {"good"}


def test_reads_do_not_see_what_is_written_meanwhile(url: str) -> None:
    """Breaks if a view mixes two states of the store."""
    with PostgresStore(url, SystemClock()) as store:
        store.write(lambda w: touch(w, "one"))

        def look(r: Reading) -> tuple[int, int]:
            before = len(job_queue.listing(r))
            store.write(lambda w: touch(w, "two"))
            return before, len(job_queue.listing(r))

        assert store.read(look) == (1, 1)
        assert len(keys(store)) == 2
