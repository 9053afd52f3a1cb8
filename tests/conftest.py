"""How Hypothesis runs here: the same examples each time, and never failed by a busy machine.

`pytest --hypothesis-profile explore` draws other examples, and more of them.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", deadline=None, derandomize=False, database=None, max_examples=1000)
settings.load_profile("suite")
