"""A whole loop in memory: the real store, coordinator, policies, daemons and executor; only the jobs are played."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from gamekeeper.bootstrap import daemons_of
from gamekeeper.core.artifacts import ArtifactKind
from gamekeeper.core.jobs import EndReason, JobState
from gamekeeper.policy.continuous_loop import Phase
from gamekeeper.protocol import Beat, Grant, Observed
from gamekeeper.runtime.daemon import Cyclic
from gamekeeper.server import explaining, reporting, status
from gamekeeper.server.reporting import FileAudit
from gamekeeper.store import artifacts, decisions, integrity, job_queue, registry
from tests.unit.server.rig import LINE, Rig, digest, run, shard


class Player:
    """An agent with slots whose jobs end at once, as `works` says."""

    def __init__(self, rig: Rig, works: Callable[[Player, Grant], None] | None = None) -> None:
        self.rig = rig
        self.works = works or Player.work
        self.made = 0
        self.kinds: Counter[str] = Counter()

    @property
    def daemons(self) -> Sequence[Cyclic]:
        return daemons_of(self.rig.here)

    def turn(self, seconds: float = 1.0) -> None:
        """One pass of every daemon with a claim parked, then all granted work."""
        rig = self.rig
        rig.clock.advance(seconds)
        run(rig.here.beat(rig.node_id, Beat(incarnation=rig.incarnation, attempts=[], observed=Observed())))
        offer = rig.here.board.park(rig.node_id, rig.incarnation, 4)
        for daemon in self.daemons:
            run(daemon.cycle(rig.clock.now()))
        rig.here.board.leave(offer)
        for grant in rig.claim():
            self.kinds[grant.kind] += 1
            self.works(self, grant)

    def work(self, grant: Grant) -> None:
        """Do a job honestly; candidates win three pairs of four."""
        rig = self.rig
        self.made += 1
        if grant.kind == "selfplay":
            data = shard(4, 12, seed=self.made)
            rig.hand_in(grant, data, games=4, samples=12)
            rig.finish(grant, rig.selfplay_receipt((data, 4, 12)))
        elif grant.kind == "evaluate":
            first, pairs = grant.wanted["first_pair"], grant.wanted["pairs"]
            assert isinstance(first, int)
            assert isinstance(pairs, int)
            played = [
                [first + n, 1, 1 if n % 4 else 0, digest(f"{grant.job}/{n}".encode())] for n in range(pairs)
            ]
            rig.finish(grant, {"games": 2 * pairs, "pairs": played})
        else:
            weights = f"weights {self.made}".encode()
            rig.hand_in(grant, weights, ArtifactKind.MODEL)
            receipt: dict[str, object] = {"model": digest(weights), "weights": 1}
            if grant.kind == "train":
                receipt = {
                    "model": digest(weights), "steps": 3, "samples": 12, "loss": 1.0 / self.made,
                    "parent": grant.inputs["model"][0].hash,
                }  # fmt: skip
            rig.finish(grant, receipt)


def generation(rig: Rig) -> int:
    champion = rig.store.read(lambda r: registry.champion(r, LINE))
    return -1 if champion is None else champion.generation


def turn_until(player: Player, fact: Callable[[], bool], most: int = 80) -> None:
    for _ in range(most):
        if fact():
            return
        player.turn()
    raise AssertionError(f"not within {most} turns: {player.kinds}")


def sound(rig: Rig) -> None:
    assert rig.store.read(integrity.check) == []


def test_the_loop_turns_from_nothing_to_promotions(rig: Rig) -> None:
    """A stage could never be reached, or a champion move without its decision."""
    player = Player(rig)
    turn_until(player, lambda: generation(rig) >= 2)
    assert set(player.kinds) == {"found", "selfplay", "train", "evaluate"}
    sound(rig)
    for move in rig.store.read(lambda r: registry.promotions(r, LINE)):
        stored = rig.store.read(partial(decisions.decision, decision_id=move.decision_id))
        assert [action.kind for action in stored.actions] == ["MoveChampion"]
        assert stored.actions[0].outcome is decisions.Outcome.APPLIED
    for model in rig.store.read(registry.models):
        assert rig.store.read(partial(decisions.why, subject=f"model/{model.id}"))


def test_the_record_of_a_run_is_complete(rig: Rig) -> None:
    """Status, report or explanation could contradict the store."""
    player = Player(rig)
    turn_until(player, lambda: generation(rig) >= 2)
    report = rig.store.read(lambda r: reporting.report(r, rig.settings, FileAudit()))
    (line,) = report.lines
    counts = rig.store.read(lambda r: artifacts.line_counts(r, LINE))
    assert (line.promotions, line.verified_games, line.samples) == (
        generation(rig),
        counts.games,
        counts.samples,
    )
    assert [row.generation for row in line.history] == list(range(generation(rig) + 1))
    assert line.history[0].llr is None
    last = line.history[-1]
    assert last.llr is not None
    assert last.llr > 2.9
    assert last.score == pytest.approx(0.875, abs=0.03)
    assert last.elo is not None
    assert last.elo.ci95[0] > 0
    assert report.jobs["done"] == sum(player.kinds.values())
    assert report.bytes_verified == counts.bytes
    json.loads(report.model_dump_json())

    shown = rig.store.read(lambda r: status.status(r, rig.settings, 0))
    assert shown.lines[0].generation == generation(rig)
    assert shown.verdict.startswith("turning")
    assert shown.healthy is True
    told = rig.store.read(lambda r: explaining.why(r, rig.settings, "model", str(last.model)))
    assert "champion" in told.headline
    assert "promoted" in told.headline
    assert any(row.reason == "stronger" and row.acted for row in told.verdicts)
    line_told = rig.store.read(lambda r: explaining.why(r, rig.settings, "line", LINE))
    assert {row.subject for row in line_told.verdicts} >= {f"line/{LINE}/selfplay", f"line/{LINE}/train"}


def test_bad_shards_do_not_stop_the_loop(rig: Rig) -> None:
    """One program that writes NaN could bring the whole line to a halt, or its data into training."""

    def every_third_bad(player: Player, grant: Grant) -> None:
        if grant.kind == "selfplay" and grant.attempt % 3 == 0:
            data = shard(nan=True, seed=grant.attempt)
            assert not rig.hand_in(grant, data, games=2, samples=6).accepted
            assert rig.finish(grant, rig.selfplay_receipt((data, 2, 6))).reason == "data-refused"
        else:
            Player.work(player, grant)

    player = Player(rig, every_third_bad)
    turn_until(player, lambda: generation(rig) >= 1)
    totals = rig.store.read(lambda r: reporting.report(r, rig.settings, FileAudit())).jobs
    assert totals["attempts_failed"] > 0
    sound(rig)


def test_a_hollow_trainer_backs_off_and_says_so(rig: Rig) -> None:
    """A trainer that exits 0 without a receipt could pass, or be restarted in a hot loop for ever."""

    def hollow(player: Player, grant: Grant) -> None:
        if grant.kind == "train":
            assert rig.finish(grant, None).state == "hollow"
        else:
            Player.work(player, grant)

    player = Player(rig, hollow)
    for _ in range(60):
        player.turn()
    assert generation(rig) == 0
    assert 3 <= player.kinds["train"] <= 30
    shown = rig.store.read(lambda r: status.status(r, rig.settings, 0))
    assert any(item.subject == f"line/{LINE}/train" for item in shown.attention)
    assert shown.healthy is False
    sound(rig)


def test_a_silent_agent_loses_its_work_and_the_loop_goes_on_with_another(rig: Rig) -> None:
    """A vanished machine could hold its jobs for ever."""
    player = Player(rig)
    turn_until(player, lambda: generation(rig) >= 0)
    held: list[Grant] = []
    player.works = lambda _player, grant: held.append(grant)
    player.turn()
    player.turn()
    assert held
    rig.clock.advance(100)
    for daemon in player.daemons:
        run(daemon.cycle(rig.clock.now()))
    states = [rig.store.read(partial(job_queue.get, job_id=grant.job)).state for grant in held]
    assert set(states) <= {JobState.READY, JobState.CANCELLED}
    assert rig.store.read(lambda r: status.status(r, rig.settings, 0)).verdict.startswith("standing still")
    rig.join(incarnation="e" * 32)
    player.works = Player.work
    turn_until(player, lambda: generation(rig) >= 1)
    sound(rig)


def test_a_young_coordinator_reaps_nobody(rig: Rig) -> None:
    """A restarted coordinator could declare every agent lost before they could call."""
    player = Player(rig)
    player.works = lambda _player, _grant: None
    player.turn()
    player.turn()
    rig.clock.advance(100)
    rig.here.serving_since = rig.clock.now()
    for daemon in player.daemons:
        run(daemon.cycle(rig.clock.now()))
    assert rig.store.read(job_queue.live_attempts)


def test_a_restart_at_every_turn_loses_nothing(rig: Rig) -> None:
    """What one coordinator process knew could be missing in the next."""
    player = Player(rig)
    for _ in range(60):
        player.rig = player.rig.restarted()
        player.turn()
    assert generation(rig) >= 1
    sound(rig)


def test_draining_grants_nothing_and_submits_nothing(rig: Rig) -> None:
    """A loop that was asked to stop could go on."""
    player = Player(rig)
    turn_until(player, lambda: generation(rig) >= 0)
    run(rig.here.stop("enough"))
    before = rig.store.read(job_queue.counts)
    for _ in range(5):
        player.turn()
    assert rig.store.read(job_queue.counts) == before
    shown = rig.store.read(lambda r: status.status(r, rig.settings, 0))
    assert shown.draining
    assert shown.verdict.startswith("stopped")
    run(rig.here.stop("on again", Phase.TURNING))
    turn_until(player, lambda: generation(rig) >= 1)


def test_a_pass_without_news_writes_nothing(rig: Rig) -> None:
    """An idle coordinator could write to the disk many times a second."""
    player = Player(rig)
    run(rig.here.stop("quiet"))
    for _ in range(3):
        player.turn()
    before = rig.store.read(lambda r: decisions.newest(r, 1)[0].decision_id)
    for daemon in player.daemons:
        run(daemon.cycle(rig.clock.now()))
    assert rig.store.read(lambda r: decisions.newest(r, 1)[0].decision_id) == before


def test_the_cost_of_status_does_not_grow_with_what_was_done(rig: Rig) -> None:
    """The one-screen answer could become slow on a long run."""

    def steps() -> int:
        taken = 0

        def count(r: object) -> None:
            nonlocal taken
            raw = r.conn.connection.driver_connection  # type: ignore[attr-defined]

            def tick() -> int:
                nonlocal taken
                taken += 1
                return 0

            raw.set_progress_handler(tick, 1)
            status.status(r, rig.settings, 0)  # type: ignore[arg-type]
            raw.set_progress_handler(None, 0)

        rig.store.read(count)
        return taken

    player = Player(rig)
    turn_until(player, lambda: generation(rig) >= 1)
    early = steps()
    for _ in range(150):
        grant = rig.attempt()
        rig.finish(grant, reason=EndReason.OWN_ERROR, exit_code=1)
    assert steps() < 1.3 * early
    assert early > 100


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A coordinator with one connected node."""
    made = Rig(tmp_path)
    made.join()
    return made
