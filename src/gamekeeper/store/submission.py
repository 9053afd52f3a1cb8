"""The way in for jobs: checked, counted against quotas, and stored, one or many in one transaction."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gamekeeper.core.control_events import JobsSubmitted
from gamekeeper.core.errors import Busy, NotFound, UsageError
from gamekeeper.core.events import JobSubmitted
from gamekeeper.core.jobs import FINAL_JOBS, FailureRule, JobSpec, JobState, Need
from gamekeeper.core.receipts import JobKind
from gamekeeper.store import job_moves, needs
from gamekeeper.store.encoding import to_json
from gamekeeper.store.schema import job_classes, job_counts, job_needs, jobs
from gamekeeper.store.session import Writing
from gamekeeper.store.statements import Value, adding, sql

MAX_GROUP = 100_000
MAX_NEEDS = 1000
MAX_WORDS = 4096
MAX_TRIES = 10_000
LONGEST_S = 10 * 365 * 86400.0
AGAIN_AFTER_S = 5.0
OWN_SHARE = 0.1
_SEEDS = 2**63
_LENGTHS = {"kind": 120, "line": 120, "purpose": 120, "producer": 120, "key": 500}

_COLUMNS: Final = tuple(column.name for column in jobs.columns)
_ADD = adding(jobs, *_COLUMNS)
_ADD_NEED = adding(job_needs)
_BY_KEY = sql("SELECT id, job_key FROM jobs WHERE job_key IN LIST(:keys) AND {keyed_job}")
_NEEDED = sql("SELECT id, state FROM jobs WHERE id IN LIST(:ids) ORDER BY id FOR UPDATE")
_CLASS = sql(
    "SELECT id FROM job_classes WHERE line = :line AND kind = :kind AND purpose = :purpose"
    " AND producer = :producer AND share = :share AND requirements = :requirements"
)
_ADD_CLASS = adding(job_classes, returning="id")
_NEW_COUNT = adding(job_counts)
_UNSTARTED = sql(
    "SELECT c.producer, c.kind, sum(t.n) AS n FROM job_counts t JOIN job_classes c ON c.id = t.class_id"
    " WHERE t.n > 0 AND t.state IN ('waiting', 'ready', 'held') GROUP BY c.producer, c.kind"
)


class OverQuota(Busy):
    """Too many jobs wait already; nothing was stored."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """How many jobs may wait to be started: of one producer, of one kind, and in all; `None` is no bound.

    Jobs without producer are the pipeline's own. They count, and only the bound on all holds for them; a tenth of it is
    theirs alone, so that no flood can keep the loops from turning.
    """

    max_ready_per_producer: int | None = 50_000
    max_ready_per_kind: int | None = 200_000
    max_in_all: int | None = 1_000_000

    def __post_init__(self) -> None:
        """Raise `UsageError` for a quota that lets nobody in."""
        for name in ("max_ready_per_producer", "max_ready_per_kind", "max_in_all"):
            bound = getattr(self, name)
            if bound is not None and bound < 1:
                raise UsageError(f"quota {name} is {bound}: it must be at least 1")


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms jobs are taken: the known kinds (`None`: any) and the quotas (`None`: none)."""

    kinds: Mapping[str, JobKind] | None = None
    quotas: Quotas | None = None


ANY_TERMS: Final = Terms()


def in_group(index: int, rule: FailureRule = FailureRule.CANCEL) -> Need:
    """A need for the job at `index` of the group that is submitted together; it must come earlier in it."""
    return Need(-1 - index, rule)


def submit(w: Writing, spec: JobSpec, terms: Terms = ANY_TERMS) -> tuple[int, bool]:
    """Store a job: (its id, True). It is ready at once, or waits for the jobs it needs.

    When a job with the same key is live or done: (that job's id, False). Raises `UsageError` for a specification that
    cannot be stored, `NotFound` for a need that does not exist, `OverQuota`.
    """
    return submit_many(w, (spec,), terms)[0]


def submit_many(w: Writing, specs: Sequence[JobSpec], terms: Terms = ANY_TERMS) -> list[tuple[int, bool]]:
    """Store a group of jobs, all or none: for each (id, created), as `submit` does, in the order given.

    A job may need earlier ones of the group (`in_group`). The log gets one entry for jobs alike in a row.
    """
    return _Group(w, specs, terms).store(())


def submit_again(w: Writing, again: Sequence[tuple[JobSpec, int]], terms: Terms = ANY_TERMS) -> list[int]:
    """Store jobs that follow ended ones, given as (specification, id of the ended job): their ids.

    Keys must be free.
    """
    group = _Group(w, [spec for spec, _ in again], terms)
    return [job_id for job_id, _ in group.store([ended for _, ended in again])]


