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
    GrantJob,
    MarkNodeLost,
    MoveChampion,
    RejectCandidate,
    SubmitJob,
)
from gamekeeper.core.decisions import Decision
from gamekeeper.core.errors import Busy, NotFound, Refused, StaleToken, UsageError
from gamekeeper.runtime.telemetry import logger
from gamekeeper.store import decisions, inventory, job_queue, leases, registry
from gamekeeper.store.decisions import Outcome as Applied
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing


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
    """Applies decisions for the holder of a role."""

    def __init__(self, store: Store, role: str) -> None:
        self._store = store
        self._role = role
        self._log = logger("executor")

    async def run(self, decision: Decision, epoch: int) -> list[Outcome]:
        """Record `decision` and apply its actions, all in one transaction. One that says nothing new costs no write.

        Raises `RoleLost` when the role is no longer held under `epoch`; nothing was changed then.
        """
        if not await self._store.aread(lambda r: decisions.is_news(r, decision)):
            return []
        outcomes = await self._store.awrite(lambda w: self._apply_all(w, decision, epoch))
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
        decision_id = decisions.record(w, decision, epoch)
        outcomes = [_outcome(w, action, decision_id) for action in decision.actions]
        if decision_id is not None:
            for ordinal, outcome in enumerate(outcomes):
                decisions.set_outcome(w, decision_id, ordinal, outcome.result, outcome.detail)
        return outcomes


def _outcome(w: Writing, action: Action, decision_id: int | None) -> Outcome:
    """Apply one action in a savepoint of its own, so that a failed one leaves nothing behind."""
    try:
        with w.savepoint():
            return Outcome(action, Applied.APPLIED, _APPLY[type(action)](w, action, decision_id))
    except (Refused, NotFound) as error:
        return Outcome(action, Applied.OVERTAKEN, error.message)
    except UsageError as error:
        return Outcome(action, Applied.REFUSED, error.message)


def _submit(w: Writing, action: Action, _decision_id: int | None) -> str:
    assert isinstance(action, SubmitJob)  # noqa: S101 - dispatched by type
    job_id, created = job_queue.submit(w, action.spec)
    return f"job/{job_id}" if created else f"job/{job_id} has that key already"


def _cancel(w: Writing, action: Action, _decision_id: int | None) -> str:
    assert isinstance(action, CancelJob)  # noqa: S101 - dispatched by type
    return str(job_queue.cancel(w, action.job_id, action.reason))


def _grant(w: Writing, action: Action, _decision_id: int | None) -> str:
    assert isinstance(action, GrantJob)  # noqa: S101 - dispatched by type
    attempt = job_queue.grant(w, action.job_id, action.node_id, action.incarnation)
    return f"attempt/{attempt.id}"


def _end(w: Writing, action: Action, _decision_id: int | None) -> str:
    assert isinstance(action, EndAttempt)  # noqa: S101 - dispatched by type
    ended = job_queue.end_from_here(w, action.attempt_id, action.token, action.reason, action.detail)
    return f"job {ended.job_state}"


def _node_lost(w: Writing, action: Action, _decision_id: int | None) -> str:
    assert isinstance(action, MarkNodeLost)  # noqa: S101 - dispatched by type
    inventory.mark_lost(w, action.node_id)
    return ""


def _move(w: Writing, action: Action, decision_id: int | None) -> str:
    assert isinstance(action, MoveChampion)  # noqa: S101 - dispatched by type
    if decision_id is None:
        raise Refused("a champion moves only by a recorded decision")
    champion = registry.move_champion(w, action.line, action.model_id, action.expected, decision_id)
    return f"generation {champion.generation}"


def _reject(w: Writing, action: Action, decision_id: int | None) -> str:
    assert isinstance(action, RejectCandidate)  # noqa: S101 - dispatched by type
    if decision_id is None:
        raise Refused("a candidate is closed only by a recorded decision")
    registry.reject(w, action.model_id, action.reason, decision_id)
    return action.reason


_APPLY: dict[type[object], Callable[[Writing, Action, int | None], str]] = {
    SubmitJob: _submit,
    CancelJob: _cancel,
    GrantJob: _grant,
    EndAttempt: _end,
    MarkNodeLost: _node_lost,
    MoveChampion: _move,
    RejectCandidate: _reject,
}
