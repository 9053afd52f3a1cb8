"""The calls of agents, on the real logic and store: grants, renewals, ends, and who may call."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from anyio.lowlevel import checkpoint

from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.errors import Busy, NotAllowed, NotFound, StaleToken, UsageError
from gamekeeper.core.jobs import EndReason, JobState
from gamekeeper.core.matches import Purpose
from gamekeeper.daemons import looks
from gamekeeper.policy.continuous_loop import Phase
from gamekeeper.protocol import (
    PROTOCOL_VERSION,
    AttemptProgress,
    Beat,
    BeatReply,
    Claim,
    Claimed,
    Connect,
    Enrol,
    Finish,
    Observed,
    Started,
)
from gamekeeper.runtime.executor import RoleLost
from gamekeeper.server.desk import ROLE
from gamekeeper.server.principals import Right, Unauthenticated, secret_hash
from gamekeeper.store import decisions, integrity, inventory, job_queue, leases, matches, registry
from gamekeeper.store.session import Writing
from tests.unit.server.rig import LINE, Rig, digest, run, shard


def beat(rig: Rig, *attempts: tuple[int, int]) -> BeatReply:
    progress = [AttemptProgress(attempt=attempt, token=token, units=1) for attempt, token in attempts]
    message = Beat(incarnation=rig.incarnation, attempts=progress, observed=Observed())
    return run(rig.here.beat(rig.node_id, message))


def job_state(rig: Rig, job_id: int) -> JobState:
    return rig.store.read(lambda r: job_queue.get(r, job_id)).state


def founded(rig: Rig, data: bytes = b"weights") -> str:
    """A line with a champion of these weights."""
    grant = rig.attempt("found")
    assert rig.hand_in(grant, data, ArtifactKind.MODEL).accepted
    assert rig.finish(grant, {"model": digest(data), "weights": 7}).state == "succeeded"
    model = rig.store.read(lambda r: registry.by_hash(r, LINE, digest(data)))
    assert model is not None
    verdict = Verdict(f"model/{model.id}", "founding-model", "first", acted=True)

    def move(w: Writing) -> None:
        decision = Decision("promotion", rig.clock.now(), (verdict,))
        decision_id = decisions.record(w, decision, rig.epoch)
        assert decision_id is not None
        registry.move_champion(w, LINE, model.id, None, decision_id)

    rig.store.write(move)
    return digest(data)


# --- grants


def test_a_lost_claim_reply_loses_no_grant(rig: Rig) -> None:
    """A grant whose reply never arrived could hold its job until the lease ends."""
    rig.lease(rig.submit())
    (first,) = rig.claim()
    assert rig.claim() == [], "handed over again at once, the agent may only be slow"
    rig.clock.advance(rig.settings.timings.beat_s)
    assert rig.claim() == [first]


def test_a_restarted_coordinator_hands_a_grant_over_again(rig: Rig) -> None:
    """A coordinator killed between grant and reply could forget the grant."""
    rig.lease(rig.submit())
    (first,) = rig.claim()
    assert rig.restarted().claim() == [first]


def test_a_grant_the_agent_named_is_not_repeated(rig: Rig) -> None:
    """An agent that fetches large inputs could be handed the same job over and over."""
    rig.lease(rig.submit())
    (grant,) = rig.claim()
    beat(rig, (grant.attempt, grant.token))
    rig.clock.advance(rig.settings.timings.lease_s / 2)
    assert rig.claim() == []


def test_a_claim_brings_no_more_than_it_asks_for(rig: Rig) -> None:
    """An agent would refuse jobs beyond its free slots, and they would count as lost."""
    for _ in range(3):
        rig.lease(rig.submit())
    assert len(rig.claim(slots=2)) == 2
    assert len(rig.claim(slots=2)) == 1


def test_a_parked_claim_is_answered_when_work_is_granted(rig: Rig) -> None:
    """A waiting agent could sleep through its grant until the poll times out."""

    async def scene() -> Claimed:
        answers: list[Claimed] = []
        async with anyio.create_task_group() as tasks:

            async def claim() -> None:
                message = Claim(incarnation=rig.incarnation, slots=1, wait_s=20)
                answers.append(await rig.here.claim(rig.node_id, message))

            tasks.start_soon(claim)
            while not rig.here.board.waiting() or not rig.clock.sleeping:
                await checkpoint()
            rig.lease(rig.submit())
            rig.here.board.wake(rig.incarnation)
        return answers[0]

    assert len(run(scene()).grants) == 1
    assert rig.here.board.waiting() == []
    assert rig.clock.now() == 1000.0


@pytest.mark.parametrize("why", ["time", "closing", "replaced", "draining", "cancelled"])
def test_a_parked_claim_always_goes_home(rig: Rig, why: str) -> None:
    """A claim could be parked for ever, and be offered work that nobody fetches."""

    async def scene() -> list[Claimed]:
        answers: list[Claimed] = []
        message = Claim(incarnation=rig.incarnation, slots=1, wait_s=5)

        async def claim() -> None:
            answers.append(await rig.here.claim(rig.node_id, message))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim)
            while not rig.clock.sleeping:
                await checkpoint()
            if why == "time":
                rig.clock.advance(5)
            elif why == "closing":
                rig.here.board.close()
            elif why == "replaced":
                rig.here.board.park(rig.node_id, rig.incarnation, 1)
            elif why == "draining":
                await rig.here.stop("test")
            else:
                tasks.cancel_scope.cancel()
        return answers

    answers = run(scene())
    assert [answer.grants for answer in answers] == ([] if why == "cancelled" else [[]])
    assert len(rig.here.board.waiting()) == (why == "replaced")
    assert [answer.draining for answer in answers] == ([] if why == "cancelled" else [why == "draining"])


def test_a_job_whose_input_is_unknown_is_not_handed_over(rig: Rig) -> None:
    """A claim could fail for ever because one of its jobs cannot be described."""
    job_id = rig.submit("train", inputs={"model": ("0" * 64,)})
    rig.lease(job_id)
    assert rig.claim() == []
    (attempt,) = rig.store.read(lambda r: job_queue.attempts_of(r, job_id))
    assert (attempt.reason, attempt.state) == (EndReason.INPUT_UNAVAILABLE, "refused")


# --- incarnations and leases


def test_an_overtaken_incarnation_gets_nothing(rig: Rig) -> None:
    """A paused agent that wakes could renew its lease or take jobs beside its successor."""
    rig.lease(rig.submit())
    late = rig.incarnation
    rig.connect(incarnation="c" * 32)
    for call in (
        lambda: rig.here.claim(rig.node_id, Claim(incarnation=late, slots=1, wait_s=0)),
        lambda: rig.here.beat(rig.node_id, Beat(incarnation=late, attempts=[], observed=Observed())),
    ):
        with pytest.raises(StaleToken):
            run(call())


def test_one_node_cannot_speak_for_another(rig: Rig) -> None:
    """A stolen incarnation or attempt number could be used by another node."""
    grant = rig.attempt()
    other = run(rig.here.enrol(Enrol(protocol=1, host_name="x", slots=1))).node_id
    with pytest.raises(StaleToken):
        run(rig.here.beat(other, Beat(incarnation=rig.incarnation, attempts=[], observed=Observed())))
    with pytest.raises(StaleToken):
        run(rig.here.claim(other, Claim(incarnation=rig.incarnation, slots=1, wait_s=0)))
    with pytest.raises(NotAllowed):
        run(
            rig.here.started(
                other, grant.attempt, Started(token=grant.token, boot_id="b", pid=1, start_ticks=1)
            )
        )
    message = Finish.model_validate({"token": grant.token, "reason": "killed"})
    with pytest.raises(NotAllowed):
        run(rig.here.finish(other, grant.attempt, message))
    assert job_state(rig, grant.job) is JobState.RUNNING


def test_a_beat_tells_what_to_stop(rig: Rig) -> None:
    """A cancelled job, or one that is another's now, could run on."""
    mine, over = rig.attempt(), rig.attempt()
    rig.finish(over, reason=EndReason.OWN_ERROR, exit_code=1)
    assert beat(rig, (mine.attempt, mine.token), (over.attempt, over.token)).stop == [over.attempt]
    rig.store.write(lambda w: job_queue.cancel(w, mine.job, "no longer wanted"))
    assert beat(rig, (mine.attempt, mine.token)).stop == [mine.attempt]


