"""Counters kept in the transaction that changes what they count: changes are summed up, then written once each."""

from __future__ import annotations

from collections import defaultdict

from gamekeeper.core.jobs import AttemptState, JobState
from gamekeeper.store.session import Writing
from gamekeeper.store.statements import Value, sql

_JOBS = sql("UPDATE job_counts SET n = n + :n WHERE class_id = :class_id AND state = :state")
_ATTEMPTS = sql(
    "INSERT INTO attempt_counts (line, kind, state, n) VALUES (:line, :kind, :state, :n)"
    " ON CONFLICT (line, kind, state) DO UPDATE SET n = attempt_counts.n + excluded.n"
)
_SLOT_TIME = sql(
    "UPDATE slot_time SET leased_s = leased_s + :leased_s, process_s = process_s + :process_s,"
    " attempts = attempts + :attempts WHERE node_id = :node_id"
)


class Tally:
    """Changes to counters that wait to be written. Rows are written in the order of their keys, on every engine."""

    def __init__(self) -> None:
        self._jobs: defaultdict[tuple[int, str], int] = defaultdict(int)
        self._attempts: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self._slots: dict[str, tuple[float, float, int]] = {}

    def job_moved(self, class_id: int, current: JobState, following: JobState) -> None:
        """A job of a class left `current` for `following`."""
        self._jobs[class_id, current] -= 1
        self._jobs[class_id, following] += 1

    def attempt_ended(self, line: str, kind: str, state: AttemptState) -> None:
        """An attempt at a job of a line and kind ended."""
        self._attempts[line, kind, state] += 1

    def slot_used(self, node_id: str, leased_s: float, process_s: float) -> None:
        """An attempt gave its slot back: how long it held it, and for how much of that its process ran."""
        leased, process, attempts = self._slots.get(node_id, (0.0, 0.0, 0))
        self._slots[node_id] = (leased + leased_s, process + process_s, attempts + 1)

    def write(self, w: Writing) -> None:
        """Write what was noted since the last call."""
        if self._jobs:
            moved = [(n, class_id, state) for (class_id, state), n in sorted(self._jobs.items()) if n]
            w.run_rows(_JOBS, ("n", "class_id", "state"), moved)
            self._jobs.clear()
        if self._attempts:
            ended: list[tuple[Value, ...]] = [
                (line, kind, state, n) for (line, kind, state), n in sorted(self._attempts.items())
            ]
            w.run_rows(_ATTEMPTS, ("line", "kind", "state", "n"), ended)
            self._attempts.clear()
        if self._slots:
            times: list[tuple[Value, ...]] = [
                (node, *spent[:2], int(spent[2])) for node, spent in sorted(self._slots.items())
            ]
            w.run_rows(_SLOT_TIME, ("node_id", "leased_s", "process_s", "attempts"), times)
            self._slots.clear()
