"""Receipts: what proves work, what is malformed, what is hollow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.receipts import (
    BUILT_IN_KINDS,
    MAX_COUNT,
    MAX_LIST,
    FieldType,
    JobKind,
    Proof,
    ReceiptField,
    examine,
    is_hash,
)

H, G = "a" * 64, "0123456789abcdef" * 4
GOOD: dict[FieldType, Any] = {
    FieldType.COUNT: 3,
    FieldType.NUMBER: -0.5,
    FieldType.HASH: H,
    FieldType.HASHES: [H, G],
    FieldType.PAIRS: [[0, 1, 0.5, H], [7, 0, 0.0, H]],
    FieldType.TEXT: "fine",
}
EMPTY: list[tuple[FieldType, Any]] = [
    (FieldType.COUNT, 0),
    (FieldType.HASHES, []),
    (FieldType.PAIRS, []),
    (FieldType.TEXT, ""),
    (FieldType.TEXT, " \n\t"),
]
WRONG: list[tuple[FieldType, Any]] = [
    (FieldType.COUNT, -1),
    (FieldType.COUNT, 1.0),
    (FieldType.COUNT, True),
    (FieldType.COUNT, "3"),
    (FieldType.COUNT, None),
    (FieldType.NUMBER, float("nan")),
    (FieldType.NUMBER, float("inf")),
    (FieldType.NUMBER, False),
    (FieldType.NUMBER, "0.1"),
    (FieldType.HASH, "A" * 64),
    (FieldType.HASH, "a" * 63),
    (FieldType.HASH, "a" * 65),
    (FieldType.HASH, "a" * 64 + "\n"),
    (FieldType.HASH, None),
    (FieldType.HASHES, [H, "b"]),
    (FieldType.HASHES, [None]),
    (FieldType.HASHES, [H, None]),
    (FieldType.HASHES, [H, H]),
    (FieldType.HASHES, H),
    (FieldType.HASHES, {H: 1}),
    (FieldType.HASHES, [[H]]),
    (FieldType.HASHES, [f"{n:064x}" for n in range(MAX_LIST + 1)]),
    (FieldType.PAIRS, [[0, 1, 1]]),
    (FieldType.PAIRS, [[0, 1, 1, H, 2]]),
    (FieldType.PAIRS, [[0, 0.3, 1, H]]),
    (FieldType.PAIRS, [[0, 1, 2, H]]),
    (FieldType.PAIRS, [[0, True, 1, H]]),
    (FieldType.PAIRS, [[0, 1, None, H]]),
    (FieldType.PAIRS, [[-1, 1, 1, H]]),
    (FieldType.PAIRS, [[True, 1, 1, H]]),
    (FieldType.PAIRS, [[0.0, 1, 1, H]]),
    (FieldType.PAIRS, [[0, 1, 1, "x"]]),
    (FieldType.PAIRS, ["0110"]),
    (FieldType.PAIRS, [None]),
    (FieldType.PAIRS, [[0, 1, 1, H], None]),
    (FieldType.PAIRS, [[None, 1, 1, H]]),
    (FieldType.PAIRS, [[0, 1, 1, H], [0, 0, 0, H]]),
    (FieldType.PAIRS, "pairs"),
    (FieldType.TEXT, 5),
    (FieldType.TEXT, "x" * (MAX_LIST + 1)),
]


def kind(*types: FieldType) -> JobKind:
    return JobKind("k", "units", tuple(ReceiptField(f"f{index}", one) for index, one in enumerate(types)))


def good(one: JobKind) -> dict[str, Any]:
    return {item.name: GOOD[item.type] for item in one.receipt}


@pytest.mark.parametrize("name", BUILT_IN_KINDS)
def test_a_full_receipt_of_each_kind_is_good(name: str) -> None:
    """A correct job whose receipt is refused would never end."""
    assert examine(BUILT_IN_KINDS[name], good(BUILT_IN_KINDS[name])).proof is Proof.GOOD
    assert BUILT_IN_KINDS[name].name == name
    assert BUILT_IN_KINDS[name].progress_unit


@pytest.mark.parametrize(
    ("name", "field"), [(n, f.name) for n, k in BUILT_IN_KINDS.items() for f in k.receipt]
)
def test_no_field_has_a_default(name: str, field: str) -> None:
    """A missing field is missing evidence, whichever it is."""
    receipt = good(BUILT_IN_KINDS[name])
    del receipt[field]
    finding = examine(BUILT_IN_KINDS[name], receipt)
    assert (finding.proof, finding.problems) == (Proof.HOLLOW, (f"field '{field}' is missing",))


@pytest.mark.parametrize(
    ("name", "field"), [(n, f.name) for n, k in BUILT_IN_KINDS.items() for f in k.receipt]
)
def test_a_field_that_is_none_is_malformed(name: str, field: str) -> None:
    """null is not a measurement."""
    finding = examine(BUILT_IN_KINDS[name], good(BUILT_IN_KINDS[name]) | {field: None})
    assert finding.proof is Proof.MALFORMED
    assert len(finding.problems) == 1
    assert finding.problems[0].startswith(field)


@pytest.mark.parametrize("name", BUILT_IN_KINDS)
def test_nothing_at_all_is_hollow(name: str) -> None:
    """Exit code 0 without a receipt is the class of failure this exists for."""
    assert examine(BUILT_IN_KINDS[name], None).proof is Proof.HOLLOW
    finding = examine(BUILT_IN_KINDS[name], {})
    assert finding.proof is Proof.HOLLOW
    assert len(finding.problems) == len(BUILT_IN_KINDS[name].receipt)


@pytest.mark.parametrize("receipt", [[], "done", 1, True, [["games", 3]]])
def test_anything_but_an_object_is_malformed(receipt: object) -> None:
    """A list or a word cannot hold evidence by name."""
    assert examine(BUILT_IN_KINDS["selfplay"], receipt).proof is Proof.MALFORMED


@pytest.mark.parametrize(("of", "value"), WRONG)
def test_a_wrong_value_is_malformed_and_named(of: FieldType, value: object) -> None:
    """Untrusted input: each trick of JSON has to be seen as what it is."""
    finding = examine(kind(of), {"f0": value})
    assert finding.proof is Proof.MALFORMED
    assert finding.problems[0].startswith("f0 ")
    assert len(finding.problems[0]) < 200


@pytest.mark.parametrize(("of", "value"), EMPTY)
def test_an_empty_value_is_hollow_and_named(of: FieldType, value: object) -> None:
    """Zero games is not few games."""
    finding = examine(kind(of), {"f0": value})
    assert finding.proof is Proof.HOLLOW
    assert finding.problems[0].startswith("f0 is ")


@given(st.lists(st.sampled_from(FieldType), min_size=1, max_size=5), st.data())
@settings(max_examples=80, deadline=None)
def test_one_wrong_field_spoils_any_receipt(types: list[FieldType], data: st.DataObject) -> None:
    """The verdict is over all fields; the last one counts as much as the first."""
    schema = kind(*types)
    index = data.draw(st.integers(0, len(types) - 1))
    bad = [value for of, value in WRONG if of is types[index]]
    receipt = good(schema) | {f"f{index}": data.draw(st.sampled_from(bad))}
    assert examine(schema, good(schema)).proof is Proof.GOOD
    assert examine(schema, receipt).proof is Proof.MALFORMED


@given(st.lists(st.sampled_from(FieldType), min_size=2, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_malformed_outweighs_hollow_and_all_problems_are_told(
    types: list[FieldType], data: st.DataObject
) -> None:
    """A lie is worse than nothing; and the report names both."""
    schema = kind(*types)
    receipt = good(schema)
    del receipt["f0"]
    bad = [value for of, value in WRONG if of is types[1]]
    finding = examine(schema, receipt | {"f1": data.draw(st.sampled_from(bad))})
    assert finding.proof is Proof.MALFORMED
    assert len(finding.problems) == 2


@given(st.text(max_size=8), st.sampled_from(sorted(BUILT_IN_KINDS)))
def test_unknown_fields_are_malformed(extra: str, name: str) -> None:
    """A misspelt field must not pass as an extra beside a missing one."""
    schema = BUILT_IN_KINDS[name]
    if extra in {item.name for item in schema.receipt}:
        return
    finding = examine(schema, good(schema) | {extra: 1})
    assert finding.problems == (f"unknown field {extra!r:.40}",)
    assert finding.proof is Proof.MALFORMED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.sampled_from(sorted(BUILT_IN_KINDS)),
    st.dictionaries(
        st.sampled_from(["games", "samples", "shards", "pairs", "loss", "model", "summary"]), json_values
    )
    | json_values,
)
@settings(max_examples=150, deadline=None)
def test_any_json_gets_a_finding_and_never_an_error(name: str, receipt: object) -> None:
    """A receipt comes from a stranger's program: no value may break the coordinator, and noise proves nothing."""
    finding = examine(BUILT_IN_KINDS[name], receipt)
    assert (finding.proof is Proof.GOOD) == (finding.problems == ())
    if finding.proof is Proof.GOOD:
        assert name == "command"


