"""One pass: waiting agents and ready jobs are matched, in turns, each job on the room that suits it best.

A class that fits nowhere now steps back, and the next has its turn: the head of a queue blocks nobody. The cost of a
pass goes with the number of classes, of kinds of machines and of grants, not with the number of jobs that wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.requirements import Requirements
from gamekeeper.policy.work_distributor.census import Census, Standing, standing
from gamekeeper.policy.work_distributor.fitting import Room
from gamekeeper.policy.work_distributor.limits import Limits
from gamekeeper.policy.work_distributor.reservations import Hold, candidates, soonest
from gamekeeper.policy.work_distributor.rooms import Ask, Kinds, Rooms
from gamekeeper.policy.work_distributor.shares import Entry, Loads, entry_of
from gamekeeper.policy.work_distributor.view import JobClass, Node, ReadyJob, View, WaitingAgent


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant with its class, and whether all, some or none of the inputs are at hand there."""

    action: GrantJob
    entry: Entry
    job: ReadyJob
    at_hand: int


@dataclass(slots=True)
class Pass:
    """A pass while it goes on, and what verdicts speak of after it."""

    view: View
    limits: Limits
    now: float
    kinds: Kinds
    asks: Mapping[Requirements, Ask]
    census: Census
    takers: Mapping[str, WaitingAgent]
    rooms: Mapping[str, Room]
    offered: Rooms
    entries: list[Entry]
    loads: Loads
    slots: int
    holds: list[Hold] = field(default_factory=list)
    grants: list[Granted] = field(default_factory=list)
    over: set[int] = field(default_factory=set)
    blocked: dict[int, Hold] = field(default_factory=dict)
    avoiding: set[int] = field(default_factory=set)
    fitted: set[int] = field(default_factory=set)
    failed: dict[int, set[str]] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        """Whether the pass may grant no more."""
        return len(self.grants) >= self.limits.grants_per_pass

    def hold_of(self, entry: Entry) -> Hold | None:
        """The room that is held for a class."""
        return next((hold for hold in self.holds if hold.entry is entry), None)

    def here(self) -> list[Hold]:
        """The holds on nodes that wait for work now."""
        return [hold for hold in self.holds if hold.room.node.node_id in self.rooms]

    def hold_on(self, node_id: str) -> Hold | None:
        """For whom a node's room is held."""
        return next((hold for hold in self.holds if hold.room.node.node_id == node_id), None)


def opened(view: View, limits: Limits, now: float) -> Pass:
    """A pass before its first grant."""
    asks: dict[Requirements, None] = {one.requirements: None for one in view.classes if _waits(one)}
    kinds = Kinds(asks)
    compiled = {asked: Ask(asked, kinds.scale.needed(asked)) for asked in asks}
    entries = [
        entry_of(one, compiled[one.requirements], queue, limits, now)
        for one in sorted(view.classes, key=lambda one: one.class_id)
        if (queue := _queue(one, now))
    ]
    takers = _takers(view.agents, now)
    rooms = {node_id: Room.of(agent.node, slots_of(agent)) for node_id, agent in sorted(takers.items())}
    wanted = frozenset(name for entry in entries for job in entry.queue for name in job.inputs)
    done = Pass(
        view, limits, now, kinds, compiled, Census(view, kinds, now), takers, rooms,
        Rooms(list(rooms.values()), kinds, compiled.values(), wanted), entries, Loads(view, limits),
        sum(room.slots for room in rooms.values()),
    )  # fmt: skip
    heads = {job.job_id for entry in entries for job in entry.queue}
    for node in done.census.nodes.values():
        for job_id in node.failed_jobs & heads if node.failed_jobs else ():
            done.failed.setdefault(job_id, set()).add(node.node_id)
    return done


def match(done: Pass) -> None:
    """Hold room for those who waited long, then grant in turns until nothing fits, or the pass is full."""
    done.fitted = {
        entry.job_class.class_id for entry in done.entries if done.offered.best(entry.ask) is not None
    }
    _reserve(done)
    waiting = list(done.entries)
    while waiting:
        turns = done.loads.turns(waiting)
        over = False
        while not over and not done.full:
            entry = turns.first()
            served = _serve(done, entry)
            over = turns.settle(served=served, over=not served)
            if not served:
                done.over.add(entry.job_class.class_id)
            elif (hold := done.hold_of(entry)) is not None:
                # What was held is free for all again, so those who stepped back for it have another turn.
                done.holds.remove(hold)
                if hold.room.node.node_id in done.rooms:
                    done.offered.open(hold.room)
                done.over -= done.blocked.keys()
                done.blocked.clear()
                break
        else:
            return
        waiting = [
            entry for entry in done.entries if entry.queue and entry.job_class.class_id not in done.over
        ]


