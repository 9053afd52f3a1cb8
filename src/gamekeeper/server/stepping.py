"""The one call of an agent at work: its ends are judged and booked, its lease renewed, jobs granted, in one commit.

The steps of all agents that wait for the writer are taken together. Whatever is in one may be said again: an end under
its attempt's token, the rest under the incarnation that holds the node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.errors import GamekeeperError, NotAllowed, NotFound, Refused, StaleToken
from gamekeeper.core.jobs import AttemptState, EndReason, Job
from gamekeeper.core.nodes import Observation
from gamekeeper.core.receipts import BUILT_IN_KINDS, JobKind
from gamekeeper.daemons import looks
from gamekeeper.protocol import FinishedOne, FinishOne, Grant, Observed, Stepped
from gamekeeper.protocol import Step as Message
from gamekeeper.server import booking, grants
from gamekeeper.store import inventory, job_queue, step
from gamekeeper.store.endings import Ended
from gamekeeper.store.endings import Finish as EndSaid
from gamekeeper.store.granting import Free, Granted
from gamekeeper.store.leases import Progress, overtaken_agent
from gamekeeper.store.session import Reading, Writing


@dataclass(frozen=True, slots=True)
class Said:
    """A step of a node's agent; `credential_hash`, if given, is still to be found the node's own."""

    node_id: str
    credential_hash: str | None
    message: Message


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a step. `refused`, or `unrecognised` when the credential is not the node's: nothing was done."""

    reply: Stepped | None = None
    refused: GamekeeperError | None = None
    unrecognised: bool = False


@dataclass(slots=True)
class _Judged:
    """A step after its ends were judged: those that may be booked, and the answers to the others."""

    finishes: list[EndSaid] = field(default_factory=list)
    jobs: dict[int, Job] = field(default_factory=dict)
    receipts: dict[int, object] = field(default_factory=dict)
    stale: dict[int, FinishedOne] = field(default_factory=dict)


class Match(Protocol):
    """Says which ready jobs go to which agents of a round of steps, and is told which of its grants came true."""

    def __call__(self, w: Writing, waiting: Sequence[Free], /) -> Sequence[GrantJob]: ...

    def settle(self, w: Writing, granted: Collection[tuple[int, str]], /) -> None: ...


class Later:
    """Grants nothing: the distributor's own pass follows."""

    def __call__(self, _w: Writing, _waiting: Sequence[Free], /) -> Sequence[GrantJob]:
        """No grants."""
        return []

    def settle(self, _w: Writing, _granted: Collection[tuple[int, str]], /) -> None:
        """Nothing was granted."""


def take(
    w: Writing,
    said: Sequence[Said],
    lease_s: float,
    settings_hash: str,
    match: Match,
    *,
    kinds: Mapping[str, JobKind] = BUILT_IN_KINDS,
) -> list[Taken]:
    """Take the steps of many agents in one transaction: an answer for each, in order.

    A step under an incarnation that is not its node's current one is refused whole. Raises what the store raises.
    """
    draining = looks.draining(w)
    judged: dict[int, _Judged] = {}
    steps: list[step.Step] = []
    answers: list[Taken] = [Taken(refused=overtaken_agent(one.message.incarnation)) for one in said]
    places = []
    holders = looks.holders(w, [one.node_id for one in said])
    for place, one in enumerate(said):
        message, holder = one.message, holders.get(one.node_id)
        if one.credential_hash is not None and (
            holder is None or holder.credential_hash != one.credential_hash
        ):
            answers[place] = Taken(unrecognised=True)
            continue
        if holder is None or holder.incarnation != message.incarnation:
            continue
        judged[place] = mine = _judge_all(w, one, kinds)
        steps.append(
            step.Step(
                incarnation=message.incarnation,
                lease_s=lease_s,
                progress=[
                    Progress(p.attempt, p.token, p.units, p.note, dict(p.figures), p.process_s)
                    for p in message.attempts
                ],
                observation=observation(message.observed, w.now),
                finishes=mine.finishes,
                want=0 if draining else message.slots,
            )
        )
        places.append(place)
    _note_settings(w, [said[place] for place in places])
    replies = step.take_steps(w, steps, match)
    match.settle(w, {(one.row["id"], one.incarnation) for reply in replies for one in reply.granted})
    for place, reply in zip(places, replies, strict=True):
        if reply.lease is None:
            answers[place] = Taken(refused=reply.refused)
            continue
        finished = _book_all(w, said[place].message.finished, judged[place], reply.finished)
        answers[place] = Taken(
            Stepped(
                expires_in_s=reply.lease.expires_at - w.now,
                stop=list(reply.stop),
                draining=draining,
                settings_hash=settings_hash,
                finished=finished,
                grants=_grants(w, reply.granted),
            )
        )
    return answers