@pytest.mark.parametrize("of", [FieldType.NUMBER, FieldType.COUNT])
@pytest.mark.parametrize("power", [400, 20])
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_beyond_floats_and_columns_are_judged_not_raised(
    of: FieldType, power: int, sign: int
) -> None:
    """JSON has whole numbers that no float or column holds; storing one would raise after the judgement."""
    assert examine(kind(of), {"f0": sign * 10**power}).proof is Proof.MALFORMED
    pairs = [[10**power, 1, 1, H]]
    assert examine(kind(FieldType.PAIRS), {"f0": pairs}).proof is Proof.MALFORMED


@pytest.mark.parametrize("of", [FieldType.NUMBER, FieldType.COUNT])
def test_the_largest_exact_number_is_allowed(of: FieldType) -> None:
    """The bound itself is a number."""
    assert examine(kind(of), {"f0": MAX_COUNT}).proof is Proof.GOOD
    assert examine(kind(of), {"f0": MAX_COUNT + 1}).proof is Proof.MALFORMED
    assert examine(kind(FieldType.NUMBER), {"f0": -MAX_COUNT}).proof is Proof.GOOD


def test_a_flood_of_unknown_fields_makes_a_short_report() -> None:
    """The finding goes into the attempt's record: its size may not follow the stranger's."""
    finding = examine(kind(FieldType.COUNT), {"f0": 1} | {f"{n}" + "x" * 1000: 1 for n in range(1000)})
    assert finding.proof is Proof.MALFORMED
    assert sum(map(len, finding.problems)) < 400


@pytest.mark.parametrize("value", [H, G, "0" * 64])
def test_a_hash_is_64_lower_case_digits(value: str) -> None:
    """One spelling for one content."""
    assert is_hash(value)
    assert not is_hash(value[:-1])
    assert not is_hash(value[:-1] + "g")
    assert not is_hash(value.encode())
