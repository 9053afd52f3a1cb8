"""What is said of each class with waiting jobs, why they wait and what would unblock them, and of each granted job."""

from __future__ import annotations

from gamekeeper.core.decisions import Evidence, Verdict, counted
from gamekeeper.policy.work_distributor.census import (
    Ruling,
    Standing,
    asked_of,
    described,
    listed,
)
from gamekeeper.policy.work_distributor.fitting import UNKNOWNS, Obstacle
from gamekeeper.policy.work_distributor.matching import Granted, Pass
from gamekeeper.policy.work_distributor.rooms import Ask
from gamekeeper.policy.work_distributor.shares import Entry
from gamekeeper.policy.work_distributor.view import JobClass, Reason


def granted(done: Pass) -> list[Verdict]:
    """A verdict for each job that is granted, by number."""
    return [_grant(done, one) for one in sorted(done.grants, key=lambda one: one.job.job_id)]


def told(done: Pass) -> list[Verdict]:
    """A verdict for each class that has waiting jobs, by number."""
    entries = {entry.job_class.class_id: entry for entry in done.entries}
    return [
        _class(done, one, entries.get(one.class_id))
        for one in sorted(done.view.classes, key=lambda one: one.class_id)
        if one.requirements in done.asks and (one.due or one.later or one.held or one.heads)
    ]


def _grant(done: Pass, one: Granted) -> Verdict:
    entry, job = one.entry, one.job
    evidence = [*_share(done, entry), Evidence("seconds waited", round(max(0.0, done.now - job.due_at), 1))]
    if job.inputs:
        evidence.append(Evidence("inputs at hand", one.at_hand, len(job.inputs)))
    if one.action.gpus:
        shares = listed(f"{part.index}: {part.share:g}" for part in one.action.gpus[:8])
        evidence.append(Evidence("GPUs", shares))
    sentence = f"granted to node {one.action.node_id} for lane {entry.job_class.line}/{entry.lane}"
    return Verdict(f"job/{job.job_id}", Reason.GRANTED, sentence, True, tuple(evidence))


def _share(done: Pass, entry: Entry) -> tuple[Evidence, ...]:
    limits, line = done.limits, entry.job_class.line
    evidence = [
        Evidence("slots of its line", done.loads.lines[line], None, "distribution.line_weights"),
        Evidence("slots of its lane", done.loads.lanes[line, entry.lane]),
        Evidence("weight of its lane", limits.lane_weight(entry.lane), None, limits.origin(entry.lane)),
    ]
    for name, running in (
        (f"{line}/{entry.lane}", done.loads.lanes[line, entry.lane]),
        (line, done.loads.lines[line]),
    ):
        if name in limits.minimums:
            bound = limits.minimums[name]
            evidence.append(Evidence("slots of its minimum", running, bound, f"distribution.minimums.{name}"))
    return tuple(evidence)


def _class(done: Pass, one: JobClass, entry: Entry | None) -> Verdict:
    subject = f"class/{one.class_id}"
    given = 0 if entry is None else entry.given
    counts = [Evidence("jobs due", max(one.due, len(one.heads)))]
    counts += [Evidence("jobs granted", given)] if given else []
    counts += [Evidence("jobs not yet due", one.later)] if one.later else []
    counts += [Evidence("jobs held", one.held)] if one.held else []
    reason, sentence, evidence = _reason(done, one, entry)
    return Verdict(subject, reason, sentence, reason is Reason.GRANTED, (*counts, *evidence))


Said = tuple[Reason, str, tuple[Evidence, ...]]


def _reason(done: Pass, one: JobClass, entry: Entry | None) -> Said:
    if done.view.draining:
        return Reason.DRAINING, "left alone: the coordinator is draining", ()
    ask = done.asks[one.requirements]
    ruling = done.census.ruling(ask)
    if ruling.never:
        return _unsatisfiable(done, ask, ruling)
    if ruling.nodes and ruling.impossible + ruling.unknown == ruling.nodes:
        return _unknown(ask, ruling)
    if entry is None:
        return _not_due(done, one)
    waited = Evidence(
        "seconds without a grant", round(entry.owed, 1), done.limits.ageing_s, "distribution.ageing_s"
    )
    evidence = (*_share(done, entry), waited)
    left = max(one.due, len(one.heads)) - entry.given
    if left <= 0:
        return Reason.GRANTED, f"nothing of it waits: {counted(entry.given, 'job')} granted", evidence
    if not done.takers:
        words = "waits: no agent offers a slot" + (f"; {_counts(ask, ruling)}" if ruling.nodes else "")
        return Reason.NO_AGENT, words, (*_numbers(ask, ruling), *evidence)
    said = _standing(done, entry, ask, ruling)
    return said[0], said[1], (*said[2], *evidence)


