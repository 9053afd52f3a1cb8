"""The entry: help, exit codes, and that nothing gets out as a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gamekeeper.cli import inspect, main

COMMAND = [sys.executable, "-m", "gamekeeper.cli"]
VISIBLE = [main.DEMO, *(entry for entry in main.ENTRIES if not entry.hidden)]


@pytest.mark.parametrize("item", [*main.ENTRIES, main.DEMO], ids=lambda item: item.name)
def test_every_command_shows_its_examples_and_exit_codes(
    capsys: pytest.CaptureFixture[str], item: main.Entry
) -> None:
    """A person could not learn a command from its help."""
    assert main.entry([item.name, "--help"]) == 0
    out = capsys.readouterr().out
    for example in item.examples:
        assert f"    {example}\n" in out
        assert example.startswith("gamekeeper ") or "| gamekeeper" in example
    assert "Exit codes:" in out


def test_the_list_of_commands_is_whole_and_demo_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer would not find the way in."""
    assert main.entry(["--help"]) == 0
    listed = [
        line.split()[0]
        for line in capsys.readouterr().out.split("Commands:")[1].splitlines()
        if line[2:3].strip()
    ]
    assert listed == [*(entry.name for entry in VISIBLE), main.CONFIG, main.STORE]


def test_help_does_not_load_what_it_does_not_need() -> None:
    """`--help` would take seconds."""
    heavy = "('httpx', 'rich', 'numpy', 'sqlalchemy', 'fastapi', 'anyio', 'structlog', 'blake3')"
    program = (
        "import sys; from gamekeeper.cli.main import entry; entry(['why', '--help']);"
        f" sys.exit(repr([name for name in {heavy} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("raised", [KeyError("x"), RuntimeError("\x1b[2J broken"), ZeroDivisionError()])
def test_a_fault_of_ours_is_one_line_a_log_file_and_70(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, raised: Exception
) -> None:
    """A person would get a traceback, or a fault would look like a failed job."""

    def broken(*_: object) -> None:
        raise raised

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(inspect, "connect", broken)
    assert main.entry(["status"]) == 70
    err = capsys.readouterr().err
    (log,) = tmp_path.glob("gamekeeper-fault-*.log")
    assert str(log) in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 2
    assert type(raised).__name__ in log.read_text()


def test_an_interrupt_is_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script could not tell Ctrl-C from success."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "connect", interrupted)
    assert main.entry(["status"]) == 130


def test_a_closed_pipe_is_no_fault() -> None:
    """`gamekeeper ... | head` would end in a traceback."""
    import os

    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=30
    )
    os.close(writer)
    assert done.stderr == ""


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report could not say which version it is about."""
    from gamekeeper import __version__

    assert main.entry(["--version"]) == 0
    assert capsys.readouterr().out == f"gamekeeper {__version__}\n"


def test_no_words_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing a newcomer types would be answered with an error."""
    assert main.entry([]) == 2
    assert "Commands:" in capsys.readouterr().err