def test_unknown_protocol_versions_are_refused(rig: Rig) -> None:
    """A later agent could talk past this coordinator."""
    with pytest.raises(UsageError):
        run(rig.here.enrol(Enrol(protocol=PROTOCOL_VERSION + 1, host_name="x", slots=1)))
    message = Connect(protocol=0, incarnation="d" * 32, slots=1, held=[], observed=Observed())
    with pytest.raises(UsageError):
        run(rig.here.connect(rig.node_id, message))


# --- ends


def test_a_finish_counts_once(rig: Rig) -> None:
    """A repeated finish could book a model or shard twice."""
    data = shard()
    grant = rig.attempt()
    rig.hand_in(grant, data, games=2, samples=6)
    receipt = rig.selfplay_receipt((data, 2, 6))
    first, second = rig.finish(grant, receipt), rig.finish(grant, receipt)
    assert (first.result, second.result) == ("applied", "already")
    assert (first.state, second.state) == ("succeeded", "succeeded")
    assert job_state(rig, grant.job) is JobState.DONE
    assert rig.store.read(integrity.check) == []


def test_a_stale_finish_changes_nothing(rig: Rig) -> None:
    """A worker that was given up could end the attempt of its successor."""
    grant = rig.attempt()
    wrong = grant.model_copy(update={"token": grant.token + 1})
    with pytest.raises(StaleToken):
        rig.finish(wrong, reason=EndReason.OWN_ERROR)
    assert job_state(rig, grant.job) is JobState.RUNNING
    with pytest.raises(NotFound):
        rig.finish(grant.model_copy(update={"attempt": 999}), reason=EndReason.OWN_ERROR)