def _standing(done: Pass, entry: Entry, ask: Ask, ruling: Ruling) -> Said:
    class_id = entry.job_class.class_id
    bound = Evidence(
        "jobs granted in this pass",
        len(done.grants),
        done.limits.grants_per_pass,
        "distribution.grants_per_pass",
    )
    if class_id not in done.over:
        # Its turn would have come again, or the view shows fewer of its jobs than there are slots.
        return (
            Reason.BATCH_FULL,
            f"waits for the next pass: this one granted {counted(len(done.grants), 'job')}",
            (bound,),
        )
    hold = done.hold_of(entry)
    if hold is not None:
        node = hold.room.node.node_id
        since = done.limits.reserve_after_s
        held_for = Evidence(
            "held for seconds", round(entry.owed - since, 1), since, "distribution.reserve_after_s"
        )
        starts = (
            "" if hold.starts_at is None else f", expected in {max(0.0, hold.starts_at - done.now):.0f} s"
        )
        sentence = f"room on node {node} is held for it until enough of it is free{starts}"
        return Reason.RESERVED_FOR, sentence, (held_for, *_numbers(ask, ruling))
    blocking = done.blocked.get(class_id)
    if blocking is not None:
        other, node = blocking.entry.job_class.class_id, blocking.room.node.node_id
        sentence = (
            f"waits: the room left, on node {node}, is held for class {other}, which had no grant for longer"
        )
        return Reason.BEHIND_OTHERS, sentence, (Evidence("free slots", done.slots),)
    if class_id in done.avoiding:
        sentence = "waits for a node on which its jobs have not failed; those with room now are not"
        return Reason.AVOIDS_FAILURE, sentence, _numbers(ask, ruling)
    if class_id in done.fitted:
        place = f"lane {entry.job_class.line}/{entry.lane}"
        sentence = (
            f"waits: jobs before it, in {place} or a cheaper lane, took the room; a free slot unblocks it"
        )
        return Reason.BEHIND_OTHERS, sentence, (Evidence("free slots", done.slots), *_numbers(ask, ruling))
    if not ruling.usable:
        sentence = f"waits: no node that fits may get work; {_counts(ask, ruling)}"
    else:
        nodes = listed(done.census.examples(ask))
        sentence = f"waits for room; {_counts(ask, ruling)}; room on one that fits ({nodes}) unblocks it"
    return Reason.NO_ROOM, sentence, _numbers(ask, ruling)


def _not_due(done: Pass, one: JobClass) -> Said:
    if one.due or one.heads:
        sentence = "left alone: the deadline of the jobs looked at is over"
        return Reason.DEADLINE_OVER, sentence, (Evidence("now", done.now),)
    if one.later:
        wait = None if one.next_due_at is None else round(max(0.0, one.next_due_at - done.now), 1)
        when = "" if wait is None else f" before {wait} s from now"
        return (
            Reason.NOT_YET_DUE,
            f"none of it may start{when}",
            (Evidence("now", done.now, one.next_due_at),),
        )
    return Reason.HELD, "held back by a person; `gamekeeper jobs release` lets it go", ()


def _unsatisfiable(done: Pass, ask: Ask, ruling: Ruling) -> Said:
    # With several obstacles the most that any node has may stand on a node with another one.
    alone = len(ruling.obstacles) == 1
    ruled = ", ".join(
        f"{n} {obstacle}{_asked(ask, obstacle, done.census.most(obstacle) if alone else '')}"
        for obstacle, n in sorted(ruling.obstacles.items())
    )
    sentence = (
        f"no known node could ever run it: {counted(ruling.nodes, 'node')}: {ruled};"
        f" a node with {described(ask.requirements)} unblocks it"
    )
    return Reason.UNSATISFIABLE, sentence, _numbers(ask, ruling)


def _unknown(ask: Ask, ruling: Ruling) -> Said:
    missing = listed(str(obstacle) for obstacle in sorted(ruling.obstacles) if obstacle in UNKNOWNS)
    sentence = (
        f"no node is known to fit, and some do not say: {_counts(ask, ruling)}; measure or declare: {missing}"
    )
    return Reason.UNKNOWN, sentence, _numbers(ask, ruling)


def _asked(ask: Ask, obstacle: Obstacle, most: str = "") -> str:
    wanted = asked_of(ask.requirements, obstacle)
    if not wanted:
        return ""
    return f" ({wanted} asked, at most {most})" if most else f" ({wanted} asked)"


def _counts(ask: Ask, ruling: Ruling) -> str:
    """The nodes ruled out, per requirement: "6 nodes: 3 too little GPU memory (24 GiB asked), 2 busy, 1 excluded"."""
    parts = [f"{n} {obstacle}{_asked(ask, obstacle)}" for obstacle, n in sorted(ruling.obstacles.items())]
    parts += [
        f"{n} {'busy' if stands is Standing.USABLE else stands}"
        for stands, n in sorted(ruling.standings.items())
    ]
    return f"{counted(ruling.nodes, 'node')}: {', '.join(parts)}"


def _numbers(ask: Ask, ruling: Ruling) -> tuple[Evidence, ...]:
    rows = [Evidence("nodes known", ruling.nodes), Evidence("nodes that fit and may get work", ruling.usable)]
    rows += [
        Evidence(f"nodes with {obstacle}", n, asked_of(ask.requirements, obstacle) or None)
        for obstacle, n in sorted(ruling.obstacles.items())
    ]
    rows += [
        Evidence(f"nodes {stands}", n)
        for stands, n in sorted(ruling.standings.items())
        if stands is not Standing.USABLE
    ]
    return tuple(rows)
