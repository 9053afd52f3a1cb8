"""The distributor inside an agent's step: ends and grants in one commit, where the fleet is small enough for that.

A pass looks at all nodes, so with many of them one for each step would be too dear: there the distributor's own pass,
which serves all that wait, follows the step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gamekeeper.core.actions import GrantJob
from gamekeeper.daemons.jobs import Claim, distribution_view
from gamekeeper.policy import work_distributor
from gamekeeper.store import decisions
from gamekeeper.store.decisions import Outcome
from gamekeeper.store.granting import Free
from gamekeeper.store.session import Reading, Writing
from gamekeeper.store.statements import sql

MOST_NODES = 64

_SIZES = sql(
    "SELECT (SELECT count(*) FROM nodes) AS nodes,"
    " (SELECT coalesce(sum(n), 0) FROM job_counts WHERE state = 'ready') AS ready"
)


class StepMatch:
    """Matches the agents of one round of steps, in its transaction. The decision is recorded before it is applied."""

    def __init__(self, limits: work_distributor.Limits, epoch: int) -> None:
        self._limits = limits
        self._epoch = epoch
        self._recorded: list[tuple[int, tuple[GrantJob, ...]]] = []

    def __call__(self, w: Writing, waiting: Sequence[Free]) -> Sequence[GrantJob]:
        """Which ready jobs go to which of these agents."""
        if not _worth_it(w):
            return []
        view = distribution_view(w, [Claim(one.node_id, one.incarnation, one.slots) for one in waiting])
        decision = work_distributor.decide(view, self._limits, w.now)
        grants = tuple(action for action in decision.actions if isinstance(action, GrantJob))
        if not grants:
            return []
        decision_id = decisions.record(w, decision, self._epoch)
        if decision_id is not None:
            self._recorded.append((decision_id, grants))
        return grants

    def settle(self, w: Writing, granted: Collection[tuple[int, str]]) -> None:
        """Note what became of the grants: `granted` are the (job, incarnation) that came true."""
        for decision_id, grants in self._recorded:
            for ordinal, grant in enumerate(grants):
                done = (grant.job_id, grant.incarnation) in granted
                outcome = Outcome.APPLIED if done else Outcome.OVERTAKEN
                decisions.set_outcome(w, decision_id, ordinal, outcome)
        self._recorded.clear()


def _worth_it(r: Reading) -> bool:
    row = r.first(_SIZES)
    return row is not None and row["ready"] > 0 and row["nodes"] <= MOST_NODES