def taken_keys(w: Writing, keys: Iterable[str]) -> dict[str, int]:
    """Those of the keys that a live or done job holds, with that job."""
    wanted = list(dict.fromkeys(keys))
    return {row["job_key"]: row["id"] for row in w.rows(_BY_KEY, keys=wanted)} if wanted else {}


class _Group:
    """One submission. What many specifications share is checked and encoded once."""

    def __init__(self, w: Writing, specs: Sequence[JobSpec], terms: Terms) -> None:
        if len(specs) > MAX_GROUP:
            raise UsageError(
                f"a group of {len(specs)} jobs is too large: at most {MAX_GROUP}", remedy="submit several"
            )
        self._w = w
        self._specs = specs
        self._terms = terms
        self._encoded: dict[int, str] = {}
        self._classes: dict[tuple[object, ...], tuple[int, str]] = {}
        self._sane: set[tuple[object, ...]] = set()
        self._stored: Counter[tuple[int, str]] = Counter()

    def store(self, retries: Sequence[int]) -> list[tuple[int, bool]]:
        """Check and store all of them; `retries`: the jobs they follow, if any."""
        results, fresh = self._known()
        if not fresh:
            return results
        specs = self._specs
        classes = [self._check(specs[index]) for index in fresh]
        self._check_quotas([specs[index] for index in fresh])
        last = self._w.take("jobs", len(fresh))
        for job_id, index in enumerate(fresh, last - len(fresh) + 1):
            results[index] = (job_id, True)
        for index, spec in enumerate(specs):
            if spec.key is not None and results[index][0] < 0:
                results[index] = (results[-1 - results[index][0]][0], False)
        unmet, rows_of_needs, over = self._needs(results, fresh)
        followed = dict(enumerate(retries))
        rows = [
            self._row(results[index][0], specs[index], known, unmet.get(index, 0), followed.get(index))
            for index, known in zip(fresh, classes, strict=True)
        ]
        self._w.run_rows(_ADD, _COLUMNS, rows)
        self._w.run_rows(_ADD_NEED, ("job_id", "needs_id", "rule", "met"), rows_of_needs)
        job_moves.count_stored(self._w, self._stored)
        self._tell([(results[index][0], specs[index]) for index in fresh])
        needs.settle(self._w, over)
        return results

    def _known(self) -> tuple[list[tuple[int, bool]], list[int]]:
        """Results for specifications whose key is taken, and the places of the others.

        One that repeats a key of the group gets -1 - the place of the first that has it, to be filled in later.
        """
        keyed = [spec.key for spec in self._specs if spec.key is not None]
        if not keyed:
            return [(0, True)] * len(self._specs), list(range(len(self._specs)))
        for key in keyed:
            _check_word("key", key)
        taken, first = taken_keys(self._w, keyed), dict[str, int]()
        results, fresh = [], []
        for index, spec in enumerate(self._specs):
            found = 0 if spec.key is None else taken.get(spec.key, 0)
            if not found and spec.key is not None and first.setdefault(spec.key, index) != index:
                found = -1 - first[spec.key]
            results.append((found, not found))
            if not found:
                fresh.append(index)
        return results, fresh

    def _check(self, spec: JobSpec) -> tuple[int, str]:
        """Raise `UsageError` unless it can be stored; its class, and its requirements as they are stored."""
        if not -_SEEDS <= spec.seed < _SEEDS:
            raise UsageError(f"seed {spec.seed} does not fit into 64 bits", remedy="use a smaller seed")
        numbers = (
            spec.grace_s, spec.time_limit_s, spec.failures_allowed, spec.losses_allowed, spec.not_before,
            spec.deadline,
        )  # fmt: skip
        if numbers not in self._sane:
            _check_numbers(spec, self._w.now)
            self._sane.add(numbers)
        if id(spec.command) not in self._encoded:
            _check_command(spec.command)
            self._json(spec.command)
        if spec.needs and (
            len(spec.needs) > MAX_NEEDS or len({need.job_id for need in spec.needs}) != len(spec.needs)
        ):
            raise UsageError(f"the needs of a job must be distinct jobs, at most {MAX_NEEDS}")
        return self._class(spec)

    def _check_quotas(self, specs: Sequence[JobSpec]) -> None:
        quotas = self._terms.quotas
        if quotas is None:
            return
        by_producer: Counter[str] = Counter(spec.producer for spec in specs)
        by_kind: Counter[str] = Counter(spec.kind for spec in specs if spec.producer)
        foreign = sum(by_kind.values())
        total = len(specs)
        for row in self._w.rows(_UNSTARTED):
            n = int(row["n"])
            by_producer[row["producer"]] += n if row["producer"] in by_producer else 0
            by_kind[row["kind"]] += n if row["kind"] in by_kind else 0
            total += n
        for producer, n in by_producer.items():
            if producer:
                _hold_against(
                    quotas.max_ready_per_producer, "max_ready_per_producer", n, f"producer {producer}"
                )
        for kind, n in by_kind.items():
            _hold_against(quotas.max_ready_per_kind, "max_ready_per_kind", n, f"kind {kind}")
        bound = quotas.max_in_all
        if bound is not None and foreign:
            bound = max(1, bound - int(OWN_SHARE * bound))
        _hold_against(bound, "max_in_all", total, "all producers together")

    def _needs(
        self, results: Sequence[tuple[int, bool]], fresh: Sequence[int]
    ) -> tuple[dict[int, int], list[tuple[Value, ...]], list[tuple[int, JobState]]]:
        """Unmet needs by place, rows of needs, and needed jobs that came to nothing already."""
        wanting = [index for index in fresh if self._specs[index].needs]
        if not wanting:
            return {}, [], []
        own = {results[index][0] for index in fresh}
        resolved = {index: _resolve(self._specs[index].needs, index, results) for index in wanting}
        outside = sorted({need.job_id for each in resolved.values() for need in each} - own)
        states = {row["id"]: JobState(row["state"]) for row in self._w.rows(_NEEDED, ids=outside)}
        missing = [job_id for job_id in outside if job_id not in states]
        if missing:
            raise NotFound(
                f"job {missing[0]}, which a job is to need, does not exist",
                remedy="see `gamekeeper jobs`; finished jobs are not kept for ever",
            )
        unmet, rows = {}, list[tuple[Value, ...]]()
        for index, wanted in resolved.items():
            open_needs = 0
            for need in wanted:
                met = states.get(need.job_id) in needs.MET_STATES
                open_needs += not met
                rows.append((results[index][0], need.job_id, str(need.rule), int(met)))
            unmet[index] = open_needs
        over = [(job_id, state) for job_id, state in states.items() if state in FINAL_JOBS - needs.MET_STATES]
        return unmet, rows, over

    def _row(
        self,
        job_id: int,
        spec: JobSpec,
        known: tuple[int, str],
        unmet: int,
        retry_of: int | None,
    ) -> tuple[Value, ...]:
        """The job as a row of `jobs`, in the order of its columns."""
        class_id, requirements = known
        state = "waiting" if unmet else "ready"
        self._stored[class_id, state] += 1
        now = self._w.now
        return (
            job_id, class_id, spec.kind, spec.line, spec.purpose, spec.key, state, "",
            self._json(spec.command), self._json(spec.parameters), self._json(spec.wanted),
            self._json(spec.inputs), spec.seed, spec.grace_s, spec.time_limit_s, spec.failures_allowed,
            spec.losses_allowed, 0, 0, now, spec.not_before if spec.not_before > now else now, None, 0,
            requirements, spec.share, spec.producer, spec.deadline, unmet, retry_of,
        )  # fmt: skip

    def _json(self, value: object) -> str:
        """A part of a specification as JSON, encoded once for each object."""
        if not value:
            return "{}"
        found = self._encoded.get(id(value))
        if found is None:
            found = self._encoded[id(value)] = to_json(value)
        return found

    def _class(self, spec: JobSpec) -> tuple[int, str]:
        """The class of a job, made when it is the first of its kind, and its requirements as they are stored."""
        asked = spec.requirements
        key = (spec.kind, spec.line, spec.purpose, spec.producer, spec.share, asked)
        found = self._classes.get(key)
        if found is None:
            _check_words(spec, self._terms.kinds)
            requirements = to_json(asked.to_map())
            found = self._classes[key] = (_class_of(self._w, spec, requirements), requirements)
        return found

    def _tell(self, stored: Sequence[tuple[int, JobSpec]]) -> None:
        """One entry of the log for each run of jobs of one line, kind and purpose."""
        start = 0
        for end in range(1, len(stored) + 1):
            first = stored[start][1]
            if end < len(stored):
                following = stored[end][1]
                if (following.kind, following.line, following.purpose) == (
                    first.kind,
                    first.line,
                    first.purpose,
                ):
                    continue
            first_id, last_id = stored[start][0], stored[end - 1][0]
            if first_id == last_id:
                self._w.emit(JobSubmitted(first_id, first.kind, first.line, first.purpose))
            else:
                count = last_id - first_id + 1
                self._w.emit(JobsSubmitted(first_id, last_id, count, first.kind, first.line, first.purpose))
            start = end


