"""The command line's entry: all commands, and the one place where every error becomes a line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import typer
from typer.core import TyperGroup

from gamekeeper.cli import act, admin, config, control, demo, exit_codes, explain, inspect, store
from gamekeeper.cli.render import Output
from gamekeeper.core.errors import GamekeeperError

# typer carries its own copy of click; this is that copy's UsageError, whose subclasses all mean exit code 2.
CommandLineError: type[Exception] = typer.BadParameter.__mro__[1]
_READS = (exit_codes.DONE, exit_codes.FAILED, exit_codes.USAGE, exit_codes.UNREACHABLE)
_RUNS = (exit_codes.DONE, exit_codes.FAILED, exit_codes.USAGE, exit_codes.REFUSED, exit_codes.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: its name, what it runs, examples for its help, and the exit codes it may end with.

    `children` are commands below it; `run` is what it does without one.
    """

    name: str
    run: Callable[..., None]
    examples: tuple[str, ...]
    codes: tuple[int, ...]
    hidden: bool = False
    children: tuple[Entry, ...] = ()

    def summary(self) -> str:
        """The first sentence of the purpose."""
        return " ".join((self.run.__doc__ or "").split("\n\n")[0].split())

    def help(self) -> str:
        """Purpose, examples, exit codes; "\\b" keeps click from re-wrapping a paragraph."""
        purpose = " ".join((self.run.__doc__ or "").split())
        examples = "\n".join(f"  {example}" for example in self.examples)
        return f"{purpose}\n\n\b\nExamples:\n{examples}\n\n{exit_codes.line(*self.codes)}"


_CHANGES = (*_READS, exit_codes.REFUSED, exit_codes.PENDING)
BULK = Entry(
    "bulk",
    control.bulk_list,
    ("gamekeeper jobs bulk", "gamekeeper jobs bulk list --json"),
    _READS,
    children=(
        Entry("list", control.bulk_list, ("gamekeeper jobs bulk list",), _READS),
        Entry("stop", control.bulk_stop, ("gamekeeper jobs bulk stop 4",), _CHANGES),
    ),
)
JOBS = (
    Entry("show", control.show, ("gamekeeper jobs show 17", "gamekeeper jobs show 17 --json"), _READS),
    Entry(
        "submit",
        control.submit,
        ("gamekeeper jobs submit jobs.toml", "gamekeeper jobs submit - --producer nightly < jobs.json"),
        _CHANGES,
    ),
    Entry(
        "cancel",
        control.cancel,
        ("gamekeeper jobs cancel 17 18", 'gamekeeper jobs cancel --where "state=ready older=2d" --dry-run'),
        _CHANGES,
    ),
    Entry(
        "hold",
        control.hold,
        (
            'gamekeeper jobs hold 17 --because "the contract is wrong"',
            "gamekeeper jobs hold --where line=c4 --yes",
        ),
        _CHANGES,
    ),
    Entry(
        "release",
        control.release,
        ("gamekeeper jobs release 17", "gamekeeper jobs release --where line=c4 --yes"),
        _CHANGES,
    ),
    Entry(
        "retry",
        control.retry,
        (
            "gamekeeper jobs retry 17",
            """gamekeeper jobs retry --where "state=failed reason~'out-of-memory' older=1h" --yes""",
        ),
        _CHANGES,
    ),
    BULK,
)
NODES = (
    Entry(
        "exclude",
        control.exclude,
        ('gamekeeper nodes exclude n-1a2b --for 2h --because "fan is broken"',),
        _CHANGES,
    ),
    Entry("allow", control.allow, ("gamekeeper nodes allow n-1a2b",), _CHANGES),
)
ENTRIES = (
    Entry("up", admin.up, ("gamekeeper up", "gamekeeper up --config games/gamekeeper.toml"), _RUNS),
    Entry(
        "init", admin.init, ("gamekeeper init", "gamekeeper init games/gamekeeper.toml --force"), _RUNS[:4]
    ),
    Entry(
        "status",
        inspect.status,
        ("gamekeeper status", "gamekeeper status --check && echo all is well", "gamekeeper status --json"),
        _READS,
    ),
    Entry("lines", inspect.lines, ("gamekeeper lines", "gamekeeper lines --json"), _READS),
    Entry(
        "jobs",
        inspect.jobs,
        ("gamekeeper jobs --state running", "gamekeeper jobs --line connect4 --kind train --limit 5"),
        _READS,
        children=JOBS,
    ),
    Entry("nodes", inspect.nodes, ("gamekeeper nodes", "gamekeeper nodes --json"), _READS, children=NODES),
    Entry(
        "models", inspect.models, ("gamekeeper models", "gamekeeper models --line connect4 --json"), _READS
    ),
    Entry(
        "events",
        inspect.events,
        (
            "gamekeeper events --since 2h",
            "gamekeeper events --of job/17",
            "gamekeeper events --follow --json",
        ),
        (*_READS, exit_codes.INTERRUPTED),
    ),
    Entry(
        "why",
        explain.why,
        (
            "gamekeeper why job 17",
            "gamekeeper why line connect4",
            "gamekeeper why model 3f2a91",
            "gamekeeper why j17",
        ),
        _READS,
    ),
    Entry(
        "stop",
        act.stop,
        ('gamekeeper stop --reason "machine is needed"', "gamekeeper stop --wait --timeout 5m"),
        (*_READS, exit_codes.PENDING),
    ),
    Entry(
        "coordinator",
        admin.coordinator,
        ("gamekeeper coordinator --config gamekeeper.toml",),
        _RUNS,
        hidden=True,
    ),
    Entry("agent", admin.agent, ("gamekeeper agent --config gamekeeper.toml",), _RUNS, hidden=True),
)
PLAY = Entry(
    "play",
    demo.play,
    ("gamekeeper demo play", 'echo "3,3,2" | gamekeeper demo play --stdin --simulations 200'),
    (exit_codes.DONE, exit_codes.FAILED, exit_codes.USAGE, exit_codes.INTERRUPTED),
)
DEMO = Entry(
    "demo",
    demo.demo,
    (
        "gamekeeper demo",
        "gamekeeper demo --promotions 1 --data-dir /tmp/demo",
        "gamekeeper demo --minutes 5 --json",
    ),
    _RUNS,
    children=(PLAY,),
)