def test_a_late_success_of_a_reaped_attempt_is_dropped(rig: Rig) -> None:
    """An attempt that was reaped could still book its model when its agent comes back."""
    grant = rig.attempt("found")
    assert rig.hand_in(grant, b"weights", ArtifactKind.MODEL).accepted
    rig.store.write(
        lambda w: job_queue.end_from_here(w, grant.attempt, grant.token, EndReason.LEASE_EXPIRED, "gone")
    )
    with pytest.raises(StaleToken):
        rig.finish(grant, {"model": digest(b"weights"), "weights": 7})
    assert rig.store.read(registry.models) == []
    assert job_state(rig, grant.job) is JobState.READY


def test_a_refused_shard_fails_the_attempt_with_its_reason_and_the_job_is_tried_again(rig: Rig) -> None:
    """Bad data could count as success, or stop the loop."""
    grant = rig.attempt()
    rig.hand_in(grant, shard(nan=True), games=2, samples=6)
    ended = rig.finish(grant, rig.selfplay_receipt((shard(nan=True), 2, 6)))
    assert (ended.state, ended.reason) == ("failed", "data-refused")
    assert "not-finite" in ended.detail
    assert job_state(rig, grant.job) is JobState.READY


def test_a_trained_model_is_registered_with_its_parent(rig: Rig) -> None:
    """A candidate could have no known descent."""
    parent = founded(rig)
    grant = rig.attempt("train", inputs={"model": (parent,)})
    assert [one.hash for one in grant.inputs["model"]] == [parent]
    rig.hand_in(grant, b"better", ArtifactKind.MODEL)
    receipt = {"steps": 5, "samples": 60, "loss": 0.5, "model": digest(b"better"), "parent": parent}
    assert rig.finish(grant, receipt).state == "succeeded"
    child = rig.store.read(lambda r: registry.candidate(r, LINE))
    assert child is not None
    assert (child.steps, child.samples, child.loss) == (5, 60, 0.5)
    assert rig.store.read(lambda r: registry.get(r, child.parent_id or 0)).hash == parent


