"""What an ended attempt is worth, whatever its agent and its job claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.artifacts import Artifact, ArtifactKind
from gamekeeper.core.jobs import END_STATES, AttemptState, EndReason, JobSpec
from gamekeeper.server.judging import MAX_DETAIL, Case, RefusedFile, judge

A, B = "a" * 64, "b" * 64
INPUTS = {"train": {"model": (B,)}, "evaluate": {"candidate": (A,)}}
WANTED = {"evaluate": {"opponent": "random", "pairs": 2, "first_pair": 10}}
GOOD: dict[str, dict[str, object]] = {
    "found": {"model": A, "weights": 3},
    "selfplay": {"games": 2, "samples": 6, "shards": [A]},
    "train": {"steps": 1, "samples": 6, "loss": 0.1, "model": A, "parent": B},
    "evaluate": {"games": 4, "pairs": [[10, 1, 0, A], [11, 0.5, 0.5, B]]},
    "command": {"summary": "done"},
}
KIND = {"found": ArtifactKind.MODEL, "train": ArtifactKind.MODEL, "selfplay": ArtifactKind.SHARD}


def accepted(kind: str) -> list[Artifact]:
    if kind not in KIND:
        return []
    return [Artifact(A, KIND[kind], "mini", "f", 9, 2, 6, 1, "n", {}, 0.0)]


def case(kind: str, **more: object) -> Case:
    spec = JobSpec(
        kind=kind, line="mini", command=("x",), inputs=INPUTS.get(kind, {}), wanted=WANTED.get(kind, {})
    )
    values: dict[str, object] = {
        "spec": spec, "reason": EndReason.FINISHED, "detail": "", "exit_code": 0, "receipt": GOOD[kind],
        "accepted": accepted(kind),
    }  # fmt: skip
    return Case(**{**values, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", GOOD)
def test_full_evidence_succeeds(kind: str) -> None:
    """Honest work could be thrown away."""
    assert judge(case(kind)).state is AttemptState.SUCCEEDED


@pytest.mark.parametrize(
    ("kind", "more", "reason"),
    [
        ("train", {"receipt": None}, EndReason.NO_RECEIPT),
        ("selfplay", {"receipt": {"games": 0, "samples": 0, "shards": []}}, EndReason.NO_EVIDENCE),
        ("selfplay", {"receipt": {"games": 2, "samples": 6}}, EndReason.NO_EVIDENCE),
        ("selfplay", {"receipt": {**GOOD["selfplay"], "extra": 1}}, EndReason.OWN_ERROR),
        ("selfplay", {"receipt": {**GOOD["selfplay"], "games": 3}}, EndReason.OWN_ERROR),
        ("selfplay", {"receipt": {**GOOD["selfplay"], "samples": 5}}, EndReason.OWN_ERROR),
        ("selfplay", {"receipt": {**GOOD["selfplay"], "shards": [A, B]}}, EndReason.MISSING_OUTPUT),
        ("selfplay", {"accepted": []}, EndReason.MISSING_OUTPUT),
        ("train", {"accepted": []}, EndReason.MISSING_OUTPUT),
        ("train", {"accepted": accepted("selfplay")}, EndReason.MISSING_OUTPUT),
        ("train", {"receipt": {**GOOD["train"], "parent": A}}, EndReason.OWN_ERROR),
        ("train", {"receipt": {**GOOD["train"], "loss": float("nan")}}, EndReason.OWN_ERROR),
        ("train", {"known_model": True}, EndReason.NO_EVIDENCE),
        ("found", {"known_model": True}, EndReason.NO_EVIDENCE),
        ("evaluate", {"receipt": {**GOOD["evaluate"], "games": 3}}, EndReason.OWN_ERROR),
        ("evaluate", {"receipt": {"games": 2, "pairs": [[9, 1, 0, A]]}}, EndReason.OWN_ERROR),
        ("evaluate", {"receipt": {"games": 2, "pairs": [[12, 1, 0, A]]}}, EndReason.OWN_ERROR),
        ("command", {"exit_code": 3}, EndReason.OWN_ERROR),
        ("command", {"exit_code": -9}, EndReason.OWN_ERROR),
        ("found", {"reason": EndReason.TIME_LIMIT}, EndReason.TIME_LIMIT),
        ("found", {"reason": EndReason.STOP_REQUESTED, "receipt": None}, EndReason.STOP_REQUESTED),
        ("found", {"reason": EndReason.STOP_REQUESTED, "cancelled": True}, EndReason.STOP_REQUESTED),
        ("found", {"reason": EndReason.STOP_REQUESTED}, EndReason.FINISHED),
    ],
)
def test_what_speaks_against_success_names_the_reason(
    kind: str, more: dict[str, object], reason: EndReason
) -> None:
    """A failure could look like success, or be filed under another cause."""
    judgement = judge(case(kind, **more))
    assert judgement.reason is reason, judgement
    assert reason in (EndReason.FINISHED, EndReason.TIME_LIMIT) or judgement.detail


@given(reason=st.sampled_from(EndReason), kind=st.sampled_from(sorted(GOOD)))
def test_a_refused_file_never_ends_in_success(reason: EndReason, kind: str) -> None:
    """An attempt that tried to hand in bad data could still be credited."""
    judgement = judge(case(kind, reason=reason, refused=[RefusedFile("s.npz", "not-finite", "row 3")]))
    assert judgement.state is not AttemptState.SUCCEEDED
    if END_STATES[reason] in (AttemptState.SUCCEEDED, AttemptState.HOLLOW):
        assert judgement.reason is EndReason.DATA_REFUSED
        assert "not-finite" in judgement.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([A, B]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(sorted({name for receipt in GOOD.values() for name in receipt}))


@given(
    kind=st.sampled_from([*sorted(GOOD), "unheard-of"]),
    receipt=json_values | st.dictionaries(fields, json_values, max_size=5),
    reason=st.sampled_from(EndReason),
    exit_code=st.none() | st.integers(-64, 255),
)
def test_no_receipt_whatsoever_breaks_the_judge(
    kind: str, receipt: object, reason: EndReason, exit_code: int | None
) -> None:
    """A strange receipt could crash the call, or slip past the rule that success needs files."""
    spec = JobSpec(
        kind=kind, line="mini", command=("x",), inputs=INPUTS.get(kind, {}), wanted=WANTED.get(kind, {})
    )
    judgement = judge(Case(spec, reason, "d" * 9000, exit_code, receipt))
    assert len(judgement.detail) <= MAX_DETAIL
    if judgement.state is AttemptState.SUCCEEDED:
        assert kind in ("evaluate", "command"), "these alone need no file"
        assert exit_code in (0, None)
