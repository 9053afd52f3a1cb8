"""Decisions: what a policy said about every subject it looked at, and why.

A policy is a pure function of a view. It answers with one `Verdict` for each subject, acted on or left alone. A
verdict carries a closed reason code, the numbers that were compared, and the limit with its origin. The decision
is stored before the executor applies its actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gamekeeper.core.actions import Action

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """One comparison: the measured value, the limit it was held against, and where that limit was set.

    `value` is `None` when it was not measured. `origin` names the setting, e.g. "lines.connect4.promotion.alpha".
    """

    name: str
    value: Scalar
    limit: Scalar = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about `subject` ("job/17", "line/connect4", "model/3", "node/n-1a2b").

    `reason` is a code out of the policy's own closed set; `sentence` says it in words; `acted` tells whether
    an action follows or the subject was left alone.
    """

    subject: str
    reason: str
    sentence: str
    acted: bool
    evidence: tuple[Evidence, ...] = ()


def counted(number: int, noun: str) -> str:
    """A number with its noun, for sentences: "1 job", "1,200 jobs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of one pass of a policy: verdicts for all subjects, and the actions to apply."""

    policy: str
    decided_at: float
    verdicts: tuple[Verdict, ...]
    actions: Sequence[Action] = ()
