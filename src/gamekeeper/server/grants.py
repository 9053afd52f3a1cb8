"""Handing granted attempts over to the agent they were granted to.

A grant is a row in the store before any agent hears of it. Whether a reply arrived is unknown until the agent names the
attempt in a beat or reports its start; until then, a later claim hands it over again, though not at once: the agent
may be fetching the inputs. An agent must take a grant it holds already for a repetition.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pydantic import JsonValue, TypeAdapter

from gamekeeper.core.errors import StaleToken
from gamekeeper.core.jobs import Attempt, Job
from gamekeeper.daemons import looks
from gamekeeper.protocol import GpuPart, Grant, InputFile
from gamekeeper.store import artifacts, job_queue
from gamekeeper.store.session import Reading

_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Pending:
    """What a claim is answered with. `unfit`: attempts that cannot be handed over, and why."""

    grants: list[Grant]
    unfit: list[tuple[Attempt, str]]
    draining: bool


class HandedOver:
    """Which attempts were sent to which incarnation and when: lost with the process, which only repeats a grant."""

    def __init__(self, again_after_s: float) -> None:
        self._again_after_s = again_after_s
        self._until: dict[str, dict[int, float]] = {}

    def skip(self, incarnation: str, now: float) -> frozenset[int]:
        """Attempts that are not to be handed over again yet."""
        sent = self._until.get(incarnation, {})
        return frozenset(attempt for attempt, until in sent.items() if until > now)

    def note(self, incarnation: str, attempts: Iterable[int], now: float) -> None:
        """These were just sent."""
        for attempt in attempts:
            self._until.setdefault(incarnation, {})[attempt] = now + self._again_after_s

    def known(self, incarnation: str, attempts: Collection[int]) -> None:
        """The agent named these as its own; what it once held and no longer names is forgotten."""
        sent = self._until.get(incarnation, {})
        kept = {attempt: until for attempt, until in sent.items() if until != FOREVER}
        kept.update(dict.fromkeys(attempts, FOREVER))
        if kept:
            self._until[incarnation] = kept
        else:
            self._until.pop(incarnation, None)


def check_incarnation(r: Reading, node_id: str, incarnation: str) -> None:
    """Raise unless this incarnation is the current one of the caller's node."""
    if looks.incarnation_of(r, node_id) != incarnation:
        raise StaleToken(
            f"incarnation {incarnation[:8]} is not the current agent of node {node_id}",
            remedy="connect again; end the attempts that are not kept",
        )


def pending(r: Reading, node_id: str, incarnation: str, most: int, skip: Collection[int]) -> Pending:
    """Up to `most` leased attempts of the incarnation, less those in `skip`, with all that is needed to run them."""
    check_incarnation(r, node_id, incarnation)
    ready: list[Grant] = []
    unfit: list[tuple[Attempt, str]] = []
    for attempt_id in looks.leased_attempts(r, node_id, incarnation):
        if attempt_id in skip or len(ready) >= most:
            continue
        attempt = job_queue.attempt(r, attempt_id)
        grant = message_for(r, attempt, job_queue.get(r, attempt.job_id))
        if isinstance(grant, str):
            unfit.append((attempt, grant))
        else:
            ready.append(grant)
    return Pending(ready, unfit, looks.draining(r))


def message_for(r: Reading, attempt: Attempt, job: Job) -> Grant | str:
    """The message for one attempt, or the sentence why there can be none."""
    spec = job.spec
    inputs: dict[str, list[InputFile]] = {}
    for role, hashes in spec.inputs.items():
        for digest in hashes:
            artifact = artifacts.get(r, digest)
            if artifact is None:
                return f"input {role} {digest[:12]} is not in the artifact store"
            inputs.setdefault(role, []).append(
                InputFile(
                    hash=digest, bytes=artifact.bytes, name=artifact.name, metadata=_plain(artifact.metadata)
                )
            )
    return Grant(
        attempt=attempt.id,
        token=attempt.token,
        job=job.id,
        kind=spec.kind,
        line=spec.line,
        purpose=spec.purpose,
        seed=spec.seed,
        command=list(spec.command),
        parameters=_plain(spec.parameters),
        wanted=_plain(spec.wanted),
        inputs=inputs,
        grace_s=spec.grace_s,
        time_limit_s=spec.time_limit_s,
        gpus=[GpuPart(index=part.index, share=part.share) for part in attempt.gpus],
    )


def _plain(value: object) -> dict[str, JsonValue]:
    return _JSON.validate_json(json.dumps(value, default=dict))
