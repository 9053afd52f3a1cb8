"""Roles and agent leases: who holds what, until when, and what an overtaken holder can still do (nothing)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import NotFound, RoleHeld, StaleToken
from gamekeeper.core.events import AgentConnected, CoordinatorStarted
from gamekeeper.core.jobs import AttemptState, EndReason, JobState
from gamekeeper.core.nodes import NodeStatus, Observation
from gamekeeper.store import event_log, inventory, job_queue, leases, summary
from gamekeeper.store.leases import Progress
from tests.unit.store.rig import LEASE_S, PROCESS, SEEN, START, Rig, open_rig

ROLE = "coordinator"


def test_a_role_has_one_holder(rig: Rig) -> None:
    """Breaks if a second process can take a role while the first one's lease runs."""
    rig.w(leases.take_role, ROLE, "first", LEASE_S)
    rig.turn(LEASE_S - 0.01)
    with pytest.raises(RoleHeld, match="held by first"):
        rig.w(leases.take_role, ROLE, "second", LEASE_S)
    held = rig.r(leases.holder, ROLE)
    assert held is not None
    assert held.holder == "first"


def test_a_role_is_free_once_its_lease_ran_out(rig: Rig) -> None:
    """Breaks if a dead coordinator blocks its successor, or the successor gets no greater epoch."""
    first = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    rig.turn(LEASE_S)
    second = rig.w(leases.take_role, ROLE, "second", LEASE_S)
    assert second > first
    with pytest.raises(StaleToken, match="by second"):
        rig.w(leases.renew_role, ROLE, first, LEASE_S)
    with pytest.raises(StaleToken):
        rig.w(leases.assert_role, ROLE, first)
    with pytest.raises(StaleToken):
        rig.w(leases.release_role, ROLE, first)
    rig.w(leases.assert_role, ROLE, second)


def test_a_renewed_role_is_held_longer(rig: Rig) -> None:
    """Breaks if renewing does not move the end of the lease."""
    epoch = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    rig.turn(20)
    assert rig.w(leases.renew_role, ROLE, epoch, LEASE_S) == rig.clock.now() + LEASE_S
    rig.turn(20)
    with pytest.raises(RoleHeld):
        rig.w(leases.take_role, ROLE, "second", LEASE_S)


def test_a_role_that_ran_out_but_was_not_taken_can_be_renewed(rig: Rig) -> None:
    """Breaks if a paused coordinator whom nobody replaced must die for nothing."""
    epoch = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    rig.turn(1000)
    assert rig.r(leases.holder, ROLE) is None
    rig.w(leases.renew_role, ROLE, epoch, LEASE_S)
    rig.w(leases.assert_role, ROLE, epoch)


def test_a_released_role_is_free_at_once(rig: Rig) -> None:
    """Breaks if a clean stop makes the next start wait, or a released epoch still has effect."""
    first = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    rig.w(leases.release_role, ROLE, first)
    assert rig.r(leases.holder, ROLE) is None
    with pytest.raises(StaleToken, match="by nobody"):
        rig.w(leases.assert_role, ROLE, first)
    with pytest.raises(StaleToken):
        rig.w(leases.renew_role, ROLE, first, LEASE_S)
    with pytest.raises(StaleToken):
        rig.w(leases.release_role, ROLE, first)
    assert rig.w(leases.take_role, ROLE, "second", LEASE_S) > first


def test_a_role_nobody_took_is_held_by_nobody(rig: Rig) -> None:
    """Breaks if an epoch is believed for a role that was never taken."""
    assert rig.r(leases.holder, ROLE) is None
    with pytest.raises(StaleToken, match="by nobody"):
        rig.w(leases.assert_role, ROLE, 1)


def test_proof_of_death_displaces_a_holder(rig: Rig) -> None:
    """Breaks if a coordinator restarted under the data folder's lock must wait for its own old lease."""
    first = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    second = rig.w(leases.take_role, ROLE, "second", LEASE_S, displace=True)
    assert second > first
    with pytest.raises(StaleToken):
        rig.w(leases.assert_role, ROLE, first)


def test_roles_are_apart(rig: Rig) -> None:
    """Breaks if taking one role takes another, or an epoch of one is good for another."""
    one = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    rig.w(leases.take_role, "collector", "second", LEASE_S)
    rig.w(leases.assert_role, ROLE, one)
    with pytest.raises(StaleToken):
        rig.w(leases.assert_role, "collector", one)


def test_taking_a_role_is_in_the_log(rig: Rig) -> None:
    """Breaks if a change of leader leaves no trace."""
    epoch = rig.w(leases.take_role, ROLE, "first", LEASE_S)
    assert [e.event for e in rig.r(event_log.story, f"role/{ROLE}")] == [
        CoordinatorStarted(ROLE, epoch, "first")
    ]


