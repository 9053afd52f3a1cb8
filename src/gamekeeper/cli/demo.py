"""`demo`: the bundled game from nothing to stronger champions, with the proof; and `demo play` against the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gamekeeper.cli.options import DEMO_DATA_DIR, JsonOption, chosen_data_dir
from gamekeeper.cli.render import Output
from gamekeeper.core.errors import UsageError

MAX_SIMULATIONS = 100_000


def demo(  # noqa: PLR0917 - typer reads options from the parameters
    context: typer.Context,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="M", help="Turn for this many minutes at most.")
    ] = None,
    promotions: Annotated[
        int | None,
        typer.Option("--promotions", metavar="P", min=1, max=1000, help="Turn until this many promotions."),
    ] = None,
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", metavar="DIR", help="Where everything is kept; resumed when it is there."),
    ] = DEMO_DATA_DIR,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="S", min=0, max=2**31 - 1, help="Seed of a fresh data directory.  [default: 0]"
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the bundled Connect Four loop: until 3 promotions or 10 minutes, then measure, stop and report.

    The same command resumes after any crash. The report goes to stdout, and as report.json and report.html into
    the data directory.
    """
    if context.invoked_subcommand is not None:
        context.obj = data_dir
        return
    if minutes is not None and not 0 < minutes <= 100_000:
        raise UsageError(
            f"--minutes {minutes:g} is out of range", remedy="use a number above 0, as in --minutes 5"
        )
    from gamekeeper.cli import demo_run
    from gamekeeper.cli.goal import Goal

    goal = Goal.of(minutes=minutes, promotions=promotions)
    raise typer.Exit(demo_run.run(data_dir, goal, seed=seed, output=Output(json=as_json)))


def play(  # noqa: PLR0917 - typer reads options from the parameters
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="ID", help="A model's number or hash prefix.  [default: the champion]"
        ),
    ] = None,
    simulations: Annotated[
        int,
        typer.Option("--simulations", metavar="N", min=1, max=MAX_SIMULATIONS, help="Search steps a move."),
    ] = 200,
    second: Annotated[bool, typer.Option("--second", help="Let the model move first.")] = False,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin", help='Read move lists ("3,3,2"), one a line; answer {"move": c, "value": v} a line.'
        ),
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Of a running or finished demo.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Errors become JSON; --stdin answers in JSON anyway.")
    ] = False,
) -> None:
    """Play Connect Four against the champion; no coordinator needs to run."""
    from gamekeeper.cli import demo_play

    given = data_dir
    if given is None and isinstance(context.obj, Path) and context.obj != DEMO_DATA_DIR:
        given = context.obj
    folder = given if given is not None else _played_data_dir()
    demo_play.run(folder, model=model, simulations=simulations, stdin=stdin, second=second)


def _played_data_dir() -> Path:
    return DEMO_DATA_DIR if DEMO_DATA_DIR.exists() else chosen_data_dir(None)
