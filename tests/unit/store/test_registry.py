"""Models, candidates and champions: the pointer moves only by compare and set, by a decision, with its audit row."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.decisions import Evidence
from gamekeeper.core.errors import IllegalTransition, NotFound, StaleToken, UsageError
from gamekeeper.core.events import CandidateRejected, ChampionMoved, ModelRegistered
from gamekeeper.core.matches import PairResult, Purpose
from gamekeeper.core.models import Champion, Model, ModelState
from gamekeeper.store import event_log, matches, registry
from tests.unit.store.rig import Rig, digest, open_rig


def test_a_model_is_registered_once(rig: Rig) -> None:
    """Breaks if a repeated registration makes a second candidate, or loses a fact of the first."""
    parent = rig.model(1)
    model = rig.model(2, parent)
    assert (model.line, model.hash, model.parent_id, model.state) == (
        "c4",
        digest(2),
        parent.id,
        ModelState.CANDIDATE,
    )
    assert (model.steps, model.samples, model.loss, model.decided_at, model.reason) == (
        10,
        100,
        0.5,
        None,
        "",
    )
    assert rig.model(2) == model
    assert rig.r(registry.get, model.id) == model
    assert rig.r(registry.by_hash, "c4", digest(2)) == model
    assert rig.r(registry.by_hash, "other", digest(2)) is None
    assert [each.id for each in rig.r(registry.models, "c4")] == [model.id, parent.id]
    assert [each.id for each in rig.r(registry.models, "c4", 1)] == [model.id]
    stories = [stored.event for stored in rig.r(event_log.story, f"model/{model.id}")]
    assert stories == [ModelRegistered(model.id, "c4", digest(2), parent.id, model.job_id)]


def test_a_parent_is_of_the_same_line(rig: Rig) -> None:
    """Breaks if a model can descend from another game's model, or from none that exists."""
    other = rig.model(1, line="other")
    with pytest.raises(UsageError, match="no model of line c4"):
        rig.model(2, other)
    with pytest.raises(NotFound):
        rig.r(registry.get, 99)
    assert [model.line for model in rig.r(registry.models)] == ["other"]


def test_the_oldest_candidate_is_the_one_to_decide(rig: Rig) -> None:
    """Breaks if a later candidate overtakes one that awaits its decision."""
    assert rig.r(registry.candidate, "c4") is None
    first, second = rig.model(1), rig.model(2)
    rig.model(3, line="other")
    assert rig.r(registry.candidate, "c4") == first
    rig.crown(first)
    assert rig.r(registry.candidate, "c4") == second


def test_moving_the_champion_leaves_its_whole_record(rig: Rig) -> None:
    """Breaks if a promotion lacks its decision, its game pairs, its numbers or its event."""
    first = rig.model(1)
    assert rig.r(registry.champion, "c4") is None
    founding = rig.crown(first)
    second = rig.model(2, first)
    pairs = [PairResult(n, 1, n % 2, digest(100 + n)) for n in range(5)]
    rig.w(
        matches.book_pairs, "c4", second.id, f"model/{first.id}", Purpose.PROMOTION, pairs=pairs,
        job_id=second.job_id, attempt_id=rig.attempt().id,
    )  # fmt: skip
    rig.turn(5)
    decision = rig.crown(second, first.id)
    assert rig.r(registry.champion, "c4") == Champion("c4", second.id, digest(2), 1, rig.clock.now())
    zero, one = rig.r(registry.promotions, "c4")
    assert (zero.generation, zero.model_id, zero.previous_id, zero.decision_id) == (
        0,
        first.id,
        None,
        founding,
    )
    assert (one.generation, one.model_id, one.previous_id, one.decision_id) == (
        1,
        second.id,
        first.id,
        decision,
    )
    assert one.pairs == (0, 0, 3, 0, 2)
    assert one.evidence == (Evidence("llr", 3.0, 2.9, "settings"),)
    promoted = rig.r(registry.get, second.id)
    assert (promoted.state, promoted.decided_at, promoted.reason) == (
        ModelState.PROMOTED, rig.clock.now(), "stronger",
    )  # fmt: skip
    assert rig.r(event_log.story, f"model/{second.id}")[-1].event == ChampionMoved(
        "c4", second.id, first.id, 1, decision
    )


