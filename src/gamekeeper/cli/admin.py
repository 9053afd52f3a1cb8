"""Commands that set up and run the parts of one machine: init, up, coordinator, agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gamekeeper.cli.options import ConfigOption, DataDirFlag, SetOption
from gamekeeper.cli.render import Output

LogFileOption = Annotated[
    Path | None,
    typer.Option("--log-file", metavar="FILE", help="Append the log to a file instead of stderr."),
]
SupervisedOption = Annotated[
    bool, typer.Option("--supervised", help="Leave Ctrl-C to the parent process, which stops this one.")
]


def init(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write.", show_default=True)] = Path(
        "gamekeeper.toml"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    with_demo: Annotated[
        bool,
        typer.Option("--with-demo", help="Declare the bundled Connect Four instead of a commented example."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON on stdout.")] = False,
) -> None:
    """Write a commented settings file with every key and its default."""
    from gamekeeper.cli import files, launch
    from gamekeeper.settings import example

    output = Output(json=as_json)
    text = example(line_document=launch.bundled_line() if with_demo else "")
    files.write_new(path, text, force=force)
    if as_json:
        output.document({"written": str(path)})
    else:
        output.talk(f"wrote {path}")
        output.hint(f"adapt it, then start everything with: gamekeeper up --config {path}")


def up(
    config: ConfigOption = None,
    data_dir: DataDirFlag = None,
    overrides: SetOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log as JSON, one object a line on stderr; errors as JSON.")
    ] = False,
) -> None:
    """Run the coordinator and this machine's agent in the foreground, and keep them running."""
    from gamekeeper.cli import launch

    settings, file = launch.settings_of(config, data_dir, overrides or ())
    raise typer.Exit(launch.run_up(settings, file, Output(json=as_json), overrides or ()))


def coordinator(
    config: ConfigOption = None,
    data_dir: DataDirFlag = None,
    overrides: SetOption = None,
    log_file: LogFileOption = None,
    supervised: SupervisedOption = False,
) -> None:
    """Run only the coordinator (`up` starts it)."""
    from gamekeeper.cli import launch

    launch.prepare_process(log_file, supervised=supervised)
    settings, _ = launch.settings_of(config, data_dir, overrides or ())
    from gamekeeper import bootstrap

    raise typer.Exit(bootstrap.run_coordinator(settings))


def agent(
    config: ConfigOption = None,
    data_dir: DataDirFlag = None,
    overrides: SetOption = None,
    log_file: LogFileOption = None,
    supervised: SupervisedOption = False,
) -> None:
    """Run only the agent of this machine (`up` starts it)."""
    from gamekeeper.cli import launch

    launch.prepare_process(log_file, supervised=supervised)
    settings, _ = launch.settings_of(config, data_dir, overrides or ())
    from gamekeeper import bootstrap

    raise typer.Exit(bootstrap.run_agent(settings))
