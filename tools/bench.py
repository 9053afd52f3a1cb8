"""Runs the benchmarks: `run.py` of every folder of bench/, or of those named.

    python -m tools.bench [TOPIC …] [-- options of the benchmark]

A benchmark prints its figures itself; this says which machine they come from and fails when one of them fails.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys

from tools.roadmap import ROOT


def main() -> int:
    there = {path.parent.name: path for path in sorted((ROOT / "bench").glob("*/run.py"))}
    parser = argparse.ArgumentParser(
        description="Run the benchmarks.", epilog=f"topics: {', '.join(there) or 'none'}"
    )
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", help="folders of bench/; all when none is named"
    )
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    topics = parser.parse_args(given[:cut]).topics or list(there)
    if unknown := set(topics) - there.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    failed = []
    for topic in topics:
        print(f"\n== {topic}", flush=True)
        done = subprocess.run(
            [sys.executable, str(there[topic]), *given[cut + 1 :]], cwd=ROOT, env=environment, check=False
        )
        if done.returncode != 0:
            failed.append(topic)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
