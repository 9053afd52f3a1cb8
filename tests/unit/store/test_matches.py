"""Game pairs: each booked once, repeated games are no evidence, and no opening is played twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import NotFound, UsageError
from gamekeeper.core.events import MatchesRecorded
from gamekeeper.core.jobs import Attempt
from gamekeeper.core.matches import PairResult, PairTally, Purpose, pentanomial
from gamekeeper.core.models import Model
from gamekeeper.store import event_log, job_queue, matches
from tests.unit.store.rig import Rig, digest, open_rig, spec

SCORES = st.sampled_from([0.0, 0.5, 1.0])


def book(
    rig: Rig, model: Model, attempt: Attempt, pairs: Sequence[PairResult], opponent: str = "random",
    purpose: Purpose = Purpose.PROMOTION,
) -> tuple[int, int]:  # fmt: skip
    return rig.w(
        matches.book_pairs, model.line, model.id, opponent, purpose, pairs=pairs, job_id=attempt.job_id,
        attempt_id=attempt.id,
    )  # fmt: skip


def pair(number: int, replay: int | None = None, first: float = 1.0, second: float = 0.5) -> PairResult:
    return PairResult(number, first, second, digest(number if replay is None else replay))


def test_booked_pairs_are_counted_and_told(rig: Rig) -> None:
    """Breaks if results are miscounted, lost, or leave no event."""
    model, attempt = rig.model(1), rig.attempt()
    results = [pair(0), pair(1, first=0, second=0), pair(2, first=1, second=1)]
    assert book(rig, model, attempt, results) == (3, 0)
    assert rig.r(matches.pair_counts, model.id, "random", Purpose.PROMOTION) == PairTally(
        (1, 0, 0, 1, 1), 0, 3
    )
    assert rig.r(matches.pairs_of, model.id, "random", Purpose.PROMOTION) == results
    assert rig.r(event_log.story, f"model/{model.id}")[-1].event == MatchesRecorded(
        "c4", model.id, "random", "promotion", 3, 0, attempt.job_id
    )


def test_a_number_counts_once(rig: Rig) -> None:
    """Breaks if a pair that is handed in twice, even with another result, is evidence twice."""
    model, attempt = rig.model(1), rig.attempt()
    book(rig, model, attempt, [pair(0)])
    assert book(rig, model, attempt, [pair(0, replay=9, second=0.0), pair(1)]) == (1, 1)
    assert rig.r(matches.pair_counts, model.id, "random", Purpose.PROMOTION) == PairTally(
        (0, 0, 0, 2, 0), 1, 2
    )


def test_a_repeated_game_is_no_new_evidence(rig: Rig) -> None:
    """Breaks if two deterministic players can reach any confidence by playing one game over and over."""
    model, attempt = rig.model(1), rig.attempt()
    assert book(rig, model, attempt, [pair(n, replay=7) for n in range(50)]) == (1, 49)
    tally = rig.r(matches.pair_counts, model.id, "random", Purpose.PROMOTION)
    assert (tally.pairs, tally.duplicates, tally.next_pair) == (1, 49, 50)


def test_tests_are_apart(rig: Rig) -> None:
    """Breaks if canary or rating games, another opponent's or another model's count for a promotion."""
    model, other, attempt = rig.model(1), rig.model(2), rig.attempt()
    book(rig, model, attempt, [pair(0)], purpose=Purpose.CANARY)
    book(rig, model, attempt, [pair(0)], purpose=Purpose.RATING)
    book(rig, model, attempt, [pair(0)], opponent="model/9")
    book(rig, other, attempt, [pair(0)])
    assert rig.r(matches.pair_counts, model.id, "random", Purpose.PROMOTION) == PairTally()
    assert {key: tally.pairs for key, tally in rig.r(matches.tallies, model.id).items()} == {
        ("random", Purpose.CANARY): 1,
        ("random", Purpose.RATING): 1,
        ("model/9", Purpose.PROMOTION): 1,
    }


def test_pairs_that_cannot_be_are_refused(rig: Rig) -> None:
    """Breaks if a score outside the game, a negative number or a foreign candidate is booked."""
    model, attempt = rig.model(1), rig.attempt()
    for wrong in (pair(0, first=0.7), pair(0, second=2.0), pair(-1)):
        with pytest.raises(UsageError):
            book(rig, model, attempt, [pair(5), wrong])
    with pytest.raises(NotFound, match="no model of line other"):
        rig.w(
            matches.book_pairs, "other", model.id, "random", Purpose.CANARY, pairs=[pair(0)], job_id=attempt.job_id,
            attempt_id=attempt.id,
        )  # fmt: skip
    assert rig.r(matches.tallies, model.id) == {}


def test_the_next_pair_lies_above_what_live_jobs_will_play(rig: Rig) -> None:
    """Breaks if two jobs are planned on the same openings, or jobs of other tests push the numbers up."""
    candidate, champion, attempt = rig.model(1), rig.model(2), rig.attempt()
    against = f"model/{champion.id}"
    assert rig.r(matches.next_pair, candidate.id, against, Purpose.PROMOTION) == 0

    def plan(purpose: str, opponent: str, first: int, pairs: int, model: Model = candidate) -> int:
        inputs: dict[str, tuple[str, ...]] = {"candidate": (model.hash,)}
        if opponent == "model":
            inputs["opponent"] = (champion.hash,)
        wanted = {"opponent": opponent, "first_pair": first, "pairs": pairs}
        return rig.w(job_queue.submit, spec(kind="evaluate", purpose=purpose, inputs=inputs, wanted=wanted))[
            0
        ]

    planned = plan("promotion", "model", 0, 8)
    plan("canary", "model", 100, 8)
    plan("promotion", "random", 200, 8)
    plan("promotion", "model", 300, 8, champion)
    assert rig.r(matches.next_pair, candidate.id, against, Purpose.PROMOTION) == 8
    assert rig.r(matches.next_pair, candidate.id, "random", Purpose.PROMOTION) == 208
    rig.w(job_queue.cancel, planned, "")
    assert rig.r(matches.next_pair, candidate.id, against, Purpose.PROMOTION) == 0
    book(rig, candidate, attempt, [pair(3)], opponent=against)
    assert rig.r(matches.next_pair, candidate.id, against, Purpose.PROMOTION) == 4
    assert rig.r(matches.next_pair, 99, "random", Purpose.PROMOTION) == 0


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 12), SCORES, SCORES, st.integers(0, 12)), max_size=6), max_size=6
    )
)
def test_counts_equal_a_recount(batches: list[list[tuple[int, float, float, int]]]) -> None:
    """Breaks if any mixture of known and unknown pairs is counted otherwise than it is booked."""
    rig = open_rig("inline")
    with rig.store:
        model, attempt = rig.model(1), rig.attempt()
        numbers: set[int] = set()
        replays: set[int] = set()
        accepted = []
        handed_in = 0
        for batch in batches:
            book(rig, model, attempt, [pair(n, replay, a, b) for n, a, b, replay in batch])
            handed_in += len(batch)
            for n, a, b, replay in batch:
                if n not in numbers and replay not in replays:
                    numbers.add(n)
                    replays.add(replay)
                    accepted.append(pair(n, replay, a, b))
        tally = rig.r(matches.pair_counts, model.id, "random", Purpose.PROMOTION)
        assert tally.counts == pentanomial(accepted)
        assert tally.played == handed_in
        assert rig.r(matches.pairs_of, model.id, "random", Purpose.PROMOTION) == sorted(
            accepted, key=lambda each: each.number
        )
        rig.check()
