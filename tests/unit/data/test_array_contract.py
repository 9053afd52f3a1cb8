from __future__ import annotations

import tomllib
from contextlib import suppress

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gamekeeper.core.errors import SettingsError
from gamekeeper.data.array_contract import Contract, judge_headers
from gamekeeper.data.array_rules import ContractError
from gamekeeper.data.npy_header import NpyHeader
from gamekeeper.data.verdicts import Defect

CONNECT4 = """
games_from = "game"
[arrays.features]
dtype = "<f4"
shape = ["N", 3, 6, 7]
finite = true
min = 0.0
max = 1.0
[arrays.policy]
dtype = "<f4"
shape = ["N", 7]
row_sum = 1.0
row_sum_tolerance = 2e-3
zero_where_not = "legal"
[arrays.legal]
dtype = "|u1"
shape = ["N", 7]
min = 0
max = 1
[arrays.game]
dtype = ["<i4", "<i8"]
shape = ["N"]
[arrays.note]
dtype = "|u1"
shape = [4, "M"]
required = false
order = "any"
"""


def table() -> dict[str, object]:
    return tomllib.loads(CONNECT4)


def test_reads_toml() -> None:
    """A setting is dropped or changed on the way from gamekeeper.toml to the rule."""
    contract = Contract.from_mapping(table())
    assert (contract.samples_dimension, contract.games_from, contract.extra_arrays, contract.min_samples) == (
        "N", "game", False, 1,
    )  # fmt: skip
    features, policy, legal, game, note = contract.arrays
    assert (features.shape, features.minimum, features.maximum, features.finite) == (
        ("N", 3, 6, 7),
        0.0,
        1.0,
        True,
    )
    assert (policy.row_sum, policy.row_sum_tolerance, policy.zero_where_not) == (1.0, 2e-3, "legal")
    assert (policy.looks_at_rows, legal.looks_at_rows, policy.minimum) == (True, False, None)
    assert (legal.dtypes, game.dtypes, note.required, note.any_order) == (
        ("|u1",),
        ("<i4", "<i8"),
        False,
        True,
    )
    assert contract.rule("legal") is legal
    assert contract.rule("other") is None


def test_mapping_round_trip() -> None:
    """A contract sent to another process comes back as another contract."""
    for extra in ({}, {"extra_arrays": True, "min_samples": 7}):
        contract = Contract.from_mapping(table() | extra)
        assert Contract.from_mapping(contract.to_mapping()) == contract
    plain = Contract.from_mapping(
        {"arrays": {"a": {"dtype": "<f4", "shape": ["B"]}}, "samples_dimension": "B"}
    )
    assert "games_from" not in plain.to_mapping()
    assert Contract.from_mapping(plain.to_mapping()) == plain


def located(table: dict[str, object], path: str) -> tuple[dict[str, object], str]:
    """(the inner table, its key) at the end of a path of keys separated by spaces."""
    *parents, last = path.split()
    for parent in parents:
        table = table[parent]  # type: ignore[assignment]
    return table, last


