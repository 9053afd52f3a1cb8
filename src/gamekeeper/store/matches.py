"""Game pairs as they were played: each booked once, counted as it is booked."""

from __future__ import annotations

from collections.abc import Sequence

from gamekeeper.core.errors import NotFound, UsageError
from gamekeeper.core.events import MatchesRecorded
from gamekeeper.core.matches import PairResult, PairTally, Purpose, pentanomial
from gamekeeper.store.encoding import object_of, sentence
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import sql

_LINE_OF = sql("SELECT line FROM models WHERE id = :id")
_BOOK = sql(
    "INSERT INTO pairs (line, candidate_id, opponent, purpose, number, first, second, replay, job_id, attempt_id,"
    " booked_at) VALUES (:line, :candidate_id, :opponent, :purpose, :number, :first, :second, :replay, :job_id,"
    " :attempt_id, :now) ON CONFLICT DO NOTHING"
)
_COUNT = sql(
    "INSERT INTO pair_counts (candidate_id, opponent, purpose, n0, n1, n2, n3, n4, duplicates, next_pair)"
    " VALUES (:candidate_id, :opponent, :purpose, :n0, :n1, :n2, :n3, :n4, :duplicates, :next_pair)"
    " ON CONFLICT (candidate_id, opponent, purpose) DO UPDATE SET n0 = pair_counts.n0 + :n0,"
    " n1 = pair_counts.n1 + :n1, n2 = pair_counts.n2 + :n2, n3 = pair_counts.n3 + :n3, n4 = pair_counts.n4 + :n4,"
    " duplicates = pair_counts.duplicates + :duplicates, next_pair = CASE WHEN pair_counts.next_pair < :next_pair"
    " THEN :next_pair ELSE pair_counts.next_pair END"
)
_COUNTS = sql(
    "SELECT * FROM pair_counts WHERE candidate_id = :candidate_id AND opponent = :opponent AND purpose = :purpose"
)
_ALL_COUNTS = sql("SELECT * FROM pair_counts WHERE candidate_id = :candidate_id ORDER BY opponent, purpose")
_PAIRS = sql(
    "SELECT number, first, second, replay FROM pairs WHERE candidate_id = :candidate_id AND opponent = :opponent"
    " AND purpose = :purpose ORDER BY number"
)
_MODELS = sql(
    "SELECT c.line, c.hash AS candidate, o.hash AS opponent FROM models c LEFT JOIN models o ON o.id = :opponent_id"
    " WHERE c.id = :candidate_id"
)
_PLANNED = sql(
    "SELECT inputs, wanted FROM jobs WHERE {held_job} AND line = :line AND kind = 'evaluate' AND purpose = :purpose"
)


def book_pairs(
    w: Writing,
    line: str,
    candidate_id: int,
    opponent: str,
    purpose: Purpose,
    *,
    pairs: Sequence[PairResult],
    job_id: int,
    attempt_id: int,
) -> tuple[int, int]:
    """Book the pairs an attempt played: (how many count, how many were known).

    `opponent` is "model/3" or a built-in player's name. A number that is taken, and a replay that was booked for
    the same players and purpose, count nothing: a repeated game is no more evidence. Raises `NotFound` when the
    candidate is no model of the line, `UsageError` for a score other than 0, 0.5 and 1.
    """
    found = w.first(_LINE_OF, id=candidate_id)
    if found is None or found["line"] != line:
        raise NotFound(f"model {candidate_id} is no model of line {line}", remedy="see `gamekeeper models`")
    opponent = sentence(opponent, 200)
    for pair in pairs:
        if pair.first not in (0, 0.5, 1) or pair.second not in (0, 0.5, 1) or pair.number < 0:
            raise UsageError(
                f"pair {pair.number} has scores {pair.first}, {pair.second}; 0, 0.5 or 1 are possible"
            )
    booked = [
        pair
        for pair in pairs
        if w.run(
            _BOOK, line=line, candidate_id=candidate_id, opponent=opponent, purpose=purpose, number=pair.number,
            first=pair.first, second=pair.second, replay=pair.replay, job_id=job_id, attempt_id=attempt_id, now=w.now,
        )
    ]  # fmt: skip
    n0, n1, n2, n3, n4 = pentanomial(booked)
    duplicates = len(pairs) - len(booked)
    following = max((pair.number for pair in pairs), default=-1) + 1
    w.run(
        _COUNT, candidate_id=candidate_id, opponent=opponent, purpose=purpose, n0=n0, n1=n1, n2=n2, n3=n3, n4=n4,
        duplicates=duplicates, next_pair=following,
    )  # fmt: skip
    w.emit(MatchesRecorded(line, candidate_id, opponent, str(purpose), len(booked), duplicates, job_id))
    return len(booked), duplicates


def pair_counts(r: Reading, candidate_id: int, opponent: str, purpose: Purpose) -> PairTally:
    """What is booked of a test; kept incrementally. Its `next_pair` lies above all numbers handed in so far."""
    row = r.first(_COUNTS, candidate_id=candidate_id, opponent=opponent, purpose=purpose)
    return PairTally() if row is None else _tally(row)


def tallies(r: Reading, candidate_id: int) -> dict[tuple[str, Purpose], PairTally]:
    """All that is booked of a candidate, by opponent and purpose."""
    rows = r.rows(_ALL_COUNTS, candidate_id=candidate_id)
    return {(row["opponent"], Purpose(row["purpose"])): _tally(row) for row in rows}


def next_pair(r: Reading, candidate_id: int, opponent: str, purpose: Purpose) -> int:
    """The first pair number above all that were handed in for a test and all that its live jobs will play."""
    following = pair_counts(r, candidate_id, opponent, purpose).next_pair
    name, _, model_id = opponent.partition("/")
    names = r.first(_MODELS, candidate_id=candidate_id, opponent_id=int(model_id) if name == "model" else -1)
    if names is None:
        return following
    for row in r.rows(_PLANNED, line=names["line"], purpose=purpose):
        inputs, wanted = object_of(row["inputs"]), object_of(row["wanted"])
        if inputs.get("candidate") != [names["candidate"]] or wanted.get("opponent") != name:
            continue
        if name == "model" and inputs.get("opponent") != [names["opponent"]]:
            continue
        first, count = wanted.get("first_pair"), wanted.get("pairs")
        if isinstance(first, int) and isinstance(count, int):
            following = max(following, first + count)
    return following


def pairs_of(r: Reading, candidate_id: int, opponent: str, purpose: Purpose) -> list[PairResult]:
    """The pairs that count, by number."""
    rows = r.rows(_PAIRS, candidate_id=candidate_id, opponent=opponent, purpose=purpose)
    return [PairResult(row["number"], row["first"], row["second"], row["replay"]) for row in rows]


def _tally(row: Row) -> PairTally:
    counts = (row["n0"], row["n1"], row["n2"], row["n3"], row["n4"])
    return PairTally(counts, row["duplicates"], row["next_pair"])