def test_connecting_brings_a_node_up(rig: Rig) -> None:
    """Breaks if a connection does not show on the node: status, slots, observation, time."""
    node_id = rig.node(slots=1)
    before = rig.r(inventory.node, node_id)
    assert before is not None
    assert (before.status, before.observation, before.last_seen_at) == (NodeStatus.UNKNOWN, None, None)
    lease, keep, stop = rig.connect(node_id, "i1", slots=5)
    assert (keep, stop) == ([], [])
    assert (lease.node_id, lease.incarnation, lease.expires_at) == (node_id, "i1", START + LEASE_S)
    after = rig.r(inventory.node, node_id)
    assert after is not None
    assert (after.status, after.slots, after.last_seen_at, after.observation) == (
        NodeStatus.UP,
        5,
        START,
        SEEN,
    )
    assert [e.event for e in rig.r(event_log.story, f"node/{node_id}")][-1] == AgentConnected(
        node_id, "i1", lease.token, 0
    )


def test_an_unknown_node_cannot_connect(rig: Rig) -> None:
    """Breaks if a lease is given for a machine that was never enrolled."""
    with pytest.raises(NotFound, match="not enrolled"):
        rig.connect("n-none", "i1")
    assert rig.r(leases.agents) == []


def test_a_later_incarnation_takes_the_node(rig: Rig) -> None:
    """Breaks if two agents can hold one node at once."""
    node_id, first = rig.agent()
    rig.connect(node_id, "later")
    with pytest.raises(StaleToken, match="does not hold its node"):
        rig.beat(first)
    with pytest.raises(StaleToken, match="not held by a live agent"):
        rig.w(job_queue.grant, rig.job(), node_id, first)
    lease, _ = rig.beat("later")
    assert lease.node_id == node_id


def test_a_connection_that_comes_late_takes_nothing(rig: Rig) -> None:
    """Breaks if a delayed message of an overtaken incarnation wins its node back."""
    node_id, first = rig.agent()
    rig.connect(node_id, "later")
    job = rig.job()
    attempt = rig.w(job_queue.grant, job, node_id, "later")
    with pytest.raises(StaleToken):
        rig.connect(node_id, first)
    assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.LEASED
    rig.beat("later", attempt)


def test_an_incarnation_belongs_to_one_node(rig: Rig) -> None:
    """Breaks if an agent can take the lease of another node by naming its incarnation."""
    _, first = rig.agent()
    with pytest.raises(StaleToken):
        rig.connect(rig.node(), first)
    rig.beat(first)


def test_connecting_twice_is_harmless(rig: Rig) -> None:
    """Breaks if a repeated connect of the same agent loses what it was granted meanwhile."""
    attempt = rig.running()
    other = rig.w(job_queue.grant, rig.job(), attempt.node_id, attempt.incarnation)
    _, keep, stop = rig.connect(attempt.node_id, attempt.incarnation, held=[attempt])
    assert (keep, stop) == ([attempt.id], [])
    assert rig.r(job_queue.attempt, other.id).state is AttemptState.LEASED
    assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.RUNNING


def test_an_adopted_attempt_goes_on_under_the_later_incarnation(rig: Rig) -> None:
    """Breaks if a restarted agent cannot finish, beat for or keep what it re-adopted."""
    attempt = rig.running()
    _, keep, stop = rig.connect(attempt.node_id, "later", held=[attempt])
    assert (keep, stop) == ([attempt.id], [])
    assert rig.r(job_queue.attempt, attempt.id).incarnation == "later"
    assert rig.beat("later", attempt, units=7)[1] == []
    assert rig.finish(attempt).attempt.units == 7


def test_what_a_restarted_agent_no_longer_has_is_lost(rig: Rig) -> None:
    """Breaks if work of a dead incarnation stays live for ever, or uses up the failure budget."""
    attempt = rig.running()
    _, keep, stop = rig.connect(attempt.node_id, "later")
    assert (keep, stop) == ([], [])
    ended = rig.r(job_queue.attempt, attempt.id)
    assert (ended.state, ended.reason) == (AttemptState.LOST, EndReason.AGENT_RESTARTED)
    job = rig.get(attempt.job_id)
    assert (job.state, job.failures, job.losses) == (JobState.READY, 0, 1)


@pytest.mark.parametrize("how", ["over", "wrong-token", "other-node", "never-was"])
def test_what_an_agent_holds_without_right_it_must_stop(rig: Rig, how: str) -> None:
    """Breaks if a reconnecting agent goes on with an attempt that is not its own."""
    attempt = rig.running()
    claim = (attempt.id, attempt.token)
    node_id = attempt.node_id
    if how == "over":
        rig.w(job_queue.end_from_here, *claim, EndReason.LEASE_EXPIRED, "")
    elif how == "wrong-token":
        claim = (attempt.id, attempt.token + 1000)
    elif how == "other-node":
        node_id = rig.node()
    else:
        claim = (attempt.id + 1000, attempt.token)
    _, keep, stop = rig.w(
        leases.connect_agent, node_id, "later", LEASE_S, held=[claim], slots=2, observation=SEEN
    )
    assert (keep, stop) == ([], [claim[0]])


