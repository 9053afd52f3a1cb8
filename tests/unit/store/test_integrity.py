"""The invariants bite: each planted fault is found, in words that name it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial

import pytest

from gamekeeper.core.jobs import EndReason
from gamekeeper.core.matches import PairResult, Purpose
from gamekeeper.store import integrity, matches, registry
from gamekeeper.store.session import Writing
from tests.unit.store.rig import Rig, digest, open_rig

FAULTS = {
    "UPDATE jobs SET state = 'ready' WHERE id = :live_job": "is ready, but attempt",
    "UPDATE attempts SET state = 'lost', reason = 'killed', ended_at = 1000000.0 WHERE id = :live": (
        "is running without a live attempt"
    ),
    "UPDATE jobs SET state = 'cancelled' WHERE id = :done_job": "with 1 succeeded attempts",
    "UPDATE attempts SET ended_at = ended_at + 1 WHERE id = :done": "ended after the job",
    "UPDATE jobs SET failures = failures + 1 WHERE id = :done_job": "1 failures and 0 losses",
    "UPDATE jobs SET losses = losses + 1 WHERE id = :done_job": "0 failures and 1 losses",
    "UPDATE attempts SET incarnation = 'dead' WHERE id = :live": "under incarnation dead, which does not hold",
    "UPDATE counters SET value = 1 WHERE name = 'fence'": "beyond the counter",
    "UPDATE job_counts SET n = n + 1 WHERE state = 'done'": "done: 2, found: 1",
    "UPDATE jobs SET requirements = '{\"cpus\":1}' WHERE id = :done_job": "is not of its class",
    "UPDATE jobs SET unmet = 1 WHERE id = :live_job": "waits for 1 jobs, its needs say 0",
    "UPDATE jobs SET unmet = 2 WHERE id = :done_job": "is done with 2 needs unmet",
    "UPDATE attempt_counts SET n = n + 1 WHERE state = 'succeeded'": "c4/selfplay/succeeded: 2, found: 1",
    "UPDATE slot_time SET leased_s = leased_s + 5": "off by 5.0 s leased",
    "UPDATE slot_time SET process_s = process_s + 5": "5.0 s of processes",
    "UPDATE slot_time SET attempts = attempts + 1": "1 attempts",
    "UPDATE line_counts SET samples = samples + 1": "0 games, 1 samples",
    "UPDATE line_counts SET files = files + 1": "off by 1 files",
    "DELETE FROM artifact_sources": "no attempt that handed it in",
    "UPDATE pair_counts SET n3 = n3 + 1": "are counted wrongly",
    "UPDATE pair_counts SET next_pair = 0": "are counted wrongly",
    "UPDATE pairs SET line = 'other'": "is not the model's",
    "UPDATE decisions SET pinned = 0": "has no stored decision",
    "UPDATE champions SET model_id = :candidate": "its last promotion says otherwise",
    "UPDATE champions SET generation = 5": "its last promotion says otherwise",
    "UPDATE promotions SET generation = 7": "its last promotion says otherwise",
    "UPDATE models SET state = 'promoted', decided_at = 1.0 WHERE id = :candidate": "its promotions say otherwise",
    "UPDATE models SET decision_id = 999 WHERE state = 'promoted'": "decided without a stored decision",
    "UPDATE decision_counts SET kept = kept + 1": "decisions of promotion are counted wrongly",
    "DELETE FROM events WHERE position = 2": "entries from 1 to",
    "UPDATE pairs SET attempt_id = 999": "refers to a missing row of attempts",
    "DROP INDEX attempts_one_live; UPDATE attempts SET state = 'running', ended_at = NULL, reason = NULL,"
    " job_id = :live_job WHERE id = :done": "has 2 live attempts",
    "DROP INDEX jobs_key; UPDATE jobs SET job_key = 'k' WHERE id IN (:live_job, :done_job)": "key k is held by 2 jobs",
}  # fmt: skip


def build(engine: str = "inline") -> tuple[Rig, dict[str, int]]:
    """A store with something in every table, and the ids to plant faults at."""
    rig = open_rig(engine)
    done = rig.running()
    rig.publish(done, 1)
    rig.turn(2)
    rig.finish(done, process_s=1.0)
    live = rig.running()
    champion = rig.model(1)
    rig.crown(champion)
    candidate = rig.model(2, champion)
    rig.w(
        matches.book_pairs, "c4", candidate.id, "random", Purpose.CANARY, pairs=[PairResult(0, 1, 0.5, digest(9))],
        job_id=done.job_id, attempt_id=done.id,
    )  # fmt: skip
    rig.decide("line/c4")
    ids = {
        "done": done.id, "done_job": done.job_id, "live": live.id, "live_job": live.job_id, "candidate": candidate.id,
    }  # fmt: skip
    return rig, ids


def plant(w: Writing, fault: str, ids: dict[str, int]) -> None:
    for name, number in sorted(ids.items(), reverse=True):
        fault = fault.replace(f":{name}", str(number))
    for statement in fault.split(";"):
        w.conn.exec_driver_sql(statement)


def test_a_sound_store_breaks_nothing() -> None:
    """Breaks if a rule cries without cause, and so hides the ones that have cause."""
    rig, _ = build()
    with rig.store:
        rig.check()


@cache
def problems_after(fault: str) -> tuple[str, ...]:
    """What the check says of a sound store after `fault`."""
    rig, ids = build()
    with rig.store:
        for pragma in ("ignore_check_constraints = ON", "foreign_keys = OFF"):
            rig.store._link.raw.execute(f"PRAGMA {pragma}")  # type: ignore[attr-defined]
        rig.store.write(partial(plant, fault=fault, ids=ids))
        return tuple(rig.r(integrity.check))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    """Breaks if the invariant that this fault violates is not checked, or does not say what is wrong."""
    problems = problems_after(fault)
    assert any(FAULTS[fault] in problem for problem in problems), problems


@pytest.fixture(scope="module")
def on_server() -> Iterator[tuple[Rig, dict[str, int]]]:
    """A sound store on PostgreSQL, to plant faults in that are undone again."""
    rig, ids = build("postgres")
    yield rig, ids
    rig.check()
    rig.close()


class _Undo(Exception):
    """Carries what was found out of a transaction that must not last."""


_LOOSEN = (
    "SELECT 'ALTER TABLE ' || conrelid::regclass || ' DROP CONSTRAINT ' || quote_ident(conname) FROM pg_constraint"
    " WHERE contype IN ('c', 'f') AND connamespace = current_schema()::regnamespace"
)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if "missing row" not in FAULTS[fault]])
def test_a_planted_fault_is_found_on_postgresql(on_server: tuple[Rig, dict[str, int]], fault: str) -> None:
    """Breaks if a rule means something else to the second engine, or finds nothing there."""
    rig, ids = on_server

    def write(w: Writing) -> None:
        for row in w.conn.exec_driver_sql(_LOOSEN).fetchall():
            w.conn.exec_driver_sql(row[0])
        plant(w, fault, ids)
        raise _Undo(integrity.check(w))

    with pytest.raises(_Undo) as caught:
        rig.store.write(write)
    assert any(FAULTS[fault] in problem for problem in caught.value.args[0]), caught.value.args[0]


def test_every_rule_has_a_fault_that_breaks_it() -> None:
    """Breaks if an invariant is added that no test has seen bite."""
    problems = [problem for fault in FAULTS for problem in problems_after(fault)]
    missed = []
    for rule in integrity.RULES:
        words = [part for part in rule.sentence.replace("}", "{").split("{")[::2] if len(part) > 4]
        if not any(_sounds_like(problem, words) for problem in problems):
            missed.append(rule.sentence)
    assert missed == []


def _sounds_like(problem: str, words: list[str]) -> bool:
    return bool(words) and all(part in problem for part in words)


def test_many_faults_of_one_kind_are_cut_short() -> None:
    """Breaks if a broken store answers with a sentence for each of its million rows."""
    rig = open_rig("inline")
    with rig.store:
        for _ in range(30):
            rig.finish(rig.attempt(), EndReason.OWN_ERROR)
        rig.store.write(lambda w: w.conn.exec_driver_sql("UPDATE jobs SET failures = 2") and None)
        assert 1 <= len(rig.r(integrity.check)) <= 20
        assert rig.r(registry.models) == []
