"""The record of mutation scores: what mutmut wrote is counted rightly, and explanations outlive a run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tools.coverage_page import mutation_scores
from tools.mutation import Score, files_testing, readable, targets, write


def recorded(root: Path) -> list[dict[str, object]]:
    found = tomllib.loads((root / "docs" / "mutation.toml").read_text("utf-8"))["file"]
    assert isinstance(found, list)
    return found


def score(**changes: object) -> Score:
    """A score of one file with one survivor."""
    found = Score("policy/promotion.py", "0" * 16, killed=9, tried=10, survivors={"decide 3": "- a\n+ b"})
    found.__dict__.update(changes)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_an_explanation_stays_while_its_mutant_survives(root: Path) -> None:
    """Work spent on explaining a survivor would be lost with the next run."""
    write([score()], root)
    page = root / "docs" / "mutation.toml"
    page.write_text(page.read_text("utf-8").replace('why = ""', 'why = "the same by symmetry"'), "utf-8")
    write([score(survivors={"decide 7": "- a\n+ b", "decide 8": "- c\n+ d"})], root)
    (entry,) = recorded(root)
    assert entry["survivor"] == [
        {"mutant": "decide 7", "change": "- a\n+ b", "why": "the same by symmetry"},
        {"mutant": "decide 8", "change": "- c\n+ d", "why": ""},
    ]


def test_a_run_of_one_file_leaves_the_others(root: Path) -> None:
    """Each run would forget all other scores."""
    write([score(), score(path="stats/sprt.py", untested={"Sprt.llr": 3})], root)
    write([score(killed=10, survivors={})], root)
    assert [(entry["path"], entry["score"]) for entry in recorded(root)] == [
        ("policy/promotion.py", 100.0),
        ("stats/sprt.py", 90.0),
    ]


def test_the_page_is_told_what_lessens_a_score(root: Path) -> None:
    """A score of code that has changed since, or of half the mutants, would count in full."""
    write([score(), score(path="stats/sprt.py")], root)
    assert set(mutation_scores(root).values()) == {(90.0, "of earlier code")}


def test_an_explained_survivor_does_not_count(root: Path) -> None:
    """A change that changes nothing can never be killed, and a floor above it could never be reached."""
    write([score()], root)
    page = root / "docs" / "mutation.toml"
    page.write_text(page.read_text("utf-8").replace('why = ""', 'why = "the same by symmetry"'), "utf-8")
    assert mutation_scores(root)["policy/promotion.py"][0] == 100.0


def test_names_can_be_read() -> None:
    """A survivor under a mangled name would not be found in the code."""
    assert readable("gamekeeper.stats.sprt.xǁSprtǁllr__mutmut_3") == "Sprt.llr 3"
    assert readable("gamekeeper.policy.promotion.x__limits__mutmut_12") == "_limits 12"


def test_a_mutated_file_is_tested_by_those_that_import_it(root: Path) -> None:
    """Mutants would be tried on tests that never see the file, and all survive."""
    (root / "tests" / "unit").mkdir(parents=True)
    (root / "tests" / "unit" / "test_a.py").write_text("from gamekeeper.policy import promotion\n", "utf-8")
    (root / "tests" / "unit" / "test_b.py").write_text(
        "from gamekeeper.policy.promotions import x\n", "utf-8"
    )
    assert files_testing("policy/promotion.py", root) == ["tests/unit/test_a.py"]


def test_what_decides_judges_and_fences_is_mutated(root: Path) -> None:
    """A target folder that was renamed would silently no longer be mutated."""
    for path in (
        "policy/loop/view.py",
        "policy/__init__.py",
        "data/npz.py",
        "store/leases.py",
        "store/schema.py",
    ):
        file = root / "src" / "gamekeeper" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert targets(root) == ["policy/loop/view.py", "data/npz.py", "store/leases.py"]
