"""Job and attempt states: the tables are the law, and the checks read nothing else."""

from __future__ import annotations

from enum import StrEnum
from itertools import product

import pytest

from gamekeeper.core import jobs
from gamekeeper.core.errors import IllegalTransition
from gamekeeper.core.jobs import (
    ATTEMPT_TRANSITIONS,
    END_BUDGETS,
    END_STATES,
    FINAL_JOBS,
    JOB_TRANSITIONS,
    LIVE_ATTEMPTS,
    AttemptState,
    Budget,
    EndReason,
    JobSpec,
    JobState,
    check_attempt_transition,
    check_job_transition,
)
from gamekeeper.core.models import MODEL_TRANSITIONS, ModelState
from gamekeeper.core.nodes import NODE_TRANSITIONS, NodeStatus

# Written out once more, so that a slip in the table is seen.
LEGAL_JOB_STEPS = {
    ("waiting", "ready"), ("waiting", "held"), ("ready", "running"), ("ready", "held"),
    ("held", "waiting"), ("held", "ready"),
    *product(("waiting", "ready", "held"), ("cancelled", "skipped", "dead")),
    ("running", "ready"), ("running", "done"), ("running", "failed"), ("running", "cancelled"), ("running", "dead"),
}  # fmt: skip
ENDS = ("succeeded", "failed", "hollow", "lost", "stopped", "refused")
LEGAL_ATTEMPT_STEPS = {
    ("leased", "running"), ("leased", "ending"), ("running", "ending"),
    *product(("leased", "running", "ending"), ENDS),
}  # fmt: skip


@pytest.mark.parametrize(("current", "following"), list(product(JobState, JobState)))
def test_a_job_takes_exactly_the_declared_steps(current: JobState, following: JobState) -> None:
    """A step too many revives finished work; one too few leaves a job stuck."""
    if (current, following) in LEGAL_JOB_STEPS:
        check_job_transition(17, current, following)
        return
    with pytest.raises(IllegalTransition, match=f"job 17 cannot go from {current} to {following}") as caught:
        check_job_transition(17, current, following)
    assert "why job 17" in caught.value.remedy


@pytest.mark.parametrize(("current", "following"), list(product(AttemptState, AttemptState)))
def test_an_attempt_takes_exactly_the_declared_steps(current: AttemptState, following: AttemptState) -> None:
    """Likewise for tries; a final one never moves again."""
    if (current, following) in LEGAL_ATTEMPT_STEPS:
        check_attempt_transition(5, current, following)
        return
    with pytest.raises(IllegalTransition, match=f"attempt 5 cannot go from {current} to {following}"):
        check_attempt_transition(5, current, following)


@pytest.mark.parametrize(
    ("table", "states"),
    [
        (JOB_TRANSITIONS, JobState),
        (ATTEMPT_TRANSITIONS, AttemptState),
        (MODEL_TRANSITIONS, ModelState),
        (NODE_TRANSITIONS, NodeStatus),
    ],
)
def test_every_state_has_its_row_and_can_be_reached(
    table: dict[StrEnum, frozenset[StrEnum]], states: type[StrEnum]
) -> None:
    """A state without a row raises KeyError in use; an unreachable one is dead vocabulary."""
    assert set(table) == set(states)
    first = next(iter(states))
    reached, front = {first}, [first]
    while front:
        for following in table[front.pop()]:
            if following not in reached:
                reached.add(following)
                front.append(following)
    assert reached == set(states)


def test_final_and_live_are_what_the_tables_say() -> None:
    """Sets kept beside a table drift from it."""
    assert {"done", "failed", "cancelled", "skipped", "dead"} == FINAL_JOBS
    assert {"leased", "running", "ending"} == LIVE_ATTEMPTS
    assert {state for state in AttemptState if ATTEMPT_TRANSITIONS[state]} == LIVE_ATTEMPTS
    assert {state for state in ModelState if not MODEL_TRANSITIONS[state]} == {"promoted", "rejected"}


def test_every_end_reason_ends_in_a_final_state_with_a_budget() -> None:
    """A reason without a state, or a state without a budget, is an attempt that cannot be closed."""
    assert set(END_STATES) == set(EndReason)
    assert set(END_STATES.values()) == set(END_BUDGETS) == set(AttemptState) - LIVE_ATTEMPTS


@pytest.mark.parametrize(
    ("budget", "reasons"),
    [
        (
            Budget.FAILURE,
            "own-error no-receipt no-evidence data-refused missing-output out-of-memory time-limit",
        ),
        (Budget.LOSS, "killed lease-expired agent-restarted cannot-start input-unavailable spool-full"),
        (Budget.NONE, "finished node-going-away stop-requested"),
    ],
)
def test_each_reason_uses_up_the_right_budget(budget: Budget, reasons: str) -> None:
    """A lost machine must not count as the job's fault, nor a job's own error as the machine's."""
    assert {reason for reason in EndReason if END_BUDGETS[END_STATES[reason]] is budget} == set(
        reasons.split()
    )


def test_a_job_asked_for_nothing_special_has_modest_budgets() -> None:
    """The defaults bound how long a broken job can burn slots."""
    spec = JobSpec("command", "c4", ("x",))
    assert (spec.failures_allowed, spec.losses_allowed, spec.grace_s, spec.time_limit_s) == (
        3,
        20,
        10.0,
        None,
    )
    assert (spec.parameters, spec.wanted, spec.inputs, spec.purpose, spec.seed, spec.key) == (
        {},
        {},
        {},
        "",
        0,
        None,
    )
    assert JobSpec("a", "b", ()).parameters is not JobSpec("a", "b", ()).parameters


def test_process_identity_tells_a_reused_pid_apart() -> None:
    """A pid alone would match a stranger's process after it was reused."""
    mine = jobs.ProcessIdentity("boot", 10, 500)
    assert mine != jobs.ProcessIdentity("boot", 10, 501)
    assert mine != jobs.ProcessIdentity("other", 10, 500)
    assert mine == jobs.ProcessIdentity("boot", 10, 500)
