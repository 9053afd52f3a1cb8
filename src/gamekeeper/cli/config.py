"""Questions about the settings: what is in force and why, whether it is sound, and its schema."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamekeeper.cli import exit_codes
from gamekeeper.cli.options import ConfigOption, DataDirFlag, SetOption
from gamekeeper.cli.render import Output

if TYPE_CHECKING:
    from gamekeeper.settings import Problem
    from gamekeeper.settings.overview import Row

JsonOption = Annotated[
    bool, typer.Option("--json", help="Write JSON on stdout; errors become JSON on stderr.")
]


def show(  # noqa: PLR0917 - typer reads options from the parameters
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Only these keys or tables.")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirFlag = None,
    overrides: SetOption = None,
    with_origin: Annotated[
        bool, typer.Option("--origin", help="Show where each value was set: file and line, variable or flag.")
    ] = False,
    only_hash: Annotated[
        bool, typer.Option("--hash", help="Only the hash of the settings, which agents report as well.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the settings in force; secrets are hidden. Without a settings file, the defaults."""
    from gamekeeper.cli import launch
    from gamekeeper.settings import load
    from gamekeeper.settings.overview import chosen, rows

    file = launch.config_path(config)
    present = file if config is not None or os.environ.get("GAMEKEEPER_CONFIG") or file.exists() else None
    settings = load(present, flags={"data_dir": data_dir}, overrides=overrides or ())
    output = Output(json=as_json)
    if only_hash:
        if as_json:
            output.document({"hash": settings.hash})
        else:
            output.out.write(f"{settings.hash}\n")
        return
    found = chosen(rows(settings), keys or ())
    if as_json:
        output.document(
            {
                "file": None if present is None else str(present),
                "hash": settings.hash,
                "settings": [_as_json(row) for row in found],
            }
        )
        return
    page = output.page()
    head = ["KEY", "VALUE", "ORIGIN"] if with_origin else ["KEY", "VALUE"]
    page.table(head, [[row.key, _shown(row), *([_from(row)] if with_origin else [])] for row in found])
    output.show(page)
    if present is None:
        output.hint("there is no settings file here; `gamekeeper init` writes one")


def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="Settings file. Default: $GAMEKEEPER_CONFIG, else ./gamekeeper.toml."
        ),
    ] = None,
    overrides: SetOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Take what is suspicious for a problem, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the settings as they would be in force now: list every problem, and what is legal but suspicious."""
    from gamekeeper.cli import launch
    from gamekeeper.core.errors import SettingsError
    from gamekeeper.settings import Problem, load, look
    from gamekeeper.settings.findings import listed

    path = launch.config_path(file)
    output = Output(json=as_json)
    settings_hash = None
    warnings: tuple[Problem, ...] = ()
    try:
        found = look(path, overrides=overrides or ())
    except SettingsError as error:
        if not path.is_file():
            raise
        problems: tuple[Problem, ...] = (Problem("", "", error.message, error.remedy),)
    else:
        problems, warnings = found.problems, found.warnings()
        settings_hash = None if problems else load(path, overrides=overrides or ()).hash
    if as_json:
        output.document(
            {
                "file": str(path),
                "sound": not problems,
                "hash": settings_hash,
                "problems": listed(problems),
                "warnings": listed(warnings),
            }
        )
    else:
        page = output.page()
        for label, style, some in (("error", "bad", problems), ("warning", "warn", warnings)):
            for one in some:
                where = f"{one.place}: " if one.place else ""
                page.parts((f"{label}: ", style), (f"{where}{one.message}", ""))
                page.parts(("  hint: ", "dim"), (one.remedy, ""))
        page.line(_verdict(path, problems, warnings))
        output.show(page)
    if problems or (strict and warnings):
        raise typer.Exit(exit_codes.FAILED)


def schema(as_json: JsonOption = False) -> None:
    """Print the JSON Schema of the settings file, for editors and programs; it is JSON in any case."""
    from gamekeeper.settings.json_schema import shipped_text

    output = Output(json=as_json)
    output.out.write(shipped_text())
    output.out.flush()


def _verdict(path: Path, problems: tuple[Problem, ...], warnings: tuple[Problem, ...]) -> str:
    counts = [f"{len(some)} {word}{'' if len(some) == 1 else 's'}"
              for some, word in ((problems, "problem"), (warnings, "warning")) if some]  # fmt: skip
    return f"{path}: {', '.join(counts) if counts else 'sound'}"


def _shown(row: Row) -> str:
    from gamekeeper.settings.toml_text import to_toml

    return "-" if row.value is None else to_toml(_without_none(row.value))


def _without_none(value: object) -> object:
    """TOML has no word for nothing: what is left out stays out."""
    if isinstance(value, dict):
        return {key: _without_none(nested) for key, nested in value.items() if nested is not None}
    if isinstance(value, list):
        return [_without_none(nested) for nested in value]
    return value


def _from(row: Row) -> str:
    return f"from {row.derived_from} ({row.origin})" if row.derived_from else str(row.origin)


def _as_json(row: Row) -> dict[str, object]:
    return {
        "key": row.key,
        "value": row.value,
        "origin": {"layer": row.origin.layer.value, "place": row.origin.place},
        "secret": row.secret,
        "derived_from": row.derived_from or None,
    }
