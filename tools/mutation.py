"""Mutates product files one at a time, and records how many of the mutants the tests notice.

    python -m tools.mutation [--module NAME | --file PATH] [--minutes M] [--list]

A mutant is a small change of one function (a comparison turned round, a constant moved, a call's argument dropped); a
test suite that still passes on it did not test that line. The tests that run are those that import the file by name.
Scores go to docs/mutation.toml with every survivor; an explanation written there by hand stays as long as that mutant
survives.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tools.coverage_page import MUTATION, dotted
from tools.roadmap import PRODUCT, ROOT, load
from tools.test_run import imported

# Where a wrong line does silent harm: what decides, what judges data, what counts strength, what fences.
TARGETS = ("policy", "data", "stats", "store/leases.py", "store/job_queue.py")
_WORK = Path("build") / "mutation"
_HEAD = """# Mutation scores, written by `make mutation`. The explanations are written by hand and kept from run to run.
"""
# Exit codes as mutmut records them: survived and not run by any test; not tried, interrupted and skipped.
_SURVIVED, _UNTESTED, _NOT_TRIED = 0, {5, 33}, {None, 2, 34}


@dataclass
class Score:
    """The result for one file: `killed` of `tried` mutants; `left` were not tried in time.

    `survivors` maps the name of a mutant that the tests passed on to the change it is; `untested` counts, by
    function, the mutants that no test runs.
    """

    path: str
    source: str
    killed: int = 0
    tried: int = 0
    left: int = 0
    survivors: dict[str, str] = field(default_factory=dict)
    untested: dict[str, int] = field(default_factory=dict)

    @property
    def percent(self) -> float:
        return round(100.0 * self.killed / self.tried, 1) if self.tried else 0.0


def targets(root: Path = ROOT) -> list[str]:
    """The files below src/gamekeeper that are mutated, as relative paths."""
    found: list[str] = []
    for target in TARGETS:
        path = root / PRODUCT / target
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
        found += [file.relative_to(root / PRODUCT).as_posix() for file in files if file.name != "__init__.py"]
    return found


def files_testing(path: str, root: Path = ROOT) -> list[str]:
    """The test files that import a product file by name."""
    name = dotted(f"{PRODUCT}/{path}")
    return [
        test.relative_to(root).as_posix()
        for test in sorted((root / "tests").rglob("test_*.py"))
        if any(one == name or one.startswith(name + ".") for one in imported(test.read_text("utf-8")))
    ]


def prepare(path: str, tests: list[str], folder: Path, root: Path = ROOT) -> None:
    """A copy of the repository, with the settings that make mutmut change this one file and run these tests."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("src", "tests", "tools", "docs"):
        shutil.copytree(root / part, folder / part, ignore=ignore)
    selection = ", ".join(f'"{test}"' for test in tests)
    settings = f"""
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["{PRODUCT}/{path}"]
also_copy = ["tools", "docs"]
pytest_add_cli_args = ["-p", "no:randomly", "-x"]
pytest_add_cli_args_test_selection = [{selection}]
timeout_multiplier = 10.0
timeout_constant = 5.0
use_git_change_detection = false
track_dependencies = false
"""
    text = (root / "pyproject.toml").read_text("utf-8")
    (folder / "pyproject.toml").write_text(text + settings, "utf-8")


def collect(path: str, folder: Path, root: Path = ROOT) -> Score:
    """What mutmut wrote down about a file, with the change that each survivor is."""
    source = hashlib.sha256((root / PRODUCT / path).read_bytes()).hexdigest()[:16]
    score = Score(path, source)
    meta = folder / "mutants" / PRODUCT / f"{path}.meta"
    codes = json.loads(meta.read_text("utf-8"))["exit_code_by_key"] if meta.exists() else {}
    survivors: list[str] = []
    for mutant, code in sorted(codes.items()):
        if code in _NOT_TRIED:
            score.left += 1
            continue
        score.tried += 1
        if code == _SURVIVED:
            survivors.append(mutant)
        elif code in _UNTESTED:
            function = readable(mutant).split(" ")[0]
            score.untested[function] = score.untested.get(function, 0) + 1
        else:
            score.killed += 1
    changes = changes_of(survivors, folder)
    score.survivors = {readable(mutant): changes.get(mutant, "") for mutant in survivors}
    return score


def readable(mutant: str) -> str:
    """`gamekeeper.stats.sprt.xǁSprtǁllr__mutmut_3` as `Sprt.llr 3`."""
    function, _, number = mutant.rsplit(".", 1)[-1].partition("__mutmut_")
    name = function[2:].replace("ǁ", ".") if function.startswith("xǁ") else function.removeprefix("x_")
    return f"{name} {number}"


