"""Tidy rules on any committed text, and on the tests themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.arch.tree import File, Violation

# Written in two halves so that this file does not break its own rule.
_HOSTS = re.compile(
    "|".join(
        re.escape(first + second)
        for first, second in [
            ("pypi", ".org"),
            ("pythonhosted", ".org"),
            ("npmjs", ".org"),
            ("npmjs", ".com"),
            ("crates", ".io"),
            ("rubygems", ".org"),
            ("anaconda", ".org"),
            ("--index", "-url"),
            ("--extra-index", "-url"),
            ("--find", "-links"),
        ]
    )
)
_MACHINE = re.compile(r"(?<![\w.~}/-])/(?:home|root|Users|work|scratch|data\d*)(?:/[\w.~-]+)+")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_YEAR = r"(?:19|20)\d\d"
_DATE = re.compile(rf"\b{_YEAR}-[01]\d(?:-[0-3]\d)?\b|\b{_MONTH}\.? (?:\d{{1,2}}, )?{_YEAR}\b")
_MARK = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
_POLL = "tests/waiting.py"


def hosts(file: File) -> Iterator[Violation]:
    """No registry host and no index option in a committed file."""
    for number, line in enumerate(file.text.splitlines(), 1):
        if found := _HOSTS.search(line):
            yield file.broken(
                number, f"names a package registry ({found.group()}); leave that to pip's configuration"
            )


def machine_paths(file: File) -> Iterator[Violation]:
    """No absolute path of one machine."""
    for number, line in enumerate(file.text.splitlines(), 1):
        if found := _MACHINE.search(line):
            yield file.broken(
                number, f"{found.group()} exists on one machine only; make it relative or configurable"
            )


def comments(file: File) -> Iterator[Violation]:
    """No dates in comments, no to-do marks anywhere."""
    for number, text in file.comments if file.is_python else []:
        if found := _DATE.search(text):
            yield file.broken(number, f"date {found.group()} in a comment; history is git's")
    for number, line in enumerate(file.text.splitlines(), 1):
        if found := _MARK.search(line):
            yield file.broken(number, f"{found.group()}: do it, or open an issue")


def test_docstrings(file: File) -> Iterator[Violation]:
    """Every test says in a line of docstring what would break."""
    if not (file.is_python and file.under("tests")) or not file.path.rsplit("/", 1)[-1].startswith("test_"):
        return
    classes = [node for node in file.tree.body if isinstance(node, ast.ClassDef)]
    for body in [file.tree.body, *(one.body for one in classes)]:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or ast.get_docstring(node):
                continue
            if node.name.startswith("test_"):
                yield file.broken(node, f"{node.name} has no docstring; say in one line what would break")


def test_waits(file: File) -> Iterator[Violation]:
    """Tests wait for facts; the one bounded poll is tests/waiting.py."""
    if not (file.is_python and file.under("tests")) or file.path == _POLL:
        return
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.Call):
            continue
        yields = bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        if file.meaning(node.func) in {"time.sleep", "asyncio.sleep", "anyio.sleep"} and not yields:
            yield file.broken(node, "a test that sleeps; wait for a fact with tests.waiting.until")


def test_mocks(file: File) -> Iterator[Violation]:
    """No mocks, and nothing of ours patched, outside tests/cli."""
    if not (file.is_python and file.under("tests")) or file.under("tests/cli"):
        return
    for statement, name in file.imports():
        if name == "mock" or name.startswith(("unittest.mock", "mock.")):
            yield file.broken(
                statement, "mocks prove only that the mock was called; use a real part or a verified fake"
            )
    for node in ast.walk(file.tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if file.meaning(node.func) == "monkeypatch.setattr":
            target = node.args[0]
            text = target.value if isinstance(target, ast.Constant) else file.meaning(target)
            # A name of ours that starts with a capital is a class: patching it makes a mock of our own code.
            if isinstance(text, str) and text.startswith("gamekeeper.") and re.search(r"\.[A-Z]\w*", text):
                yield file.broken(node, f"patches {text}; use a real part or a verified fake")


RULES = (hosts, machine_paths, comments, test_docstrings, test_waits, test_mocks)
