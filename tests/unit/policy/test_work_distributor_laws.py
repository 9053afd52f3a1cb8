"""What holds for every match of waiting agents with ready jobs."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gamekeeper.policy.work_distributor import LaneLoad, Limits, ReadyJob, Reason, View, WaitingAgent, decide
from tests.unit.policy.work_cases import NOW, granted_ids, grants

# --- properties ------------------------------------------------------------------------------------------------

lines = st.sampled_from(["a", "b", "c"])
kinds = st.sampled_from(["found", "selfplay", "train", "evaluate", "command"])
purposes = st.sampled_from(["", "rating", "promotion"])
times = st.floats(NOW - 500, NOW + 200)


@st.composite
def views(draw: st.DrawFn) -> View:
    agents = draw(
        st.lists(
            st.builds(WaitingAgent, st.sampled_from("nmopq"), st.just("i"), st.integers(0, 5), times),
            unique_by=lambda agent: agent.node_id,
            max_size=5,
        )
    )
    jobs = draw(
        st.lists(
            st.builds(ReadyJob, st.integers(1, 60), kinds, purposes, lines, times, times),
            unique_by=lambda job: job.job_id,
            max_size=25,
        )
    )
    loads = draw(st.lists(st.builds(LaneLoad, lines, kinds, purposes, st.integers(0, 6)), max_size=6))
    return View(tuple(agents), tuple(jobs), tuple(loads), draw(st.booleans()))


limits_drawn = st.builds(
    Limits,
    weights=st.dictionaries(kinds, st.floats(0.1, 10), max_size=4),
    line_weights=st.dictionaries(lines, st.floats(0.1, 10), max_size=2),
    grants_per_pass=st.integers(1, 12),
)


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_never_grants_more_than_free_slots(view: View, limits: Limits) -> None:
    """A node overcommitted by one pass would run more processes than it offered."""
    decision = decide(view, limits, NOW)
    for waiting in view.agents:
        mine = [grant for grant in grants(decision) if grant.node_id == waiting.node_id]
        assert len(mine) <= waiting.free_slots
        assert not mine or waiting.lease_expires_at > NOW


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_grants_each_job_at_most_once_and_only_due_ones(view: View, limits: Limits) -> None:
    """A job granted twice has two live attempts; one granted early ignores its retry delay."""
    ids = granted_ids(decide(view, limits, NOW))
    assert len(ids) == len(set(ids))
    due = {job.job_id for job in view.jobs if job.not_before <= NOW}
    assert set(ids) <= due


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_no_slot_stays_idle_beside_due_work(view: View, limits: Limits) -> None:
    """The starvation of the old fleet: idle nodes beside a full queue."""
    decision = decide(view, limits, NOW)
    free = sum(max(0, agent.free_slots) for agent in view.agents if agent.lease_expires_at > NOW)
    due = sum(job.not_before <= NOW for job in view.jobs)
    expected = 0 if view.draining else min(free, due, limits.grants_per_pass)
    assert len(decision.actions) == expected


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_every_job_and_node_gets_one_verdict(view: View, limits: Limits) -> None:
    """A subject without a verdict cannot be explained by `why`."""
    decision = decide(view, limits, NOW)
    subjects = [verdict.subject for verdict in decision.verdicts]
    assert sorted(subjects) == sorted(
        [f"job/{job.job_id}" for job in view.jobs] + [f"node/{agent.node_id}" for agent in view.agents]
    )
    assert all(verdict.reason in set(Reason) and verdict.sentence for verdict in decision.verdicts)


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_a_verdict_acts_exactly_when_a_grant_follows(view: View, limits: Limits) -> None:
    """A verdict that says granted without a grant, or the reverse, would be a lie in the record."""
    decision = decide(view, limits, NOW)
    acting = {verdict.subject for verdict in decision.verdicts if verdict.acted}
    jobs = {f"job/{grant.job_id}" for grant in grants(decision)}
    assert acting == jobs | {f"node/{grant.node_id}" for grant in grants(decision)}


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn, st.randoms(use_true_random=False))
def test_the_order_of_the_view_does_not_matter(view: View, limits: Limits, chance: random.Random) -> None:
    """Answers that hang on row order cannot be replayed."""
    shuffled = View(
        tuple(chance.sample(view.agents, len(view.agents))),
        tuple(chance.sample(view.jobs, len(view.jobs))),
        tuple(chance.sample(view.running, len(view.running))),
        view.draining,
    )
    assert decide(shuffled, limits, NOW) == decide(view, limits, NOW)


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_within_a_lane_the_oldest_goes_first(view: View, limits: Limits) -> None:
    """A younger job that overtakes an older one of its own lane could starve it."""
    decision = decide(view, limits, NOW)
    given_out = set(granted_ids(decision))
    due = [job for job in view.jobs if job.not_before <= NOW]
    for one in due:
        for other in due:
            same = (one.line, limits.lane(one.kind, one.purpose)) == (
                other.line,
                limits.lane(other.kind, other.purpose),
            )
            older = (one.created_at, one.job_id) < (other.created_at, other.job_id)
            assert not (same and older and other.job_id in given_out and one.job_id not in given_out)


@settings(max_examples=40, deadline=None)
@given(views(), limits_drawn)
def test_one_more_slot_never_takes_a_grant_away(view: View, limits: Limits) -> None:
    """More capacity must mean a superset of work: the matching is greedy, hence monotone."""
    wide = replace(limits, grants_per_pass=1000)
    more = replace(view, agents=(*view.agents, WaitingAgent("zz", "i", 1, NOW + 30)))
    assert set(granted_ids(decide(view, wide, NOW))) <= set(granted_ids(decide(more, wide, NOW)))


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    st.lists(st.tuples(lines, kinds), min_size=2, max_size=6, unique=True),
    st.dictionaries(kinds, st.floats(0.5, 4), max_size=5),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_no_lane_starves(
    lanes: list[tuple[str, str]], weights: dict[str, float], slots: int, seed: int
) -> None:
    """With every lane always full of work, each must still be granted within a time its weight explains."""
    limits, chance = Limits(weights=weights, ageing_s=60), random.Random(seed)
    now, number, longest = NOW, 0, 0.0
    waiting: list[ReadyJob] = []
    running: list[tuple[float, str, str]] = []
    last = dict.fromkeys(lanes, NOW)
    for _ in range(300):
        for line, kind in lanes:
            while sum((job.line, job.kind) == (line, kind) for job in waiting) < 3:
                number += 1
                waiting.append(ReadyJob(number, kind, "", line, now))
        running = [one for one in running if one[0] > now]
        loads = tuple(
            LaneLoad(line, kind, "", sum(one[1:] == (line, kind) for one in running), last[line, kind])
            for line, kind in lanes
        )
        view = View((WaitingAgent("n", "i", slots - len(running), now + 30),), tuple(waiting), loads)
        for grant in grants(decide(view, limits, now)):
            (chosen,) = [job for job in waiting if job.job_id == grant.job_id]
            waiting.remove(chosen)
            running.append((now + chance.uniform(5, 30), chosen.line, chosen.kind))
            longest = max(longest, now - last[chosen.line, chosen.kind])
            last[chosen.line, chosen.kind] = now
        now += 5
    longest = max([longest, *(now - at for at in last.values())])
    # Ageing makes up for the weights; then lanes are served in turn, each job taking 35 s at most.
    shares = [limits.weight(line, kind) for line, kind in lanes]
    bound = 60 * slots * max(shares) / min(shares) + 35 * sum(shares) / min(shares)
    assert longest <= bound + 120, (last, now)
