"""The loop of each line: which jobs are wanted now, computed from state."""

from gamekeeper.policy.continuous_loop.view import (
    POLICY,
    CandidateView,
    ChampionView,
    Limits,
    LineView,
    LiveJob,
    Phase,
    Reason,
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
    "StageHistory",
    "View",
    "Window",
]