# (path of the setting, value that is put there, key that is blamed, part of the remedy)
WRONG: list[tuple[str, object, str, str]] = [
    ("game_from", "game", "game_from", "did you mean 'games_from'?"),
    ("zzz", 1, "zzz", "known are: arrays"),
    ("arrays", {}, "arrays", "[arrays.NAME]"),
    ("arrays", 3, "arrays", "[arrays.NAME]"),
    ("arrays", None, "arrays", "[arrays.NAME]"),
    ("extra_arrays", "yes", "extra_arrays", "true or false"),
    ("min_samples", -1, "min_samples", "number such as 1"),
    ("min_samples", 1.5, "min_samples", "number such as 1"),
    ("min_samples", True, "min_samples", "number such as 1"),
    ("samples_dimension", 3, "samples_dimension", "in quotes"),
    ("samples_dimension", "B", "samples_dimension", "counts samples"),
    ("samples_dimension", "M", "samples_dimension", "counts samples"),
    ("games_from", "gane", "games_from", "did you mean 'game'?"),
    ("games_from", "policy", "games_from", "number of its game"),
    ("games_from", "note", "games_from", "number of its game"),
    ("arrays features", 7, "arrays.features", "dtype and shape"),
    ("arrays a/b", {}, "arrays.a/b", "letters, digits"),
    ("arrays a.npy", {}, "arrays.a.npy", "without .npy"),
    ("arrays features dtyp", "<f4", "arrays.features.dtyp", "did you mean 'dtype'?"),
    ("arrays features dtype", "float32", "arrays.features.dtype", '"<f4"'),
    ("arrays features dtype", "f4", "arrays.features.dtype", "for example"),
    ("arrays features dtype", "<c8", "arrays.features.dtype", "for example"),
    ("arrays features dtype", "<f16", "arrays.features.dtype", "for example"),
    ("arrays features dtype", [], "arrays.features.dtype", "for example"),
    ("arrays features dtype", ["<f4", 4], "arrays.features.dtype", "for example"),
    ("arrays features dtype", None, "arrays.features.dtype", "for example"),
    ("arrays features shape", None, "arrays.features.shape", "for example"),
    ("arrays features shape", "N", "arrays.features.shape", "for example"),
    ("arrays features shape", ["N", -1], "arrays.features.shape", "for example"),
    ("arrays features shape", ["N", 1.5], "arrays.features.shape", "for example"),
    ("arrays features shape", ["N", True], "arrays.features.shape", "for example"),
    ("arrays features shape", ["N", "2H"], "arrays.features.shape", "for example"),
    ("arrays features order", "F", "arrays.features.order", '"any"'),
    ("arrays features required", 1, "arrays.features.required", "true or false"),
    ("arrays features min", "0", "arrays.features.min", "write a number"),
    ("arrays features min", True, "arrays.features.min", "write a number"),
    ("arrays features max", float("nan"), "arrays.features.max", "write a number"),
    ("arrays features max", float("inf"), "arrays.features.max", "write a number"),
    ("arrays features max", 10**400, "arrays.features.max", "write a number"),
    ("arrays features min", 1.5, "arrays.features.min", "swap"),
    ("arrays features row_sum_tolerance", 0.1, "arrays.features.row_sum_tolerance", "add it"),
    ("arrays policy row_sum_tolerance", -0.1, "arrays.policy.row_sum_tolerance", "from 0 up"),
    ("arrays policy order", "any", "arrays.policy.order", 'order = "C"'),
    ("arrays game one_hot", True, "arrays.game.shape", "second axis"),
    ("arrays policy zero_where_not", "legql", "arrays.policy.zero_where_not", "did you mean 'legal'?"),
    ("arrays policy zero_where_not", "policy", "arrays.policy.zero_where_not", "known are: features"),
    ("arrays policy zero_where_not", "features", "arrays.policy.zero_where_not", "both the same"),
    ("arrays legal required", False, "arrays.policy.zero_where_not", "make 'legal' required"),
    ("arrays legal order", "any", "arrays.policy.zero_where_not", "both the same"),
]


@pytest.mark.parametrize(("path", "value", "key", "remedy"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_settings_are_named(path: str, value: object, key: str, remedy: str) -> None:
    """A mistake in the contract is swallowed, or reported without saying where and what to do."""
    changed = table()
    inner, last = located(changed, path)
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    with pytest.raises(ContractError) as caught:
        Contract.from_mapping(changed)
    assert caught.value.key == key
    assert caught.value.message.startswith(f"{key}: ")
    assert remedy in caught.value.remedy
    assert isinstance(caught.value, SettingsError)
    assert (caught.value.exit_code, caught.value.code) == (2, "contract")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    path=st.sampled_from(sorted({path for path, *_ in WRONG})),
    value=_JSON,
)
def test_any_value_is_read_or_refused(path: str, value: object) -> None:
    """A value of an unforeseen type makes the reader crash instead of naming the key."""
    changed = table()
    inner, last = located(changed, path)
    inner[last] = value
    with suppress(ContractError):
        contract = Contract.from_mapping(changed)
        assert Contract.from_mapping(contract.to_mapping()) == contract


def header(descr: str, *shape: int, fortran: bool = False) -> NpyHeader:
    return NpyHeader(descr, fortran, shape, 128)


def test_headers_report_every_breach() -> None:
    """Only the first mistake is shown, so a person corrects a shard once per mistake."""
    contract = Contract.from_mapping(table())
    found = judge_headers(contract, {
        "features": header("<f8", 9, 3, 6, 6, fortran=True), "policy": header("<f4", 8, 7),
        "game": header("<i2", 9, 1), "note": header("|u1", 4, 0), "other": header("|u1", 2),
    })  # fmt: skip
    assert [(reason.member, reason.defect) for reason in found.reasons] == [
        ("features.npy", Defect.DTYPE), ("features.npy", Defect.ORDER), ("features.npy", Defect.SHAPE),
        ("policy.npy", Defect.SHAPE), ("legal.npy", Defect.MISSING_ARRAY), ("legal.npy", Defect.MISSING_ARRAY),
        ("game.npy", Defect.DTYPE), ("game.npy", Defect.SHAPE), ("other.npy", Defect.EXTRA_ARRAY),
        ("note.npy", Defect.SHAPE),
    ]  # fmt: skip
    assert found.samples == 9
    assert "N = 9, as in 'features'" in found.reasons[3].text


@given(samples=st.integers(0, 10), least=st.integers(0, 10))
def test_min_samples(samples: int, least: int) -> None:
    """The least number of samples is taken as more than, or not looked at."""
    contract = Contract.from_mapping(
        {"arrays": {"a": {"dtype": "<f4", "shape": ["N"]}}, "min_samples": least}
    )
    found = judge_headers(contract, {"a": header("<f4", samples)})
    assert found.samples == samples
    assert [reason.defect for reason in found.reasons] == (
        [Defect.TOO_FEW_SAMPLES] if samples < least else []
    )
