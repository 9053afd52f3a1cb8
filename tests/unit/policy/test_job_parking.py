"""Laws of parking and blaming that hold for every history of failures."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.actions import CancelJob, ExcludeNode, ParkJob
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.jobs import FINAL_JOBS, JobState
from gamekeeper.policy.job_parking import EndedTry, FleetNode, Limits, OverdueJob, Reason, View, decide

NOW = 10_000.0
NODES = [f"n-{n}" for n in range(6)]
STATES = st.sampled_from([JobState.READY, JobState.RUNNING, JobState.FAILED, JobState.WAITING])


@st.composite
def views(draw: st.DrawFn) -> View:
    states = draw(st.lists(STATES, min_size=8, max_size=8))
    tries = []
    for number in range(draw(st.integers(0, 30))):
        job = draw(st.integers(0, 7))
        tries.append(
            EndedTry(
                number, job, states[job], "train" if job % 2 else "selfplay", draw(st.sampled_from(NODES)),
                draw(st.booleans()) if job > 5 else False, "own-error", NOW - 1000 + number,
            )
        )  # fmt: skip
    up = draw(st.lists(st.booleans(), min_size=6, max_size=6))
    nodes = tuple(
        FleetNode(node, here, draw(st.none() | st.just(NOW + 50)), draw(st.integers(0, 80)))
        for node, here in zip(NODES, up, strict=True)
    )
    overdue = tuple(OverdueJob(job, NOW - 1) for job in draw(st.sets(st.integers(0, 9), max_size=2)))
    recent = tuple(tries[draw(st.integers(0, len(tries))) :])
    failed = {one.job_id for one in recent if not one.succeeded}
    charged = tuple(one for one in tries if not one.succeeded and one.job_id in failed)
    return View(recent, charged, nodes, sum(up), overdue)


@given(views(), st.integers(2, 4), st.integers(2, 4), st.sampled_from([0.0, 0.3, 0.9]))
@settings(max_examples=400, deadline=None)
def test_laws(view: View, poison_nodes: int, blame_jobs: int, fraction: float) -> None:
    """Breaks if a failure counts twice, a fleet is shut down, a running or final job is parked, or silence is kept."""
    limits = Limits(poison_nodes=poison_nodes, blame_jobs=blame_jobs, max_excluded_fraction=fraction)
    decision = decide(view, limits, NOW)
    parked = {action.job_id for action in decision.actions if isinstance(action, ParkJob)}
    excluded = [action for action in decision.actions if isinstance(action, ExcludeNode)]
    cancelled = {action.job_id for action in decision.actions if isinstance(action, CancelJob)}
    by_id = {one.attempt_id: one for one in view.charged}
    subjects = [verdict.subject for verdict in decision.verdicts]
    assert len(set(subjects)) == len(subjects)
    assert set(subjects) == {
        *(f"node/{node.node_id}" for node in view.nodes),
        *(f"job/{one.job_id}" for one in view.charged),
        *(f"job/{one.job_id}" for one in view.overdue),
    }
    assert {verdict.subject for verdict in decision.verdicts if verdict.acted} == {
        *(f"job/{job}" for job in parked | cancelled), *(f"node/{one.node_id}" for one in excluded),
    }  # fmt: skip
    assert parked.isdisjoint(cancelled)
    forgiven = {attempt for action in excluded for attempt in action.blameless}
    for action in excluded:
        node = next(one for one in view.nodes if one.node_id == action.node_id)
        assert node.up
        assert node.excluded_until is None
        assert 0 < action.until - NOW <= limits.exclusion_longest_s
        assert all(by_id[attempt].node_id == action.node_id for attempt in action.blameless)
        streak = [one for one in view.recent if one.node_id == action.node_id]
        last = max((one.at for one in streak if one.succeeded), default=0.0)
        assert all(by_id[attempt].at > last for attempt in action.blameless)
        assert len({one.job_id for one in streak if not one.succeeded and one.at > last}) >= blame_jobs
    before = sum(node.up and node.excluded_until is not None for node in view.nodes)
    if excluded:
        assert before + len(excluded) <= max(1, int(fraction * view.nodes_up))
        assert before + len(excluded) < view.nodes_up
    for job in parked:
        own = [one for one in view.charged if one.job_id == job and one.attempt_id not in forgiven]
        assert len({one.node_id for one in own}) >= poison_nodes
        assert own[-1].job_state not in FINAL_JOBS | {JobState.RUNNING}
        assert forgiven.isdisjoint(one.attempt_id for one in own)


def test_exclusions_grow_to_their_longest() -> None:
    """Breaks if a broken node is tried again and again at once, or never any more."""
    limits = Limits(exclusion_first_s=600, exclusion_longest_s=4000)
    assert [limits.exclusion_s(n) for n in (0, 1, 2, 3, 500)] == [600, 1200, 2400, 4000, 4000]


def test_one_success_more_clears_a_node() -> None:
    """Breaks if a working node is excluded for failures it has left behind."""

    def tried(number: int, *, well: bool = False) -> EndedTry:
        return EndedTry(number, number, JobState.READY, "train", "n-0", well, "own-error", NOW - 100 + number)

    failures = tuple(tried(number) for number in range(3))
    nodes = (FleetNode("n-0", up=True),)
    (blamed,) = decide(View(failures, failures, nodes, 5), Limits(), NOW).actions
    assert isinstance(blamed, ExcludeNode)
    cleared = decide(View((*failures, tried(9, well=True)), failures, nodes, 5), Limits(), NOW)
    assert cleared.actions == ()
    assert cleared.verdicts[-1].reason == Reason.TOO_FEW_JOBS


@pytest.mark.parametrize(
    "wrong",
    [
        {"poison_nodes": 1}, {"blame_jobs": 1}, {"blame_window_s": 0.0}, {"blame_window_s": 1e9},
        {"exclusion_first_s": 0.0}, {"exclusion_first_s": 30000.0}, {"exclusion_longest_s": 1e9},
        {"max_excluded_fraction": 1.0}, {"max_excluded_fraction": -0.1}, {"blame_window_s": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_limits_that_cross_are_refused(wrong: dict[str, float]) -> None:
    """Breaks if settings can turn the guard into a weapon, or off without a word."""
    with pytest.raises(SettingsError):
        Limits(**wrong)  # type: ignore[arg-type]


def _failed(number: int, job: int, node: str, *, well: bool = False) -> EndedTry:
    return EndedTry(number, job, JobState.READY, "train", node, well, "own-error", NOW - 100 + number)


def test_what_failed_before_a_success_is_not_forgiven() -> None:
    """Breaks if a node that worked meanwhile takes the blame for a job's own failure."""
    tries = (
        _failed(1, 1, "n-0"), _failed(2, 9, "n-0", well=True), _failed(3, 2, "n-0"), _failed(4, 3, "n-0"),
        _failed(5, 4, "n-0"),
    )  # fmt: skip
    charged = tuple(one for one in tries if not one.succeeded)
    (action,) = decide(View(tries, charged, (FleetNode("n-0", up=True),), 5), Limits(), NOW).actions
    assert isinstance(action, ExcludeNode)
    assert action.blameless == (3, 4, 5)


def test_what_is_held_against_a_parked_job_is_held_against_no_node() -> None:
    """Breaks if one failure parks a job and is forgiven it as well."""
    poison = [_failed(number, 1, f"n-{number}") for number in range(4)]
    others = [_failed(10 + number, 2 + number, "n-0") for number in range(3)]
    good = _failed(20, 9, "n-5", well=True)
    tries = (*poison, *others, good)
    nodes = tuple(FleetNode(f"n-{number}", up=True) for number in range(4))
    park, exclude = decide(View(tries, (*poison, *others), nodes, 10), Limits(), NOW).actions
    assert isinstance(park, ParkJob)
    assert isinstance(exclude, ExcludeNode)
    assert (park.job_id, exclude.node_id, exclude.blameless) == (1, "n-0", (10, 11, 12))
