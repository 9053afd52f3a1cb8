"""On which line of a TOML text each key stands, which the standard library's parser does not tell.

The scanner knows just enough of TOML (https://toml.io/en/v1.0.0) to find keys: it relies on a text that `tomllib` has
accepted, and checks nothing that `tomllib` checks.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping

from gamekeeper.settings.keys import Path

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')
_LONG = re.compile(r'"""(?:[^\\]|\\.)*?"""("{0,2})|\'\'\'.*?\'\'\'(\'{0,2})', re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\n#]*")


def line_numbers(text: str) -> Mapping[Path, int]:
    """The line (from 1) of each key and each element of an array, by path; elements are numbered "0", "1", …"""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def split_assignment(text: str) -> tuple[Path, str]:
    """(path, the text after the "=") of `key = value`. Raises `ValueError` when it does not start so."""
    scanner = _Scanner(text)
    path = scanner.key()
    scanner.expect("=")
    return path, text[scanner.at :].strip()


def parse_key(text: str) -> Path:
    """The path a key's spelling stands for. Raises `ValueError` when it is none."""
    scanner = _Scanner(text)
    path = scanner.key()
    if scanner.at != len(text):
        raise ValueError(f"{text!r:.60} is not a key")
    return path


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._elements: dict[Path, int] = {}

    def document(self) -> None:
        prefix: Path = ()
        while self._skip(_BLANK) < len(self.text):
            start = self.at
            if self.text.startswith("[[", start):
                self.at += 2
                prefix = self._table(self.key(), element=True)
                self.at += 2
            elif self.text[start] == "[":
                self.at += 1
                prefix = self._table(self.key(), element=False)
                self.at += 1
            else:
                path = (*prefix, *self.key())
            self._note(prefix if self.text[start] == "[" else path, start)
            if self.text[start] != "[":
                self.expect("=")
                self._value(path)

    def key(self) -> Path:
        """A dotted key from here on."""
        parts: list[str] = []
        while True:
            self._skip(_SPACE)
            if found := _BARE.match(self.text, self.at):
                parts.append(found.group())
            elif found := _QUOTED.match(self.text, self.at):
                parts.append(str(tomllib.loads(f"key = {found.group()}")["key"]))
            else:
                raise ValueError(f"{self.text[self.at :]!r:.60} does not start with a key")
            self.at = found.end()
            self._skip(_SPACE)
            if self.text[self.at : self.at + 1] != ".":
                return tuple(parts)
            self.at += 1

    def expect(self, sign: str) -> None:
        """Step over `sign`."""
        self._skip(_SPACE)
        if not self.text.startswith(sign, self.at):
            raise ValueError(f"{sign!r} is missing in {self.text!r:.60}")
        self.at += len(sign)
        self._skip(_SPACE)

    def _skip(self, blank: re.Pattern[str]) -> int:
        found = blank.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.at

    def _note(self, path: Path, start: int) -> None:
        line = bisect_right(self._breaks, start - 1) + 1 if start else 1
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _table(self, key: Path, *, element: bool) -> Path:
        """The path of a header: a part that is an array of tables stands for its last element."""
        path: Path = ()
        for number, part in enumerate(key, 1):
            path = (*path, part)
            if element and number == len(key):
                self._elements[path] = self._elements.get(path, -1) + 1
            if path in self._elements:
                path = (*path, str(self._elements[path]))
        return path

    def _value(self, path: Path) -> None:
        if self.text.startswith(('"""', "'''"), self.at):
            self._skip(_LONG)
        elif self.text[self.at] in "\"'":
            self._skip(_QUOTED)
        elif self.text[self.at] == "[":
            self._array(path)
        elif self.text[self.at] == "{":
            self._inline(path)
        else:
            self._skip(_PLAIN)

    def _array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while self.text[self._skip(_BLANK)] != "]":
            element = (*path, str(number))
            self._note(element, self.at)
            self._value(element)
            number += 1
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1

    def _inline(self, path: Path) -> None:
        self.at += 1
        while self.text[self._skip(_BLANK)] != "}":
            start = self.at
            inner = (*path, *self.key())
            self._note(inner, start)
            self.expect("=")
            self._value(inner)
            if self.text[self._skip(_BLANK)] == ",":
                self.at += 1
        self.at += 1
