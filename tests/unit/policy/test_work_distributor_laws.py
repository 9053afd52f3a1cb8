"""What holds for every match of waiting agents with classes of jobs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.actions import GrantJob
from gamekeeper.core.requirements import Capacity, Requirements
from gamekeeper.policy.work_distributor import (
    Free,
    JobClass,
    Limits,
    Node,
    Occupant,
    ReadyJob,
    Reason,
    View,
    WaitingAgent,
    decide,
)
from tests.unit.policy.work_cases import GIB, NOW, asks, granted_ids, grants, machine, verdict

EDGE = 1e-5
lines = st.sampled_from(["a", "b", "c"])
kinds = st.sampled_from(["found", "selfplay", "train", "evaluate"])
hashes = st.frozensets(st.sampled_from(["x", "y", "z"]), max_size=3)
sizes = st.none() | st.sampled_from([1, 2, 8])

requirements = st.one_of(
    st.just(Requirements()),
    st.builds(
        lambda gpus, gpu, cpus, memory, disk, label, architecture, lasting: Requirements(
            gpus,
            gpu * GIB if gpus else 0,
            cpus,
            memory * GIB,
            disk * GIB,
            (("zone", label),) if label else (),
            (architecture,) if architecture else (),
            lasting,
        ),
        st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 2.0]),
        st.sampled_from([0, 0, 4, 16]),
        st.sampled_from([0.0, 0.0, 1.0, 6.0]),
        st.sampled_from([0, 0, 1, 6]),
        st.sampled_from([0, 0, 0, 2]),
        st.sampled_from(["", "", "", "east"]),
        st.sampled_from(["", "", "", "arm64"]),
        st.sampled_from([False, False, True]),
    ),
)
capacities = st.builds(
    machine,
    st.integers(1, 5),
    st.none() | st.sampled_from([1.0, 4.0, 8.0]),
    sizes,
    sizes,
    st.none() | st.lists(st.sampled_from([None, 8, 16]), max_size=3).map(tuple),
    architecture=st.sampled_from([None, "x86_64", "arm64"]),
    labels=st.sampled_from([{}, {"zone": "east"}, {"zone": "west"}]),
    ephemeral=st.booleans(),
)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    capacity = draw(capacities)
    shares = tuple(draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in capacity.gpus or ())
    busy = draw(st.integers(0, capacity.slots))
    return Node(
        name,
        capacity,
        Free(
            capacity.cpus and draw(st.sampled_from([0.0, capacity.cpus])),
            capacity.memory_bytes,
            capacity.disk_free_bytes,
            None if capacity.gpus is None else shares,
        ),
        busy,
        draw(st.none() | st.integers(0, 5)),
        excluded_until=draw(st.sampled_from([None, None, None, NOW - 1, NOW + 60])),
        cached=draw(hashes),
        failed_jobs=draw(st.frozensets(st.integers(1, 30), max_size=2)),
    )


@st.composite
def views(draw: st.DrawFn) -> View:
    names = draw(st.lists(st.sampled_from("nmopqr"), unique=True, max_size=5))
    known = [draw(nodes(name)) for name in names]
    agents = [
        WaitingAgent(
            one,
            "i",
            draw(st.sampled_from([NOW - 1, NOW + 9, NOW + 30])),
            draw(st.integers(-1, max(0, one.capacity.slots - one.busy_slots))),
        )
        for one in known
        if draw(st.booleans()) or draw(st.booleans())
    ]
    numbers = iter(range(1, 100))
    classes = []
    for class_id in range(1, draw(st.integers(0, 6)) + 1):
        heads = tuple(
            ReadyJob(next(numbers), NOW, NOW - draw(st.sampled_from([0, 50, 400, 4000])), draw(hashes))
            for _ in range(draw(st.integers(0, 6)))
        )
        classes.append(
            JobClass(
                class_id,
                draw(lines),
                draw(kinds),
                share=draw(st.sampled_from([0.5, 1.0, 2.0])),
                requirements=draw(requirements),
                due=len(heads),
                later=draw(st.integers(0, 1)),
                held=draw(st.integers(0, 1)),
                running=draw(st.integers(0, 4)),
                last_granted_at=draw(st.sampled_from([None, NOW - 10, NOW - 1000])),
                heads=heads,
                expected_s=draw(st.sampled_from([None, 5.0])),
            )
        )
    return View(tuple(agents), tuple(classes), tuple(known), draw(st.sampled_from([False] * 9 + [True])))


limits_drawn = st.builds(
    Limits,
    weights=st.dictionaries(kinds, st.floats(0.1, 10), max_size=4),
    line_weights=st.dictionaries(lines, st.floats(0.1, 10), max_size=2),
    minimums=st.dictionaries(st.sampled_from(["a", "b", "a/train"]), st.integers(0, 3), max_size=2),
    reservations=st.integers(0, 2),
    grants_per_pass=st.sampled_from([1, 5, 100, 100]),
)


def class_of(view: View, job_id: int) -> JobClass:
    (found,) = [one for one in view.classes if any(job.job_id == job_id for job in one.heads)]
    return found


def could(asked: Requirements, there: Capacity) -> bool:
    """Whether an empty machine is known to do, written down as plainly as can be."""
    devices = sorted((gpu.memory_bytes or 0 for gpu in there.gpus or ()), reverse=True)
    wanted = 1 if 0 < asked.gpus < 1 else int(asked.gpus)
    return (
        there.slots >= 1
        and len(devices) >= wanted
        and all(memory >= asked.gpu_memory_bytes for memory in devices[:wanted])
        and (asked.cpus == 0 or (there.cpus is not None and there.cpus >= asked.cpus))
        and (asked.memory_bytes == 0 or (there.memory_bytes or 0) >= asked.memory_bytes)
        and (asked.disk_bytes == 0 or (there.disk_free_bytes or 0) >= asked.disk_bytes)
        and all(there.labels.get(name) == value for name, value in asked.labels)
        and (not asked.architectures or there.architecture in asked.architectures)
        and not (asked.lasting and there.ephemeral)
    )


def granted_more(all_known: Capacity, asked: Requirements) -> Capacity:
    """The machine with all that is not known of it taken for what a job would like."""
    many = 1 << 50
    gpus = all_known.gpus
    filled = machine(gpus=(1 << 20,) * 4096).gpus if gpus is None else tuple(
        replace(gpu, memory_bytes=many if gpu.memory_bytes is None else gpu.memory_bytes) for gpu in gpus
    )  # fmt: skip
    return replace(
        all_known,
        architecture=all_known.architecture or (*asked.architectures, None)[0],
        cpus=5000.0 if all_known.cpus is None else all_known.cpus,
        memory_bytes=many if all_known.memory_bytes is None else all_known.memory_bytes,
        disk_free_bytes=many if all_known.disk_free_bytes is None else all_known.disk_free_bytes,
        gpus=filled,
    )


def fits_free(asked: Requirements, one: Node, free: Free) -> bool:
    """Whether a job that could run on the empty node has room on it now, tried device by device."""
    wanted = 1 if 0 < asked.gpus < 1 else int(asked.gpus)
    suited = 0
    for gpu, share in zip(one.capacity.gpus or (), free.gpus or (), strict=True) if wanted else ():
        needs = min(1.0, asked.gpus)
        if asked.gpu_memory_bytes:
            if gpu.memory_bytes is None or gpu.memory_bytes < asked.gpu_memory_bytes:
                continue
            if asked.gpus < 1:
                needs = max(needs, asked.gpu_memory_bytes / gpu.memory_bytes)
        suited += share >= needs - EDGE
    return (
        could(asked, one.capacity)
        and suited >= wanted
        and (asked.cpus == 0 or (free.cpus or 0) >= asked.cpus)
        and (asked.memory_bytes == 0 or (free.memory_bytes or 0) >= asked.memory_bytes)
        and (asked.disk_bytes == 0 or (free.disk_bytes or 0) >= asked.disk_bytes)
    )


def less(free: Free, view: View, given_out: Iterable[GrantJob]) -> Free:
    """What grants leave of what was free; negative where they took too much."""
    cpus, memory, disk = free.cpus or 0.0, free.memory_bytes or 0, free.disk_bytes or 0
    gpus = list(free.gpus or ())
    for grant in given_out:
        asked = class_of(view, grant.job_id).requirements
        cpus, memory, disk = cpus - asked.cpus, memory - asked.memory_bytes, disk - asked.disk_bytes
        for part in grant.gpus:
            gpus[part.index] -= part.share
    return Free(cpus, memory, disk, tuple(gpus))


def slots_open(one: WaitingAgent) -> int:
    target = one.node.target_slots
    room = one.free_slots if target is None else min(one.free_slots, target - one.node.busy_slots)
    excluded = one.node.excluded_until is not None and one.node.excluded_until > NOW
    return 0 if excluded or one.lease_expires_at <= NOW else max(0, room)


@settings(max_examples=150, deadline=None)
@given(views(), limits_drawn)
def test_no_node_is_overcommitted(view: View, limits: Limits) -> None:
    """A node given more than it has of anything runs out of it in the middle of the work."""
    decision = decide(view, limits, NOW)
    for waiting in view.agents:
        mine = [grant for grant in grants(decision) if grant.node_id == waiting.node.node_id]
        assert len(mine) <= slots_open(waiting)
        left = less(waiting.node.free, view, mine)
        assert min(left.cpus or 0, left.memory_bytes or 0, left.disk_bytes or 0) >= -EDGE
        assert all(share >= -EDGE for share in left.gpus or ())
    assert len(decision.actions) <= limits.grants_per_pass


@settings(max_examples=150, deadline=None)
@given(views(), limits_drawn)
def test_every_granted_job_suits_its_node(view: View, limits: Limits) -> None:
    """A job on a machine without what it needs fails there, and somewhere else it would not have."""
    known = {one.node_id: one for one in view.nodes}
    ids = granted_ids(decide(view, limits, NOW))
    assert len(ids) == len(set(ids))
    for grant in grants(decide(view, limits, NOW)):
        asked, on = class_of(view, grant.job_id).requirements, known[grant.node_id]
        assert fits_free(asked, on, on.free)
        assert len({part.index for part in grant.gpus}) == len(grant.gpus)
        if asked.gpus >= 1:
            assert [part.share for part in grant.gpus] == [1.0] * int(asked.gpus)
            assert all((on.free.gpus or ())[part.index] == 1.0 for part in grant.gpus)
        elif asked.gpus:
            (part,) = grant.gpus
            memory = (on.capacity.gpus or ())[part.index].memory_bytes
            used = asked.gpu_memory_bytes / memory if memory and asked.gpu_memory_bytes else 0.0
            assert abs(part.share - max(asked.gpus, used)) < EDGE
        else:
            assert grant.gpus == ()


@settings(max_examples=150, deadline=None)
@given(views(), limits_drawn)
def test_no_slot_idles_beside_a_job_that_fits(view: View, limits: Limits) -> None:
    """The starvation of old fleets: idle nodes beside a full queue. Only what is held for a class may idle."""
    decision = decide(view, limits, NOW)
    if view.draining or len(decision.actions) == limits.grants_per_pass:
        return
    held = {
        verdict.subject.removeprefix("node/")
        for verdict in decision.verdicts
        if verdict.reason == Reason.RESERVED
    }
    given_out = set(granted_ids(decision))
    for waiting in view.agents:
        mine = [grant for grant in grants(decision) if grant.node_id == waiting.node.node_id]
        if len(mine) >= slots_open(waiting) or waiting.node.node_id in held:
            continue
        left = less(waiting.node.free, view, mine)
        for one in view.classes:
            waits = [job for job in one.heads if job.job_id not in given_out]
            if any(job.job_id not in waiting.node.failed_jobs for job in waits):
                assert not fits_free(one.requirements, waiting.node, left), (one.class_id, waiting.node)


@settings(max_examples=150, deadline=None)
@given(views(), limits_drawn)
def test_unsatisfiable_is_said_exactly_when_no_known_node_could_ever_do(view: View, limits: Limits) -> None:
    """Said too often it makes people buy machines; said too seldom a job waits for ever. Unknown is neither."""
    decision = decide(view, limits, NOW)
    for one in view.classes:
        if not (one.due or one.later or one.held) or view.draining:
            continue
        found = verdict(decision, f"class/{one.class_id}").reason
        known = [node.capacity for node in view.nodes]
        never = not any(
            could(one.requirements, granted_more(capacity, one.requirements)) for capacity in known
        )
        known_to_do = any(could(one.requirements, capacity) for capacity in known)
        assert (found == Reason.UNSATISFIABLE) == (bool(known) and never)
        assert (found == Reason.UNKNOWN) == (bool(known) and not never and not known_to_do)


@settings(max_examples=100, deadline=None)
@given(views(), limits_drawn)
def test_every_subject_gets_one_verdict_that_tells_the_truth(view: View, limits: Limits) -> None:
    """A subject without a verdict cannot be explained; one that says granted without a grant is a lie."""
    decision = decide(view, limits, NOW)
    waiting = [one for one in view.classes if one.due or one.later or one.held]
    subjects = [f"class/{one.class_id}" for one in waiting]
    subjects += [f"job/{number}" for number in granted_ids(decision)]
    subjects += [f"node/{agent.node.node_id}" for agent in view.agents]
    assert Counter(verdict.subject for verdict in decision.verdicts) == Counter(subjects)
    for one in decision.verdicts:
        assert one.reason in set(Reason)
        assert one.sentence
        assert len(one.sentence) < 600
        assert len(one.evidence) <= 24
        kind, name = one.subject.split("/")
        if kind == "node":
            assert one.acted == any(grant.node_id == name for grant in grants(decision))
        if kind == "class":
            (of,) = [each for each in waiting if each.class_id == int(name)]
            granted = {job.job_id for job in of.heads} & set(granted_ids(decision))
            assert one.acted == (one.reason == Reason.GRANTED)
            assert one.acted == (bool(of.due) and len(granted) == of.due)


@settings(max_examples=100, deadline=None)
@given(views(), limits_drawn, st.randoms(use_true_random=False))
def test_the_order_of_the_view_does_not_matter(view: View, limits: Limits, chance: random.Random) -> None:
    """Answers that hang on row order cannot be replayed."""
    shuffled = View(
        tuple(chance.sample(view.agents, len(view.agents))),
        tuple(
            replace(one, heads=tuple(chance.sample(one.heads, len(one.heads))))
            for one in chance.sample(view.classes, len(view.classes))
        ),
        tuple(chance.sample(view.nodes, len(view.nodes))),
        view.draining,
    )
    assert decide(shuffled, limits, NOW) == decide(view, limits, NOW)


@settings(max_examples=100, deadline=None)
@given(views(), limits_drawn)
def test_within_a_class_the_job_due_longest_goes_first(view: View, limits: Limits) -> None:
    """A younger job that overtakes an older one of its class could starve it; one that failed somewhere may wait."""
    given_out = set(granted_ids(decide(view, limits, NOW)))
    failed = frozenset[int]().union(*(node.failed_jobs for node in view.nodes))
    for one in view.classes:
        ordered = sorted(one.heads, key=lambda job: (job.due_at, job.job_id))
        flags = [job.job_id in given_out for job in ordered if job.job_id not in failed]
        assert flags == sorted(flags, reverse=True)


@settings(max_examples=60, deadline=None)
@given(views(), limits_drawn)
def test_an_excluded_node_gets_nothing_and_a_job_avoids_where_it_failed(view: View, limits: Limits) -> None:
    """Work sent to a sick node is lost; a job sent back to where it failed fails again."""
    known = {one.node_id: one for one in view.nodes}
    for grant in grants(decide(view, limits, NOW)):
        on = known[grant.node_id]
        assert on.excluded_until is None or on.excluded_until <= NOW
        if grant.job_id in on.failed_jobs:
            asked = class_of(view, grant.job_id).requirements
            others = [
                each
                for each in view.nodes
                if grant.job_id not in each.failed_jobs
                and could(asked, each.capacity)
                and (each.excluded_until is None or each.excluded_until <= NOW)
                and each.target_slots != 0
            ]
            assert not others


@settings(max_examples=60, deadline=None)
@given(views(), hashes)
def test_data_at_hand_is_preferred_among_nodes_that_fit(view: View, inputs: frozenset[str]) -> None:
    """Locality that overrules the fit would break jobs; one that is not looked at moves gigabytes."""
    for one in view.classes:
        if (
            view.draining
            or not one.heads
            or any(one.heads[0].job_id in node.failed_jobs for node in view.nodes)
        ):
            continue
        alone = replace(one, heads=(replace(one.heads[0], inputs=inputs),), due=1)
        chosen = grants(decide(replace(view, classes=(alone,)), Limits(), NOW))
        fitting = [
            agent.node
            for agent in view.agents
            if slots_open(agent) > 0 and fits_free(one.requirements, agent.node, agent.node.free)
        ]
        if not fitting:
            assert chosen == []
            continue
        (grant,) = chosen
        (on,) = [node for node in fitting if node.node_id == grant.node_id]
        assert len(on.cached & inputs) == max(len(node.cached & inputs) for node in fitting)


def test_what_is_left_beside_jobs_is_never_negative() -> None:
    """More declared than there is must read as nothing left, not as a number that lets others in."""
    there = machine(cpus=2.0, memory=1, disk=None, gpus=(8,))
    big = Occupant(Requirements(cpus=3.0, memory_bytes=2 * GIB, disk_bytes=GIB))
    assert Free.beside(there, (big,)) == Free(0.0, 0, None, (1.0,))
    assert asks(Node("n", there, Free.beside(there, ()))).free_slots == 4
