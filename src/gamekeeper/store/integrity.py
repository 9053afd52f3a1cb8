"""Invariants of the stored state, checked by scanning all of it: for `store check` and for tests, not for the loop."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.store.schema import CONDITIONS, metadata
from gamekeeper.store.session import Reading
from gamekeeper.store.statements import SQLITE


@dataclass(frozen=True, slots=True)
class Rule:
    """An invariant: a query for the rows that break it, and the sentence about each, filled from the row's columns."""

    sentence: str
    query: str


RULES = (
    Rule(
        "job {id} has {n} live attempts",
        "SELECT job_id AS id, count(*) AS n FROM attempts WHERE {live_attempt} GROUP BY job_id HAVING count(*) > 1",
    ),
    Rule(
        "job {id} is {state}, but attempt {attempt} is live",
        "SELECT j.id, j.state, a.id AS attempt FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " WHERE a.{live_attempt} AND j.state <> 'running'",
    ),
    Rule(
        "job {id} is running without a live attempt",
        "SELECT j.id FROM jobs j WHERE j.state = 'running'"
        " AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.job_id = j.id AND a.{live_attempt})",
    ),
    Rule(
        "job {id} is done with {n} succeeded attempts",
        "SELECT j.id, (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND a.state = 'succeeded') AS n"
        " FROM jobs j WHERE (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND a.state = 'succeeded')"
        " <> CASE j.state WHEN 'done' THEN 1 ELSE 0 END",
    ),
    Rule(
        "attempt {id} of final job {job} ended after the job",
        "SELECT a.id, j.id AS job FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " WHERE j.{final_job} AND a.ended_at > j.ended_at",
    ),
    Rule(
        "job {id} shows {failures} failures and {losses} losses, its attempts say otherwise",
        "SELECT j.id, j.failures, j.losses FROM jobs j WHERE j.failures"
        " <> (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND a.{failed_attempt} AND a.blameless = 0)"
        " OR j.losses <> (SELECT count(*) FROM attempts a WHERE a.job_id = j.id AND a.state IN ('lost', 'refused'))",
    ),
    Rule(
        "job key {key} is held by {n} jobs",
        "SELECT job_key AS key, count(*) AS n FROM jobs WHERE job_key IS NOT NULL"
        " AND ({held_job} OR state = 'done') GROUP BY job_key HAVING count(*) > 1",
    ),
    Rule(
        "attempt {id} is live under incarnation {incarnation}, which does not hold node {node_id}",
        "SELECT a.id, a.incarnation, a.node_id FROM attempts a LEFT JOIN agent_leases l"
        " ON l.node_id = a.node_id AND l.incarnation = a.incarnation WHERE a.{live_attempt} AND l.node_id IS NULL",
    ),
    Rule(
        "token {token} was handed out beyond the counter",
        "SELECT token FROM (SELECT token FROM attempts UNION ALL SELECT token FROM agent_leases"
        " UNION ALL SELECT epoch FROM roles) AS given WHERE token > (SELECT value FROM counters WHERE name = 'fence')",
    ),
    Rule(
        "jobs counted as class/{class_id} {state}: {n}, found: {found}",
        "SELECT class_id, state, sum(n) AS n, sum(found) AS found FROM ("
        "SELECT class_id, state, n, 0 AS found FROM job_counts"
        " UNION ALL SELECT class_id, state, 0, count(*) FROM jobs GROUP BY class_id, state"
        ") AS t GROUP BY class_id, state HAVING sum(n) <> sum(found)",
    ),
    Rule(
        "job {id} is not of its class {class_id}",
        "SELECT j.id, j.class_id FROM jobs j JOIN job_classes c ON c.id = j.class_id"
        " WHERE c.line <> j.line OR c.kind <> j.kind OR c.purpose <> j.purpose OR c.producer <> j.producer"
        " OR c.share <> j.share OR c.requirements <> j.requirements",
    ),
    Rule(
        "job {id} waits for {unmet} jobs, its needs say {n}",
        "SELECT * FROM (SELECT j.id, j.unmet, (SELECT count(*) FROM job_needs d WHERE d.job_id = j.id AND d.met = 0)"
        " AS n FROM jobs j WHERE j.{held_job}) AS t WHERE unmet <> n",
    ),
    Rule(
        "job {id} is {state} with {unmet} needs unmet",
        "SELECT id, state, unmet FROM jobs WHERE (state = 'waiting' AND unmet = 0)"
        " OR (state IN ('ready', 'running', 'done') AND unmet > 0)",
    ),
    Rule(
        "attempts counted as {line}/{kind}/{state}: {n}, found: {found}",
        "SELECT line, kind, state, sum(n) AS n, sum(found) AS found FROM ("
        "SELECT line, kind, state, n, 0 AS found FROM attempt_counts"
        " UNION ALL SELECT j.line, j.kind, a.state, 0, count(*) FROM attempts a JOIN jobs j ON j.id = a.job_id"
        " WHERE NOT a.{live_attempt} GROUP BY j.line, j.kind, a.state"
        " UNION ALL SELECT line, kind, state, 0, sum(n) FROM removed_counts WHERE what = 'attempts'"
        " GROUP BY line, kind, state"
        ") AS t GROUP BY line, kind, state HAVING sum(n) <> sum(found)",
    ),
    Rule(
        "slot time of node {node_id} is off by {leased_s} s leased, {process_s} s of processes, {n} attempts",
        "SELECT node_id, sum(leased_s) AS leased_s, sum(process_s) AS process_s, sum(n) AS n FROM ("
        "SELECT node_id, leased_s, process_s, attempts AS n FROM slot_time"
        " UNION ALL SELECT node_id, -sum(ended_at - leased_at), -sum(process_s), -count(*) FROM attempts"
        " WHERE NOT {live_attempt} GROUP BY node_id"
        " UNION ALL SELECT node_id, -sum(leased_s), -sum(process_s), -sum(n) FROM removed_counts"
        " WHERE what = 'attempts' GROUP BY node_id) AS t GROUP BY node_id"
        " HAVING abs(sum(leased_s)) > 0.01 OR abs(sum(process_s)) > 0.01 OR sum(n) <> 0",
    ),
    Rule(
        "files counted for {line}/{kind} are off by {files} files, {bytes} bytes, {games} games, {samples} samples",
        "SELECT line, kind, sum(files) AS files, sum(bytes) AS bytes, sum(games) AS games, sum(samples) AS samples"
        " FROM (SELECT line, kind, files, bytes, games, samples FROM line_counts UNION ALL"
        " SELECT line, kind, -count(*), -sum(bytes), -sum(games), -sum(samples) FROM artifacts GROUP BY line, kind"
        ") AS t GROUP BY line, kind"
        " HAVING sum(files) <> 0 OR sum(bytes) <> 0 OR sum(games) <> 0 OR sum(samples) <> 0",
    ),
    Rule(
        "artifact {hash} has no attempt that handed it in",
        "SELECT f.hash FROM artifacts f WHERE NOT EXISTS"
        " (SELECT 1 FROM artifact_sources s WHERE s.artifact_id = f.id AND s.attempt_id = f.attempt_id)",
    ),
    Rule(
        "pairs of model/{candidate_id} against {opponent} for {purpose} are counted wrongly",
        "SELECT candidate_id, opponent, purpose FROM ("
        "SELECT candidate_id, opponent, purpose, n0, n1, n2, n3, n4, next_pair, -1 AS number FROM pair_counts"
        " UNION ALL"
        " SELECT candidate_id, opponent, purpose,"
        " -count(*) FILTER (WHERE first + second = 0), -count(*) FILTER (WHERE first + second = 0.5),"
        " -count(*) FILTER (WHERE first + second = 1), -count(*) FILTER (WHERE first + second = 1.5),"
        " -count(*) FILTER (WHERE first + second = 2), 0, max(number) FROM pairs"
        " GROUP BY candidate_id, opponent, purpose) AS t"
        " GROUP BY candidate_id, opponent, purpose HAVING sum(n0) <> 0 OR sum(n1) <> 0 OR sum(n2) <> 0"
        " OR sum(n3) <> 0 OR sum(n4) <> 0 OR max(next_pair) <= max(number)",
    ),
    Rule(
        "pair {number} of model/{candidate_id} was booked for line {line}, which is not the model's",
        "SELECT p.number, p.candidate_id, p.line FROM pairs p JOIN models m ON m.id = p.candidate_id"
        " WHERE m.line <> p.line",
    ),
    Rule(
        "the promotion of model/{model_id} in {line} has no stored decision",
        "SELECT p.model_id, p.line FROM promotions p LEFT JOIN decisions d ON d.id = p.decision_id AND d.pinned = 1"
        " WHERE d.id IS NULL",
    ),
    Rule(
        "the champion of {line} is model/{model_id} ({generation}), its last promotion says otherwise",
        "SELECT c.line, c.model_id, c.generation FROM champions c LEFT JOIN promotions p ON p.line = c.line"
        " AND p.generation = c.generation AND p.model_id = c.model_id"
        " WHERE p.id IS NULL OR c.generation <> (SELECT max(generation) FROM promotions q WHERE q.line = c.line)"
        " OR c.generation + 1 <> (SELECT count(*) FROM promotions q WHERE q.line = c.line)",
    ),
    Rule(
        "model/{id} is {state}, its promotions say otherwise",
        "SELECT m.id, m.state FROM models m"
        " WHERE (m.state = 'promoted') <> EXISTS (SELECT 1 FROM promotions p WHERE p.model_id = m.id)",
    ),
    Rule(
        "model/{id} was decided without a stored decision",
        "SELECT m.id FROM models m LEFT JOIN decisions d ON d.id = m.decision_id"
        " WHERE m.state <> 'candidate' AND d.id IS NULL",
    ),
    Rule(
        "decisions of {policy} are counted wrongly",
        "SELECT policy FROM (SELECT policy, kept FROM decision_counts UNION ALL"
        " SELECT policy, -count(*) FROM decisions WHERE pinned = 0 GROUP BY policy) AS t"
        " GROUP BY policy HAVING sum(kept) <> 0",
    ),
    Rule(
        "the event log has {n} entries from {first} to {last}, and {value} were counted",
        "SELECT * FROM (SELECT count(*) AS n, coalesce(min(position), 1) AS first, coalesce(max(position), 0) AS last,"
        " (SELECT value FROM counters WHERE name = 'events') AS value FROM events) AS t"
        " WHERE n <> last - first + 1 OR first <> 1 OR last <> value",
    ),
)  # fmt: skip