def test_a_beat_renews_the_lease_and_notes_progress(rig: Rig) -> None:
    """Breaks if a beating agent loses its lease or its progress."""
    attempt = rig.running()
    rig.turn(20)
    lease, stop = rig.beat(attempt.incarnation, attempt, units=12)
    assert (lease.expires_at, stop) == (rig.clock.now() + LEASE_S, [])
    assert rig.r(job_queue.attempt, attempt.id).units == 12
    rig.turn(20)
    assert rig.r(leases.expired_leases) == []


def test_progress_never_runs_backwards(rig: Rig) -> None:
    """Breaks if a reordered or repeated beat takes back cumulative progress."""
    attempt = rig.running()
    said = [Progress(attempt.id, attempt.token, units, process_s=float(units)) for units in (9, 4)]
    rig.w(leases.beat, attempt.incarnation, LEASE_S, said)
    rig.w(leases.beat, attempt.incarnation, LEASE_S, [said[1], said[1]])
    assert rig.r(job_queue.attempt, attempt.id).units == 9
    assert rig.r(summary.slot_times)[0].process_s == 9.0


def test_a_beat_without_observation_keeps_the_last_one(rig: Rig) -> None:
    """Breaks if a beat that measured nothing wipes out what was observed."""
    node_id, incarnation = rig.agent()
    rig.turn(5)
    rig.w(leases.beat, incarnation, LEASE_S, [])
    node = rig.r(inventory.node, node_id)
    assert node is not None
    assert (node.observation, node.last_seen_at) == (SEEN, START + 5)
    fresh = Observation(None, None, 5, None, START + 5)
    rig.w(leases.beat, incarnation, LEASE_S, [], fresh)
    node = rig.r(inventory.node, node_id)
    assert node is not None
    assert (node.observation, node.slots) == (fresh, 2)


def test_a_beat_names_what_must_stop(rig: Rig) -> None:
    """Breaks if an agent is not told that an attempt of its is over, is not its own, or is to be cancelled."""
    over, other = rig.running(), rig.running()
    mine = rig.w(job_queue.grant, rig.job(), over.node_id, over.incarnation)
    rig.w(job_queue.end_from_here, over.id, over.token, EndReason.LEASE_EXPIRED, "")
    rig.w(job_queue.cancel, mine.job_id, "not wanted")
    _, stop = rig.beat(over.incarnation, over, other, mine)
    assert stop == sorted([over.id, other.id, mine.id])
    assert rig.r(job_queue.attempt, mine.id).state is AttemptState.ENDING
    assert rig.r(job_queue.attempt, other.id).state is AttemptState.RUNNING
    assert rig.beat(over.incarnation, mine)[1] == [mine.id]


def test_a_beat_cannot_move_another_agents_attempt(rig: Rig) -> None:
    """Breaks if naming a foreign attempt, even with its token, notes progress on it."""
    mine, other = rig.running(), rig.running()
    rig.beat(mine.incarnation, other, units=99)
    assert rig.r(job_queue.attempt, other.id).units == 0


def test_a_lease_that_ran_out_is_renewed_until_it_is_reaped(rig: Rig) -> None:
    """Breaks if a late beat is refused for nothing, or a reaped lease comes back by a beat."""
    node_id, incarnation = rig.agent()
    rig.turn(LEASE_S + 1)
    assert [state.lease.node_id for state in rig.r(leases.expired_leases)] == [node_id]
    rig.beat(incarnation)
    assert rig.r(leases.expired_leases) == []
    rig.turn(LEASE_S + 1)
    rig.w(inventory.mark_lost, node_id)
    with pytest.raises(StaleToken):
        rig.beat(incarnation)
    lost = rig.r(inventory.node, node_id)
    assert lost is not None
    assert lost.status is NodeStatus.LOST
    rig.connect(node_id, incarnation)
    rig.beat(incarnation)


def test_a_node_is_lost_only_when_its_lease_ran_out(rig: Rig) -> None:
    """Breaks if a node that beat since it was looked at is declared lost."""
    node_id, incarnation = rig.agent()
    for seconds in (0.0, LEASE_S - 0.01):
        rig.turn(seconds)
        with pytest.raises(StaleToken):
            rig.w(inventory.mark_lost, node_id)
        rig.beat(incarnation)
    rig.turn(LEASE_S)
    rig.w(inventory.mark_lost, node_id)
    with pytest.raises(StaleToken):
        rig.w(inventory.mark_lost, node_id)
    with pytest.raises(StaleToken):
        rig.w(inventory.mark_lost, rig.node())