def _note_settings(w: Writing, said: Sequence[Said]) -> None:
    """Take down which settings the agents run under: one statement where they agree, as they nearly always do."""
    for reported in dict.fromkeys(one.message.settings_hash for one in said):
        nodes = [one.node_id for one in said if one.message.settings_hash == reported]
        inventory.note_settings(w, nodes, reported)


def observation(observed: Observed, now: float) -> Observation:
    """What an agent measured, as the store keeps it."""
    return Observation(
        observed.cpu_count, observed.memory_bytes, observed.disk_free_bytes, observed.load, observed_at=now
    )


def check_attempt(r: Reading, node_id: str, attempt_id: int, token: int) -> None:
    """Raise unless the attempt is this node's and was granted under this token; says nothing about its state."""
    attempt = job_queue.attempt(r, attempt_id)
    if attempt.node_id != node_id:
        raise NotAllowed(f"attempt {attempt_id} belongs to another node")
    if attempt.token != token:
        raise StaleToken(f"attempt {attempt_id} was not granted under token {token}")


def _judge_all(w: Writing, one: Said, kinds: Mapping[str, JobKind]) -> _Judged:
    mine = _Judged()
    for end in one.message.finished:
        try:
            check_attempt(w, one.node_id, end.attempt, end.token)
        except (Refused, NotFound, NotAllowed) as error:
            mine.stale[end.attempt] = _stale(end.attempt, error)
            continue
        job, judgement = booking.judged(w, end.attempt, end, kinds)
        mine.jobs[end.attempt], mine.receipts[end.attempt] = job, end.receipt
        receipt = end.receipt if isinstance(end.receipt, dict) else None
        mine.finishes.append(
            EndSaid(
                end.attempt,
                end.token,
                judgement.reason,
                judgement.detail,
                receipt,
                end.units,
                end.process_s,
            )
        )
    return mine


def _book_all(
    w: Writing, finished: Sequence[FinishOne], mine: _Judged, ended: Sequence[Ended]
) -> list[FinishedOne]:
    told = dict(mine.stale)
    for one in ended:
        if one.answer == "fenced" or one.state is None:
            why = one.refusal or StaleToken(f"attempt {one.attempt_id} is over")
            told[one.attempt_id] = _stale(one.attempt_id, why)
            continue
        receipt = mine.receipts[one.attempt_id]
        if one.answer == "applied" and one.state is AttemptState.SUCCEEDED and isinstance(receipt, dict):
            booking.book(w, mine.jobs[one.attempt_id], one.attempt_id, receipt)
        told[one.attempt_id] = FinishedOne(
            attempt=one.attempt_id,
            result=one.answer,
            state=one.state,
            reason=one.reason or "",
            detail=one.detail,
        )
    return [told[end.attempt] for end in finished]


def _grants(w: Writing, granted: Sequence[Granted]) -> list[Grant]:
    """The messages for what was granted. An attempt whose inputs are not there ends here."""
    found = []
    for one in granted:
        message = grants.message_for(w, one.attempt, one.job)
        if isinstance(message, str):
            job_queue.end_from_here(w, one.attempt_id, one.token, EndReason.INPUT_UNAVAILABLE, message)
        else:
            found.append(message)
    return found


def _stale(attempt: int, error: GamekeeperError) -> FinishedOne:
    return FinishedOne(
        attempt=attempt, result="already", state="", reason="", detail=error.message, stale=True
    )