def test_a_champion_that_moved_meanwhile_is_not_moved(rig: Rig) -> None:
    """Breaks if two decisions on one view both move the champion."""
    first, second, third = (rig.model(n) for n in (1, 2, 3))
    rig.crown(first)
    rig.crown(second, first.id)
    with pytest.raises(StaleToken, match=f"not model/{first.id} any more"):
        rig.crown(third, first.id)
    with pytest.raises(StaleToken):
        rig.crown(third)
    assert rig.r(registry.get, third.id).state is ModelState.CANDIDATE
    assert len(rig.r(registry.promotions, "c4")) == 2


def test_a_former_champion_may_come_back(rig: Rig) -> None:
    """Breaks if a rollback is impossible, or rewrites how the model was decided first."""
    first, second = rig.model(1), rig.model(2)
    rig.crown(first)
    rig.crown(second, first.id)
    before = rig.r(registry.get, first.id)
    rig.turn(1)
    rig.crown(first, second.id)
    now = rig.r(registry.champion, "c4")
    assert now is not None
    assert (now.model_id, now.generation) == (first.id, 2)
    assert rig.r(registry.get, first.id) == before


@pytest.mark.parametrize("wrong", ["rejected", "itself", "other line"])
def test_what_can_never_be_champion(rig: Rig, wrong: str) -> None:
    """Breaks if a rejected model, the champion itself or another line's model takes the place."""
    first, second = rig.model(1), rig.model(2, line="other" if wrong == "other line" else "c4")
    rig.crown(first)
    if wrong == "rejected":
        rig.w(registry.reject, second.id, "weak", rig.decide("line/c4"))
    decision = rig.decide("line/c4")
    with pytest.raises(IllegalTransition, match="cannot become champion"):
        rig.w(registry.move_champion, "c4", first.id if wrong == "itself" else second.id, first.id, decision)


def test_no_champion_moves_without_a_stored_decision(rig: Rig) -> None:
    """Breaks if a champion can be moved, or a candidate closed, on a decision that does not exist."""
    model = rig.model(1)
    with pytest.raises(NotFound, match="decision 99"):
        rig.w(registry.move_champion, "c4", model.id, None, 99)
    with pytest.raises(NotFound, match="decision 99"):
        rig.w(registry.reject, model.id, "weak", 99)
    assert rig.r(registry.champion, "c4") is None
    assert rig.r(registry.get, model.id) == model


def test_a_rejected_candidate_is_closed_for_good(rig: Rig) -> None:
    """Breaks if a rejection lacks its reason or event, or can be repeated or undone."""
    model = rig.model(1)
    decision = rig.decide(f"model/{model.id}")
    closed = rig.w(registry.reject, model.id, "not-stronger", decision)
    assert (closed.state, closed.reason, closed.decided_at) == (
        ModelState.REJECTED, "not-stronger", rig.clock.now(),
    )  # fmt: skip
    assert rig.r(event_log.story, f"model/{model.id}")[-1].event == CandidateRejected(
        "c4", model.id, "not-stronger", decision
    )
    with pytest.raises(StaleToken, match="rejected already"):
        rig.w(registry.reject, model.id, "again", decision)


def test_champions_of_all_lines(rig: Rig) -> None:
    """Breaks if lines share a pointer."""
    one, other = rig.model(1), rig.model(2, line="other")
    rig.crown(other)
    rig.crown(one)
    assert [(each.line, each.model_id) for each in rig.r(registry.champions)] == [
        ("c4", one.id),
        ("other", other.id),
    ]


@given(moves=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=20))
def test_the_pointer_is_the_last_promotion(moves: list[tuple[int, int]]) -> None:
    """Breaks if any order of compare-and-set moves leaves the pointer and its record apart."""
    rig = open_rig("inline")
    with rig.store:
        models: list[Model] = [rig.model(n) for n in range(4)]
        current, generation = None, -1
        for to, expected_index in moves:
            expected = models[expected_index].id if expected_index < 4 else None
            try:
                rig.crown(models[to], expected)
            except StaleToken:
                assert expected != current
            except IllegalTransition:
                assert models[to].id == expected
            else:
                assert expected == current
                current, generation = models[to].id, generation + 1
        champion = rig.r(registry.champion, "c4")
        assert (champion.model_id if champion else None) == current
        assert len(rig.r(registry.promotions, "c4")) == generation + 1
        rig.check()