_SHOW = """
import json, sys
from mutmut.mutation.diff_apply import get_diff_for_mutant
print(json.dumps({name: get_diff_for_mutant(name) for name in json.load(sys.stdin)}))
"""


def changes_of(mutants: list[str], folder: Path) -> dict[str, str]:
    """The lines that each mutant takes away and puts in."""
    command = [sys.executable, "-c", _SHOW]
    given = json.dumps(mutants)
    done = subprocess.run(
        command, cwd=folder, input=given, capture_output=True, text=True, check=True, timeout=300
    )
    changes = {}
    for mutant, shown in json.loads(done.stdout.splitlines()[-1]).items():
        lines = [line for line in shown.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
        changes[mutant] = "\n".join(f"{line[0]} {line[1:].strip()}" for line in lines)
    return changes


def mutate(path: str, minutes: float, root: Path = ROOT) -> Score | None:
    """Try the mutants of one file for at most `minutes`; None, with a message, when no test imports the file."""
    tests = files_testing(path, root)
    if not tests:
        print(f"{path}: no test file imports it by name")
        return None
    folder = root / _WORK
    prepare(path, tests, folder, root)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "2"]
    log = folder / "mutmut.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        try:
            process.wait(timeout=minutes * 60)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
    score = collect(path, folder, root)
    if not score.tried:
        print(f"{path}: no mutant was tried; see {log.relative_to(root)}", file=sys.stderr)
        return None
    return score


def quoted(text: str) -> str:
    """A TOML string; JSON's escapes are a subset of TOML's."""
    return json.dumps(text, ensure_ascii=False)


def write(scores: list[Score], root: Path = ROOT) -> None:
    """Put scores into docs/mutation.toml beside those of other files, keeping the explanations of surviving changes."""
    page = root / MUTATION
    entries = (
        {one["path"]: one for one in tomllib.loads(page.read_text("utf-8")).get("file", [])}
        if page.exists()
        else {}
    )
    for score in scores:
        known = {one["change"]: one["why"] for one in entries.get(score.path, {}).get("survivor", [])}
        entries[score.path] = {
            "path": score.path,
            "source": score.source,
            "score": score.percent,
            "killed": score.killed,
            "tried": score.tried,
            "left": score.left,
            "untested": score.untested,
            "survivor": [
                {"mutant": name, "change": change, "why": known.get(change, "")}
                for name, change in score.survivors.items()
            ],
        }
    lines = [_HEAD]
    for path in sorted(entries):
        entry = entries[path]
        lines += [
            "[[file]]",
            f"path = {quoted(path)}",
            f"source = {quoted(entry['source'])}",
            f"score = {entry['score']}",
        ]
        lines += [f"{key} = {entry[key]}" for key in ("killed", "tried", "left")]
        if entry.get("untested"):
            counts = ", ".join(
                f"{quoted(function)} = {count}" for function, count in entry["untested"].items()
            )
            lines.append(f"untested = {{ {counts} }}")
        for survivor in entry.get("survivor", []):
            lines += [
                "",
                "[[file.survivor]]",
                *(f"{key} = {quoted(survivor[key])}" for key in ("mutant", "change", "why")),
            ]
        lines.append("")
    page.write_text("\n".join(lines), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run mutation tests and record their scores.")
    parser.add_argument("--module", help="a module of docs/roadmap.toml: its home is mutated")
    parser.add_argument("--file", help="one file below src/gamekeeper, such as policy/job_reaper.py")
    parser.add_argument("--minutes", type=float, default=15.0, help="time for each file")
    parser.add_argument("--list", action="store_true", help="say what would be mutated, and by which tests")
    options = parser.parse_args()
    paths = targets()
    if options.module:
        homes = [home for module in load() if module.name == options.module for home in module.home]
        paths = [
            path
            for path in paths
            if any(path == home or path.startswith(home.rstrip("/") + "/") for home in homes)
        ]
    if options.file:
        paths = [path for path in paths if path == options.file]
    if not paths:
        print(
            "mutation: nothing to mutate; --list without other options tells what there is", file=sys.stderr
        )
        return 2
    status = 0
    for path in paths:
        if options.list:
            print(f"{path}: {', '.join(files_testing(path)) or 'no test imports it by name'}")
            continue
        score = mutate(path, options.minutes)
        if score is None:
            status = 1
        else:
            write([score])
            rest = f", {score.left} not tried in time" if score.left else ""
            print(f"{path}: {score.percent} % of {score.tried} mutants noticed{rest}")
    return status


if __name__ == "__main__":
    sys.exit(main())
