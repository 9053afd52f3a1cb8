"""Why something is as it is: the headline, what every policy said of it, its tries and its story."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gamekeeper.core.errors import NotFound, UsageError
from gamekeeper.core.jobs import FINAL_JOBS, Job, JobState
from gamekeeper.core.matches import Purpose
from gamekeeper.core.models import ModelState
from gamekeeper.inspection import EventRow, VerdictRow, Why
from gamekeeper.server import status
from gamekeeper.server.rows import attempt_row, elo_of, event_row, json_object, verdict_row
from gamekeeper.settings import Settings
from gamekeeper.store import (
    artifacts,
    decisions,
    event_log,
    exclusions,
    inventory,
    job_control,
    job_queue,
    leases,
    matches,
    needs,
    registry,
)
from gamekeeper.store.decisions import StoredVerdict
from gamekeeper.store.session import Reading

VERDICTS = 50
EVENTS = 100
UNSTARTED = frozenset({JobState.WAITING, JobState.READY, JobState.HELD})
_NUMBER = re.compile(r"[0-9]{1,18}\Z")


def why(r: Reading, settings: Settings, kind: str, subject: str) -> Why:
    """The explanation of one job, model, line or node. Raises `NotFound`."""
    if kind == "job":
        return _job(r, _number(subject))
    if kind == "model":
        return _model(r, _number(subject))
    if kind == "line":
        return _line(r, settings, subject)
    return _node(r, subject)


def _number(subject: str) -> int:
    if not _NUMBER.match(subject):
        raise UsageError(f"{subject!r:.40} is not a number", remedy="name a job or model by its number")
    return int(subject)


def _job(r: Reading, job_id: int) -> Why:
    job = job_queue.get(r, job_id)
    tries = job_queue.attempts_of(r, job_id)
    # Whoever waits, waits with its class; its own verdicts are of earlier grants.
    waits = job.state in UNSTARTED
    place = f"class/{job_queue.class_id(r, job_id)}"
    current = decisions.current(r, place if waits else f"job/{job_id}")
    spec = job.spec
    facts: Mapping[str, object] = {
        "kind": spec.kind,
        "line": spec.line,
        "purpose": spec.purpose,
        "state": str(job.state),
        "failures": job.failures,
        "failures allowed": spec.failures_allowed,
        "losses": job.losses,
        "losses allowed": spec.losses_allowed,
        "wanted": spec.wanted,
        "command": list(spec.command),
    }
    unmet = [need.job_id for need, met, _ in needs.needs_of(r, job_id) if not met]
    following = job_control.successor(r, job_id)
    facts = dict(facts) | {
        name: value
        for name, value in (
            ("requirements", spec.requirements.to_map()), ("waits for", [f"job {one}" for one in unmet]),
            ("deadline", spec.deadline), ("retry of", job.retry_of), ("retried as", following),
        )
        if value
    }  # fmt: skip
    refused = [
        f"{one.name}: {one.problem}: {one.detail}"
        for each in tries
        for one in artifacts.refusals_of(r, each.id)
    ]
    last = tries[-1] if tries else None
    detail = last.detail if last is not None and last.ended_at is not None else ""
    said = _job_headline(job, detail, current, unmet)
    return Why(
        subject=f"job/{job_id}",
        headline=f"job {job_id} {spec.kind} of {spec.line} is {job.state}: {said}",
        facts=json_object(dict(facts) | ({"refused files": refused} if refused else {})),
        verdicts=(_verdicts(r, place) if waits else []) + _verdicts(r, f"job/{job_id}"),
        attempts=[attempt_row(one) for one in tries],
        events=_events(r, f"job/{job_id}"),
        hint=f"gamekeeper events --of job/{job_id}" if tries else f"gamekeeper why line {spec.line}",
    )


def _job_headline(job: Job, detail: str, current: list[StoredVerdict], waits: Sequence[int]) -> str:
    if job.state in FINAL_JOBS:
        return ", ".join(word for word in (job.reason, detail) if word)
    if job.state is JobState.HELD:
        return job.reason or "a person holds it back"
    if job.state is JobState.WAITING:
        named = ", ".join(f"job {one}" for one in waits[:3])
        return f"it waits for {named}" + (f" and {len(waits) - 3} more" if len(waits) > 3 else "")
    if job.state is JobState.RUNNING:
        return "an agent works on it"
    if current:
        return current[0].verdict.sentence
    return "no pass has looked at it yet"


def _model(r: Reading, model_id: int) -> Why:
    model = registry.get(r, model_id)
    champion = registry.champion(r, model.line)
    is_champion = champion is not None and champion.model_id == model_id
    current = decisions.current(r, f"model/{model_id}")
    sentence = current[0].verdict.sentence if current else ""
    standing = "champion" if is_champion else str(model.state)
    if model.state is not ModelState.CANDIDATE and model.reason:
        standing += f" ({model.reason})"
    results = {
        f"{purpose} against {opponent}": {
            "pairs": list(tally.counts),
            "repeated": tally.duplicates,
            "elo": None if (elo := elo_of(tally)) is None else elo.model_dump(mode="json"),
        }
        for (opponent, purpose), tally in matches.tallies(r, model_id).items()
        if purpose is not Purpose.CANARY or tally.played
    }
    facts = {
        "line": model.line,
        "hash": model.hash,
        "parent": model.parent_id,
        "job": model.job_id,
        "steps": model.steps,
        "samples": model.samples,
        "loss": model.loss,
        "matches": results,
    }
    return Why(
        subject=f"model/{model_id}",
        headline=f"model {model_id} of {model.line} is {standing}" + (f": {sentence}" if sentence else ""),
        facts=json_object(facts),
        verdicts=_verdicts(r, f"model/{model_id}"),
        attempts=[attempt_row(one) for one in job_queue.attempts_of(r, model.job_id)],
        events=_events(r, f"model/{model_id}"),
        hint=f"gamekeeper why job {model.job_id}",
    )


def _line(r: Reading, settings: Settings, name: str) -> Why:
    row = next((one for one in status.line_rows(r, settings) if one.line == name), None)
    if row is None:
        known = ", ".join(sorted(settings.lines)) or "none"
        raise NotFound(f"line {name!r} does not exist", remedy=f"declared lines: {known}")
    words = status.stage_verdicts(r, name)
    acted = [word for word in words if word.verdict.acted]
    said = (acted or words)[0].verdict.sentence if words else "no pass has looked at it yet"
    champion = (
        f"model {row.champion} is champion, generation {row.generation}"
        if row.champion
        else "no champion yet"
    )
    return Why(
        subject=f"line/{name}",
        headline=f"line {name}: {champion}; {said}",
        facts=json_object(row.model_dump(mode="json", exclude={"line", "last_verdict"})),
        verdicts=[verdict_row(word) for word in words],
        attempts=[],
        events=_events(r, f"line/{name}"),
        hint=f"gamekeeper models --line {name}",
    )


def _node(r: Reading, node_id: str) -> Why:
    node = inventory.node(r, node_id)
    if node is None:
        raise NotFound(f"node {node_id!r:.80} does not exist", remedy="see `gamekeeper nodes`")
    agent = leases.agent_of(r, node_id)
    seen = node.observation
    facts = {
        "host name": node.host_name,
        "slots": node.slots,
        "busy": agent.busy if agent else 0,
        "enrolled at": node.enrolled_at,
        "last seen at": node.last_seen_at,
        "lease ends in s": round(agent.lease.expires_at - r.now, 1) if agent and not agent.reaped else None,
        "free disk": seen.disk_free_bytes if seen else None,
        "load": seen.load if seen else None,
    }
    history = exclusions.of(r, node_id)
    excluded = [one for one in history if one.lifted_at is None and one.until > r.now]
    if excluded:
        facts["excluded"] = (
            f"for {excluded[0].until - r.now:.0f} s more: {excluded[0].cause} ({excluded[0].author})"
        )
    if history:
        facts["exclusions"] = len(history)
    current = decisions.current(r, f"node/{node_id}")
    said = f": {current[0].verdict.sentence}" if current else ""
    return Why(
        subject=f"node/{node_id}",
        headline=f"node {node_id} ({node.host_name}) is {node.status}{', excluded' if excluded else ''}{said}",
        facts=json_object(facts),
        verdicts=_verdicts(r, f"node/{node_id}"),
        attempts=[attempt_row(one) for one in job_queue.live_attempts(r) if one.node_id == node_id],
        events=_events(r, f"node/{node_id}"),
        hint="gamekeeper nodes",
    )


def _verdicts(r: Reading, subject: str) -> list[VerdictRow]:
    """The freshest words of each policy, then what was stored before, without saying the same twice."""
    current = decisions.current(r, subject)
    stored = decisions.why(r, subject, VERDICTS)
    told = {(word.policy, word.decision_id) for word in current}
    return [
        verdict_row(word)
        for word in [*current, *(w for w in stored if (w.policy, w.decision_id) not in told)]
    ]


def _events(r: Reading, subject: str) -> list[EventRow]:
    return [event_row(one) for one in event_log.story(r, subject, EVENTS)]
