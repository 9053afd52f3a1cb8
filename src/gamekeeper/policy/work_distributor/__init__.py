"""Which waiting agent is granted which ready job: weighted fair shares, fit in every dimension, nobody starves."""

from gamekeeper.core.decisions import Decision
from gamekeeper.policy.work_distributor import class_verdicts, node_verdicts
from gamekeeper.policy.work_distributor.limits import Limits
from gamekeeper.policy.work_distributor.matching import match, opened
from gamekeeper.policy.work_distributor.view import (
    POLICY,
    Free,
    JobClass,
    Node,
    Occupant,
    ReadyJob,
    Reason,
    View,
    WaitingAgent,
)

__all__ = [
    "POLICY",
    "Free",
    "JobClass",
    "Limits",
    "Node",
    "Occupant",
    "ReadyJob",
    "Reason",
    "View",
    "WaitingAgent",
    "decide",
]


def decide(view: View, limits: Limits, now: float) -> Decision:
    """Match agents and jobs: grants in the order they were chosen.

    A verdict for each class with waiting jobs ("class/ID"), for each granted job, and for each claim's node.
    """
    done = opened(view, limits, now)
    if not view.draining:
        match(done)
    verdicts = class_verdicts.told(done) + class_verdicts.granted(done) + node_verdicts.told(done)
    return Decision(POLICY, now, tuple(verdicts), tuple(grant.action for grant in done.grants))
