"""Running a demo: make or resume its data directory, turn the loop, measure the champion, stop, report."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from gamekeeper.cli import exit_codes, files, launch, progress
from gamekeeper.cli.coordinator_api import CoordinatorApi
from gamekeeper.cli.demo_report import closing_report, write_report
from gamekeeper.cli.goal import Goal
from gamekeeper.cli.render import Output
from gamekeeper.cli.report import report_page
from gamekeeper.core.clock import Clock, SystemClock
from gamekeeper.core.errors import GamekeeperError, UsageError
from gamekeeper.inspection import Status
from gamekeeper.runtime import telemetry
from gamekeeper.runtime.supervisor import ChildSupervisor

LOOK_EVERY_S = 1.0
MEASURE_AT_MOST_S = 240.0
DRAIN_AT_MOST_S = 60.0
QUIET_LOOKS = 2
START_AT_MOST_S = 60.0
ASK_AT_MOST_S = 5.0
STOP_GRACE_S = 45.0
MARK = "# Written by `gamekeeper demo`."

_HEAD = f"""\
{MARK} Everything of this demo lies in the folder of this file.
data_dir = "."
seed = {{seed}}

[coordinator]
host = "127.0.0.1"
port = 0      # any free one; coordinator.json names it

"""


def run(data_dir: Path, goal: Goal, *, seed: int | None, output: Output) -> int:
    """Run a demo to its end and return the exit code."""
    config = prepare(data_dir, seed=seed, output=output)
    clock = SystemClock()
    launch.check_unused(data_dir, clock)
    launch.rotate_logs(data_dir / "logs")
    output.talk(f"demo in {data_dir}: {goal.words()}; Ctrl-C stops it early")
    output.talk(f"look inside from another terminal: gamekeeper status --data-dir {data_dir}")
    with (data_dir / "logs" / "demo.log").open("a", encoding="utf-8") as log:
        telemetry.configure(as_json=False, stream=log)
        with progress.watching(output.err, silent=output.json) as display:
            turn = Turn(data_dir, config, goal, clock, display)
            anyio.run(turn.run)
    report = closing_report(data_dir, config, clock)
    write_report(data_dir, report)
    if output.json:
        output.data(report)
    else:
        output.show(report_page(output.page(), report))
        output.talk(f"report: {data_dir / 'report.html'} and {data_dir / 'report.json'}")
        output.hint(f"play the champion: gamekeeper demo play --data-dir {data_dir}")
    promotions = sum(line.promotions for line in report.lines)
    if turn.interrupted:
        return exit_codes.INTERRUPTED
    whole = report.lost_artifacts == 0 and report.unverified_visible == 0
    return exit_codes.DONE if whole and goal.met(promotions) else exit_codes.FAILED


def prepare(data_dir: Path, *, seed: int | None, output: Output) -> Path:
    """Make the data directory with its settings file, or take over the one that is there. Returns the file.

    Raises `UsageError` when the folder cannot be written, holds something else, or was made with another seed.
    """
    from gamekeeper.settings import load

    config = data_dir / "gamekeeper.toml"
    if data_dir.is_dir() and any(data_dir.iterdir()) and not _is_ours(config):
        raise UsageError(
            f"{data_dir} holds something, but no demo", remedy="name another folder with --data-dir"
        )
    files.make_folder(data_dir)
    files.make_folder(data_dir / "logs")
    if not config.exists():
        files.write_whole(config, _HEAD.format(seed=seed or 0) + launch.bundled_line())
        load(config)
        return config
    settings = load(config)
    if seed is not None and settings.seed != seed:
        raise UsageError(
            f"the demo in {data_dir} was made with seed {settings.seed}, not {seed}",
            remedy="leave --seed out to resume it, or name another folder with --data-dir",
        )
    output.talk(f"resuming the demo in {data_dir}")
    return config


def _is_ours(config: Path) -> bool:
    """Whether a demo wrote this settings file; one that a person wrote is not ours to run."""
    try:
        with config.open("rb") as file:
            return file.read(len(MARK)) == MARK.encode()
    except OSError:
        return False


@dataclass(slots=True)
class Turn:
    """One run of the loop's processes, and what was seen of it."""

    data_dir: Path
    config: Path
    goal: Goal
    clock: Clock
    display: progress.Progress
    interrupted: bool = False
    started: float = 0.0
    answered: bool = False

    async def run(self) -> None:
        """Start the children, conduct the phases, stop the children.

        A first signal ends the phases early, a second one the waiting for jobs to end. Raises when a child ended
        for good, or when the coordinator never answered.
        """
        self.started = self.clock.monotonic()
        code: int | None = None
        conduct = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:

            async def supervise() -> None:
                nonlocal code
                crew = launch.children(self.config, self.data_dir, log_dir=self.data_dir / "logs")
                code = await ChildSupervisor(self.clock, stop_grace_s=STOP_GRACE_S).run(crew)
                tasks.cancel_scope.cancel()

            async def heed_signals() -> None:
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    async for _ in signals:
                        self.interrupted = True
                        conduct.cancel()

            tasks.start_soon(heed_signals)
            tasks.start_soon(supervise)
            with conduct:
                await self._conduct()
            if self.interrupted:
                self.display.update("stopping", None, self._elapsed())
                with anyio.move_on_after(ASK_AT_MOST_S):
                    await self._ask("interrupted by a person", "draining")
            tasks.cancel_scope.cancel()
        if self.interrupted:
            return
        if code is not None:
            raise launch.child_error(self.data_dir / "logs", code)
        if not self.answered:
            raise launch.child_error(self.data_dir / "logs", exit_codes.FAILED)

    async def _conduct(self) -> None:
        """Turn until the goal is reached, then measure, then drain; each for a bounded time."""
        await self._until("turning", self._goal_reached, None)
        if not self.answered:
            return
        await self._ask("the demo's goal is reached", "measuring")
        await self._until("measuring the champions", _Quiet().look, MEASURE_AT_MOST_S)
        await self._ask("the demo is over", "draining")
        await self._until("finishing", _Quiet().look, DRAIN_AT_MOST_S)

    def _goal_reached(self, status: Status | None) -> bool:
        if not self.answered:
            return self._elapsed() >= START_AT_MOST_S
        promotions = 0 if status is None else sum(row.promotions for row in status.lines)
        return self.goal.reached(promotions, self._elapsed())

    async def _until(
        self, phase: str, over: Callable[[Status | None], bool], at_most_s: float | None
    ) -> None:
        end = None if at_most_s is None else self.clock.monotonic() + at_most_s
        while True:
            status = await anyio.to_thread.run_sync(self._status, abandon_on_cancel=True)
            self.answered = self.answered or status is not None
            waiting = "starting again" if self.answered else "starting"
            self.display.update(waiting if status is None else phase, status, self._elapsed())
            if over(status) or (end is not None and self.clock.monotonic() >= end):
                return
            await self.clock.sleep(LOOK_EVERY_S)

    async def _ask(self, reason: str, phase: str) -> None:
        """Ask for a phase; a coordinator that does not answer is restarting, and asked again."""
        for _ in range(30):
            try:
                await anyio.to_thread.run_sync(self._stop, reason, phase, abandon_on_cancel=True)
            except GamekeeperError:
                await self.clock.sleep(LOOK_EVERY_S)
            else:
                return

    def _status(self) -> Status | None:
        try:
            with CoordinatorApi.of_data_dir(self.data_dir) as coordinator:
                return coordinator.status()
        except GamekeeperError:
            return None

    def _stop(self, reason: str, phase: str) -> None:
        with CoordinatorApi.of_data_dir(self.data_dir) as coordinator:
            coordinator.stop(reason, phase=phase)

    def _elapsed(self) -> float:
        return self.clock.monotonic() - self.started


class _Quiet:
    """Whether no job is live, twice in a row: between two jobs of a phase there may be a moment without any."""

    def __init__(self) -> None:
        self._looks = 0

    def look(self, status: Status | None) -> bool:
        """Take one look; an unanswered one says nothing."""
        if status is None:
            return False
        live = sum(status.jobs.get(state, 0) for state in ("waiting", "ready", "running"))
        self._looks = self._looks + 1 if live == 0 else 0
        return self._looks >= QUIET_LOOKS
