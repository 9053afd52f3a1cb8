"""Import contracts hold, and what they promise is true when the code runs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.arch.tree import ROOT

PRODUCT = ROOT / "src" / "gamekeeper"


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package below `root`."""
    program = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as run; run()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package in which a violation can be planted."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PRODUCT, tmp_path / "src" / "gamekeeper", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_are_kept() -> None:
    """A layer that knows what is above it can no longer be tested, or replaced, alone."""
    found = lint(ROOT)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("core/jobs.py", "import gamekeeper.store", "layers point one way"),
        ("policy/promotion.py", "import time", "decisions are pure"),
        ("policy/promotion.py", "import gamekeeper.policy.job_reaper", "policies do not know one another"),
        ("store/leases.py", "import gamekeeper.adapters.processes", "only the root and the owner"),
        ("client.py", "import pydantic", "job code starts fast and light"),
        ("oddments.py", "", "layers point one way"),
    ],
    ids=["upwards", "clock", "siblings", "adapters", "heavy", "homeless"],
)
def test_a_planted_import_breaks_its_contract(copied: Path, path: str, line: str, contract: str) -> None:
    """A contract that nothing can break proves nothing."""
    package = copied / "src" / "gamekeeper"
    for needed in (
        path,
        "store/leases.py",
        "adapters/processes.py",
        "policy/job_reaper.py",
        "policy/promotion.py",
    ):
        (package / needed).parent.mkdir(exist_ok=True)
        (package / needed).parent.joinpath("__init__.py").touch()
        (package / needed).touch()
    with (package / path).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    found = lint(copied)
    assert found.returncode != 0
    broken = [text for text in found.stdout.splitlines() if "BROKEN" in text]
    assert any(contract in text for text in broken), found.stdout + found.stderr


def test_job_code_starts_light() -> None:
    """A job that loads the coordinator's libraries would start seconds late, thousands of times a day."""
    program = (
        "import sys, gamekeeper.client; "
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'pydantic', 'sqlalchemy', 'fastapi', 'httpx'}))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == ""


def test_the_package_says_it_is_typed() -> None:
    """Users' type checkers would ignore every annotation of ours."""
    found = importlib.util.find_spec("gamekeeper")
    assert found is not None
    assert found.origin is not None
    assert Path(found.origin).with_name("py.typed").exists()
