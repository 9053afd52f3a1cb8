"""Runs every test with coverage and writes what it measured to build/test-run.json.

    python -m tools.test_run [--jobs N] [--no-skips] [--if-needed] [-- options of pytest]

Processes that tests start are measured too, when they inherit the environment; the lines they run count, but for no
test by name.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import coverage

from tools.roadmap import PRODUCT, ROOT
from tools.test_outcome import OUTCOME

RUN = Path("build") / "test-run.json"
_DATA = Path("build") / "coverage"


def fingerprint(root: Path) -> str:
    """A hash of everything a test run depends on: product, tests, tools and build configuration."""
    digest = hashlib.sha256()
    paths = [root / "pyproject.toml", *(root / "requirements").glob("*.txt")]
    for folder in ("src", "tests", "tools"):
        paths += [path for path in (root / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    for path in sorted(paths):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def imported(text: str) -> list[str]:
    """The names of ours that a test file imports, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{name.name}" for name in node.names}
    return sorted(name for name in names if name.split(".")[0] == "gamekeeper")


def measure(root: Path, data_file: Path) -> dict[str, Any]:
    """Per product file: its size, what ran, which tests ran its functions, and what did not run."""
    measuring = coverage.Coverage(data_file=str(data_file), config_file=str(root / "pyproject.toml"))
    measuring.combine([str(data_file.parent)])
    measuring.save()
    report = data_file.parent / "report.json"
    measuring.json_report(outfile=str(report))
    data = measuring.get_data()
    files: dict[str, Any] = {}
    for path, found in json.loads(report.read_text("utf-8"))["files"].items():
        functions = {name: one for name, one in found["functions"].items() if name}
        bodies = {
            line for one in functions.values() for line in (*one["executed_lines"], *one["missing_lines"])
        }
        by_line = data.contexts_by_lineno(str(root / path))
        tests = {test for line in bodies for test in by_line.get(line, ()) if test}
        summary = found["summary"]
        files[path] = {
            "lines": len((root / path).read_text("utf-8").splitlines()),
            "statements": summary["num_statements"],
            "missing": summary["missing_lines"],
            "branches": summary["num_branches"],
            "missing_branches": summary["missing_branches"],
            "functions": len(functions),
            "tests": sorted(tests),
            "untested": sorted(
                name for name, one in functions.items() if not one["executed_lines"] and one["missing_lines"]
            ),
            "partial": sorted(
                name
                for name, one in functions.items()
                if one["executed_lines"] and (one["missing_lines"] or one["missing_branches"])
            ),
        }
    return files


def run(root: Path, jobs: int, arguments: list[str]) -> int:
    """Run pytest under coverage; returns its exit status. Leaves the data in build/coverage."""
    folder = root / _DATA
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (root / OUTCOME).unlink(missing_ok=True)
    environment = {**os.environ, "COVERAGE_FILE": str(folder / "data")}
    command = [
        sys.executable,
        "-m",
        "coverage",
        "run",
        "--rcfile",
        str(root / "pyproject.toml"),
        "-m",
        "pytest",
        "-p",
        "tools.test_outcome",
    ]
    command += ["-n", str(jobs)] if jobs > 1 else []
    return subprocess.run([*command, *arguments], cwd=root, env=environment, check=False).returncode


def record(root: Path, complete: bool) -> dict[str, Any]:
    """Write build/test-run.json from the data and the outcome of the run just made."""
    outcome = json.loads((root / OUTCOME).read_text("utf-8"))
    tests = sorted((root / "tests").rglob("test_*.py"))
    written = {
        "fingerprint": fingerprint(root),
        "complete": complete,
        "python": sys.version.split()[0],
        **outcome,
        "imports": {path.relative_to(root).as_posix(): imported(path.read_text("utf-8")) for path in tests},
        "files": {
            path: found
            for path, found in measure(root, root / _DATA / "data").items()
            if path.startswith(PRODUCT)
        },
    }
    (root / RUN).write_text(json.dumps(written, indent=1, sort_keys=True), "utf-8")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Run every test with coverage.")
    parser.add_argument("--jobs", type=int, default=2, help="test processes at a time")
    parser.add_argument("--no-skips", action="store_true", help="fail when any test was skipped")
    parser.add_argument(
        "--if-needed", action="store_true", help="do nothing when the last run is of these very files"
    )
    parser.add_argument(
        "pytest", nargs="*", help="options of pytest, after --; the run then counts as partial"
    )
    options = parser.parse_args()
    last = json.loads((ROOT / RUN).read_text("utf-8")) if (ROOT / RUN).exists() else {}
    if options.if_needed and last.get("complete") and last.get("fingerprint") == fingerprint(ROOT):
        print("test run: the last one is of these very files")
        return 0
    status = run(ROOT, options.jobs, options.pytest)
    if not (ROOT / OUTCOME).exists():
        return status or 1
    written = record(ROOT, complete=status == 0 and not options.pytest)
    for skip in written["skipped"]:
        print(f"skipped: {skip['test']}: {skip['reason']}")
    if written["skipped"] and options.no_skips:
        print(
            f"test run: {len(written['skipped'])} skipped, and nothing may be skipped here", file=sys.stderr
        )
        return status or 1
    return status


if __name__ == "__main__":
    sys.exit(main())
