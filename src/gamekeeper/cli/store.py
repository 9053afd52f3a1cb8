"""Commands on the store itself: backup, restore, check, info. They work beside the coordinator, not through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamekeeper.cli import exit_codes
from gamekeeper.cli.options import ConfigOption, DataDirFlag, JsonOption, chosen_data_dir
from gamekeeper.cli.render import Output
from gamekeeper.core.errors import NotFound

if TYPE_CHECKING:
    from gamekeeper.settings import Settings
    from gamekeeper.store.backup import Told
    from gamekeeper.store.session import Link

ForceOption = Annotated[
    bool, typer.Option("--force", help="Set a store that is there aside, and put the backup in its place.")
]


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; it must not exist.")],
    config: ConfigOption = None,
    data_dir: DataDirFlag = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the store into a folder, while it is in use, and read the copy back.

    A backup of either engine can be restored to either: that is how a store moves from SQLite to PostgreSQL.
    """
    from gamekeeper.store import backup as backups
    from gamekeeper.store.transfer import rows_of_link

    output, place, passfile = Output(json=as_json), *_place(config, data_dir)
    told = _progress(output)
    if isinstance(place, Path):
        manifest = backups.back_up_file(place, target, told)
    else:
        from gamekeeper.store.server_restore import server_link

        with server_link(place, passfile) as link:
            link.begin_reading()
            manifest = backups.back_up_rows(link, target, rows_of_link(link), told)
            link.rollback()
    rows = sum(manifest.counts.values())
    if as_json:
        output.document({"written": str(target), **manifest.as_json()})
    else:
        output.talk(f"backed up {rows} rows of schema {manifest.schema} to {target}, and read them back")
        output.hint(f"restore with: gamekeeper store restore {target}")


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `store backup` made.")],
    force: ForceOption = False,
    config: ConfigOption = None,
    data_dir: DataDirFlag = None,
    as_json: JsonOption = False,
) -> None:
    """Make the store from a backup. No coordinator may run.

    Tokens go on far beyond those of the backup, so that whoever holds one handed out since then is refused. Files of
    the artifact store are not part of a backup.
    """
    from gamekeeper.runtime.data_dir import make_data_dir, only_coordinator
    from gamekeeper.store import backup as backups

    output, place, passfile = Output(json=as_json), *_place(config, data_dir)
    told = _progress(output)
    manifest = backups.read_manifest(source, told)
    if isinstance(place, Path):
        make_data_dir(place.parent)
        with only_coordinator(place.parent):
            moved = backups.restore_to_file(source, manifest, place, force=force, told=told)
        aside = None if moved is None else str(moved)
    else:
        from gamekeeper.store.server_restore import restore_to_schema, server_link

        with server_link(place, passfile) as link:
            aside = restore_to_schema(link, source, manifest, force=force, told=told)
    shown = _shown(place)
    if as_json:
        output.document({"restored": shown, "set_aside": aside, "rows": sum(manifest.counts.values())})
        return
    output.talk(f"restored {sum(manifest.counts.values())} rows to {shown}")
    if aside:
        output.hint(f"the earlier store was set aside as {aside}; delete it when you need it no more")


def check(config: ConfigOption = None, data_dir: DataDirFlag = None, as_json: JsonOption = False) -> None:
    """Scan all of the store for damage and broken rules. It may be in use; nothing is changed."""
    from gamekeeper.store import look

    output, place, passfile = Output(json=as_json), *_place(config, data_dir)
    with _link(place, passfile) as link:
        report = look.checked(link)
    if as_json:
        output.document({"store": _shown(place), "schema": report.schema, "problems": report.problems})
    else:
        for problem in report.problems:
            output.talk(f"problem: {problem}")
        if report.problems:
            output.hint("restore the newest sound backup: gamekeeper store restore DIR --force")
        elif report.complete:
            output.talk(f"{_shown(place)} is sound")
        else:
            schema = report.schema
            output.talk(
                f"{_shown(place)} is undamaged; its schema {schema} is brought up to date at the next start"
            )
    raise typer.Exit(exit_codes.FAILED if report.problems else exit_codes.DONE)


def info(config: ConfigOption = None, data_dir: DataDirFlag = None, as_json: JsonOption = False) -> None:
    """Say where the store is, its schema and size, who holds its roles, and how many rows it has."""
    from gamekeeper.store import look

    output, place, passfile = Output(json=as_json), *_place(config, data_dir)
    with _link(place, passfile) as link:
        facts = look.facts(link)
    if as_json:
        output.document({"store": _shown(place), **facts.as_json()})
        return
    page = output.page()
    page.line(f"{_shown(place)} ({facts.engine})", "bold")
    page.line(f"schema {facts.schema}, {facts.bytes} bytes")
    for role in facts.roles:
        page.line(f"role {role['role']}: {role['holder']}, epoch {role['epoch']}")
    page.table(["table", "rows"], [[table, str(n)] for table, n in facts.counts.items() if n])
    output.show(page)


def _place(config: Path | None, data_dir: Path | None) -> tuple[Path | str, str]:
    """Where the store is, and the file with its passwords."""
    from gamekeeper.bootstrap import store_place
    from gamekeeper.store.places import need_driver

    settings = _settings(config, data_dir)
    place = store_place(settings, settings.data_dir.resolve())
    if isinstance(place, str):
        need_driver()
    return place, settings.store.passfile


def _settings(config: Path | None, data_dir: Path | None) -> Settings:
    from gamekeeper.cli import launch
    from gamekeeper.settings import load

    path = launch.config_path(config)
    if config is None and not path.exists():
        return load(None, flags={"data_dir": chosen_data_dir(data_dir)})
    return load(path, flags={"data_dir": data_dir})


def _shown(place: Path | str) -> str:
    from gamekeeper.store.places import shown

    return shown(str(place))


@contextlib.contextmanager
def _link(place: Path | str, passfile: str) -> Iterator[Link]:
    """A connection for looking at a store that is there."""
    if isinstance(place, str):
        from gamekeeper.store.server_restore import server_link

        with server_link(place, passfile) as link:
            yield link
        return
    from gamekeeper.store.look import open_file

    if not place.is_file():
        raise NotFound(f"there is no store at {place}", remedy="name its data folder with --data-dir")
    with open_file(place) as file:
        yield file


def _progress(output: Output) -> Told:
    """Talks about long work: each stage once when it begins, then every tenth of it."""
    said: dict[str, int] = {}

    def told(stage: str, done: int, whole: int) -> None:
        tenth = 10 * done // max(1, whole)
        if said.get(stage) != tenth and output.err.isatty():
            said[stage] = tenth
            output.talk(f"{stage}: {10 * tenth} %")

    return told
