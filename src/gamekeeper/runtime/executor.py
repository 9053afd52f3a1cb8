"""The one place where decisions become effects: record first, then apply, in one write transaction.

Every action is guarded by what the policy saw. A guard that no longer holds means that the world moved on since the
view was taken: the action is noted as overtaken and changes nothing; the next cycle looks again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gamekeeper.core.actions import (
    Action,
    CancelJob,
    EndAttempt,
    ExcludeNode,
    GrantJob,
    MarkNodeLost,
    MoveChampion,
    ParkJob,
    RejectCandidate,
    SubmitJob,
)
from gamekeeper.core.decisions import Decision
from gamekeeper.core.errors import Busy, NotFound, Refused, StaleToken, UsageError
from gamekeeper.runtime.telemetry import logger
from gamekeeper.store import (
    decisions,
    exclusions,
    failures,
    inventory,
    job_control,
    job_queue,
    leases,
    registry,
    submission,
)
from gamekeeper.store.decisions import Outcome as Applied
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing
from gamekeeper.store.submission import ANY_TERMS, OverQuota, Terms


class RoleLost(Busy):
    """This process no longer holds its role; whoever does will answer."""


def check_role(w: Writing, role: str, epoch: int) -> None:
    """Raise `RoleLost` unless the role is held under `epoch`.

    Not `StaleToken`: an agent must not take the coordinator's lost role for a lost attempt of its own.
    """
    try:
        leases.assert_role(w, role, epoch)
    except StaleToken as error:
        raise RoleLost(error.message, remedy="call again in a moment") from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """An action and what became of it."""

    action: Action
    result: Applied
    detail: str = ""


class Executor:
    """Applies decisions for the holder of a role.

    `terms`: on which jobs are taken. `decisions_kept`: how many decisions of each policy are kept.
    """

    def __init__(
        self, store: Store, role: str, *, terms: Terms = ANY_TERMS, decisions_kept: int = decisions.KEPT
    ) -> None:
        self._store = store
        self._role = role
        self._terms = terms
        self._kept = decisions_kept
        self._log = logger("executor")

    async def run(self, decision: Decision, epoch: int) -> list[Outcome]:
        """Record `decision` and apply its actions, all in one transaction. One that says nothing new costs no write.

        Raises `RoleLost` when the role is no longer held under `epoch`; nothing was changed then.
        """
        news = await self._store.aread(lambda r: decisions.news_of(r, decision))
        if news is None:
            return []
        outcomes = await self._store.awrite(lambda w: self._apply_all(w, news, epoch))
        for outcome in outcomes:
            if outcome.result is not Applied.APPLIED:
                self._log.info(
                    "action not applied",
                    policy=decision.policy, action=str(outcome.action)[:200], result=outcome.result,
                    detail=outcome.detail,
                )  # fmt: skip
        return outcomes

    def _apply_all(self, w: Writing, decision: Decision, epoch: int) -> list[Outcome]:
        check_role(w, self._role, epoch)
        decision_id = decisions.record(w, decision, epoch, keep=self._kept)
        applying = _Applying(w, decision.policy, decision_id, self._terms)
        outcomes = [_outcome(applying, action) for action in decision.actions]
        if decision_id is not None:
            for ordinal, outcome in enumerate(outcomes):
                decisions.set_outcome(w, decision_id, ordinal, outcome.result, outcome.detail)
        return outcomes


@dataclass(frozen=True, slots=True)
class _Applying:
    """What the effects of one decision share."""

    w: Writing
    policy: str
    decision_id: int | None
    terms: Terms


def _outcome(here: _Applying, action: Action) -> Outcome:
    """Apply one action in a savepoint of its own, so that a failed one leaves nothing behind."""
    try:
        with here.w.savepoint():
            return Outcome(action, Applied.APPLIED, _APPLY[type(action)](here, action))
    except (Refused, NotFound) as error:
        return Outcome(action, Applied.OVERTAKEN, error.message)
    except (UsageError, OverQuota) as error:
        return Outcome(action, Applied.REFUSED, error.message)


def _submit(here: _Applying, action: Action) -> str:
    assert isinstance(action, SubmitJob)  # noqa: S101 - dispatched by type
    job_id, created = submission.submit(here.w, action.spec, here.terms)
    return f"job/{job_id}" if created else f"job/{job_id} has that key already"


def _cancel(here: _Applying, action: Action) -> str:
    assert isinstance(action, CancelJob)  # noqa: S101 - dispatched by type
    return str(job_control.cancel(here.w, action.job_id, action.reason, if_ready=action.if_ready))


def _grant(here: _Applying, action: Action) -> str:
    assert isinstance(action, GrantJob)  # noqa: S101 - dispatched by type
    attempt = job_queue.grant(here.w, action.job_id, action.node_id, action.incarnation)
    return f"attempt/{attempt.id}"


def _park(here: _Applying, action: Action) -> str:
    assert isinstance(action, ParkJob)  # noqa: S101 - dispatched by type
    job_control.park(here.w, action.job_id, action.reason)
    return "job dead"


def _exclude(here: _Applying, action: Action) -> str:
    assert isinstance(action, ExcludeNode)  # noqa: S101 - dispatched by type
    exclusions.exclude(here.w, action.node_id, action.cause, here.policy, action.until)
    forgiven = failures.forgive(here.w, action.node_id, action.blameless)
    return f"{forgiven} attempts forgiven"


def _end(here: _Applying, action: Action) -> str:
    assert isinstance(action, EndAttempt)  # noqa: S101 - dispatched by type
    ended = job_queue.end_from_here(here.w, action.attempt_id, action.token, action.reason, action.detail)
    return f"job {ended.job_state}"


def _node_lost(here: _Applying, action: Action) -> str:
    assert isinstance(action, MarkNodeLost)  # noqa: S101 - dispatched by type
    inventory.mark_lost(here.w, action.node_id)
    return ""


def _move(here: _Applying, action: Action) -> str:
    assert isinstance(action, MoveChampion)  # noqa: S101 - dispatched by type
    if here.decision_id is None:
        raise Refused("a champion moves only by a recorded decision")
    champion = registry.move_champion(here.w, action.line, action.model_id, action.expected, here.decision_id)
    return f"generation {champion.generation}"


def _reject(here: _Applying, action: Action) -> str:
    assert isinstance(action, RejectCandidate)  # noqa: S101 - dispatched by type
    if here.decision_id is None:
        raise Refused("a candidate is closed only by a recorded decision")
    registry.reject(here.w, action.model_id, action.reason, here.decision_id)
    return action.reason


_APPLY: dict[type[object], Callable[[_Applying, Action], str]] = {
    SubmitJob: _submit,
    CancelJob: _cancel,
    GrantJob: _grant,
    ParkJob: _park,
    ExcludeNode: _exclude,
    EndAttempt: _end,
    MarkNodeLost: _node_lost,
    MoveChampion: _move,
    RejectCandidate: _reject,
}
