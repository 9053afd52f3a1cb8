"""Renders docs/COVERAGE.md from docs/roadmap.toml, docs/mutation.toml and the last test run, or checks that it is true.

    python -m tools.coverage_page [--check]

With --check it fails when the page is stale or when a built module is below one of its floors.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.roadmap import PRODUCT, ROOT, TIERS, Module, load
from tools.test_run import RUN, fingerprint

PAGE = Path("docs") / "COVERAGE.md"
MUTATION = Path("docs") / "mutation.toml"
POINTS = 2
COUNT = 2
SHARE = 0.05
_NAMED_UNTESTED = 6

_HEAD = """# The coverage roadmap, as it stands

Rendered by `make coverage` from [roadmap.toml](roadmap.toml), [mutation.toml](mutation.toml) and the last test run;
not edited by hand. `make test` fails when this page is stale or a built module is below a floor (in brackets).
What the columns mean is told in [CONTRIBUTING](../CONTRIBUTING.md#the-coverage-roadmap).
"""
_EXACT = ("module", "priority", "state", "home")
_MEASURED = ("lines", "tests", "reached by", "line %", "branch %", "mutation %")
_COLUMNS = (*_EXACT, *_MEASURED, "untested")


@dataclass(frozen=True)
class Figures:
    """What the last run measured of a set of files. Percentages are None when there is nothing to measure."""

    lines: int
    tests: int
    reached: int
    line: float | None
    branch: float | None
    untested: tuple[str, ...]


def dotted(path: str) -> str:
    """The module name of a product file: `src/gamekeeper/policy/x.py` is `gamekeeper.policy.x`."""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def share(part: int, whole: int) -> float | None:
    """Per cent of `whole` that is not missing; `part` counts what is missing."""
    return 100.0 * (whole - part) / whole if whole else None


def measured(homes: Iterable[str], run: Mapping[str, Any]) -> Figures | None:
    """The figures of files below src/gamekeeper, those of folders included; None when the run knows none of them."""
    wanted = [f"{PRODUCT}/{home}" for home in homes]
    found = {
        path: one
        for path, one in run["files"].items()
        if any(path == home or (home.endswith("/") and path.startswith(home)) for home in wanted)
    }
    if not found:
        return None
    names = [dotted(path) for path in found]
    importing = {
        file
        for file, imports in run["imports"].items()
        if any(one == name or one.startswith(name + ".") for one in imports for name in names)
    }
    reached = {test for one in found.values() for test in one["tests"]}
    aimed = {test for test in reached if test.split("::")[0] in importing}
    several = len(found) > 1
    untested: list[str] = []
    for path, one in sorted(found.items()):
        stem = f"{path.rsplit('/', 1)[-1].removesuffix('.py')}." if several else ""
        untested += [f"{stem}{name}" for name in one["untested"]]
        untested += [f"{stem}{name} (partly)" for name in one["partial"]]

    def total(key: str) -> int:
        return sum(one[key] for one in found.values())

    return Figures(
        lines=total("lines"),
        tests=len(aimed),
        reached=len(reached),
        line=share(total("missing"), total("statements")),
        branch=share(total("missing_branches"), total("branches")),
        untested=tuple(untested),
    )


def mutation_scores(root: Path) -> dict[str, tuple[float, str]]:
    """Recorded score of each mutated file, and what lessens it: code that changed since, or mutants not tried.

    A survivor that is explained (a change that changes nothing, or only the wording of a message) does not count.
    """
    path = root / MUTATION
    entries = tomllib.loads(path.read_text("utf-8")).get("file", []) if path.exists() else []
    scores: dict[str, tuple[float, str]] = {}
    for entry in entries:
        source = root / PRODUCT / entry["path"]
        same = source.exists() and hashlib.sha256(source.read_bytes()).hexdigest()[:16] == entry["source"]
        explained = sum(bool(survivor["why"].strip()) for survivor in entry.get("survivor", []))
        score = 100.0 * entry["killed"] / max(1, entry["tried"] - explained)
        scores[entry["path"]] = (score, ("in part" if entry["left"] else "") if same else "of earlier code")
    return scores


def mutation_of(module: Module, scores: Mapping[str, tuple[float, str]]) -> tuple[float, str] | None:
    """The lowest score among the files of a home with what lessens any of them; None when none was mutated."""
    found = [
        one
        for path, one in scores.items()
        if any(path == home or (home.endswith("/") and path.startswith(home)) for home in module.home)
    ]
    return (min(score for score, _ in found), max(note for _, note in found)) if found else None


def percent(value: float | None) -> str:
    """Rounded down, so that 100 means all."""
    return "n/a" if value is None else str(int(value))


def row(module: Module, run: Mapping[str, Any], scores: Mapping[str, tuple[float, str]]) -> dict[str, str]:
    """The cells of a module's row by column."""
    figures = measured(module.home, run)
    mutation = mutation_of(module, scores)
    home = ", ".join(module.home) + (f"; with {', '.join(module.parts)}" if module.parts else "")
    state = module.state if module.state == "built" else f"{module.state}: {module.theme}"
    cells = {
        "module": f"`{module.name}`: {module.risk}",
        "priority": module.priority or "",
        "state": state,
        "home": home,
    }
    if figures is None:
        return {**cells, **dict.fromkeys(_COLUMNS[4:], "")}
    floor = f" ({module.mutation})" if module.mutation is not None else ""
    score = "not run" if mutation is None else f"{percent(mutation[0])} {mutation[1]}".strip()
    more = len(figures.untested) - _NAMED_UNTESTED
    named = ", ".join(
        f"`{name}`" if " " not in name else f"`{name.split(' ')[0]}` (partly)"
        for name in figures.untested[:_NAMED_UNTESTED]
    )
    return {
        **cells,
        "lines": str(figures.lines),
        "tests": f"{figures.tests} ({module.tests})",
        "reached by": str(figures.reached),
        "line %": f"{percent(figures.line)} ({module.line})",
        "branch %": f"{percent(figures.branch)} ({module.branch})",
        "mutation %": score + floor,
        "untested": named + (f" and {more} more" if more > 0 else ""),
    }


def whole(run: Mapping[str, Any]) -> dict[str, str]:
    """The row of the whole product, in the columns of measured figures."""
    figures = measured([path.removeprefix(f"{PRODUCT}/") for path in run["files"]], run)
    if figures is None:
        return {}
    return {
        "lines": str(figures.lines),
        "tests": f"{run['passed']} cases",
        "reached by": str(figures.reached),
        "line %": percent(figures.line),
        "branch %": percent(figures.branch),
    }


def table(rows: list[dict[str, str]], columns: tuple[str, ...]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(cells.get(column, "") for column in columns) + " |" for cells in rows]


def render(modules: list[Module], run: Mapping[str, Any], scores: Mapping[str, tuple[float, str]]) -> str:
    """The whole page."""
    states = {
        state: sum(module.state == state for module in modules) for state in ("built", "started", "planned")
    }
    lines = [
        _HEAD,
        ", ".join(f"{count} {state}" for state, count in states.items()) + f", of {len(modules)} modules.",
        "",
    ]
    lines += table(
        [{"module": "**the whole product**", **whole(run)}],
        ("module", "lines", "tests", "reached by", "line %", "branch %"),
    )
    for tier, title in TIERS.items():
        of_tier = [module for module in modules if module.tier == tier]
        lines += ["", f"## {title}", "", *table([row(module, run, scores) for module in of_tier], _COLUMNS)]
    return "\n".join(lines) + "\n"


def cells_of(page: str) -> dict[str, dict[str, str]]:
    """The rows of a rendered page by the text of their first cell."""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for line in page.splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not columns:
            columns = cells
        elif not line.startswith("|---"):
            rows[cells[0]] = dict(zip(columns, cells, strict=False))
    return rows


def agree(column: str, page: str, now: str, skipped: int) -> bool:
    """Whether a cell of measured figures still tells the truth; see CONTRIBUTING for the tolerances."""
    shape, figures = re.sub(r"^\d+", "#", page), re.match(r"\d+", page)
    shape_now, figures_now = re.sub(r"^\d+", "#", now), re.match(r"\d+", now)
    if shape != shape_now or figures is None or figures_now is None:
        return page == now
    gap, size = abs(int(figures.group()) - int(figures_now.group())), int(figures_now.group())
    if column.endswith("%"):
        return gap <= POINTS
    return gap <= max(COUNT, SHARE * size) + (skipped if column != "lines" else 0)


def stale(page: str, fresh: str, skipped: int) -> list[str]:
    """What of `page` is no longer true, given the page as it would be rendered now."""
    old, new = cells_of(page), cells_of(fresh)
    found = [f"{name}: has no row" for name in new if name not in old]
    found += [f"{name}: has a row, but is not in roadmap.toml" for name in old if name not in new]
    for name in [name for name in new if name in old]:
        for column, now in new[name].items():
            then = old[name].get(column, "")
            if (column in _EXACT and then != now) or (
                column in _MEASURED and not agree(column, then, now, skipped)
            ):
                found.append(
                    f"{name.split(':')[0]}: {column} says {then or 'nothing'}, is {now or 'nothing'}"
                )
    return found


def below(
    modules: list[Module], run: Mapping[str, Any], scores: Mapping[str, tuple[float, str]]
) -> list[str]:
    """Every floor that a built module does not reach."""
    found: list[str] = []
    for module in modules:
        if module.state != "built":
            continue
        figures = measured(module.home, run)
        if figures is None:
            found.append(f"{module.name}: is said to be built, but {', '.join(module.home)} was not measured")
            continue
        if figures.tests < module.tests:
            found.append(f"{module.name}: {figures.tests} tests, floor {module.tests}")
        for what, value, floor in (
            ("line", figures.line, module.line),
            ("branch", figures.branch, module.branch),
        ):
            if value is not None and value < floor:
                missing = (
                    f"; untested: {', '.join(figures.untested[:_NAMED_UNTESTED])}" if figures.untested else ""
                )
                found.append(f"{module.name}: {what} coverage {value:.1f} %, floor {floor} %{missing}")
        mutation = mutation_of(module, scores)
        if module.mutation is not None and mutation is not None and mutation[0] < module.mutation:
            found.append(f"{module.name}: mutation score {mutation[0]:.1f} %, floor {module.mutation} %")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Render docs/COVERAGE.md, or check it.")
    parser.add_argument(
        "--check", action="store_true", help="fail when the page is stale or a floor is not reached"
    )
    check = parser.parse_args().check
    run = json.loads((ROOT / RUN).read_text("utf-8")) if (ROOT / RUN).exists() else {}
    if not run or run["fingerprint"] != fingerprint(ROOT):
        print("coverage page: no test run of these very files", file=sys.stderr)
        print("hint: make test" if check else "hint: make coverage", file=sys.stderr)
        return 1
    if not run["complete"]:
        print("coverage page: the last test run failed or was partial; not looked at", file=sys.stderr)
        return 0 if check and not run["failed"] else 1
    modules, scores = load(), mutation_scores(ROOT)
    fresh = render(modules, run, scores)
    if not check:
        (ROOT / PAGE).write_text(fresh, "utf-8")
        print(f"coverage page: {PAGE} rendered")
    page = (ROOT / PAGE).read_text("utf-8") if (ROOT / PAGE).exists() else ""
    old, low = stale(page, fresh, len(run["skipped"])), below(modules, run, scores)
    for line in [*old, *low]:
        print(f"coverage page: {line}", file=sys.stderr)
    if old:
        print("hint: the page is stale: make coverage, and commit docs/COVERAGE.md", file=sys.stderr)
    if low:
        print(
            "hint: write the missing tests; a module that is not finished is 'started' in docs/roadmap.toml",
            file=sys.stderr,
        )
    return 1 if old or low else 0


if __name__ == "__main__":
    sys.exit(main())
