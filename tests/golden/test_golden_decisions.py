"""Policies answer the golden tables word for word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gamekeeper.policy import job_parking, job_reaper, promotion, work_distributor
from gamekeeper.policy.continuous_loop import evaluation, loop, production, turn, view
from gamekeeper.policy.work_distributor import class_verdicts, node_verdicts
from tests.golden.decision_table import FOLDER, POLICIES, answer, tables

# The tables are tests of these files.
JUDGED = (
    job_parking, job_reaper, promotion, work_distributor, class_verdicts, node_verdicts, evaluation, loop, production,
    turn, view,
)  # fmt: skip


@pytest.mark.parametrize("path", tables(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_policy_answers_its_table(path: Path) -> None:
    """A changed threshold, order, word or job would change what people were told to expect."""
    table = json.loads(path.read_text("utf-8"))
    found = answer(path.parent.name, table)
    assert found["verdicts"] == table["verdicts"]
    assert found["actions"] == table["actions"]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_has_tables(policy: str) -> None:
    """An empty folder would pass without a question asked."""
    assert len(list((FOLDER / policy).glob("*.json"))) >= 4