def _class_of(w: Writing, spec: JobSpec, requirements: str) -> int:
    alike: dict[str, Value] = {
        "line": spec.line, "kind": spec.kind, "purpose": spec.purpose, "producer": spec.producer,
        "share": spec.share, "requirements": requirements,
    }  # fmt: skip
    found = w.number(_CLASS, **alike)
    if not found:
        found = w.number(_ADD_CLASS, **alike, last_granted_at=None)
        # All states at once, so that a move is one statement on two rows that exist.
        w.run_many(_NEW_COUNT, [{"class_id": found, "state": each, "n": 0} for each in JobState])
    return found


def _resolve(wanted: Sequence[Need], index: int, results: Sequence[tuple[int, bool]]) -> list[Need]:
    """Needs by job id; the same job by two ways is one need, with the rule named first."""
    found: dict[int, Need] = {}
    for need in wanted:
        job_id = need.job_id
        if job_id < 0:
            place = -1 - job_id
            if place >= index:
                raise UsageError(
                    f"job {index} of the group needs job {place} of it, which does not come before it",
                    remedy="put needed jobs first",
                )
            job_id = results[place][0]
        if job_id == 0:
            raise UsageError("a need names job 0, which cannot be")
        found.setdefault(job_id, Need(job_id, need.rule))
    return list(found.values())


