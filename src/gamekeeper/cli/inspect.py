"""Reading commands: status, lines, jobs, nodes, models, events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from gamekeeper.cli import exit_codes
from gamekeeper.cli.options import DataDirOption, JsonOption, connect
from gamekeeper.cli.render import Output

if TYPE_CHECKING:
    from gamekeeper.cli.coordinator_api import CoordinatorApi
    from gamekeeper.core.clock import Clock
    from gamekeeper.inspection import EventRow

LineOption = Annotated[str | None, typer.Option("--line", metavar="LINE", help="Only of this line.")]
FOLLOW_EVERY_S = 1.0
EVENTS_AT_ONCE = 500


def status(
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 unless everything is known to be well.")
    ] = False,
) -> None:
    """Show the verdict, what needs attention, and supply and demand."""
    from gamekeeper.cli import tables

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        answer = coordinator.status()
    if as_json:
        output.data(answer)
    else:
        output.show(tables.status_page(output.page(), answer))
        if answer.lines:
            output.hint(
                f"`gamekeeper why line {answer.lines[0].line}` shows the numbers behind its last decision"
            )
    if check and answer.healthy is not True:
        raise typer.Exit(exit_codes.FAILED)


def lines(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the lines: champion, verified data, live stages, candidate under test."""
    from gamekeeper.cli import tables

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        rows = coordinator.lines()
    if as_json:
        output.data(rows)
    else:
        output.show(tables.lines_table(output.page(), rows))
        if not rows:
            output.hint("no line is declared; `gamekeeper init` writes a settings file to start from")


def jobs(  # noqa: PLR0917 - typer reads options from the parameters
    ctx: typer.Context,
    state: Annotated[
        str | None, typer.Option("--state", metavar="STATE", help="Only jobs in this state.")
    ] = None,
    line: LineOption = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only jobs of this kind.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="At most this many, newest first.")
    ] = 50,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first; the last column says why each is in its state."""
    if ctx.invoked_subcommand is not None:
        return
    from gamekeeper.cli import tables
    from gamekeeper.core.clock import SystemClock
    from gamekeeper.core.errors import UsageError
    from gamekeeper.core.jobs import JobState

    if state is not None and state not in set(JobState):
        raise UsageError(f"{state!r:.60} is not a job state", remedy=f"use one of: {', '.join(JobState)}")
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        rows = coordinator.jobs(state=state, line=line, kind=kind, limit=limit)
    if as_json:
        output.data(rows)
    else:
        output.show(tables.jobs_table(output.page(), rows, SystemClock().now()))
        if rows:
            output.hint(f"`gamekeeper why job {rows[0].id}` explains one of them")


def nodes(ctx: typer.Context, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List the machines: what each has, what it does, when it was last heard."""
    if ctx.invoked_subcommand is not None:
        return
    from gamekeeper.cli import tables
    from gamekeeper.core.clock import SystemClock

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        rows = coordinator.nodes()
    if as_json:
        output.data(rows)
    else:
        output.show(tables.nodes_table(output.page(), rows, SystemClock().now()))


def models(line: LineOption = None, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List models: parent, training, and why each was promoted or rejected."""
    from gamekeeper.cli import tables
    from gamekeeper.core.clock import SystemClock

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        rows = coordinator.models(line=line)
    if as_json:
        output.data(rows)
    else:
        output.show(tables.models_table(output.page(), rows, SystemClock().now()))
        if rows:
            output.hint(f"`gamekeeper why model {rows[0].id}` explains one of them")


def events(  # noqa: PLR0917 - typer reads options from the parameters
    of: Annotated[
        str | None,
        typer.Option(
            "--of", metavar="SUBJECT", help="Only the story of one thing: job/17, model/3, line/connect4."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="DURATION", help="Only of the last 90s, 15m, 2h, 7d.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="Without --since: at most this many, the newest.")
    ] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep waiting for more, until Ctrl-C.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the log of facts in order; with --json one JSON object a line."""
    from gamekeeper.cli import tables, units
    from gamekeeper.cli.subjects import parse_subject
    from gamekeeper.core.clock import SystemClock

    subject = None if of is None else str(parse_subject(of, None))
    clock = SystemClock()
    earliest = None if since is None else clock.now() - units.parse_duration(since)
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        for batch in _batches(coordinator, clock, of=subject, earliest=earliest, limit=limit, follow=follow):
            if as_json:
                output.stream(batch)
                continue
            page = output.page()
            for row in batch:
                tables.event_line(page, row)
            output.show(page)


def _batches(
    coordinator: CoordinatorApi,
    clock: Clock,
    *,
    of: str | None,
    earliest: float | None,
    limit: int,
    follow: bool,
) -> Iterator[list[EventRow]]:
    """Events in order, some at a time: the newest `limit`, or all from `earliest` on; with `follow`, without end."""
    newest = coordinator.events(limit=1)
    after = newest[-1].position if newest else 0
    if earliest is None:
        batch = coordinator.events(of=of, limit=limit)
    else:
        after = _position_before(coordinator, earliest, after)
        batch = coordinator.events(of=of, after=after, limit=EVENTS_AT_ONCE)
    while batch or follow:
        if batch:
            yield batch
            after = max(after, batch[-1].position)
            if earliest is None and not follow:
                return
        else:
            clock.block(FOLLOW_EVERY_S)
        batch = coordinator.events(of=of, after=after, limit=EVENTS_AT_ONCE)


def _position_before(coordinator: CoordinatorApi, earliest: float, last: int) -> int:
    """The position after which all events are of `earliest` or later: positions and times rise together."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        following = coordinator.events(after=middle, limit=1)
        if following and following[0].at < earliest:
            low = following[0].position
        else:
            high = middle
    return low
