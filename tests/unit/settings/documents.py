"""Settings documents for properties: a value for every key, made from the schema."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Iterator

from hypothesis import strategies as st

from gamekeeper.core.errors import SettingsError
from gamekeeper.settings.example_file import example_line
from gamekeeper.settings.keys import Path
from gamekeeper.settings.tree import ANY, Key, declared

LINE = tomllib.loads(example_line())
Table = dict[str, object]

# Two other good values for each key that is no plain number; each differs from the default and from the other.
_VALUES: dict[str, tuple[object, object]] = {
    "data_dir": ("first", "second"),
    "coordinator.host": ("127.0.0.2", "::1"),
    "store.url": ("postgresql://a@h/first", "postgresql://a@h:1/second"),
    "agent.url": ("http://a:1", "http://b:2"),
    "agent.ephemeral": (True, True),
    "agent.labels": ({"site": "attic"}, {"site": "cellar"}),
    "agent.cpus": (1.5, 2.5),
    "agent.memory_bytes": (1 << 30, 1 << 31),
    "agent.gpus": ([{"name": "A"}], [{"name": "B", "memory_bytes": 5}]),
    "distribution.weights": ({"train": 2.0}, {"train": 3.0}),
    "distribution.line_weights": ({"mygame": 2.0}, {"mygame": 3.0}),
    "distribution.minimums": ({"mygame/train": 1}, {"mygame/train": 2}),
    "kinds.*.progress_unit": ("boards", "plies"),
    "kinds.*.receipt": ({"boards": "count"}, {"result": "hash"}),
    "lines.*.description": ("first", "second"),
    "lines.*.contract": ({"samples_dimension": "N"}, {"samples_dimension": "N"}),
    "lines.*.rating.opponents": (["alphabeta:2"], ["alphabeta:3"]),
    "lines.*.promotion.elo0": (-1.0, 2.0),
    "lines.*.promotion.elo1": (60.0, 70.0),
    "lines.*.promotion.alpha": (0.01, 0.02),
    "lines.*.promotion.beta": (0.01, 0.02),
    "admission.max_ready_per_producer": (10, 11),
    "admission.max_ready_per_kind": (10, 11),
    "admission.max_ready_in_all": (2_000_000, 3_000_000),
    "job_parking.exclusion_first_s": (60.0, 61.0),
    "job_parking.exclusion_longest_s": (50_000.0, 50_001.0),
    "lines.*.training.min_new_samples": (100, 101),
    "lines.*.training.window_samples": (60_000, 60_001),
    "lines.*.evaluation.pairs_per_job": (10, 11),
    "lines.*.promotion.max_pairs": (600, 601),
    "job_parking.max_excluded_fraction": (0.1, 0.2),
    "coordinator.lease_s": (10.0, 20.0),
}
_NAMES = {"lines": "mygame", "kinds": "analysis"}
_KIND: Table = {"kinds": {"analysis": {"progress_unit": "moves", "receipt": {"moves": "count"}}}}


def whole() -> Table:
    """A document with a line and a kind, to which any key can be added."""
    return copy.deepcopy({**LINE, **_KIND})


def leaves() -> list[Key]:
    """Every declared key, under the names the documents here use. `store.passfile` needs `store.url` besides."""
    return [
        Key(tuple(_NAMES[key.path[0]] if part == ANY else part for part in key.path), key.info)
        for key in declared()
        if key.path != ("store", "passfile")
    ]


def values(key: Key) -> tuple[object, object]:
    """Two good values for a key."""
    spelled = ".".join(ANY if part in _NAMES.values() else part for part in key.path)
    if spelled in _VALUES:
        return _VALUES[spelled]
    if key.path[-1] == "command":
        return (["first"], ["second", "word"])
    if key.path[-1] == "parameters":
        return ({"a": 1}, {"a": 2})
    default = key.default
    if isinstance(default, float):
        return (default + 1.0, default + 2.0)
    if isinstance(default, int):
        return (default + 1, default + 2)
    assert key.path[-1] in {"games", "pairs"}, f"say in _VALUES what may stand at {spelled}"
    return (11, 12)


def refusal(call: Callable[[], object]) -> SettingsError | None:
    """The error a call ends with; `None` when it is accepted."""
    try:
        call()
    except SettingsError as error:
        return error
    return None


def put(document: Table, path: Path, value: object) -> Table:
    """`document` with `value` at `path`."""
    inner = document
    for part in path[:-1]:
        nested = inner.setdefault(part, {})
        assert isinstance(nested, dict)
        inner = nested
    inner[path[-1]] = value
    return document


def tables(document: Table, at: Path = ()) -> Iterator[tuple[Path, Table]]:
    """Every table of a document whose keys the schema declares."""
    yield at, document
    for key, value in document.items():
        own = {"parameters", "contract", "labels", "weights", "line_weights", "minimums", "receipt"}
        if isinstance(value, dict) and key not in own:
            yield from tables(value, (*at, key))


def documents() -> st.SearchStrategy[Table]:
    """Valid documents: the whole one with any choice of keys set to good values."""

    def build(choice: list[tuple[Key, int]]) -> Table:
        document = whole()
        for key, pick in choice:
            if key.path[-1] != "contract":
                put(document, key.path, copy.deepcopy(values(key)[pick]))
        return document

    return st.builds(build, st.lists(st.tuples(st.sampled_from(leaves()), st.integers(0, 1)), max_size=12))