def _check_words(spec: JobSpec, kinds: Mapping[str, JobKind] | None) -> None:
    for name in ("kind", "line", "purpose", "producer"):
        _check_word(name, getattr(spec, name), empty=name in {"purpose", "producer"})
    if kinds is not None and spec.kind not in kinds:
        near = difflib.get_close_matches(spec.kind, kinds, 1)
        raise UsageError(
            f"jobs of kind {spec.kind!r} are not known here",
            remedy=f"did you mean {near[0]!r}?" if near else f"known kinds: {', '.join(sorted(kinds))}",
        )
    if not 0 < spec.share <= 1e6:
        raise UsageError(f"share {spec.share} is no weight: it must lie above 0, up to 1e6")


def _check_word(name: str, value: str, *, empty: bool = False) -> None:
    if not value and not empty:
        raise UsageError(f"a job needs a {name}")
    if len(value) > _LENGTHS[name] or not value.isprintable():
        raise UsageError(
            f"{name} {value!r:.80} cannot be taken",
            remedy=f"use at most {_LENGTHS[name]} printable characters",
        )


def _check_command(command: tuple[str, ...]) -> None:
    if not command or len(command) > MAX_WORDS or not all(isinstance(each, str) for each in command):
        raise UsageError(f"a job needs a command of 1 to {MAX_WORDS} words, not {command!r:.200}")


def _check_numbers(spec: JobSpec, now: float) -> None:
    if not 0 <= spec.grace_s <= LONGEST_S:
        raise UsageError(f"grace_s {spec.grace_s} is no time to wait", remedy="use seconds, 0 or more")
    if spec.time_limit_s is not None and not 0 < spec.time_limit_s <= LONGEST_S:
        raise UsageError(
            f"time_limit_s {spec.time_limit_s} is no limit", remedy="use seconds above 0, or none"
        )
    for name in ("failures_allowed", "losses_allowed"):
        if not 1 <= getattr(spec, name) <= MAX_TRIES:
            raise UsageError(f"{name} is {getattr(spec, name)}: it must lie between 1 and {MAX_TRIES}")
    if not math.isfinite(spec.not_before) or spec.not_before > now + LONGEST_S:
        raise UsageError(f"not_before {spec.not_before} is no time at which the job could start")
    if spec.deadline is not None:
        earliest = max(now, spec.not_before)
        if not earliest < spec.deadline <= now + 2 * LONGEST_S:
            raise UsageError(
                f"deadline {spec.deadline} is over before the job could start ({earliest})",
                remedy="set a later deadline, in seconds since the epoch",
            )


def _hold_against(bound: int | None, name: str, n: int, whose: str) -> None:
    if bound is not None and n > bound:
        raise OverQuota(
            f"{n:,} jobs of {whose} would wait to be started, and {bound:,} may ({name})",
            remedy="submit more when some of them have started",
            retry_after_s=AGAIN_AFTER_S,
        )
