"""How many examples a property gets. GAMEKEEPER_TEST_EXAMPLES=10 in the environment gives each ten times as many."""

from __future__ import annotations

import os

from hypothesis import settings

_FACTOR = float(os.environ.get("GAMEKEEPER_TEST_EXAMPLES", "1"))


def scaled(count: int) -> int:
    """`count`, times the factor asked for; at least 1."""
    return max(1, round(count * _FACTOR))


def examples(count: int) -> settings:
    """Settings for a property that a quick run tries with `count` examples. Use it as a decorator."""
    return settings(max_examples=scaled(count), deadline=None)


def stride(step: int) -> int:
    """The step of a search that skips cases in a quick run; with a factor of at least `step` it skips none."""
    return max(1, round(step / max(_FACTOR, 1e-9)))
