"""The loop of each line: which jobs are wanted now, computed from state."""

from gamekeeper.policy.continuous_loop.loop import decide
from gamekeeper.policy.continuous_loop.reachability import reachability
from gamekeeper.policy.continuous_loop.view import (
    POLICY,
    CandidateView,
    ChampionView,
    Limits,
    LineView,
    LiveJob,
    Phase,
    Reason,
    Stage,
    StageHistory,
    View,
    Window,
)

__all__ = [
    "POLICY",
    "CandidateView",
    "ChampionView",
    "Limits",
    "LineView",
    "LiveJob",
    "Phase",
    "Reason",
    "Stage",
    "StageHistory",
    "View",
    "Window",
    "decide",
    "reachability",
]
