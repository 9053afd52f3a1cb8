"""Pytest plug-in of `make test`: tells coverage which test is running, and writes down how the run ended."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest

OUTCOME = Path("build") / "test-outcome.json"


def function_of(nodeid: str) -> str:
    """The test function a test case belongs to: its id without the parameters."""
    return nodeid.split("[", 1)[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Label the lines that the body of a test runs, its fixtures apart, with the test's name.

    Coverage looks away from a test marked `unmeasured`: measuring slows pure computing down threefold.
    """
    measuring = coverage.Coverage.current()
    if measuring is None:
        return (yield)
    if item.get_closest_marker("unmeasured"):
        measuring.stop()
        try:
            return (yield)
        finally:
            measuring.start()
    measuring.switch_context(function_of(item.nodeid))
    try:
        return (yield)
    finally:
        measuring.switch_context("")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Write the outcome of the whole run; workers of xdist have no terminal and so do not come here."""
    stats = terminalreporter.stats
    skipped = [
        {
            "test": report.nodeid,
            "reason": str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr),
        }
        for report in stats.get("skipped", [])
    ]
    slowest = sorted(
        (
            (report.duration, report.nodeid)
            for outcome in ("passed", "failed")
            for report in stats.get(outcome, [])
            if report.when == "call"
        ),
        reverse=True,
    )
    path = config.rootpath / OUTCOME
    path.parent.mkdir(exist_ok=True)
    outcome = {
        "passed": len(stats.get("passed", [])),
        "failed": len(stats.get("failed", [])) + len(stats.get("error", [])),
        "skipped": skipped,
        "slowest": [{"test": name, "seconds": round(seconds, 2)} for seconds, name in slowest[:20]],
    }
    path.write_text(json.dumps(outcome, indent=1), "utf-8")
