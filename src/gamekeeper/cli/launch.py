"""Starting the processes of one machine: which settings, which child processes, and running them until they end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from gamekeeper.cli import exit_codes
from gamekeeper.cli.options import CONFIG_NAME, CONFIG_VARIABLE
from gamekeeper.core.errors import GamekeeperError, RoleHeld

if TYPE_CHECKING:
    from gamekeeper.cli.render import Output
    from gamekeeper.core.clock import Clock
    from gamekeeper.runtime.supervisor import Child
    from gamekeeper.settings import Settings

LOG_TAIL = 64 * 1024
GOING_S = 1.0
STOP_LOOK_EVERY_S = 2.0


def bundled_line() -> str:
    """TOML of the bundled Connect Four line."""
    return resources.files("gamekeeper.demo").joinpath("connect4.toml").read_text(encoding="utf-8")


def config_path(given: Path | None) -> Path:
    """The settings file to read: the option, $GAMEKEEPER_CONFIG, or ./gamekeeper.toml."""
    variable = os.environ.get(CONFIG_VARIABLE)
    if given is not None:
        return given
    return Path(variable) if variable else Path(CONFIG_NAME)


def settings_of(
    config: Path | None, data_dir: Path | None, overrides: Sequence[str] = ()
) -> tuple[Settings, Path]:
    """The checked settings and the file they came from. Raises `SettingsError`."""
    from gamekeeper.settings import load

    path = config_path(config)
    return load(path, flags={"data_dir": data_dir}, overrides=overrides), path


def children(
    config: Path, data_dir: Path, *, log_dir: Path | None = None, overrides: Sequence[str] = ()
) -> list[Child]:
    """The coordinator and the agent as child processes, in the order in which they start."""
    from gamekeeper.runtime.supervisor import Child

    def child(name: str) -> Child:
        # -P keeps the current folder off the import path: a file there must not replace a module of ours.
        command = [sys.executable, "-P", "-m", "gamekeeper.cli", name, "--supervised"]
        command += ["--config", str(config), "--data-dir", str(data_dir)]
        command += [word for text in overrides for word in ("--set", text)]
        if log_dir is not None:
            command += ["--log-file", str(log_dir / f"{name}.log")]
        return Child(name, tuple(command))

    return [child("coordinator"), child("agent")]


def check_unused(data_dir: Path, clock: Clock) -> None:
    """Raise `RoleHeld` when a coordinator works on the data directory.

    One that was killed a moment ago may still be going; it is given `GOING_S` to do so.
    """
    from gamekeeper.runtime.data_dir import only_coordinator

    end = clock.monotonic() + GOING_S
    while True:
        try:
            with only_coordinator(data_dir):
                return
        except RoleHeld:
            if clock.monotonic() >= end:
                raise
        clock.block(0.1)


def prepare_process(log_file: Path | None, *, supervised: bool) -> None:
    """Set up a child process: where its log goes, and that a Ctrl-C at the terminal is its parent's business."""
    from gamekeeper.runtime import telemetry

    if supervised:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.close(descriptor)
    telemetry.configure(as_json=bool(os.environ.get("GAMEKEEPER_LOG_JSON")))


def run_up(settings: Settings, config: Path, output: Output, overrides: Sequence[str] = ()) -> int:
    """Keep the coordinator and the agent running until one ends for good or a signal comes; returns the exit code."""
    import anyio

    from gamekeeper.cli import files
    from gamekeeper.core.clock import SystemClock
    from gamekeeper.runtime import telemetry
    from gamekeeper.runtime.supervisor import ChildSupervisor

    if output.json:
        os.environ["GAMEKEEPER_LOG_JSON"] = "1"  # for the child processes as well
    telemetry.configure(as_json=bool(os.environ.get("GAMEKEEPER_LOG_JSON")))
    clock = SystemClock()
    files.make_folder(settings.data_dir)
    check_unused(settings.data_dir, clock)
    output.talk(f"data directory {settings.data_dir}; stop with Ctrl-C, or wind down with: gamekeeper stop")
    interrupted = False
    code = exit_codes.DONE

    async def supervise() -> None:
        nonlocal interrupted, code
        async with anyio.create_task_group() as tasks:

            async def heed_signals() -> None:
                nonlocal interrupted
                with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                    async for _ in signals:
                        interrupted = True
                        tasks.cancel_scope.cancel()

            async def heed_stop() -> None:
                await wound_down(settings.data_dir, clock)
                output.talk("wound down as asked; `gamekeeper up` turns the loop again")
                tasks.cancel_scope.cancel()

            tasks.start_soon(heed_signals)
            tasks.start_soon(heed_stop)
            code = await ChildSupervisor(clock).run(children(config, settings.data_dir, overrides=overrides))
            tasks.cancel_scope.cancel()

    anyio.run(supervise)
    return exit_codes.INTERRUPTED if interrupted else code


async def wound_down(data_dir: Path, clock: Clock) -> None:
    """Return once the coordinator drains and no job runs any more, seen twice in a row."""
    import anyio

    quiet_looks = 0
    while quiet_looks < 2:
        await clock.sleep(STOP_LOOK_EVERY_S)
        quiet = await anyio.to_thread.run_sync(_is_drained, data_dir, abandon_on_cancel=True)
        quiet_looks = quiet_looks + 1 if quiet else 0


def _is_drained(data_dir: Path) -> bool:
    """Whether the coordinator says so; one that does not answer says nothing."""
    from gamekeeper.cli.coordinator_api import CoordinatorApi

    try:
        with CoordinatorApi.of_data_dir(data_dir) as coordinator:
            status = coordinator.status()
    except GamekeeperError:
        return False
    return status.draining and status.jobs.get("running", 0) == 0


def rotate_logs(log_dir: Path) -> None:
    """Set the logs of an earlier run aside, so that what a log says is of this run; one earlier run is kept."""
    for name in ("coordinator", "agent"):
        log = log_dir / f"{name}.log"
        if log.exists():
            log.replace(log_dir / f"{name}.log.1")


def child_error(log_dir: Path, code: int) -> GamekeeperError:
    """The error with which a child process ended for good, as its log tells it."""
    for name in ("coordinator", "agent"):
        message, remedy = _last_error(log_dir / f"{name}.log")
        if message:
            return _exiting(GamekeeperError(f"{name}: {message}", remedy=remedy), code)
    return _exiting(
        GamekeeperError(
            f"a process of the demo ended with exit code {code}", remedy=f"its log is in {log_dir}"
        ),
        code,
    )


def _exiting(error: GamekeeperError, code: int) -> GamekeeperError:
    error.exit_code = code
    return error


def _last_error(log: Path) -> tuple[str, str]:
    """The last `error:` line of a log, and the `hint:` after it."""
    message = remedy = ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "", ""
    for line in lines:
        if line.startswith("error: "):
            message, remedy = line.removeprefix("error: "), ""
        elif line.startswith("hint: ") and message:
            remedy = line.removeprefix("hint: ")
    return message, remedy
