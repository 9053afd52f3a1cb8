"""The catalogue: what counts, what counts once, and which shards a training sees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.events import ArtifactAccepted, ArtifactRefused
from gamekeeper.core.jobs import EndReason
from gamekeeper.store import artifacts, event_log
from gamekeeper.store.artifacts import LineCounts
from tests.unit.store.rig import Rig, digest, open_rig, shard


def test_an_accepted_file_is_visible_with_its_provenance(rig: Rig) -> None:
    """Breaks if a file is shown without knowing who made it, when, and what it holds."""
    attempt = rig.running()
    assert rig.r(artifacts.get, digest(1)) is None
    assert rig.publish(attempt, 1, games=3, samples=50)
    found = rig.r(artifacts.get, digest(1))
    assert found is not None
    assert (found.hash, found.kind, found.line, found.name, found.bytes) == (
        digest(1), ArtifactKind.SHARD, "c4", "file-1.npz", 100,
    )  # fmt: skip
    assert (found.games, found.samples, found.attempt_id, found.node_id) == (
        3,
        50,
        attempt.id,
        attempt.node_id,
    )
    assert (found.metadata, found.created_at) == ({"n": 1}, rig.clock.now())
    assert rig.r(event_log.story, f"artifact/{digest(1)}")[0].event == ArtifactAccepted(
        digest(1), "shard", "c4", attempt.job_id, 100, 3, 50
    )


def test_a_file_handed_in_again_counts_once(rig: Rig) -> None:
    """Breaks if a repeated upload, or a retry that makes the same bytes, doubles the verified games."""
    attempt = rig.running()
    assert rig.publish(attempt, 1)
    assert not rig.publish(attempt, 1)
    rig.finish(attempt, EndReason.OWN_ERROR)
    later = rig.regrant(attempt)
    assert not rig.publish(later, 1)
    assert rig.publish(later, 2)
    assert rig.r(artifacts.line_counts, "c4") == LineCounts(games=4, samples=40, shards=2, files=2, bytes=200)
    assert len([e for e in rig.r(event_log.after, 0, 99) if e.event.name == "artifact-accepted"]) == 2


def test_a_retry_that_makes_the_same_bytes_has_its_proof(rig: Rig) -> None:
    """Breaks if a deterministic retry is judged to have handed in nothing, because its twin did before it."""
    attempt = rig.running()
    rig.publish(attempt, 1)
    rig.finish(attempt, EndReason.OWN_ERROR)
    later = rig.regrant(attempt)
    rig.publish(later, 1)
    assert [found.hash for found in rig.r(artifacts.by_attempt, later.id)] == [digest(1)]
    found = rig.r(artifacts.get, digest(1))
    assert found is not None
    assert found.attempt_id == attempt.id


def test_the_same_bytes_count_for_each_line_and_kind(rig: Rig) -> None:
    """Breaks if two lines that found equal models can have only one of them."""
    one, other = rig.running(), rig.running(line="other")
    model = shard(1, kind=ArtifactKind.MODEL)
    assert rig.publish(one, 1)
    assert rig.w(artifacts.register, one.id, one.token, model, games=0, samples=0)
    assert rig.w(artifacts.register, other.id, other.token, model, games=0, samples=0)
    assert rig.r(artifacts.all_line_counts) == {
        "c4": LineCounts(games=2, samples=20, shards=1, files=2, bytes=200),
        "other": LineCounts(games=0, samples=0, shards=0, files=1, bytes=100),
    }
    assert rig.r(artifacts.line_counts, "none") == LineCounts()


def test_a_refused_file_is_noted_once_and_never_visible(rig: Rig) -> None:
    """Breaks if refused data counts, or its reason is lost."""
    attempt = rig.running()
    for expected in (True, False):
        noted = rig.w(
            artifacts.refuse, attempt.id, attempt.token, shard(1), problem="not-finite", detail="row 3 is NaN"
        )
        assert noted is expected
    assert rig.r(artifacts.get, digest(1)) is None
    assert rig.r(artifacts.line_counts, "c4") == LineCounts()
    (refusal,) = rig.r(artifacts.refusals_of, attempt.id)
    assert (refusal.hash, refusal.problem, refusal.detail) == (digest(1), "not-finite", "row 3 is NaN")
    assert (refusal.name, refusal.kind, refusal.refused_at) == (
        "file-1.npz",
        ArtifactKind.SHARD,
        rig.clock.now(),
    )
    assert rig.r(event_log.story, f"node/{attempt.node_id}")[-1].event == ArtifactRefused(
        digest(1), "shard", "c4", attempt.job_id, attempt.node_id, "not-finite", "row 3 is NaN"
    )


@given(
    sizes=st.lists(st.integers(1, 50), max_size=30),
    window=st.integers(0, 400),
    page=st.integers(1, 7),
)
def test_the_window_is_the_shortest_newest_run_that_covers(sizes: list[int], window: int, page: int) -> None:
    """Breaks if a training sees old shards for new ones, too few samples, more than needed, or in wrong order."""
    rig = open_rig("inline")
    kept, artifacts._PAGE = artifacts._PAGE, page
    try:
        with rig.store:
            attempt, other = rig.running(), rig.running(line="other")
            for n, samples in enumerate(sizes):
                rig.publish(attempt, n, samples=samples)
                rig.publish(other, 1000 + n, samples=500)
                rig.w(
                    artifacts.register, attempt.id, attempt.token, shard(2000 + n, kind=ArtifactKind.MODEL), games=0,
                    samples=0,
                )  # fmt: skip
            found = [(one.hash, one.samples) for one in rig.r(artifacts.newest_shards, "c4", window)]
    finally:
        artifacts._PAGE = kept
    everything = [(digest(n), samples) for n, samples in enumerate(sizes)]
    start = len(sizes)
    while start > 0 and sum(sizes[start:]) < window:
        start -= 1
    assert found == everything[start:]
