"""Commands that change jobs and nodes: submit, show, cancel, hold, release, retry, operations on many, exclusions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamekeeper.cli import exit_codes
from gamekeeper.cli.options import DataDirOption, JsonOption, connect
from gamekeeper.cli.render import Output
from gamekeeper.core.errors import GamekeeperError, UsageError

if TYPE_CHECKING:
    from gamekeeper.cli.coordinator_api import CoordinatorApi
    from gamekeeper.inspection import ActedRow, BulkRow

LOOK_EVERY_S = 0.3

IdsArgument = Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="Numbers of jobs.", min=1)]
WhereOption = Annotated[
    str,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="All jobs that fit, e.g. \"state=failed line=c4 kind=train reason~'out of memory' older=2d\".",
    ),
]
BecauseOption = Annotated[str, typer.Option("--because", metavar="TEXT", help="Why; kept in the log.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be touched, and stop.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do what --where finds without asking.")]


def submit(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Jobs as TOML ([[jobs]] tables) or JSON; - reads JSON.")
    ],
    producer: Annotated[
        str, typer.Option("--producer", metavar="NAME", help="Who asks; the unit of quotas.")
    ] = "people",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit the jobs of a file together: all are stored, or none."""
    from gamekeeper.cli import files

    document = files.read_document(file)
    wanted = document.get("jobs", [document]) if isinstance(document, dict) else document
    if not isinstance(wanted, list) or not wanted:
        raise UsageError(f"{file} holds no jobs", remedy="write [[jobs]] tables, or a JSON list of jobs")
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        rows = coordinator.submit(wanted, producer)
    if as_json:
        output.data(rows)
        return
    created = [row.id for row in rows if row.created]
    for row in rows:
        output.out.write(f"{row.id}\n")
    output.talk(f"{len(created)} of {len(rows)} jobs were created; the others had their key already")
    output.hint(f"`gamekeeper jobs show {rows[0].id}` shows one of them")


