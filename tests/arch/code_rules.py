"""Tidy rules on Python code. Each takes a file and yields what breaks it."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from tests.arch.tree import File, Violation

PRODUCT = "src/gamekeeper"
FILE_LINES = 450
FUNCTION_LINES = 70

_CATCHERS = tuple(
    f"{PRODUCT}/{path}" for path in ("runtime/supervisor.py", "runtime/executor.py", "cli/main.py")
)
_CLOCK = f"{PRODUCT}/core/clock.py"
_VAGUE = {"helper", "helpers", "util", "utils", "misc", "common", "manager", "base", "unified"}
_UNREPEATABLE = re.compile(
    r"time\.(?!struct_time$)\w+|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today|asyncio\.sleep|anyio\.(sleep|current_time)\w*"
    r"|random\.(?!Random$)\w+|os\.(urandom|getrandom)|uuid\.uuid[14]"
    r"|numpy\.random\.(?!default_rng$|Generator$|SeedSequence$|BitGenerator$|PCG64\w*$|Philox$|SFC64$)\w+"
)
_UNSAFE = re.compile(
    r"(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)(\.\w+)*|os\.(system|popen|spawn\w+)|subprocess\.(getoutput|getstatusoutput)"
    r"|asyncio\.create_subprocess_shell"
)


def size(file: File) -> Iterator[Violation]:
    """No file above 450 lines, no function above 70."""
    count = len(file.text.splitlines())
    if count > FILE_LINES:
        yield file.broken(count, f"{count} lines; split the file by noun (at most {FILE_LINES})")
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES:
                yield file.broken(node, f"{node.name} has {lines} lines; split it (at most {FUNCTION_LINES})")


def names(file: File) -> Iterator[Violation]:
    """No file or folder named helper, util, misc, common, manager, base or unified."""
    for part in file.path.removesuffix(".py").split("/"):
        vague = _VAGUE & set(re.split(r"[_\-.]", part.lower()))
        if vague:
            yield file.broken(1, f"{part!r} says nothing ({min(vague)}); name the noun it holds")


def catches(file: File) -> Iterator[Violation]:
    """`except Exception`, `except BaseException`, bare `except` and their `suppress` in three named files only."""
    if not file.under(PRODUCT) or file.path in _CATCHERS:
        return
    for node in ast.walk(file.tree):
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield file.broken(node, "catches everything; name the errors you can handle")
            else:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and file.meaning(node.func) == "contextlib.suppress":
            caught = node.args
        if any(file.meaning(one) in {"Exception", "BaseException"} for one in caught):
            yield file.broken(
                node, "catches everything; name the errors you can handle and let the rest rise"
            )


def _named(file: File) -> list[tuple[int, str]]:
    """Line and meaning of everything imported or used through an import, each line and meaning once."""
    found = [(node.lineno, meaning) for node, meaning in file.imports()]
    found += [(node.lineno, meaning) for node, meaning in file.uses()]
    return sorted(set(found))


def clock(file: File) -> Iterator[Violation]:
    """Only core/clock.py reads time, sleeps or draws randomness that no seed repeats."""
    if not file.under(PRODUCT) or file.path == _CLOCK:
        return
    for line, meaning in _named(file):
        if _UNREPEATABLE.fullmatch(meaning):
            yield file.broken(line, f"{meaning} is not repeatable; take a Clock or a seeded generator")
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call) or node.args or node.keywords:
            continue
        if file.meaning(node.func) in {"numpy.random.default_rng", "random.Random"}:
            yield file.broken(
                node, "an unseeded generator is not repeatable; pass a seed, or take core.clock.unseeded"
            )


def unsafe(file: File) -> Iterator[Violation]:
    """No pickle, eval, exec, shells or allow_pickle."""
    if not file.under(PRODUCT, "tools", "bench"):
        return
    for line, meaning in _named(file):
        if _UNSAFE.fullmatch(meaning):
            remedy = f"{meaning} runs what it is given; use JSON, NPZ without pickle, or an argument list"
            yield file.broken(line, remedy)
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec", "compile", "__import__"}:
            yield file.broken(node, f"{node.func.id} runs what it is given")
        for keyword in node.keywords:
            if keyword.arg in {"shell", "allow_pickle"} and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                yield file.broken(keyword.value, f"{keyword.arg} must be False and stay so")


def tasks(file: File) -> Iterator[Violation]:
    """No task without a parent: anyio task groups only."""
    if not file.under(PRODUCT):
        return
    for node in ast.walk(file.tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in {"create_task", "ensure_future", "run_coroutine_threadsafe"}:
            yield file.broken(node, f"{name} makes a task without a parent; use an anyio task group")


def prints(file: File) -> Iterator[Violation]:
    """Only the command line and the bundled stages print."""
    if not file.under(PRODUCT) or file.under(f"{PRODUCT}/cli", f"{PRODUCT}/demo"):
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and file.meaning(node.func) in {"print", "builtins.print"}:
            yield file.broken(node, "print outside cli/ and demo/; log it, raise it or return it")


_MAY_IMPORT_OF_OURS = {
    f"{PRODUCT}/core": ("gamekeeper.core",),
    f"{PRODUCT}/stats": ("gamekeeper.stats", "gamekeeper.core"),
    f"{PRODUCT}/policy": ("gamekeeper.core", "gamekeeper.stats", "gamekeeper.policy"),
    f"{PRODUCT}/demo": ("gamekeeper.client", "gamekeeper.demo"),
}
_MAY_IMPORT_OF_OTHERS = {
    f"{PRODUCT}/core": (),
    f"{PRODUCT}/policy": (),
    f"{PRODUCT}/stats": ("numpy",),
    f"{PRODUCT}/demo": ("numpy", "blake3"),
}


def reach(file: File) -> Iterator[Violation]:
    """What core, stats, policy and demo may import is a list of what is allowed, not of what is forbidden."""
    for folder, ours in _MAY_IMPORT_OF_OURS.items():
        if not file.under(folder):
            continue
        for node, name in file.imports():
            top = name.split(".")[0]
            if top == "gamekeeper":
                if not any(name == allowed or name.startswith(allowed + ".") for allowed in ours):
                    yield file.broken(node, f"{folder} may not import {name}")
            elif top not in sys.stdlib_module_names and top not in _MAY_IMPORT_OF_OTHERS[folder]:
                yield file.broken(node, f"{folder} may not import the package {top}")


RULES = (size, names, catches, clock, unsafe, tasks, prints, reach)
