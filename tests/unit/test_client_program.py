"""A stage program as a process: how it ends, and what its start costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from gamekeeper import client

SPEC = {
    "protocol": 1,
    "job": 1,
    "attempt": 1,
    "token": 1,
    "kind": "command",
    "line": "connect4",
    "seed": 1,
    "threads": 1,
    "grace_s": 1.0,
    "parameters": {},
    "wanted": {},
    "inputs": {},
}


def program(code: str, folder: Path | None) -> subprocess.CompletedProcess[str]:
    source = Path(client.__file__).parents[1]
    environment = {"PYTHONPATH": str(source), "PATH": os.environ["PATH"]}
    if folder is not None:
        environment["GAMEKEEPER_JOB_DIR"] = str(folder)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_client_error_ends_the_program_with_one_line(tmp_path: Path) -> None:
    """A traceback for a missing variable would bury the remedy."""
    done = program("import sys; from gamekeeper.client import run; sys.exit(run(lambda job: None))", None)
    assert done.returncode == 1
    assert done.stderr.startswith("error: GAMEKEEPER_JOB_DIR is not set")
    assert done.stderr.count("\n") == 1


def test_a_bug_in_a_stage_keeps_its_traceback_and_fails(tmp_path: Path) -> None:
    """An unexpected exception turned into exit code 0 would be a hollow success."""
    (tmp_path / "parameters.json").write_text(json.dumps(SPEC))
    code = "import sys\nfrom gamekeeper.client import run\ndef stage(job): return 1 / 0\nsys.exit(run(stage))"
    done = program(code, tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_the_client_does_not_drag_in_the_product(tmp_path: Path) -> None:
    """Each job pays for the client's imports: no web framework, no validation library, no event loop, no numpy."""
    done = program("import sys, gamekeeper.client; print(*sys.modules)", None)
    loaded = set(done.stdout.split())
    assert not loaded & {"pydantic", "httpx", "asyncio", "numpy", "sqlalchemy", "structlog", "anyio", "ssl"}
