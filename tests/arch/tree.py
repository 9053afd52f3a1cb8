"""The repository as the tidy rules see it: files with their text, their syntax tree and what their names mean."""

from __future__ import annotations

import ast
import fnmatch
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".sh",
    ".ini",
    ".cfg",
    ".html",
    ".css",
    ".js",
    ".json",
    ".yml",
    ".yaml",
    ".sql",
    ".mako",
}
_NEVER = [".git", "LICENSE"]


@dataclass(frozen=True)
class Violation:
    """A rule broken at a line of a file, with the remedy."""

    path: str
    line: int
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.remedy}"


@dataclass(frozen=True)
class File:
    """A file by its path relative to the root, with forward slashes."""

    path: str
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith(".py")

    def under(self, *folders: str) -> bool:
        """Whether the file is one of `folders` or lies below one."""
        return any(
            self.path == folder or self.path.startswith(folder.rstrip("/") + "/") for folder in folders
        )

    def broken(self, where: ast.AST | int, remedy: str) -> Violation:
        """The violation at a node or a line number."""
        return Violation(self.path, where if isinstance(where, int) else getattr(where, "lineno", 1), remedy)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Line numbers and texts of the comments."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]

    @cached_property
    def aliases(self) -> dict[str, str]:
        """What each imported name stands for: `{"np": "numpy", "now": "datetime.datetime.now"}`."""
        names: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    names[name.asname or name.name.split(".")[0]] = (
                        name.name if name.asname else name.name.split(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                for name in node.names:
                    names[name.asname or name.name] = f"{node.module}.{name.name}"
        return names

    def meaning(self, node: ast.expr) -> str:
        """The dotted name an expression stands for once imports are followed; empty when it is not a plain name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.aliases.get(node.id, node.id), *reversed(parts)])

    def imports(self) -> Iterator[tuple[ast.stmt, str]]:
        """Every absolute module or name imported, wherever in the file: `("from a import b")` gives `a.b`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                yield from ((node, f"{node.module}.{name.name}") for name in node.names)

    def uses(self) -> Iterator[tuple[ast.expr, str]]:
        """Every name or attribute whose meaning is known through an import, with that meaning."""
        inner: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute):
                inner.add(id(node.value))
            if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
                meaning = self.meaning(node)
                if meaning.split(".")[0] in {known.split(".")[0] for known in self.aliases.values()}:
                    yield node, meaning


def ignored_names(root: Path) -> list[str]:
    """The patterns of `.gitignore`, which here are names only, and what is never looked at."""
    ignore = root / ".gitignore"
    lines = ignore.read_text("utf-8").splitlines() if ignore.exists() else []
    return _NEVER + [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]


def files(root: Path) -> list[File]:
    """Every text file of the repository that git would keep, in order of path."""
    patterns = ignored_names(root)
    found: list[File] = []

    def walk(folder: Path) -> None:
        for entry in sorted(folder.iterdir()):
            if any(fnmatch.fnmatch(entry.name, pattern) for pattern in patterns) or entry.is_symlink():
                continue
            if entry.is_dir():
                walk(entry)
            elif entry.suffix in _TEXT or (entry.suffix == "" and entry.stat().st_size < 1 << 20):
                text = entry.read_bytes().decode("utf-8", errors="replace")
                found.append(File(entry.relative_to(root).as_posix(), text))

    walk(root)
    return found
