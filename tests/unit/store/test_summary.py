"""The counters that status and report are made of."""

from __future__ import annotations

from gamekeeper.core.jobs import EndReason
from gamekeeper.store import inventory, summary
from tests.unit.store.rig import LEASE_S, Rig


def test_lines_show_what_their_loops_have(rig: Rig) -> None:
    """Breaks if status shows a line's champion, data or jobs wrongly, or leaves out a line."""
    assert rig.r(summary.lines) == []
    attempt = rig.running()
    rig.publish(attempt, 1, games=3, samples=30)
    rig.finish(attempt)
    rig.attempt()
    rig.job()
    first = rig.model(1)
    rig.crown(first)
    second = rig.model(2, first)
    rig.decide("line/c4", reason="submitted")
    rig.job(line="other", kind="found")
    c4, other = rig.r(summary.lines)
    assert (c4.line, c4.promotions) == ("c4", 0)
    assert c4.champion is not None
    assert (c4.champion.model_id, c4.candidate, c4.newest) == (first.id, second, second)
    assert (c4.counts.games, c4.counts.samples, c4.counts.shards) == (3, 30, 1)
    assert c4.live == {"selfplay": {"ready": 1, "running": 1}, "train": {"ready": 2}}
    assert c4.jobs == {"selfplay": {"done": 1, "ready": 1, "running": 1}, "train": {"ready": 2}}
    assert c4.last_verdict is not None
    assert c4.last_verdict.verdict.reason == "submitted"
    assert (other.line, other.champion, other.candidate, other.last_verdict) == ("other", None, None, None)
    assert other.live == {"found": {"ready": 1}}
    rig.crown(second, first.id)
    assert rig.r(summary.lines)[0].promotions == 1


def test_totals_count_jobs_attempts_nodes_and_slots(rig: Rig) -> None:
    """Breaks if the report miscounts done, failed, hollow or lost work, or status its nodes and slots."""
    for reason in (EndReason.FINISHED, EndReason.OWN_ERROR, EndReason.NO_RECEIPT, EndReason.KILLED):
        rig.finish(rig.attempt(), reason)
    lost_node, _ = rig.agent(slots=5)
    rig.turn(LEASE_S)
    rig.w(inventory.mark_lost, lost_node)
    rig.node()
    rig.running()
    rig.attempt()
    totals = rig.r(summary.totals)
    assert totals.jobs == {"done": 1, "ready": 3, "running": 2}
    assert {state: n for state, n in totals.attempts.items() if n} == {
        "succeeded": 1, "failed": 1, "hollow": 1, "lost": 1, "running": 1, "leased": 1,
    }  # fmt: skip
    assert totals.attempts["refused"] == 0
    assert totals.nodes == {"up": 6, "lost": 1, "unknown": 1}
    assert (totals.slots_up, totals.busy) == (12, 2)


def test_the_last_verdict_is_the_last_one_stored(rig: Rig) -> None:
    """Breaks if status shows an old decision as the last."""
    assert rig.r(summary.last_verdict) is None
    rig.decide("line/c4", reason="one")
    rig.decide("line/x", reason="two")
    last = rig.r(summary.last_verdict)
    assert last is not None
    assert last.verdict.reason == "two"