def test_a_reaped_lease_with_live_attempts_stays_in_sight(rig: Rig) -> None:
    """Breaks if reaping a node before its attempts hides them from the reaper for ever."""
    attempt = rig.running()
    rig.turn(LEASE_S)
    rig.w(inventory.mark_lost, attempt.node_id)
    (state,) = rig.r(leases.expired_leases)
    assert (state.reaped, state.busy, state.status) == (True, 1, NodeStatus.LOST)
    rig.w(job_queue.end_from_here, attempt.id, attempt.token, EndReason.LEASE_EXPIRED, "")
    assert rig.r(leases.expired_leases) == []


def test_a_grant_that_never_arrived_ends_after_a_lease(rig: Rig) -> None:
    """Breaks if a grant whose answer was lost holds its job for as long as the agent beats."""
    attempt = rig.attempt()
    for _ in range(2):
        rig.turn(LEASE_S / 2 - 0.01)
        assert rig.beat(attempt.incarnation)[1] == []
        assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.LEASED
    rig.turn(0.02)
    rig.beat(attempt.incarnation)
    ended = rig.r(job_queue.attempt, attempt.id)
    assert (ended.state, ended.reason) == (AttemptState.LOST, EndReason.LEASE_EXPIRED)
    assert rig.get(attempt.job_id).state is JobState.READY


def test_an_attempt_that_is_named_in_time_is_kept(rig: Rig) -> None:
    """Breaks if attempts that are beaten for end as forgotten."""
    attempt = rig.running()
    for _ in range(6):
        rig.turn(LEASE_S - 1)
        rig.beat(attempt.incarnation, attempt)
    assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.RUNNING


def test_a_late_beat_keeps_what_it_names(rig: Rig) -> None:
    """Breaks if a beat after a long silence gives up the very attempts that it names."""
    attempt = rig.running()
    rig.turn(LEASE_S * 3)
    assert rig.beat(attempt.incarnation, attempt)[1] == []
    assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.RUNNING


def test_connecting_counts_as_naming(rig: Rig) -> None:
    """Breaks if an attempt that was just re-adopted is given up at the next beat that does not name it."""
    attempt = rig.running()
    rig.turn(LEASE_S - 1)
    rig.connect(attempt.node_id, "later", held=[attempt])
    rig.turn(2)
    rig.beat("later")
    assert rig.r(job_queue.attempt, attempt.id).state is AttemptState.RUNNING


def test_agents_show_slots_and_load(rig: Rig) -> None:
    """Breaks if the distributor is shown wrong free slots."""
    attempt = rig.running()
    rig.node()
    (state,) = rig.r(leases.agents)
    assert (state.lease.node_id, state.slots, state.busy, state.reaped) == (attempt.node_id, 2, 1, False)
    assert (state.since, state.status) == (START, NodeStatus.UP)
    rig.finish(attempt)
    assert rig.r(leases.agents)[0].busy == 0


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["take", "renew", "release", "turn"]), st.integers(0, 2), st.integers(1, 40)
        ),
        max_size=30,
    )
)
def test_never_two_holders_of_a_role(steps: list[tuple[str, int, int]]) -> None:
    """Breaks if any order of takes, renewals, releases and waits gives two processes the role, or repeats an epoch."""
    rig = open_rig("inline")
    with rig.store:
        epochs: dict[int, int] = {}
        current, until = None, 0.0
        greatest = 0
        for step, who, seconds in steps:
            now = rig.clock.now()
            try:
                if step == "turn":
                    rig.turn(seconds)
                elif step == "take":
                    epoch = rig.w(leases.take_role, ROLE, str(who), LEASE_S)
                    assert current is None or until <= now
                    assert epoch > greatest
                    greatest = epochs[who] = epoch
                    current, until = who, now + LEASE_S
                elif step == "renew":
                    rig.w(leases.renew_role, ROLE, epochs.get(who, 0), LEASE_S)
                    assert current is not None
                    assert epochs[who] == greatest
                    until = now + LEASE_S
                else:
                    rig.w(leases.release_role, ROLE, epochs.get(who, 0))
                    assert epochs[who] == greatest
                    current = None
            except RoleHeld:
                assert step == "take"
                assert current is not None
                assert until > now
            except StaleToken:
                assert current is None or epochs.get(who) != greatest


def test_started_after_a_stop_keeps_its_process(rig: Rig) -> None:
    """Breaks if the process of an attempt that was told to stop before it reported is unknown."""
    attempt = rig.attempt()
    rig.w(job_queue.cancel, attempt.job_id, "")
    rig.beat(attempt.incarnation, attempt)
    after = rig.w(job_queue.started, attempt.id, attempt.token, PROCESS)
    assert (after.state, after.started_at) == (AttemptState.ENDING, START)
