"""Settings files: the line of every key, and a clear refusal of everything that is no settings file."""

from __future__ import annotations

import os
import tomllib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.errors import SettingsError
from gamekeeper.settings import load
from gamekeeper.settings.keys import spell
from gamekeeper.settings.places import line_numbers, parse_key, split_assignment
from gamekeeper.settings.reading import MAX_DEPTH, MAX_KEY_PARTS, read_document, read_file
from gamekeeper.settings.toml_text import document_text, to_toml
from tests.thoroughness import examples
from tests.unit.settings.documents import refusal

names = st.text(alphabet="ab -_.\"'#[]\t\x7fäß", max_size=5)
scalars = (
    st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(["#", "a = 1", '"""', "'''", "\\", "[x]", "\r\n"])
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)
tables = st.dictionaries(names, anything, max_size=4)


def paths(values: object, at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every path in decoded TOML."""
    inner: list[tuple[str, object]] = []
    if isinstance(values, dict):
        inner = list(values.items())
    elif isinstance(values, list):
        inner = [(str(number), one) for number, one in enumerate(values)]
    found = {at} if at else set()
    return found.union(*(paths(one, (*at, name)) for name, one in inner))


@settings(examples(120))
@given(values=tables)
def test_what_is_written_is_read_back_with_a_line_for_every_key(values: dict[str, object]) -> None:
    """`init` could write what the parser reads otherwise, and a message could name no line."""
    text = document_text(values)
    assert tomllib.loads(text) == values
    assert set(line_numbers(text)) == paths(values)
    assert tomllib.loads(f"value = {to_toml(values)}")["value"] == values


TEXT = '''\
# a comment with [brackets] and a = 1
top = 1   # another = 2
long = """
first = 1
\\" [second] \\"""\\
"""
raw = \'\'\'
third = """1 \'\'\'\'
"quoted.key" . inner = { a = [1, { b = 2 }], "c d" = \'x\' } # tail

[table]
one = 1
[table . "sub.table"]
two = [
  1, # first
  "]",
  [2,
   3],
]
when = 1979-05-27 07:32:00

[[list]]
name = "first"
[[list.inner]]
x = 1
[list.inner.table]
y = 2
[[list]]
name = "second"
[[list.inner]]
x = 3
'''
LINES = {
    "top": 2, "long": 3, "raw": 7, '"quoted.key"': 9, '"quoted.key".inner.a.1.b': 9, '"quoted.key".inner."c d"': 9,
    "table": 11, "table.one": 12, 'table."sub.table"': 13, 'table."sub.table".two': 14, 'table."sub.table".two.0': 15,
    'table."sub.table".two.1': 16, 'table."sub.table".two.2': 17, 'table."sub.table".two.2.1': 18,
    'table."sub.table".when': 20, "list": 22, "list.0.name": 23, "list.0.inner.0.x": 25, "list.0.inner.0.table.y": 27,
    "list.1": 28, "list.1.name": 29, "list.1.inner.0": 30, "list.1.inner.0.x": 31,
}  # fmt: skip


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_lines_of_every_form_of_toml(ending: str) -> None:
    """A message could send its reader to a line of a text or a comment."""
    text = TEXT.replace("\n", ending)
    lines = line_numbers(text)
    assert set(lines) == paths(tomllib.loads(text))
    assert {spell(path): line for path, line in lines.items() if spell(path) in LINES} == LINES


@settings(examples(120))
@given(path=st.lists(names, min_size=1, max_size=4), rest=st.text(max_size=5))
def test_a_spelled_key_is_read_back(path: list[str], rest: str) -> None:
    """A key from `config show` could not be given to `--set`."""
    assert parse_key(spell(tuple(path))) == tuple(path)
    assert split_assignment(f"{spell(tuple(path))}={rest}") == (tuple(path), rest.strip())


@pytest.mark.parametrize("text", ["", ".", "a.", "a b", "a..b", '"a', "=", "a=1", "ä"])
def test_what_is_no_key_is_refused(text: str) -> None:
    """Half a key could be taken for a whole one."""
    with pytest.raises(ValueError, match=r"key|missing"):
        parse_key(text)


BAD_FILES: list[tuple[bytes, list[str]]] = [
    (b"seed = ", ["g.toml:1: not valid TOML"]),
    (b"\n\nseed = 1\nseed = 2\n", ["g.toml:4: not valid TOML", "overwrite"]),
    (b"[agent]\n[agent]\n", ["g.toml:2: not valid TOML"]),
    (b"seed = 1\nx = \xff", ["g.toml:2: not valid TOML", "not UTF-8"]),
    (os.urandom(16) + b"\x00\x7fELF\xff" * 1000, ["g.toml:1: not valid TOML"]),
    (b"\x00" * 100, ["g.toml:1: not valid TOML"]),
    (b"#" * (1 << 20) + b"#", ["larger than 1048576 bytes"]),
    (b"x = " + b"[" * 100_000, ["nested more than"]),
    (b"x = " + b"[" * 40 + b"]" * 40, ["nested more than"]),
    (b"x = " + b"{a=" * 200 + b"1" + b"}" * 200, ["nested more than"]),
    (b"seed = 1\n" + b"a." * 500_000 + b"a = 1", ["g.toml:2: a key of more than 64 parts"]),
    (b"a" + b" . a" * 33 + b" = 1", ["nested more than"]),
    (b"seed = " + b"9" * 5000, ["g.toml", "digits"]),
    (b"seed = nan", ["g.toml:1: seed = nan cannot be used"]),
    (b"[coordinator]\nlease_s = inf", ["g.toml:2: coordinator.lease_s = inf cannot be used"]),
    (b"seed = 1979-05-27", ["g.toml:1: seed = "]),
    (b"seed = -1", ["g.toml:1: seed = -1 cannot be used"]),
    (b'data_dir = "a\\u0000b"', ["g.toml:1: data_dir", "control character"]),
    (b"agent = 3", ["g.toml:1: agent = 3"]),
    (b"[[agent]]\nslots = 1", ["g.toml:1: agent = "]),
    (
        b'[[agent.gpus]]\nname = "A"\n\n[[agent.gpus]]\nname = "B"\nmemory = 1',
        ["g.toml:6: unknown key agent.gpus.1.memory", "'memory_bytes'"],
    ),
    (b"[agent]\nlabels = { site = 3 }", ["g.toml:2: agent.labels.site = 3"]),
    (b"[kinds.train]\nprogress_unit = 'x'\nreceipt = {a = 'count'}", ["g.toml:1: kinds.train: the name", "built in"]),
    (b"[kinds.own]\nprogress_unit = 'x'\nreceipt = {a = 'number'}", ["g.toml:3: kinds.own.receipt", "proves work"]),
    (b"[kinds.own]\nprogress_unit = 'x'\nreceipt = {a = 'pairs'}", ["g.toml:3: kinds.own.receipt.a", "'count'"]),
    (b"[store]\nurl = 'mysql://u:geheim@h/d'", ["g.toml:2: store.url", "postgresql://"]),
    (b"[store]\npassfile = 'x'", ["g.toml:2: store.passfile is set, but store.url is not"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "words"), BAD_FILES, ids=[str(n) for n in range(len(BAD_FILES))])
def test_what_is_no_settings_file_is_refused_in_words(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    """A broken file could end in a traceback, in a message without a place, or in minutes of parsing."""
    file = tmp_path / "g.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as error:
        load(file, environment={})
    told = f"{error.value.message} | {error.value.remedy}"
    assert all(word in told for word in words), told
    assert error.value.remedy
    assert "geheim" not in told
    assert len(told) < 700


def test_a_folder_a_missing_and_an_unreadable_file_are_told_apart(tmp_path: Path) -> None:
    """A person could look for a syntax error where a permission is missing."""
    secret = tmp_path / "secret.toml"
    secret.write_text("seed = 1\n")
    secret.chmod(0)
    cases = [(tmp_path, "is a folder"), (tmp_path / "none.toml", "does not exist")]
    if os.geteuid() != 0:
        cases.append((secret, "cannot be read"))
    for path, words in cases:
        with pytest.raises(SettingsError, match=words) as error:
            read_file(path)
        assert str(path) in error.value.message
        assert error.value.remedy


def test_a_byte_order_mark_and_moderate_nesting_are_accepted(tmp_path: Path) -> None:
    """A file from an editor of another system could be refused for a byte nobody sees."""
    file = tmp_path / "g.toml"
    file.write_bytes(b"\xef\xbb\xbfseed = 1\n")
    assert read_document(file) == {"seed": 1}
    file.write_text(f"x = {'[' * (MAX_DEPTH - 1)}{']' * (MAX_DEPTH - 1)}\n", "utf-8")
    assert read_document(file)
    file.write_text(".".join("a" * (MAX_DEPTH - 1)) + f" = [{'1.5, ' * 10 * MAX_KEY_PARTS}]\n", "utf-8")
    assert read_document(file)


@settings(examples(120))
@given(content=st.binary(max_size=60) | st.text(alphabet='ab=[]{}",.\n# 1', max_size=60).map(str.encode))
def test_any_bytes_are_accepted_or_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """A strange file could end in a traceback."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    error = refusal(partial(load, file, environment={}))
    assert error is None or (str(file) in error.message and error.remedy)