def check(r: Reading) -> list[str]:
    """One sentence for each violated invariant; an empty list when all hold."""
    problems: list[str] = []
    for rule in RULES:
        found = r.conn.exec_driver_sql(rule.query.format_map(CONDITIONS)).mappings().fetchmany(20)
        problems += [rule.sentence.format(**row) for row in found]
    return problems + damage(r)


def damage(r: Reading) -> list[str]:
    """What the engine itself finds wrong, whatever the schema."""
    return _file_problems(r) if r.dialect is SQLITE else _server_problems(r)


def _file_problems(r: Reading) -> list[str]:
    """What the engine itself finds wrong with the file: damaged pages, dangling references."""
    pages = [str(row[0]) for row in r.conn.exec_driver_sql("PRAGMA quick_check(20)")]
    dangling = r.conn.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(20)
    problems = [f"damaged: {words}" for words in pages if words != "ok"]
    return problems + [f"{row[0]} row {row[1]} refers to a missing row of {row[2]}" for row in dangling]


def _server_problems(r: Reading) -> list[str]:
    """Every row of every table is read once, so that a damaged page is met; constraints that do not hold are named."""
    for table in metadata.sorted_tables:
        r.conn.exec_driver_sql(f"SELECT count(*) FROM {table.name} AS t WHERE t::text IS NULL").scalar()  # noqa: S608
    invalid = r.conn.exec_driver_sql(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint"
        " WHERE NOT convalidated AND connamespace = current_schema()::regnamespace"
    )
    return [f"{row[0]}: the constraint {row[1]} is not known to hold" for row in invalid]