CONFIG = "config"
STORE = "store"
STORE_ENTRIES = (
    Entry(
        "backup",
        store.backup,
        ("gamekeeper store backup backups/monday", "gamekeeper store backup nightly --data-dir games --json"),
        (*_READS[:3], exit_codes.UNREACHABLE, exit_codes.REFUSED, exit_codes.PENDING),
    ),
    Entry(
        "restore",
        store.restore,
        ("gamekeeper store restore backups/monday", "gamekeeper store restore backups/monday --force"),
        (*_READS[:3], exit_codes.UNREACHABLE, exit_codes.REFUSED, exit_codes.PENDING),
    ),
    Entry(
        "check",
        store.check,
        ("gamekeeper store check && echo it is sound", "gamekeeper store check --json"),
        (*_READS, exit_codes.REFUSED, exit_codes.PENDING),
    ),
    Entry(
        "info",
        store.info,
        ("gamekeeper store info", "gamekeeper store info --data-dir games --json"),
        (*_READS, exit_codes.REFUSED, exit_codes.PENDING),
    ),
)
CONFIG_ENTRIES = (
    Entry(
        "show",
        config.show,
        (
            "gamekeeper config show --origin",
            "gamekeeper config show coordinator timings --json",
            "gamekeeper config show --set coordinator.lease_s=20 --hash",
        ),
        (exit_codes.DONE, exit_codes.USAGE),
    ),
    Entry(
        "check",
        config.check,
        ("gamekeeper config check", "gamekeeper config check games/gamekeeper.toml --strict --json"),
        (exit_codes.DONE, exit_codes.FAILED, exit_codes.USAGE),
    ),
    Entry(
        "schema",
        config.schema,
        ("gamekeeper config schema > gamekeeper.schema.json",),
        (exit_codes.DONE, exit_codes.USAGE),
    ),
)


