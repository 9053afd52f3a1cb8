"""Commands that change something: stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gamekeeper.cli import exit_codes
from gamekeeper.cli.options import DataDirOption, JsonOption, connect
from gamekeeper.cli.render import Output

if TYPE_CHECKING:
    from gamekeeper.cli.coordinator_api import CoordinatorApi
    from gamekeeper.core.clock import Clock

LOOK_EVERY_S = 0.5
LIVE_JOBS = ("running",)


def stop(
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the log.")
    ] = "requested on the command line",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing runs any more.")] = False,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="How long --wait waits: 90s, 15m, 2h.")
    ] = "10m",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wind the loop down: what runs is finished, nothing more is started, and then `up` ends."""
    from gamekeeper.cli import units
    from gamekeeper.core.clock import SystemClock

    seconds = units.parse_duration(timeout)
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        coordinator.stop(reason)
        output.talk("the coordinator starts nothing more and finishes what runs")
        stopped = _stopped_within(coordinator, SystemClock(), seconds) if wait else False
    if as_json:
        output.document({"draining": True, "stopped": stopped})
    elif stopped:
        output.talk("nothing runs any more")
    if wait and not stopped:
        output.hint(
            f"jobs still run after {units.duration(seconds)}; `gamekeeper jobs --state running` lists them"
        )
        raise typer.Exit(exit_codes.PENDING)
    if not wait:
        output.hint("`gamekeeper status` shows what still runs; `gamekeeper stop --wait` waits for it")


def _stopped_within(coordinator: CoordinatorApi, clock: Clock, seconds: float) -> bool:
    from gamekeeper.core.errors import Unreachable

    end = clock.monotonic() + seconds
    while True:
        try:
            running = sum(coordinator.status().jobs.get(state, 0) for state in LIVE_JOBS)
        except Unreachable:
            return True  # a drained coordinator ends itself
        if running == 0:
            return True
        if clock.monotonic() >= end:
            return False
        clock.block(LOOK_EVERY_S)
