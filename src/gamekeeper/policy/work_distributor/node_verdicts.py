"""What is said of each node that asks for work: what it was given, and why the rest of its slots stays idle."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gamekeeper.core.decisions import Evidence, Verdict, counted
from gamekeeper.policy.work_distributor.fitting import Room, State, lacking
from gamekeeper.policy.work_distributor.matching import Pass, slots_of
from gamekeeper.policy.work_distributor.view import Reason, WaitingAgent

FAILED_HERE = "failed here before"


@dataclass(slots=True)
class _Fleet:
    """What all nodes have in common after a pass: told once, however many they are."""

    done: Pass
    due: int
    left: int
    later: int
    unseen: bool
    why: dict[State | None, tuple[str, ...]] = field(default_factory=dict)
    offers: dict[tuple[int, int], tuple[Evidence, ...]] = field(default_factory=dict)

    def evidence(self, offered: int, given: int) -> tuple[Evidence, ...]:
        """The numbers that go with a node's verdict."""
        if (offered, given) not in self.offers:
            self.offers[offered, given] = (
                Evidence("slots offered", offered),
                Evidence("jobs granted", given),
                Evidence("jobs due", self.due),
            )
        return self.offers[offered, given]

    def misfits(self, room: Room) -> tuple[str, ...]:
        """Of the classes that still wait, how many each obstacle keeps off a room."""
        state = self.done.offered.state(room)
        if state not in self.why:
            counts: Counter[str] = Counter()
            kind = self.done.kinds.number(room.node.capacity)
            for entry in self.done.entries:
                if entry.queue:
                    never = self.done.kinds.obstacle(entry.ask, kind)
                    counts[never or lacking(room, entry.ask.requirements) or FAILED_HERE] += 1
            self.why[state] = tuple(f"{n} by {word}" for word, n in sorted(counts.items()))
        return self.why[state]


def told(done: Pass) -> list[Verdict]:
    """A verdict for each claim, by node and incarnation."""
    due = sum(max(one.due, len(one.heads)) for one in done.view.classes)
    left = sum(len(entry.queue) for entry in done.entries)
    seen = sum(len(one.heads) for one in done.view.classes)
    later = sum(one.later for one in done.view.classes)
    unseen = due > seen and any(
        entry.job_class.due > len(entry.job_class.heads) and not entry.queue for entry in done.entries
    )
    fleet = _Fleet(done, due, left, later, unseen)
    agents = sorted(done.view.agents, key=lambda agent: (agent.node.node_id, agent.incarnation))
    return [_node(fleet, agent) for agent in agents]


def _node(fleet: _Fleet, agent: WaitingAgent) -> Verdict:
    done, node = fleet.done, agent.node
    subject = f"node/{node.node_id}"
    room = done.rooms.get(node.node_id)
    if room is None or done.takers[node.node_id] is not agent:
        return _refused(fleet, agent, subject)
    if done.view.draining:
        sentence = "given nothing: the coordinator is draining"
        return Verdict(subject, Reason.DRAINING, sentence, False, fleet.evidence(agent.free_slots, 0)[:1])
    evidence, given = fleet.evidence(agent.free_slots, room.given), room.given
    if room.slots == 0 and given < agent.free_slots:
        return _at_target(agent, subject, given)
    if room.slots == 0:
        sentence = f"{counted(agent.free_slots, 'slot')} offered, all filled"
        return Verdict(subject, Reason.FILLED, sentence, True, evidence)
    reason, why = _idle(fleet, room)
    return Verdict(subject, reason, f"{counted(room.slots, 'slot')} {why}", given > 0, evidence)


def _idle(fleet: _Fleet, room: Room) -> tuple[Reason, str]:
    done = fleet.done
    if (done.full and fleet.left) or (fleet.unseen and not fleet.left):
        return Reason.BATCH_FULL, "left for the next pass"
    hold = done.hold_on(room.node.node_id)
    if hold is not None:
        one = hold.entry.job_class
        return (
            Reason.RESERVED,
            f"idle: its room is held for class {one.class_id} ({one.line}/{hold.entry.lane})",
        )
    if fleet.left:
        why = ", ".join(fleet.misfits(room)[:8])
        return Reason.NOTHING_FITS, f"idle: no waiting class fits; kept off: {why}"
    if fleet.later:
        return Reason.NOTHING_DUE, f"idle: nothing is due yet, {counted(fleet.later, 'job')} later"
    return Reason.NO_WORK, "idle: no further job is ready"


def _at_target(agent: WaitingAgent, subject: str, given: int) -> Verdict:
    target = Evidence(
        "jobs on the node", agent.node.busy_slots + given, agent.node.target_slots, "target of the node"
    )
    sentence = f"no more than {counted(agent.node.target_slots or 0, 'job')} shall run on it"
    return Verdict(subject, Reason.TARGET_REACHED, sentence, given > 0, (target,))


def _refused(fleet: _Fleet, agent: WaitingAgent, subject: str) -> Verdict:
    done, node = fleet.done, agent.node
    offered = Evidence("slots offered", agent.free_slots)
    if agent.lease_expires_at <= done.now:
        over = Evidence("now", done.now, agent.lease_expires_at, "lease_s")
        return Verdict(subject, Reason.LEASE_OVER, "given nothing: its lease is over", False, (over,))
    if node.excluded_until is not None and node.excluded_until > done.now:
        until = Evidence("now", done.now, node.excluded_until, "exclusion of the node")
        cause = node.exclusion_cause or "no cause noted"
        sentence = f"given nothing for another {node.excluded_until - done.now:.0f} s: excluded ({cause})"
        return Verdict(subject, Reason.EXCLUDED, sentence, False, (until,))
    if agent.free_slots < 1:
        return Verdict(subject, Reason.NO_SLOT_OFFERED, "given nothing: it offers no slot", False, (offered,))
    if slots_of(agent) < 1:
        return _at_target(agent, subject, 0)
    if not node.reachable:
        return Verdict(
            subject, Reason.LEASE_OVER, "given nothing: its node counts as lost", False, (offered,)
        )
    sentence = "given nothing: another claim of this node has a longer lease"
    return Verdict(subject, Reason.SECOND_CLAIM, sentence, False, (offered,))
