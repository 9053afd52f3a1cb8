"""The repository keeps its own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.arch import code_rules, text_rules
from tests.arch.tree import ROOT, File, Violation, files

ALL = files(ROOT)


def apply(rule: Callable[[File], Iterator[Violation]], found: list[File]) -> list[Violation]:
    """What breaks `rule`; rules on code see Python files only."""
    only_code = rule in code_rules.RULES
    return [broken for file in found if file.is_python or not only_code for broken in rule(file)]


@pytest.mark.parametrize("rule", [*code_rules.RULES, *text_rules.RULES], ids=lambda rule: rule.__name__)
def test_tidy(rule: Callable[[File], Iterator[Violation]]) -> None:
    """A rule of the house that no linter knows would be broken unseen."""
    broken = apply(rule, ALL)
    assert not broken, f"{rule.__doc__}\n" + "\n".join(map(str, broken))


def test_the_rules_see_the_repository() -> None:
    """A walk that misses the product, the tests or the build files would pass every rule."""
    paths = {file.path for file in ALL}
    assert {
        "src/gamekeeper/__init__.py",
        "tests/arch/test_tidy.py",
        "Makefile",
        ".ci/run",
        "requirements/run.txt",
    } <= paths
    assert not any(path.startswith((".venv/", ".git/", "build/")) for path in paths)
