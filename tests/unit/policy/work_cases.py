"""Agents and jobs to match, and short ways to read the answer."""

from __future__ import annotations

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.policy.work_distributor import ReadyJob, WaitingAgent

NOW = 10_000.0


def agent(node: str = "n-1", free: int = 1, expires_at: float = NOW + 30) -> WaitingAgent:
    return WaitingAgent(node, f"inc-{node}", free, expires_at)


def job(
    number: int, kind: str = "selfplay", line: str = "c4", *, created: float = NOW, purpose: str = ""
) -> ReadyJob:
    return ReadyJob(number, kind, purpose, line, created)


def grants(decision: Decision) -> list[GrantJob]:
    assert all(isinstance(action, GrantJob) for action in decision.actions)
    return [action for action in decision.actions if isinstance(action, GrantJob)]


def granted_ids(decision: Decision) -> list[int]:
    return [grant.job_id for grant in grants(decision)]


def verdict(decision: Decision, subject: str) -> Verdict:
    (found,) = [verdict for verdict in decision.verdicts if verdict.subject == subject]
    return found


def reason(decision: Decision, subject: str) -> str:
    return verdict(decision, subject).reason


def evidence(decision: Decision, subject: str) -> dict[str, object]:
    return {item.name: item.value for item in verdict(decision, subject).evidence}
