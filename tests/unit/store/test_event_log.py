"""The log: one order, no gap, and the story of each subject."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import Refused
from gamekeeper.core.events import JobEnded, MatchesRecorded, NodeLost, SettingsApplied
from gamekeeper.store import event_log
from gamekeeper.store.session import Writing
from gamekeeper.store.statements import sql
from tests.unit.store.rig import START, VIOLATED, Rig, open_rig

LOST = NodeLost("n-1")
_AGAIN = sql("INSERT INTO events (position, at, name, version, fields) VALUES (1, 0.0, 'x', 1, '')")


def test_an_event_comes_back_as_it_was_emitted(rig: Rig) -> None:
    """Breaks if a field, the time or the subjects of an event are lost."""
    event = MatchesRecorded("c4", 3, "model/1", "promotion", 5, 1, 9)
    rig.turn(2)
    rig.store.write(lambda w: w.emit(event))
    (stored,) = rig.r(event_log.after, 0, 10)
    assert (stored.position, stored.at, stored.event) == (1, START + 2, event)
    assert stored.subjects == ("model/3", "line/c4", "job/9")


def test_readers_follow_the_log(rig: Rig) -> None:
    """Breaks if a reader that goes on from its last position misses or repeats an event."""
    for n in range(5):
        rig.store.write(partial(Writing.emit, event=NodeLost(f"n-{n % 2}")))
    assert [e.position for e in rig.r(event_log.after, 2, 2)] == [3, 4]
    assert [e.position for e in rig.r(event_log.after, 5, 2)] == []
    assert [e.position for e in rig.r(event_log.after, 1, 9, "node/n-0")] == [3, 5]
    assert [e.position for e in rig.r(event_log.story, "node/n-1")] == [2, 4]
    assert [e.position for e in rig.r(event_log.story, "node/n-0", 2)] == [3, 5]
    assert [e.position for e in rig.r(event_log.newest, 3)] == [3, 4, 5]
    assert rig.r(event_log.last_position) == 5
    assert rig.r(event_log.story, "node/none") == []


def test_an_empty_log(rig: Rig) -> None:
    """Breaks if the first position is not 1 or an empty log is an error."""
    assert rig.r(event_log.last_position) == 0
    assert rig.r(event_log.after, 0, 10) == []


def test_a_write_sees_its_own_events(rig: Rig) -> None:
    """Breaks if a story read inside a transaction lacks what the transaction emitted."""

    def write(w: Writing) -> list[int]:
        w.emit(LOST)
        w.emit(SettingsApplied("h"))
        return [stored.position for stored in event_log.story(w, "settings/h")]

    assert rig.store.write(write) == [2]
    assert rig.r(event_log.last_position) == 2


def test_an_event_stored_once_stays_as_it_is(rig: Rig) -> None:
    """Breaks if two events can have one position."""
    rig.store.write(lambda w: w.emit(LOST))
    with pytest.raises(VIOLATED):
        rig.store.write(lambda w: w.run(_AGAIN))


def fail_inside(w: Writing) -> None:
    """Emit an event in a savepoint that comes to nothing."""
    with w.savepoint():
        w.emit(SettingsApplied("never"))
        raise Refused("no")


@given(
    writes=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(["commit", "fail", "inner"])), min_size=1, max_size=15
    )
)
def test_no_gap_whatever_fails(writes: list[tuple[int, str]]) -> None:
    """Breaks if an undone transaction or savepoint leaves a hole or an event in the log."""
    rig = open_rig("inline")
    with rig.store:
        expected: list[str] = []

        def write(w: Writing, how: str, names: list[str]) -> None:
            for name in names:
                w.emit(SettingsApplied(name))
            if how == "inner":
                with pytest.raises(Refused):
                    fail_inside(w)
                w.emit(SettingsApplied("after"))
            if how == "fail":
                raise Refused("no")

        for index, (count, how) in enumerate(writes):
            names = [f"{index}-{n}" for n in range(count)]
            try:
                rig.store.write(partial(write, how=how, names=names))
            except Refused:
                continue
            expected += [*names, "after"] if how == "inner" else names
        stored = rig.r(event_log.after, 0, 1000)
        assert [event.position for event in stored] == list(range(1, len(expected) + 1))
        assert [event.event for event in stored] == [SettingsApplied(name) for name in expected]
        rig.check()


def test_no_gap_with_many_writers(rig: Rig) -> None:
    """Breaks if writers at once get one position twice, leave a gap, or tear a transaction's events apart."""

    def work(n: int) -> None:
        def write(w: Writing) -> None:
            for part in range(3):
                w.emit(JobEnded(n, "c4", "done", str(part)))
            if n % 5 == 0:
                raise Refused("no")

        try:
            rig.store.write(write)
        except Refused:
            assert n % 5 == 0

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    stored = rig.r(event_log.after, 0, 1000)
    assert [event.position for event in stored] == list(range(1, 32 * 3 + 1))
    for start in range(0, len(stored), 3):
        three = [event.event for event in stored[start : start + 3]]
        assert len({event.job_id for event in three if isinstance(event, JobEnded)}) == 1