class _InOrder(TyperGroup):
    """Lists the commands as `ENTRIES` does, the first one to try first."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """All names in order."""
        order = [DEMO.name, *(item.name for item in ENTRIES), CONFIG, STORE]
        return sorted(super().list_commands(ctx), key=order.index)


def build() -> typer.Typer:
    """The whole command tree."""
    app = typer.Typer(
        cls=_InOrder,
        name="gamekeeper",
        help="Keeps a self-improvement loop turning on machines that cannot be trusted.\n\n"
        "\b\nStart here:\n  gamekeeper demo      run the bundled game and see it improve\n"
        "  gamekeeper status    ask a running coordinator how it is\n"
        "  gamekeeper why ...   ask why something is as it is",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_version_option)
    for item in (DEMO, *ENTRIES):
        _add(app, item)
    questions = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
    for item in CONFIG_ENTRIES:
        _add(questions, item)
    app.add_typer(
        questions,
        name=CONFIG,
        help="Ask about the settings: what is in force and why, and whether it is sound.",
    )
    keeping = typer.Typer(rich_markup_mode=None, no_args_is_help=True)
    for item in STORE_ENTRIES:
        _add(keeping, item)
    app.add_typer(keeping, name=STORE, help="Back up, restore and check what the coordinator keeps.")
    return app


def _add(app: typer.Typer, item: Entry) -> None:
    """Put a command, and those below it, into the tree."""
    if not item.children:
        app.command(item.name, help=item.help(), short_help=item.summary(), hidden=item.hidden)(item.run)
        return
    group = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
    group.callback(invoke_without_command=True, help=item.help())(item.run)
    for child in item.children:
        _add(group, child)
    app.add_typer(group, name=item.name, short_help=item.summary())


def _print_version(wanted: bool) -> None:
    if wanted:
        from gamekeeper import __version__

        sys.stdout.write(f"gamekeeper {__version__}\n")
        raise typer.Exit


def _version_option(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Options before the command."""


def entry(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Never lets an exception or a traceback out."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    talk = Output(json="--json" in words)
    try:
        result = build()(args=words, prog_name="gamekeeper", standalone_mode=False)
        return result if isinstance(result, int) else exit_codes.DONE
    except GamekeeperError as error:
        return _expected(talk, error)
    except (KeyboardInterrupt, typer.Abort):
        talk.talk("interrupted")
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.DONE
    except CommandLineError as error:
        return _command_line_error(talk, error)
    except Exception as error:  # noqa: BLE001 - the outermost frame: a person gets a line and a log, not a traceback
        expected = _only_leaf(error)
        if expected is not None:
            return _expected(talk, expected)
        path = _write_bug_log(words)
        kind = f"{type(error).__name__}: {error}"
        talk.error(
            code="bug",
            message=f"gamekeeper met a fault of its own ({kind:.300})",
            remedy=f"please report it with the file {path}",
        )
        return exit_codes.OUR_BUG


def _expected(talk: Output, error: GamekeeperError) -> int:
    talk.error(code=error.code, message=error.message, remedy=error.remedy)
    return error.exit_code


def _only_leaf(error: BaseException) -> GamekeeperError | None:
    """The one expected error inside a task group's exception group; `None` when there is anything else in it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, GamekeeperError) else None


def _command_line_error(talk: Output, error: Exception) -> int:
    """Wrong options and unknown commands, in the same form as every other error."""
    formatted = getattr(error, "format_message", lambda: str(error))()
    if type(error).__name__ == "NoArgsIsHelpError":
        talk.err.write(f"{formatted}\n")
        return exit_codes.USAGE
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "gamekeeper"
    message = formatted[:1].lower() + formatted[1:].rstrip(".")
    talk.error(code="usage", message=message, remedy=f"`{where} --help` shows what is possible")
    return exit_codes.USAGE


def _write_bug_log(words: Sequence[str]) -> str:
    """Write the traceback into a fresh private file and return its path."""
    import tempfile
    import traceback

    descriptor, path = tempfile.mkstemp(prefix="gamekeeper-fault-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"command: {list(words)!r}\n\n{traceback.format_exc()}")
    return path
