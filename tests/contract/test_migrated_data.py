"""Stores of every earlier schema, with rows in every table, brought to the newest on both engines: nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, Table

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import Refused
from gamekeeper.core.jobs import JobState
from gamekeeper.store import integrity, job_queue, migration, schema
from gamekeeper.store.engine import PostgresStore, Store
from gamekeeper.store.postgres import PostgresLink, Server
from gamekeeper.store.session import Link
from gamekeeper.store.sqlite import APPLICATION_ID, SqliteLink
from tests.unit.store import server
from tests.unit.store.rig import TurnedClock, spec

FIRST = "0001"
Rows = dict[str, list[dict[str, Any]]]
HASH = "ab" * 32


def rows_of_first() -> Rows:
    """Rows for every table of the first schema, as a store in use would hold them."""
    return {**_rows_of_work(), **_rows_of_models()}


def _rows_of_work() -> Rows:
    job = {
        "kind": "selfplay", "line": "c4", "purpose": "", "job_key": None, "reason": "", "command": '["x"]',
        "parameters": "{}", "wanted": "{}", "inputs": "{}", "seed": -5, "grace_s": 10.0, "time_limit_s": None,
        "failures_allowed": 3, "losses_allowed": 10, "failures": 0, "losses": 0, "created_at": 1.5, "not_before": 1.5,
        "ended_at": None, "cancel_requested": 0,
    }  # fmt: skip
    attempt = {
        "node_id": "n-1", "incarnation": "i-1", "reason": None, "detail": "", "leased_at": 2.0, "seen_at": 3.0,
        "started_at": 2.5, "ended_at": None, "ended_here": 0, "boot_id": "b", "pid": 7, "start_ticks": 8, "units": 4,
        "note": "ä", "figures": "{}", "process_s": 0.5, "receipt": None,
    }  # fmt: skip
    return {
        "fence": [{"id": 1, "value": 9}],
        "tokens": [{"name": "admin", "hash": HASH, "set_at": 1.0}],
        "controls": [{"name": "phase", "value": "turning", "set_at": 1.0}],
        "roles": [{
            "role": "coordinator", "holder": "me", "epoch": 1, "taken_at": 1.0, "expires_at": 31.0, "released": 0,
        }],
        "nodes": [{
            "id": "n-1", "host_name": "h", "slots": 2, "status": "up", "credential_hash": HASH, "enrolled_at": 1.0,
            "last_seen_at": 3.0, "cpu_count": 4, "memory_bytes": 2**40, "disk_free_bytes": None, "load": 0.5,
            "observed_at": 3.0,
        }],
        "agent_leases": [
            {"node_id": "n-1", "incarnation": "i-1", "token": 2, "since": 1.0, "expires_at": 31.0, "reaped": 0}
        ],
        "incarnations": [{"incarnation": "i-1", "node_id": "n-1", "since": 1.0}],
        "jobs": [
            {**job, "id": 1, "state": "running"},
            {**job, "id": 2, "kind": "train", "state": "done", "job_key": "k", "ended_at": 5.0},
            {**job, "id": 3, "state": "ready", "purpose": "more"},
            {**job, "id": 4, "state": "cancelled", "ended_at": 4.0, "reason": "not wanted"},
        ],
        "attempts": [
            {**attempt, "id": 1, "job_id": 2, "token": 5, "state": "succeeded", "reason": "finished", "ended_at": 5.0,
             "process_s": 2.0, "receipt": "{}"},
            {**attempt, "id": 2, "job_id": 1, "token": 9, "state": "running"},
        ],
        "job_counts": [
            {"line": "c4", "kind": "selfplay", "purpose": "", "state": "running", "n": 1},
            {"line": "c4", "kind": "train", "purpose": "", "state": "done", "n": 1},
            {"line": "c4", "kind": "selfplay", "purpose": "more", "state": "ready", "n": 1},
            {"line": "c4", "kind": "selfplay", "purpose": "", "state": "cancelled", "n": 1},
        ],
        "attempt_counts": [{"line": "c4", "kind": "train", "state": "succeeded", "n": 1}],
        "slot_time": [{"node_id": "n-1", "first_leased_at": 2.0, "leased_s": 3.0, "process_s": 2.0, "attempts": 1}],
        "line_counts": [{"line": "c4", "kind": "model", "files": 1, "bytes": 10, "games": 0, "samples": 0}],
    }  # fmt: skip


def _rows_of_models() -> Rows:
    pair = {
        "line": "c4",
        "candidate_id": 1,
        "opponent": "random",
        "purpose": "canary",
        "job_id": 2,
        "attempt_id": 1,
    }
    verdict = {
        "decision_id": 1, "subject": "model/1", "policy": "promotion", "reason": "stronger", "sentence": "in words",
        "acted": 1, "evidence": "[]", "at": 6.0,
    }  # fmt: skip
    return {
        "artifacts": [{
            "id": 1, "hash": HASH, "kind": "model", "line": "c4", "name": "m", "bytes": 10, "games": 0, "samples": 0,
            "attempt_id": 1, "node_id": "n-1", "metadata": "{}", "created_at": 5.0,
        }],
        "artifact_sources": [{"attempt_id": 1, "artifact_id": 1}],
        "refusals": [{
            "id": 1, "attempt_id": 1, "hash": HASH, "kind": "shard", "name": "s", "bytes": 1, "problem": "nan",
            "detail": "", "refused_at": 4.0,
        }],
        "models": [{
            "id": 1, "line": "c4", "hash": HASH, "parent_id": None, "job_id": 2, "state": "promoted", "steps": 1,
            "samples": 2, "loss": 0.25, "created_at": 5.0, "decided_at": 6.0, "reason": "stronger", "decision_id": 1,
        }],
        "champions": [{"line": "c4", "model_id": 1, "generation": 0, "since": 6.0}],
        "decisions": [{"id": 1, "policy": "promotion", "decided_at": 6.0, "epoch": 1, "pinned": 1}],
        "decision_actions": [
            {"decision_id": 1, "ordinal": 0, "kind": "move", "fields": "{}", "outcome": "applied", "detail": ""}
        ],
        "verdicts": [{"id": 1, **verdict}],
        "current_verdicts": [{"band": "b", **verdict}],
        "decision_counts": [{"policy": "promotion", "kept": 0}],
        "promotions": [{
            "id": 1, "line": "c4", "generation": 0, "model_id": 1, "previous_id": None, "at": 6.0, "decision_id": 1,
            "pairs": "[]", "evidence": "[]",
        }],
        "pairs": [{"id": 1, **pair, "number": 0, "first": 1.0, "second": 0.5, "replay": HASH, "booked_at": 5.0}],
        "pair_counts": [{
            "candidate_id": 1, "opponent": "random", "purpose": "canary", "n0": 0, "n1": 0, "n2": 0, "n3": 1, "n4": 0,
            "duplicates": 0, "next_pair": 1,
        }],
        "events": [
            {"position": 1, "at": 1.0, "name": "settings-applied", "version": 1, "fields": '{"hash":"h"}'},
            {"position": 2, "at": 2.0, "name": "settings-applied", "version": 1, "fields": '{"hash":"i"}'},
        ],
        "event_subjects": [{"subject": "settings/h", "position": 1}, {"subject": "settings/i", "position": 2}],
    }  # fmt: skip


def fill(link: Link) -> None:
    """Make the first schema and put the rows in; whoever numbers rows by itself goes on behind them."""
    migration._upgrade(link, FIRST)
    tables = MetaData()
    tables.reflect(link.conn)
    given = rows_of_first()
    assert set(given) == set(tables.tables) - {"alembic_version"}, "every table of the schema has its rows"
    link.conn.execute(tables.tables["fence"].delete())
    for table in tables.sorted_tables:
        if table.name in given:
            assert {column.name for column in table.columns} == set(given[table.name][0]), table.name
            link.conn.execute(table.insert(), given[table.name])


@contextmanager
def on_file(folder: Path) -> Iterator[Callable[[], Store]]:
    path = folder / "gamekeeper.db"
    link = SqliteLink(str(path))
    link.raw.execute("PRAGMA journal_mode = WAL")
    link.begin()
    fill(link)
    link.raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    link.commit()
    link.close()
    yield lambda: Store.open(path, TurnedClock(100.0))


@contextmanager
def on_server(_folder: Path) -> Iterator[Callable[[], Store]]:
    url = server.server().create("earlier")
    link = PostgresLink(Server.named(url, SystemClock(), idle_s=60))
    link.begin()
    migration._make_ours(link)
    fill(link)
    for table in schema.metadata.sorted_tables:
        if "id" in table.columns and link.rows("SELECT to_regclass(%s)", (f"{table.name}_id_seq",))[0][0]:
            link.rows(f"SELECT setval('{table.name}_id_seq', (SELECT max(id) FROM {table.name}))", ())
    link.commit()
    link.close()
    yield lambda: server.open_store(url, TurnedClock(100.0))


WHERE = {"file": on_file, "postgres": on_server}


@pytest.mark.parametrize("engine", WHERE)
def test_a_store_of_the_first_schema_comes_over_whole(engine: str, tmp_path: Path) -> None:
    """Breaks if a migration loses or changes a row, leaves a counter wrong, or hands out a number twice."""
    with WHERE[engine](tmp_path) as opened:
        with opened() as store:
            assert store.read(integrity.check) == []
            found: Rows = store.read(_all_rows)
            for name, rows in rows_of_first().items():
                if name in {"fence", "job_counts"}:
                    continue
                kept = [{key: row[key] for key in rows[0]} for row in found[name]]
                assert kept == rows, name
            assert {row["name"]: row["value"] for row in found["counters"]} == {
                "fence": 9,
                "jobs": 4,
                "events": 2,
            }
            counted = {(row.kind, row.purpose, row.state): row.n for row in store.read(job_queue.counts)}
            assert counted == {
                ("selfplay", "", JobState.RUNNING): 1, ("train", "", JobState.DONE): 1,
                ("selfplay", "more", JobState.READY): 1, ("selfplay", "", JobState.CANCELLED): 1,
            }  # fmt: skip
            # It goes on: the live attempt ends under its token, the next job and grant have fresh numbers.
            assert store.write(lambda w: job_queue.submit(w, spec(key="next")))[0] == 5
            assert store.write(lambda w: w.next_token()) == 10
            assert store.read(integrity.check) == []
        with opened() as again:
            assert again.read(integrity.check) == []


def _all_rows(r: Any) -> Rows:
    return {
        table.name: [dict(row._mapping) for row in r.conn.execute(_ordered(table))]
        for table in schema.metadata.sorted_tables
    }


def _ordered(table: Table) -> Any:
    return table.select().order_by(*table.primary_key.columns)


def test_a_migrated_server_has_the_schema_of_the_code() -> None:
    """Breaks if the migrations make other tables, columns, keys or checks on PostgreSQL than the code asks for."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    shapes = []
    migrated, created = server.server().create("migrated"), server.server().create("created")
    for url in (migrated, created):
        link = PostgresLink(Server.named(url, SystemClock(), idle_s=60))
        if url == migrated:
            migration.migrate_server(link)
        link.begin()
        if url == created:
            schema.metadata.create_all(link.conn)
        else:
            context = MigrationContext.configure(
                link.conn,
                opts={"include_name": lambda name, kind, _: (kind, name) != ("table", "alembic_version")},
            )
            assert compare_metadata(context, schema.metadata) == []
        shapes.append([sorted(map(str, map(tuple, link.rows(words, ())))) for words in _SHAPE])
        link.rollback()
        link.close()
    for one, other in zip(*shapes, strict=True):
        assert one == other


_SHAPE = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
    " WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'",
    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
)


def test_processes_that_start_at_once_make_one_schema() -> None:
    """Breaks if two coordinators on a fresh database both migrate it, and one of them fails."""
    url = server.server().create("at_once")

    def start(_: int) -> int:
        with PostgresStore(url, SystemClock()) as store:
            return store.write(lambda w: w.next_token())

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(start, range(4))) == [1, 2, 3, 4]


def test_a_foreign_and_a_later_database_are_left_alone() -> None:
    """Breaks if our tables are put among another program's, or an old program writes what it does not understand."""
    url = server.server().create("foreign_one")
    with server.server().admin("foreign_one") as raw:
        raw.execute("CREATE TABLE theirs (x int)")
    with pytest.raises(Refused, match="another program"):
        PostgresStore(url, SystemClock())
    with server.server().admin("foreign_one") as raw:
        raw.execute("DROP TABLE theirs")
        PostgresStore(url, SystemClock()).close()
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(Refused, match="later version") as caught:
            PostgresStore(url, SystemClock())
        assert raw.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    assert "install" in caught.value.remedy