def show(
    job_id: Annotated[int, typer.Argument(metavar="ID", help="Its number.", min=1)],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one job whole: what it needs and asks for, its budgets, and all its attempts."""
    from gamekeeper.cli import job_pages
    from gamekeeper.core.clock import SystemClock

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        answer = coordinator.job(job_id)
    if as_json:
        output.data(answer)
    else:
        output.show(job_pages.job_page(output.page(), answer, SystemClock().now()))
        output.hint(f"`gamekeeper why job {job_id}` says why it is in its state")


def cancel(  # noqa: PLR0917 - typer reads options from the parameters
    ids: IdsArgument = None,
    where: WhereOption = "",
    because: BecauseOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cancel jobs: those that wait at once, those that run as soon as their agent has stopped them."""
    _act("cancel", ids, where, because, dry_run, yes, data_dir, as_json)


def hold(  # noqa: PLR0917 - typer reads options from the parameters
    ids: IdsArgument = None,
    where: WhereOption = "",
    because: BecauseOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold back jobs that have not started; `release` lets them go on."""
    _act("hold", ids, where, because, dry_run, yes, data_dir, as_json)


def release(  # noqa: PLR0917 - typer reads options from the parameters
    ids: IdsArgument = None,
    where: WhereOption = "",
    because: BecauseOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Release jobs that are held."""
    _act("release", ids, where, because, dry_run, yes, data_dir, as_json)


def retry(  # noqa: PLR0917 - typer reads options from the parameters
    ids: IdsArgument = None,
    where: WhereOption = "",
    because: BecauseOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give jobs that came to nothing a successor with fresh budgets; asked again, the same one is answered."""
    _act("retry", ids, where, because, dry_run, yes, data_dir, as_json)


def bulk_list(ctx: typer.Context, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """List operations on many jobs, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    from gamekeeper.cli import job_pages
    from gamekeeper.core.clock import SystemClock

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        rows = coordinator.bulk_list()
    if as_json:
        output.data(rows)
    else:
        output.show(job_pages.bulk_table(output.page(), rows, SystemClock().now()))


def bulk_stop(
    bulk_id: Annotated[int, typer.Argument(metavar="ID", help="Its number.", min=1)],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop an operation on many jobs where it stands; what it did stays."""
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        row = coordinator.bulk_stop(bulk_id)
    if as_json:
        output.data(row)
    else:
        output.talk(f"operation {row.id} is {row.state}: {row.changed} jobs were changed")


def exclude(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its id, a unique prefix, or its host name.")],
    how_long: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="For how long: 90s, 15m, 2h, 7d.")
    ],
    because: Annotated[str, typer.Option("--because", metavar="TEXT", help="Why; kept in the log.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Grant nothing to a node for a while; what runs on it goes on."""
    from gamekeeper.cli import units
    from gamekeeper.cli.subjects import Subject, resolve

    seconds = units.parse_duration(how_long)
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        row = coordinator.exclude(resolve(coordinator, Subject("node", node)).id, seconds, because)
    if as_json:
        output.data(row)
    else:
        output.talk(f"node {row.id} is granted nothing for {units.duration(seconds)}")
        output.hint(f"`gamekeeper nodes allow {row.id}` ends that before its time")


def allow(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its id, a unique prefix, or its host name.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the exclusion of a node before its time."""
    from gamekeeper.cli.subjects import Subject, resolve

    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        row = coordinator.allow(resolve(coordinator, Subject("node", node)).id)
    if as_json:
        output.data(row)
    else:
        output.talk(f"node {row.id} is granted work again")


def _act(  # noqa: PLR0917 - the options of four commands
    verb: str,
    ids: list[int] | None,
    where: str,
    because: str,
    dry_run: bool,
    yes: bool,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    if not ids and not where:
        raise UsageError(
            "no job is named",
            remedy=f"as in: gamekeeper jobs {verb} 17, or gamekeeper jobs {verb} --where state=ready",
        )
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        if where or dry_run:
            _act_on_many(coordinator, output, verb, ids or [], where, because, dry_run=dry_run, yes=yes)
            return
        rows, failed = _act_on_each(coordinator, output, verb, ids or [], because)
    if as_json:
        output.data(rows)
    for row in rows:
        into = "" if row.successor is None else f"; job {row.successor} follows it"
        output.talk(f"job {row.id} is {row.state}{into}")
    if failed is not None:
        raise failed


def _act_on_each(
    coordinator: CoordinatorApi, output: Output, verb: str, ids: list[int], because: str
) -> tuple[list[ActedRow], GamekeeperError | None]:
    """Do it to each job; one that it cannot be done to stops nothing, and the last such error is the command's."""
    rows, failed = [], None
    for job_id in dict.fromkeys(ids):
        try:
            rows.append(coordinator.act(verb, job_id, because))
        except GamekeeperError as error:
            if failed is not None:
                output.talk(f"error: {failed.message}")
            failed = error
    return rows, failed


def _act_on_many(  # noqa: PLR0917 - what the command was told
    coordinator: CoordinatorApi,
    output: Output,
    verb: str,
    ids: list[int],
    where: str,
    because: str,
    *,
    dry_run: bool,
    yes: bool,
) -> None:
    from gamekeeper.cli import job_pages

    plan = coordinator.bulk_plan(verb, where, ids)
    if dry_run:
        if output.json:
            output.data(plan)
        else:
            output.show(job_pages.plan_page(output.page(), plan))
        return
    if not output.json:
        output.show(job_pages.plan_page(output.page(), plan))
    if plan.jobs and not yes and (output.json or not sys.stdin.isatty()):
        raise UsageError(
            f"{plan.jobs} jobs would be touched", remedy="add --yes to do it, --dry-run to look only"
        )
    if plan.jobs and not yes and not typer.confirm(f"{verb} {plan.jobs} jobs?", err=True):
        raise typer.Exit(exit_codes.FAILED)
    if not plan.jobs:
        if output.json:
            output.data(plan)
        return
    row = _followed(coordinator, output, coordinator.bulk_start(verb, where, ids, because))
    if output.json:
        output.data(row)


def _followed(coordinator: CoordinatorApi, output: Output, row: BulkRow) -> BulkRow:
    """The operation when it is over; says how far it is on the way. Ctrl-C leaves it to the coordinator."""
    from gamekeeper.core.clock import SystemClock

    clock, told = SystemClock(), -1
    output.hint(f"it goes on without this command; `gamekeeper jobs bulk stop {row.id}` stops it")
    while row.state == "running":
        clock.block(LOOK_EVERY_S)
        row = coordinator.bulk(row.id)
        if row.changed != told and row.state == "running":
            told = row.changed
            output.talk(f"{row.changed} jobs changed, {row.looked_at:.0%} looked at")
    output.talk(
        f"operation {row.id} is {row.state}: {row.changed} jobs changed, {row.skipped} left as they were"
    )
    return row
