"""Decisions: changes only, in bounded number, and everything acted on kept with its reasons."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.actions import Action, CancelJob, SubmitJob
from gamekeeper.core.decisions import Decision, Evidence, Verdict
from gamekeeper.core.errors import Corrupt, NotFound
from gamekeeper.store import decisions, registry
from gamekeeper.store.decisions import Outcome
from tests.unit.store.rig import Rig, open_rig, spec

CANCEL = CancelJob(7, "not wanted")


def say(
    reason: str = "waits", *, acted: bool = False, subject: str = "line/c4", value: float | None = 1.0,
    limit: float | None = 100.0, words: str = "words",
) -> Verdict:  # fmt: skip
    return Verdict(subject, reason, words, acted, (Evidence("samples", value, limit, "lines.c4"),))


def record(
    rig: Rig, *verdicts: Verdict, actions: Sequence[Action] = (), policy: str = "loop", keep: int = 2000
) -> int | None:
    made = Decision(policy, rig.clock.now(), verdicts, actions)
    news = rig.r(decisions.news_of, made) is not None
    decision_id = rig.w(decisions.record, made, 5, keep=keep)
    assert news is (decision_id is not None)
    return decision_id


def test_what_was_said_before_is_not_stored_again(rig: Rig) -> None:
    """Breaks if a policy that says the same many times a second fills the store."""
    first = record(rig, say())
    assert first is not None
    for _ in range(5):
        rig.turn(1)
        assert record(rig, say()) is None
    assert [stored.decision_id for stored in rig.r(decisions.why, "line/c4")] == [first]


@pytest.mark.parametrize(
    "change",
    [say("other"), say(acted=True), say(value=60.0), say(value=None), say(limit=None), say(subject="line/x")],
    ids=["reason", "acted", "band", "unknown value", "no limit", "other subject"],
)
def test_a_change_is_stored(rig: Rig, change: Verdict) -> None:
    """Breaks if a changed reason, act or standing of the numbers leaves no trace."""
    record(rig, say())
    rig.turn(1)
    decision_id = record(rig, change)
    assert decision_id is not None
    newest = rig.r(decisions.why, change.subject)[0]
    assert (newest.decision_id, newest.policy, newest.at, newest.verdict) == (
        decision_id, "loop", rig.clock.now(), change,
    )  # fmt: skip


def test_going_back_is_a_change_too(rig: Rig) -> None:
    """Breaks if the store compares with anything but the last word."""
    for reason in ("a", "b", "a"):
        assert record(rig, say(reason)) is not None
    assert [stored.verdict.reason for stored in rig.r(decisions.why, "line/c4")] == ["a", "b", "a"]
    assert [stored.verdict.reason for stored in rig.r(decisions.why, "line/c4", 1)] == ["a"]


def test_policies_do_not_answer_for_one_another(rig: Rig) -> None:
    """Breaks if one policy's verdict hides another's on the same subject."""
    record(rig, say("a"), policy="one")
    rig.turn(1)
    record(rig, say("b"), policy="two")
    assert record(rig, say("a"), policy="one") is None
    assert {stored.policy for stored in rig.r(decisions.current, "line/c4")} == {"one", "two"}


def test_the_current_words_are_always_fresh(rig: Rig) -> None:
    """Breaks if `status` shows old numbers because they were not worth storing."""
    record(rig, say(value=1.0, words="1 of 100"))
    rig.turn(1)
    assert record(rig, say(value=2.0, words="2 of 100")) is None
    (now,) = rig.r(decisions.current, "line/c4")
    assert (now.verdict.sentence, now.verdict.evidence[0].value, now.at) == ("2 of 100", 2.0, rig.clock.now())
    assert rig.r(decisions.why, "line/c4")[0].verdict.sentence == "1 of 100"


def test_a_creeping_counter_is_news_a_few_times_only(rig: Rig) -> None:
    """Breaks if every sample that arrives is a stored decision, or reaching the limit is none."""
    stored = [value for value in range(111) if record(rig, say(value=float(value))) is not None]
    assert stored == [0, 25, 50, 75, 100, 101]


def test_a_decision_with_actions_is_always_stored_whole(rig: Rig) -> None:
    """Breaks if an effect can happen without its record, or the record lacks an action or a verdict acted on."""
    acted = say("cancelled", acted=True, subject="job/7")
    for _ in range(2):
        rig.turn(1)
        actions = (CANCEL, SubmitJob(spec(inputs={"model": ("a" * 64,)}, key="k")))
        decision_id = record(rig, acted, say(), actions=actions)
        assert decision_id is not None
        found = rig.r(decisions.decision, decision_id)
        assert acted in [stored.verdict for stored in found.verdicts]
        assert (found.policy, found.decided_at, found.epoch) == ("loop", rig.clock.now(), 5)
        assert [(action.kind, action.outcome) for action in found.actions] == [
            ("CancelJob", Outcome.PENDING), ("SubmitJob", Outcome.PENDING),
        ]  # fmt: skip
        assert found.actions[0].fields == {"job_id": 7, "reason": "not wanted", "if_ready": False}
        submitted = found.actions[1].fields["spec"]
        assert isinstance(submitted, dict)
        assert (submitted["key"], submitted["inputs"]) == ("k", {"model": ["a" * 64]})


def test_outcomes_are_kept_with_their_actions(rig: Rig) -> None:
    """Breaks if what became of an action is lost or booked to another."""
    decision_id = record(rig, say(acted=True), actions=(CANCEL, CANCEL))
    assert decision_id is not None
    rig.w(decisions.set_outcome, decision_id, 1, Outcome.OVERTAKEN, "it is done")
    found = rig.r(decisions.decision, decision_id).actions
    assert [(action.outcome, action.detail) for action in found] == [
        (Outcome.PENDING, ""), (Outcome.OVERTAKEN, "it is done"),
    ]  # fmt: skip


def test_old_decisions_go_and_new_ones_stay(rig: Rig) -> None:
    """Breaks if the store grows for ever, or forgets the newest."""
    made = [record(rig, say(str(n)), keep=10) for n in range(40)]
    other = record(rig, say("x"), policy="other", keep=10)
    assert other is not None
    kept = [stored.decision_id for stored in rig.r(decisions.why, "line/c4")]
    assert kept == [other, *made[:-11:-1]]
    with pytest.raises(NotFound, match="does not exist"):
        rig.r(decisions.decision, made[0])
    assert [stored.decision_id for stored in rig.r(decisions.newest, 2)] == [other, made[-1]]


def test_a_verdict_whose_decision_went_is_news_again(rig: Rig) -> None:
    """Breaks if a subject that never changes loses its last explanation for good."""
    record(rig, say(subject="line/still"))
    for n in range(10):
        record(rig, say(str(n)), keep=5)
    assert rig.r(decisions.current, "line/still") == []
    assert record(rig, say(subject="line/still"), keep=5) is not None


def test_what_a_promotion_rests_on_never_goes(rig: Rig) -> None:
    """Breaks if the reason for a champion or a rejection is pruned, or blocks the pruning of others."""
    first, second = rig.model(1), rig.model(2)
    crowned = rig.crown(first)
    rejected = rig.decide(f"model/{second.id}")
    rig.w(registry.reject, second.id, "weak", rejected)
    made = [record(rig, say(str(n)), policy="promotion", keep=3) for n in range(20)]
    assert rig.r(decisions.decision, crowned).verdicts
    assert rig.r(decisions.decision, rejected).verdicts
    assert [stored.decision_id for stored in rig.r(decisions.why, "line/c4")] == made[:-4:-1]


def test_a_backlog_is_pruned_in_bounded_steps(rig: Rig) -> None:
    """Breaks if lowering the bound makes one decision pay for deleting everything."""
    for n in range(100):
        record(rig, say(str(n)))
    record(rig, say("x"), keep=10)
    assert len(rig.r(decisions.why, "line/c4", 1000)) == 101 - decisions.PRUNED_AT_ONCE
    record(rig, say("y"), keep=10)
    assert len(rig.r(decisions.why, "line/c4", 1000)) == 10


def test_pinning_twice_or_nothing(rig: Rig) -> None:
    """Breaks if a decision that is kept for two reasons is counted out twice, or a missing one is taken for kept."""
    decision_id = record(rig, say())
    assert decision_id is not None
    for _ in range(2):
        rig.w(decisions.pin, decision_id)
    with pytest.raises(NotFound):
        rig.w(decisions.pin, 99)


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        (float("nan"), 1.0),
        (float("inf"), float("-inf")),
        ("text", None),
        (True, False),
        (None, None),
        (3, 0),
        (-5, 2),
    ],
)
def test_any_evidence_can_be_stored(rig: Rig, value: object, limit: object) -> None:
    """Breaks if an odd number in the evidence makes the decision impossible."""
    evidence = (Evidence("x", value, limit, "origin"),)  # type: ignore[arg-type]
    verdict = Verdict("line/c4", "r", "words", False, evidence)
    assert record(rig, verdict) is not None
    assert record(rig, verdict) is None
    (stored,) = rig.r(decisions.why, "line/c4")
    kept = stored.verdict.evidence[0]
    shown = tuple(
        str(each) if each != each or each in (float("inf"), float("-inf")) else each
        for each in (value, limit)
    )
    assert (kept.name, kept.value, kept.limit, kept.origin) == ("x", *shown, "origin")


@pytest.mark.parametrize("encoded", ["{}", "[1]", '[["a", 1]]', "no json"])
def test_damaged_evidence_is_named(encoded: str) -> None:
    """Breaks if damaged evidence is shown as if it were sound."""
    with pytest.raises(Corrupt):
        decisions.decode_evidence(encoded)


@given(
    passes=st.lists(
        st.tuples(
            st.sampled_from(["p", "q"]),
            st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=3),
        ),
        max_size=25,
    )
)
def test_stored_verdicts_are_exactly_the_changes(passes: list[tuple[str, list[tuple[str, int]]]]) -> None:
    """Breaks if any sequence of passes stores a verdict that is no change, or misses one, or miscounts."""
    rig = open_rig("inline")
    with rig.store:
        last: dict[tuple[str, str], int] = {}
        changes: dict[str, int] = {}
        for policy, said in passes:
            subjects = dict(said)
            record(rig, *(say(str(n), subject=name) for name, n in subjects.items()), policy=policy)
            for name, n in subjects.items():
                if last.get((policy, name)) != n:
                    changes[name] = changes.get(name, 0) + 1
                last[policy, name] = n
        for name in "abc":
            assert len(rig.r(decisions.why, name)) == changes.get(name, 0)
            assert {s.policy: int(s.verdict.reason) for s in rig.r(decisions.current, name)} == {
                policy: n for (policy, subject), n in last.items() if subject == name
            }
        rig.check()


def test_only_what_is_new_or_worded_afresh_goes_to_the_writer(rig: Rig) -> None:
    """Breaks if ten thousand unchanged verdicts pass through the write transaction, or a changed one does not."""
    old = [say(words="same"), Verdict("line/b", "waits", "2 left", False)]
    record(rig, *old)
    made = Decision("loop", rig.clock.now(), (*old, Verdict("line/c", "waits", "new", False)))
    news = rig.r(decisions.news_of, made)
    assert news is not None
    assert [verdict.subject for verdict in news.verdicts] == ["line/c"]
    reworded = Verdict("line/b", "waits", "1 left", False)
    made = Decision("loop", rig.clock.now(), (old[0], reworded, Verdict("line/c", "waits", "new", False)))
    news = rig.r(decisions.news_of, made)
    assert news is not None
    assert [verdict.subject for verdict in news.verdicts] == ["line/b", "line/c"]
    assert rig.r(decisions.news_of, Decision("loop", rig.clock.now(), (old[0], reworded))) is None
