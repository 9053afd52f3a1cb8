"""Real processes: `up`, `demo`, and the ways in which they refuse to start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from pydantic import TypeAdapter

import gamekeeper
from gamekeeper.cli import demo_run
from gamekeeper.cli.coordinator_api import CoordinatorApi, announced_url
from gamekeeper.cli.demo_report import closing_report
from gamekeeper.cli.main import entry
from gamekeeper.cli.render import Output
from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import GamekeeperError, UsageError
from gamekeeper.inspection import EventRow, JobRow, LineRow, ModelRow, NodeRow, Report, Status, Why
from gamekeeper.settings import load
from tests.waiting import until

COMMAND = [sys.executable, "-P", "-m", "gamekeeper.cli"]
TINY = {
    "GAMEKEEPER_LINES__CONNECT4__RATING__PAIRS": "2",
    "GAMEKEEPER_LINES__CONNECT4__EVALUATION__PAIRS_PER_JOB": "2",
    "GAMEKEEPER_LINES__CONNECT4__SELFPLAY__WANTED": "{ games = 16 }",
}
pytestmark = pytest.mark.slow


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GAMEKEEPER_")}
    source = str(Path(gamekeeper.__file__).parents[1])  # jobs start in folders of their own
    return {**kept, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **more}


def finish(process: subprocess.Popen[str], seconds: float = 90) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, out, err


@contextmanager
def started(*words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command line in a process group of its own; it and its children do not outlive the block."""
    process = subprocess.Popen(
        [*COMMAND, *words],
        start_new_session=True,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            finish(process)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """A terminal sends SIGINT to the whole foreground group, children included."""
    os.killpg(process.pid, signal.SIGINT)


def refused(*words: str, code: int) -> str:
    """Run a command that must end by itself with `code` and one error line; returns what it said."""
    with started(*words) as process:
        got, _, err = finish(process, 60)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert got == code, err
    assert len(errors) == 1, err
    assert "Traceback" not in err
    return err


def status_of(data_dir: Path) -> Status | None:
    try:
        with CoordinatorApi.of_data_dir(data_dir) as coordinator:
            return coordinator.status()
    except GamekeeperError:
        return None


def settings_file(folder: Path, port: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "gamekeeper.toml"
    path.write_text(f'data_dir = "data"\n[coordinator]\nport = {port}\n')
    return path


def living(data_dir: Path) -> list[int]:
    """Processes that work in a data directory."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(data_dir) in word for word in words):
            found.append(process.pid)
    return found


def every_reading_command_answers(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ask a real coordinator everything, as text and as JSON of the documented shape."""
    asked: dict[str, TypeAdapter[object]] = {
        "status": TypeAdapter(Status),
        "lines": TypeAdapter(list[LineRow]),
        "jobs --kind selfplay": TypeAdapter(list[JobRow]),
        "nodes": TypeAdapter(list[NodeRow]),
        "models --line connect4": TypeAdapter(list[ModelRow]),
        **dict.fromkeys(
            ("why job 1", "why line connect4", "why model 1", f"why node {socket.gethostname()}"),
            TypeAdapter(Why),
        ),
    }
    for words, shape in asked.items():
        for more in ([], ["--json"]):
            code = entry([*words.split(), "--data-dir", str(data_dir), *more])
            out = capsys.readouterr().out
            assert (code, bool(out)) == (0, True), words
        shape.validate_json(out)
    for words in ("events --of j1", "events --since 1h"):
        assert entry([*words.split(), "--data-dir", str(data_dir), "--json"]) == 0
        rows = [EventRow.model_validate_json(line) for line in capsys.readouterr().out.splitlines()]
        assert rows[0].position < rows[-1].position
        assert ("job/1" in rows[0].subjects) == ("--of" in words)
    for words, code in {"why job 999": 1, "why line nope": 1, "why model 999": 1, "why node zz": 1}.items():
        assert entry([*words.split(), "--data-dir", str(data_dir)]) == code, words
        assert capsys.readouterr().err.startswith("error: ")


def test_up_serves_until_interrupted_and_refuses_a_second_coordinator(tmp_path: Path) -> None:
    """Two coordinators would write one store, or Ctrl-C would leave processes behind."""
    config = settings_file(tmp_path)
    data_dir = tmp_path / "data"
    with started("up", "--config", str(config)) as process:
        until(lambda: (seen := status_of(data_dir)) is not None and seen.slots > 0)
        for command in ("coordinator", "up"):
            said = refused(command, "--config", str(config), code=5)
            assert f"a coordinator works on {data_dir}" in said
            assert "gamekeeper status" in said
        assert status_of(data_dir) is not None
        press_ctrl_c(process)
        code, out, err = finish(process)
        assert (code, out) == (130, "")
        assert "Traceback" not in err
    assert announced_url(data_dir) is None
    until(lambda: not living(data_dir))


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """`up` would restart the coordinator for ever without saying why."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = settings_file(tmp_path, port)
        for command in ("coordinator", "up"):
            said = refused(command, "--config", str(config), code=2)
            assert f"port {port}" in said
            assert "hint: " in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1\n", "unknown key prot"),
        ("[coordinator]\nprot = 1\n", "did you mean 'port'"),
        ("[", "not valid TOML"),
    ],
)
def test_a_settings_file_with_a_mistake_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """A mistyped key would be ignored."""
    (tmp_path / "gamekeeper.toml").write_text(text)
    assert said in refused("up", "--config", str(tmp_path / "gamekeeper.toml"), code=2)


@pytest.mark.parametrize("words", [("demo", "--data-dir"), ("up", "--config", "CONFIG", "--data-dir")])
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The first run would end in a traceback, or in a loop of restarts."""
    config = settings_file(tmp_path)
    (tmp_path / "file").write_text("")
    words = tuple(str(config) if word == "CONFIG" else word for word in words)
    for place in (tmp_path / "file" / "demo", Path("/proc/demo")):
        said = refused(*words, str(place), code=2)
        assert str(place) in said
        assert "--data-dir" in said


def test_a_demo_stops_on_ctrl_c_with_a_report_and_resumes_with_the_same_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was played would be lost, counted twice, or go on in the background."""
    data_dir = tmp_path / "demo"
    with started("demo", "--data-dir", str(data_dir), "--json", **TINY) as process:
        until(
            lambda: (
                (seen := status_of(data_dir)) is not None and any(row.verified_games for row in seen.lines)
            ),
            within_s=60,
            every_s=0.2,
        )
        every_reading_command_answers(data_dir, capsys)
        press_ctrl_c(process)
        code, out, err = finish(process)
    assert (code, err) == (130, "")
    first = Report.model_validate_json(out)
    assert json.loads((data_dir / "report.json").read_text()) == json.loads(out)
    assert (data_dir / "report.html").read_text().startswith("<!doctype html>")
    assert first.lines[0].verified_games >= 16
    assert (first.lost_artifacts, first.unverified_visible) == (0, 0)
    until(lambda: not living(data_dir))

    with started("demo", "--data-dir", str(data_dir), "--minutes", "0.05", **TINY) as process:
        code, out, err = finish(process, 150)
    assert code == 0, err
    assert "resuming" in err
    assert "0 artifacts lost, 0 visible unverified" in out
    second = Report.model_validate_json((data_dir / "report.json").read_text())
    assert second.lines[0].verified_games >= first.lines[0].verified_games
    assert second.lines[0].elo_vs_random is not None
    rotten = next(path for path in (data_dir / "artifacts" / "blake3").rglob("*") if path.is_file())
    rotten.chmod(0o600)
    rotten.write_bytes(rotten.read_bytes() + b"!")
    third = closing_report(data_dir, data_dir / "gamekeeper.toml", SystemClock())
    assert (third.lost_artifacts, third.unverified_visible) == (1, 1)


def test_a_demos_settings_are_made_with_its_seed_and_no_other_is_taken_over(tmp_path: Path) -> None:
    """A demo would go on under another seed than the one it reports, or run a person's own lines."""
    output = Output(json=True)
    config = demo_run.prepare(tmp_path / "demo", seed=7, output=output)
    settings = load(config, environment={})
    assert (settings.seed, settings.data_dir.resolve(), list(settings.lines)) == (
        7,
        tmp_path / "demo",
        ["connect4"],
    )
    assert demo_run.prepare(tmp_path / "demo", seed=None, output=output) == config
    assert demo_run.prepare(tmp_path / "demo", seed=7, output=output) == config
    with pytest.raises(UsageError, match="seed 7, not 8"):
        demo_run.prepare(tmp_path / "demo", seed=8, output=output)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "gamekeeper.toml").write_text("seed = 7\n")
    with pytest.raises(UsageError, match="holds something, but no demo"):
        demo_run.prepare(tmp_path / "mine", seed=None, output=output)


def test_init_writes_settings_that_load_and_overwrites_only_when_told(tmp_path: Path) -> None:
    """The example would not work, or a person's settings would be gone."""
    path = tmp_path / "gamekeeper.toml"
    for words in ((), ("--with-demo", "--force")):
        with started("init", str(path), *words) as process:
            assert finish(process)[0] == 0
        settings = load(path, environment={})
        assert list(settings.lines) == (["connect4"] if words else [])
    before = path.read_text()
    assert "exists already" in refused("init", str(path), code=5)
    assert path.read_text() == before
