"""The coverage page tells the truth: floors hold, staleness is seen, and small wandering is not staleness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.coverage_page import agree, below, cells_of, measured, render, stale
from tools.roadmap import Module
from tools.test_outcome import function_of
from tools.test_run import imported

MODULE = Module(
    name="job_reaper",
    tier=1,
    priority="P0",
    risk="ends jobs",
    home=("policy/job_reaper.py",),
    parts=("agent/",),
    theme="the loop turns",
    tests=3,
    line=100,
    branch=90,
    mutation=95,
    state="built",
)
AIMED = [f"tests/unit/test_job_reaper.py::test_{number}" for number in range(4)]
PASSING = "tests/unit/test_loop.py::test_all"
Scores = dict[str, tuple[float, str]]
SCORES: Scores = {"policy/job_reaper.py": (96.0, "")}


def run(**changes: Any) -> dict[str, Any]:
    """A test run that measured one file completely; `changes` go to that file's figures."""
    figures = {
        "lines": 300,
        "statements": 100,
        "missing": 0,
        "branches": 50,
        "missing_branches": 0,
        "functions": 9,
        "tests": [*AIMED, PASSING],
        "untested": [],
        "partial": [],
    }
    return {
        "passed": 5,
        "skipped": [],
        "imports": {
            "tests/unit/test_job_reaper.py": ["gamekeeper.policy.job_reaper.decide"],
            "tests/unit/test_loop.py": [
                "gamekeeper.bootstrap",
                "gamekeeper.policy.job_reaper_of_another_name",
            ],
        },
        "files": {"src/gamekeeper/policy/job_reaper.py": {**figures, **changes}},
    }


def page(measurements: dict[str, Any], module: Module = MODULE, scores: Scores = SCORES) -> str:
    return render([module], measurements, scores)


def test_only_tests_that_name_the_module_and_run_it_count() -> None:
    """Whole-system tests would otherwise fill the floor of every module they pass through."""
    figures = measured(MODULE.home, run())
    assert figures is not None
    assert (figures.tests, figures.reached) == (4, 5)


def test_a_folder_is_measured_whole() -> None:
    """A home that is a folder would otherwise count as not measured."""
    assert measured(["policy/"], run()) == measured(["policy/job_reaper.py"], run())
    assert measured(["polic"], run()) is None


@pytest.mark.parametrize(
    ("changes", "scores", "complaint"),
    [
        ({"tests": AIMED[:2]}, SCORES, "2 tests, floor 3"),
        (
            {"missing": 1, "untested": ["decide"]},
            SCORES,
            "line coverage 99.0 %, floor 100 %; untested: decide",
        ),
        ({"missing_branches": 6}, SCORES, "branch coverage 88.0 %, floor 90 %"),
        ({}, {"policy/job_reaper.py": (94.9, "")}, "mutation score 94.9 %, floor 95 %"),
    ],
    ids=["tests", "line", "branch", "mutation"],
)
def test_a_built_module_below_a_floor_is_named(
    changes: dict[str, Any], scores: Scores, complaint: str
) -> None:
    """A floor that nobody checks is a wish."""
    (found,) = below([MODULE], run(**changes), scores)
    assert found == f"job_reaper: {complaint}"


def test_floors_hold_only_for_what_is_built() -> None:
    """A module that has only been started would block all work on the others."""
    poor = run(tests=[], missing=50, missing_branches=50)
    assert below([replace(MODULE, state="started"), replace(MODULE, state="planned")], poor, {}) == []
    assert below([MODULE], {**run(), "files": {}}, {}) != []


def test_all_floors_reached_is_silence() -> None:
    """A check that always complains would be ignored."""
    assert below([MODULE], run(), SCORES) == []
    assert below([MODULE], run(), {}) == []


def test_a_fresh_page_is_not_stale() -> None:
    """A page that its own check refuses could never be committed."""
    assert stale(page(run()), page(run()), skipped=0) == []


@pytest.mark.parametrize(
    "fresh",
    [
        page(run(missing=4)),
        page(run(missing_branches=2)),
        page(run(tests=AIMED[:1])),
        page(run(lines=350)),
        page(run(), replace(MODULE, state="started")),
        page(run(), replace(MODULE, tests=4)),
        page(run(), replace(MODULE, home=("policy/reaper.py",))),
        page(run(), replace(MODULE, parts=())),
        page(run(), replace(MODULE, name="reaper")),
        page(run(), scores={}),
        page(run(), scores={"policy/job_reaper.py": (96.0, "of earlier code")}),
    ],
    ids=["line", "branch", "tests", "lines", "state", "floor", "home", "parts", "name", "unmutated", "older"],
)
def test_a_stale_page_is_noticed(fresh: str) -> None:
    """A page left behind by the code would be believed."""
    assert stale(page(run()), fresh, skipped=0)
    assert stale(fresh, page(run()), skipped=0)


def test_small_wandering_is_not_staleness() -> None:
    """Tests with real processes never repeat to the line; an exact page would fail at random."""
    wandered = run(missing=2, missing_branches=1, lines=301, tests=[*AIMED[:2], PASSING], untested=["decide"])
    assert stale(page(run()), page(wandered), skipped=0) == []


@given(st.integers(0, 100), st.integers(0, 100))
def test_percentages_agree_within_two_points(then: int, now: int) -> None:
    """A wider tolerance would hide a module that loses its tests bit by bit."""
    assert agree("line %", f"{then} (90)", f"{now} (90)", skipped=0) == (abs(then - now) <= 2)
    assert not agree("line %", f"{then} (90)", f"{now} (95)", skipped=0)


def test_skipped_tests_widen_only_the_counts_of_tests() -> None:
    """On a machine that must skip some tests the page would be stale for ever."""
    assert agree("tests", "20 (3)", "15 (3)", skipped=3)
    assert not agree("tests", "20 (3)", "15 (3)", skipped=2)
    assert not agree("lines", "90", "80", skipped=9)


def test_the_page_can_be_read_back() -> None:
    """A row that cannot be parsed would be compared with nothing."""
    rows = cells_of(page(run(partial=["decide"])))
    cells = rows["`job_reaper`: ends jobs"]
    assert cells["tests"] == "4 (3)"
    assert cells["line %"] == "100 (100)"
    assert cells["mutation %"] == "96 (95)"
    assert cells["untested"] == "`decide` (partly)"
    assert rows["**the whole product**"]["branch %"] == "100"


def test_cases_of_one_function_count_once() -> None:
    """A parametrised test would otherwise fill a floor by itself."""
    assert function_of("tests/a.py::TestA::test_b[1-2[x]]") == "tests/a.py::TestA::test_b"


def test_imports_inside_functions_are_seen() -> None:
    """A test that imports what it tests where it needs it would not count."""
    text = "import gamekeeper.stats\ndef test_a():\n    from gamekeeper.policy import job_reaper\n    import json\n"
    assert imported(text) == ["gamekeeper.policy.job_reaper", "gamekeeper.stats"]
