"""Every tidy rule catches a planted violation and leaves its innocent neighbour alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.arch import code_rules, text_rules
from tests.arch.test_tidy import apply
from tests.arch.tree import File, Violation, files

Rule = Callable[[File], Iterator[Violation]]

SRC = "src/gamekeeper/"

# rule, path, text that breaks it
BAD: list[tuple[Rule, str, str]] = [
    (code_rules.size, SRC + "store/big.py", "x = 1\n" * 451),
    (code_rules.size, "tools/long.py", "def f():\n" + "    x = 1\n" * 70),
    (code_rules.size, SRC + "store/long.py", "class A:\n    async def f(self):\n" + "        x = 1\n" * 70),
    (code_rules.names, SRC + "store/sql_utils.py", ""),
    (code_rules.names, SRC + "common/jobs.py", ""),
    (code_rules.names, SRC + "store/base.py", ""),
    (code_rules.names, "tests/helpers.py", ""),
    (code_rules.catches, SRC + "store/a.py", "try:\n    pass\nexcept Exception:\n    pass\n"),
    (code_rules.catches, SRC + "store/a.py", "try:\n    pass\nexcept (OSError, BaseException):\n    pass\n"),
    (code_rules.catches, SRC + "store/a.py", "try:\n    pass\nexcept:\n    pass\n"),
    (code_rules.catches, SRC + "a.py", "import contextlib\nwith contextlib.suppress(Exception):\n    pass\n"),
    (code_rules.clock, SRC + "store/a.py", "import time\nx = time.time()\n"),
    (code_rules.clock, SRC + "store/a.py", "import time as t\nx = t.monotonic\n"),
    (code_rules.clock, SRC + "store/a.py", "from time import perf_counter as now\n"),
    (code_rules.clock, SRC + "store/a.py", "def f():\n    from time import sleep\n"),
    (code_rules.clock, SRC + "store/a.py", "import datetime\nx = datetime.datetime.now(datetime.UTC)\n"),
    (code_rules.clock, SRC + "store/a.py", "from datetime import datetime as d\nx = d.utcnow()\n"),
    (code_rules.clock, SRC + "agent/a.py", "import random\nx = random.random()\n"),
    (code_rules.clock, SRC + "agent/a.py", "from random import choice\n"),
    (code_rules.clock, SRC + "agent/a.py", "import random\nx = random.Random()\n"),
    (code_rules.clock, SRC + "demo/a.py", "import numpy as np\nx = np.random.rand(3)\n"),
    (code_rules.clock, SRC + "demo/a.py", "import numpy as np\nx = np.random.default_rng()\n"),
    (code_rules.clock, SRC + "agent/a.py", "import asyncio\nasync def f():\n    await asyncio.sleep(1)\n"),
    (code_rules.clock, SRC + "agent/a.py", "import uuid\nx = uuid.uuid4()\n"),
    (code_rules.unsafe, SRC + "data/a.py", "import pickle\n"),
    (code_rules.unsafe, SRC + "data/a.py", "x = eval('1')\n"),
    (code_rules.unsafe, SRC + "data/a.py", "exec('x = 1')\n"),
    (code_rules.unsafe, "bench/a.py", "import subprocess\nsubprocess.run('ls', shell=True)\n"),
    (code_rules.unsafe, "tools/a.py", "import os\nos.system('ls')\n"),
    (code_rules.unsafe, SRC + "data/a.py", "import numpy\nnumpy.load('x', allow_pickle=True)\n"),
    (code_rules.tasks, SRC + "server.py", "import asyncio\nasyncio.create_task(f())\n"),
    (code_rules.tasks, SRC + "server.py", "from asyncio import ensure_future\nensure_future(f())\n"),
    (code_rules.prints, SRC + "server.py", "print('hello')\n"),
    (code_rules.reach, SRC + "core/a.py", "import pydantic\n"),
    (code_rules.reach, SRC + "core/a.py", "from gamekeeper import store\n"),
    (code_rules.reach, SRC + "policy/a.py", "from gamekeeper.data import npz_validation\n"),
    (code_rules.reach, SRC + "policy/a.py", "import numpy\n"),
    (code_rules.reach, SRC + "demo/a.py", "from gamekeeper.core import jobs\n"),
    (code_rules.reach, SRC + "demo/a.py", "import torch\n"),
    (text_rules.hosts, "requirements/a.txt", "--extra-index" + "-url file:x\n"),
    (text_rules.hosts, "docs/a.md", "see https://py" + "pi.org/project/x\n"),
    (text_rules.machine_paths, "docs/a.md", "look in " + "/ho" + "me/jane/x\n"),
    (text_rules.machine_paths, "Makefile", "PY := " + "/wo" + "rk/venv/bin/python\n"),
    (text_rules.comments, SRC + "a.py", "x = 1  # since 2025" + "-12-27\n"),
    (text_rules.comments, SRC + "a.py", "# December " + "2025: changed\n"),
    (text_rules.comments, "docs/a.md", "FIX" + "ME: write this\n"),
    (text_rules.test_docstrings, "tests/a/test_a.py", "def test_a():\n    pass\n"),
    (
        text_rules.test_docstrings,
        "tests/a/test_a.py",
        "class TestA:\n    async def test_a(self):\n        pass\n",
    ),
    (text_rules.test_waits, "tests/a/test_a.py", "import time\ntime.sleep(0.1)\n"),
    (
        text_rules.test_waits,
        "tests/a/conftest.py",
        "from anyio import sleep as nap\nasync def f():\n    await nap(1)\n",
    ),
    (text_rules.test_mocks, "tests/a/test_a.py", "from unittest import mock\n"),
    (text_rules.test_mocks, "tests/a/test_a.py", "from unittest.mock import patch\n"),
    (
        text_rules.test_mocks,
        "tests/a/test_a.py",
        "def test_a(monkeypatch):\n    monkeypatch.setattr('gamekeeper.store.Store.read', 1)\n",
    ),
    (
        text_rules.test_mocks,
        "tests/a/test_a.py",
        "from gamekeeper.store import Store\ndef test_a(monkeypatch):\n    monkeypatch.setattr(Store, 'read', 1)\n",
    ),
]

# the same neighbourhood, innocent
GOOD: list[tuple[Rule, str, str]] = [
    (code_rules.size, SRC + "store/big.py", "x = 1\n" * 450),
    (code_rules.size, "tools/long.py", "def f():\n" + "    x = 1\n" * 69),
    (code_rules.names, SRC + "data/database_sync.py", ""),
    (code_rules.catches, SRC + "runtime/executor.py", "try:\n    pass\nexcept Exception:\n    pass\n"),
    (code_rules.catches, SRC + "store/a.py", "try:\n    pass\nexcept (OSError, ValueError):\n    pass\n"),
    (code_rules.clock, SRC + "core/clock.py", "import time\nx = time.time()\n"),
    (code_rules.clock, SRC + "store/a.py", "def f(clock):\n    time = clock.now()\n    return time.hex()\n"),
    (code_rules.clock, SRC + "store/a.py", "import random\ndef f(seed):\n    return random.Random(seed)\n"),
    (code_rules.clock, SRC + "demo/a.py", "import numpy as np\nx = np.random.default_rng(7).random()\n"),
    (
        code_rules.clock,
        SRC + "store/a.py",
        "import datetime\nx = datetime.datetime.fromtimestamp(0, datetime.UTC)\n",
    ),
    (code_rules.unsafe, SRC + "data/a.py", "import subprocess\nsubprocess.run(['ls'], shell=False)\n"),
    (code_rules.unsafe, SRC + "data/a.py", "import re\nx = re.compile('a')\nconnection.exec('a')\n"),
    (code_rules.tasks, SRC + "server.py", "async def f(group):\n    group.start_soon(g)\n"),
    (code_rules.prints, SRC + "cli/main.py", "print('hello')\n"),
    (code_rules.reach, SRC + "core/a.py", "import dataclasses\nfrom gamekeeper.core import jobs\n"),
    (code_rules.reach, SRC + "demo/a.py", "import numpy\nfrom gamekeeper.client import Job\n"),
    (text_rules.hosts, "requirements/a.txt", "numpy==2.4.6\n"),
    (
        text_rules.machine_paths,
        "docs/a.md",
        "https://example.com/home/jane, ~/work/x, /proc/self, /usr/share/x\n",
    ),
    (text_rules.comments, SRC + "a.py", "x = '2025-12-27'  # an example of ISO 8601\n"),
    (
        text_rules.test_docstrings,
        "tests/a/test_a.py",
        "def test_a():\n    'Would break.'\ndef helper():\n    pass\n",
    ),
    (text_rules.test_waits, "tests/a/test_a.py", "import anyio\nasync def f():\n    await anyio.sleep(0)\n"),
    (text_rules.test_mocks, "tests/cli/test_a.py", "from unittest import mock\n"),
    (
        text_rules.test_mocks,
        "tests/a/test_a.py",
        "def test_a(monkeypatch):\n    monkeypatch.setattr('os.fsync', 1)\n",
    ),
]


def label(case: tuple[Rule, str, str]) -> str:
    return f"{case[0].__name__}:{case[1]}"


def planted(root: Path, path: str, text: str) -> list[File]:
    """A temporary repository of one file, as the rules see it."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, "utf-8")
    return files(root)


@pytest.mark.parametrize("case", BAD, ids=label)
def test_a_planted_violation_is_caught(case: tuple[Rule, str, str], tmp_path: Path) -> None:
    """A rule that catches nothing would look like a tidy repository."""
    rule, path, text = case
    assert apply(rule, planted(tmp_path, path, text))


@pytest.mark.parametrize("case", GOOD, ids=label)
def test_an_innocent_neighbour_is_left_alone(case: tuple[Rule, str, str], tmp_path: Path) -> None:
    """A rule that cries at good code would be switched off."""
    rule, path, text = case
    assert not apply(rule, planted(tmp_path, path, text))


def test_every_rule_is_planted_and_spared() -> None:
    """A rule without a self-test could stop working unseen."""
    every = {*code_rules.RULES, *text_rules.RULES}
    assert {case[0] for case in BAD} == every
    assert {case[0] for case in GOOD} == every