def _serve(done: Pass, entry: Entry) -> bool:
    for place, job in enumerate(entry.queue):
        held = [hold.room for hold in done.here() if hold.admits(entry, done.now)]
        barred = _barred(done, entry.ask, job)
        if barred:
            held = [room for room in held if room not in barred]
        room = done.offered.pick(entry.ask, job, barred, held)
        if room is not None:
            del entry.queue[place]
            _grant(done, entry, job, room)
            return True
        if not barred:
            break
        done.avoiding.add(entry.job_class.class_id)
    for hold in done.here():
        if not hold.admits(entry, done.now) and done.offered.fits(entry.ask, hold.room):
            done.blocked[entry.job_class.class_id] = hold
    return False


def _grant(done: Pass, entry: Entry, job: ReadyJob, room: Room) -> None:
    agent = done.takers[room.node.node_id]
    gpus = done.offered.take(room, entry.ask.requirements, offer=done.hold_on(room.node.node_id) is None)
    action = GrantJob(job.job_id, room.node.node_id, agent.incarnation, gpus)
    done.grants.append(Granted(action, entry, job, len(job.inputs & room.node.cached)))
    done.loads.grant(entry)


def _barred(done: Pass, ask: Ask, job: ReadyJob) -> list[Room]:
    """Rooms of nodes on which the job failed, as long as it could run on another."""
    failed = done.failed.get(job.job_id)
    if not failed or not any(node.node_id not in failed for node in done.census.usable(ask)):
        return []
    return [done.rooms[node_id] for node_id in sorted(failed & done.rooms.keys())]


def _reserve(done: Pass) -> None:
    for entry in candidates(done.entries):
        if len(done.holds) >= done.limits.reservations:
            return
        held = {hold.room.node.node_id for hold in done.holds}
        barred = _barred(done, entry.ask, entry.queue[0])
        room = done.offered.pick(entry.ask, entry.queue[0], barred, ())
        at: float | None = done.now
        if room is None:
            shut = held | {one.node.node_id for one in barred}
            nodes = (node for node in done.census.usable(entry.ask) if node.node_id not in shut)
            found = soonest((_room(done, node) for node in nodes), entry.ask.requirements)
            if found is None:
                continue
            room, at = found
        done.offered.close(room)
        done.holds.append(Hold(entry, room, at))


def _room(done: Pass, node: Node) -> Room:
    if node.node_id in done.rooms:
        return done.rooms[node.node_id]
    most = node.capacity.slots if node.target_slots is None else min(node.capacity.slots, node.target_slots)
    return Room.of(node, max(0, most - node.busy_slots))


def slots_of(agent: WaitingAgent) -> int:
    """How many jobs an agent may be given: what it offers, within its node's target."""
    node = agent.node
    if node.target_slots is None:
        return max(0, agent.free_slots)
    return max(0, min(agent.free_slots, node.target_slots - node.busy_slots))


def _takers(agents: Iterable[WaitingAgent], now: float) -> dict[str, WaitingAgent]:
    """Who may be given work: of several claims of one node only the one with the longest lease."""
    takers: dict[str, WaitingAgent] = {}
    for agent in agents:
        if agent.lease_expires_at <= now or standing(agent.node, now) is not Standing.USABLE:
            continue
        if slots_of(agent) < 1:
            continue
        other = takers.get(agent.node.node_id)
        if other is None or _rank(agent) > _rank(other):
            takers[agent.node.node_id] = agent
    return takers


def _rank(agent: WaitingAgent) -> tuple[float, str]:
    return agent.lease_expires_at, agent.incarnation


def _waits(one: JobClass) -> bool:
    return bool(one.due or one.later or one.held or one.heads)


def _queue(one: JobClass, now: float) -> list[ReadyJob]:
    alive = (job for job in one.heads if job.deadline is None or job.deadline > now)
    return sorted(alive, key=lambda job: (job.due_at, job.job_id))
