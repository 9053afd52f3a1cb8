"""The one call of an agent at work, taken for many agents at once: finish, renew, report, ask for more.

Everything in it is fenced and may be repeated: a finish under its attempt's token, the rest under the incarnation that
holds the node. So an agent whose answer was lost sends the same step again and is told the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.errors import StaleToken, UsageError
from gamekeeper.core.nodes import AgentLease
from gamekeeper.store.attempts import shares_of
from gamekeeper.store.endings import Ended, Finish, end_many
from gamekeeper.store.granting import Free, Granted, Holder, grant_many, holders, jobs_of, oldest_first
from gamekeeper.store.leases import Beat, Renewed, beat_many, holds, overtaken_agent
from gamekeeper.store.session import Writing

WANT_MOST = 1024

Match = Callable[[Writing, Sequence[Free]], Sequence[GrantJob]]


@dataclass(frozen=True, slots=True)
class Step(Beat):
    """What an agent says at once: which attempts are over, how the others stand, and how many more it has room for.

    `want` counts free slots, so an attempt granted before of which the agent has not heard is among those it wants.
    """

    finishes: Sequence[Finish] = field(default=())
    want: int = 0

    def __post_init__(self) -> None:
        """Raise `UsageError` for a want that is none."""
        if not 0 <= self.want <= WANT_MOST:
            raise UsageError(f"a step wants {self.want} jobs: it must be 0 to {WANT_MOST}")


@dataclass(frozen=True, slots=True)
class StepReply:
    """The answer to a step.

    `refused`: the incarnation does not hold its node any more; nothing of the step was done, and the rest is empty.
    `finished`: one answer for each finish, in order. `stop`: attempts the agent must stop. `granted`: attempts to
    begin, also those granted before that the step does not name.
    """

    lease: AgentLease | None = None
    finished: tuple[Ended, ...] = ()
    stop: tuple[int, ...] = ()
    granted: tuple[Granted, ...] = ()
    refused: StaleToken | None = None


def take_steps(w: Writing, steps: Sequence[Step], match: Match = oldest_first) -> list[StepReply]:
    """Take the steps of many agents in one transaction: one reply for each, in order.

    `match` says which ready jobs go to which of the agents that have room; what it grants wrongly is left out. Steps
    of one incarnation are taken one after another. Raises `UsageError` for a receipt that JSON cannot hold.
    """
    replies: list[StepReply | None] = [None] * len(steps)
    left = list(range(len(steps)))
    while left:
        turn: dict[str, int] = {}
        later = [place for place in left if turn.setdefault(steps[place].incarnation, place) != place]
        places = list(turn.values())
        for place, reply in zip(places, _take(w, [steps[place] for place in places], match), strict=True):
            replies[place] = reply
        left = later
    return [reply for reply in replies if reply is not None]


def _take(w: Writing, steps: Sequence[Step], match: Match) -> list[StepReply]:
    """`take_steps` for steps of different incarnations."""
    held = holders(w, [step.incarnation for step in steps])
    valid = [step for step in steps if holds(held, step.incarnation)]
    finished = _finish(w, valid, held)
    renewed = dict(zip((step.incarnation for step in valid), beat_many(w, valid, held), strict=True))
    again = _unheard(w, valid, renewed)
    given = _grant(w, valid, held, {name: len(granted) for name, granted in again.items()}, match)
    replies = []
    for step in steps:
        name = step.incarnation
        now = renewed.get(name)
        if now is None:
            replies.append(StepReply(refused=overtaken_agent(name)))
            continue
        granted = (*again.get(name, ()), *given.get(name, ()))
        replies.append(StepReply(now.lease, finished.get(name, ()), now.stop, granted))
    return replies


def _finish(w: Writing, steps: Sequence[Step], held: dict[str, Holder]) -> dict[str, tuple[Ended, ...]]:
    said = [each for step in steps for each in step.finishes]
    nodes = [held[step.incarnation].node_id for step in steps for _ in step.finishes]
    answers = iter(end_many(w, said, nodes=nodes))
    finished = {}
    for step in steps:
        finished[step.incarnation] = mine = tuple(next(answers) for _ in step.finishes)
        held[step.incarnation].busy -= sum(each.answer == "applied" for each in mine)
    return finished


def _unheard(
    w: Writing, steps: Sequence[Step], renewed: dict[str, Renewed | None]
) -> dict[str, list[Granted]]:
    """Attempts that were granted before and that their agents do not know of, as far as they have room for them."""
    rows = {
        step.incarnation: now.unheard[: step.want]
        for step in steps
        if (now := renewed[step.incarnation]) is not None and now.unheard
    }
    if not rows:
        return {}
    jobs = jobs_of(w, [row["job_id"] for each in rows.values() for row in each])
    return {
        incarnation: [
            Granted(
                row["id"],
                row["node_id"],
                incarnation,
                row["leased_at"],
                shares_of(row["gpus"]),
                jobs[row["job_id"]],
            )
            for row in each
        ]
        for incarnation, each in rows.items()
    }


def _grant(
    w: Writing, steps: Sequence[Step], held: dict[str, Holder], unheard: dict[str, int], match: Match
) -> dict[str, list[Granted]]:
    waiting = []
    for step in steps:
        holder = held[step.incarnation]
        room = min(step.want - unheard.get(step.incarnation, 0), holder.slots - holder.busy)
        if room > 0:
            waiting.append(Free(holder.node_id, holder.incarnation, room))
    granted: dict[str, list[Granted]] = {}
    if waiting:
        for answer in grant_many(w, match(w, waiting), held):
            if isinstance(answer, Granted):
                granted.setdefault(answer.incarnation, []).append(answer)
    return granted