def test_training_that_changed_nothing_is_hollow(rig: Rig) -> None:
    """A trainer that hands its input back could pass as progress."""
    parent = founded(rig)
    grant = rig.attempt("train", inputs={"model": (parent,)})
    rig.hand_in(grant, b"weights", ArtifactKind.MODEL)
    receipt = {"steps": 5, "samples": 60, "loss": 0.5, "model": parent, "parent": parent}
    assert rig.finish(grant, receipt).state == "hollow"


def test_game_pairs_are_booked_under_the_opponent_they_were_played_against(rig: Rig) -> None:
    """Matches could be counted for another test."""
    candidate = founded(rig)
    wanted = {"opponent": "random", "pairs": 2, "first_pair": 4}
    grant = rig.attempt("evaluate", inputs={"candidate": (candidate,)}, wanted=wanted, purpose="rating")
    receipt = {"games": 4, "pairs": [[4, 1, 0.5, "a" * 64], [5, 1, 1, "b" * 64]]}
    assert rig.finish(grant, receipt).state == "succeeded"
    tally = rig.store.read(lambda r: matches.tallies(r, 1))[("random", Purpose.RATING)]
    assert (tally.counts, tally.next_pair) == ((0, 0, 0, 1, 1), 6)


def test_a_cancelled_job_books_nothing_of_what_it_hands_in(rig: Rig) -> None:
    """A job that was called off could still make a candidate when it is stopped."""
    grant = rig.attempt("found")
    rig.hand_in(grant, b"weights", ArtifactKind.MODEL)
    rig.store.write(lambda w: job_queue.cancel(w, grant.job, "no longer wanted"))
    ended = rig.finish(grant, {"model": digest(b"weights"), "weights": 7}, EndReason.STOP_REQUESTED)
    assert ended.state == "stopped"
    assert job_state(rig, grant.job) is JobState.CANCELLED
    assert rig.store.read(registry.models) == []


# --- who may call, and the role


def test_secrets_are_known_by_their_hash_only(rig: Rig) -> None:
    """A wrong secret could get in, or a right of one kind be taken for another."""
    for name in ("admin", "join"):
        rig.store.write(
            partial(inventory.set_token_hash, name=name, token_hash=secret_hash(f"{name}-secret"))
        )
    assert run(rig.here.principal("admin-secret")).right is Right.ADMIN
    assert run(rig.here.principal("join-secret")).right is Right.JOIN
    assert run(rig.here.principal(rig.credential)).node_id == rig.node_id
    stored = secret_hash(rig.credential)
    for wrong in ("", "x", stored, "admin-secret ", "a" * 1000, "\ud800"):
        with pytest.raises(Unauthenticated):
            run(rig.here.principal(wrong))


def test_without_tokens_nobody_gets_in(rig: Rig) -> None:
    """A store whose token hashes are missing could let an empty one in."""
    with pytest.raises(Unauthenticated):
        run(rig.here.principal("anything"))


def test_a_deposed_coordinator_changes_nothing_and_does_not_blame_the_agent(rig: Rig) -> None:
    """An old leader could write beside the new one, or make agents kill sound jobs."""
    grant = rig.attempt()
    rig.store.write(lambda w: leases.take_role(w, ROLE, "successor", 60.0, displace=True))
    with pytest.raises(RoleLost) as error:
        rig.finish(grant, reason=EndReason.OWN_ERROR)
    assert isinstance(error.value, Busy)
    assert not isinstance(error.value, StaleToken)
    assert rig.here.desk.role_lost.is_set()
    assert job_state(rig, grant.job) is JobState.RUNNING


def test_a_wish_to_stop_holds_over_restarts_until_a_person_starts_anew(rig: Rig) -> None:
    """A crash while draining could start the loop again, or a new start could stay stopped."""
    rig.store.write(lambda w: looks.begin_run(w, "run-1"))
    run(rig.here.stop("enough"))
    again = rig.restarted()
    again.store.write(lambda w: looks.begin_run(w, "run-1"))
    assert again.store.read(looks.draining)
    assert run(again.here.claim(rig.node_id, Claim(incarnation=rig.incarnation, slots=1, wait_s=9))).draining
    again.store.write(lambda w: looks.begin_run(w, "run-2"))
    assert again.store.read(looks.phase) is Phase.TURNING
