"""Values on their way into a column and back."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import Corrupt, UsageError
from gamekeeper.store import encoding

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(value=JSON)
def test_json_comes_back_as_it_was(value: object) -> None:
    """Breaks if any JSON value is changed by being stored, or is stored in letters a database may refuse."""
    stored = encoding.to_json(value)
    assert stored.isascii()
    assert encoding.from_json(stored) == value


@given(
    words=st.text(
        alphabet=st.characters(min_codepoint=0, max_codepoint=0x10FFFF, exclude_categories=()), max_size=60
    )
)
def test_any_words_can_be_stored(words: str) -> None:
    """Breaks if a text from outside cannot be written, or sound text is changed."""
    clean = encoding.sentence(words, 50)
    assert len(clean) <= 50
    assert "\x00" not in clean
    assert clean.encode("utf-8").decode("utf-8") == clean
    if "\x00" not in words and not any(0xD800 <= ord(letter) <= 0xDFFF for letter in words):
        assert clean == words[:50]


def test_mappings_of_any_kind_are_objects() -> None:
    """Breaks if a frozen mapping cannot be stored."""
    assert encoding.object_of(encoding.to_json(MappingProxyType({"a": (1, 2)}))) == {"a": [1, 2]}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object(), {1, 2}, b"bytes", "x" * (encoding.MAX_JSON + 1)]
)
def test_what_is_no_json_or_too_long_is_refused(value: object) -> None:
    """Breaks if a value is stored that reads back as something else, or without bound."""
    with pytest.raises(UsageError):
        encoding.to_json(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    """Breaks if an endless value takes the writer down."""
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(UsageError):
        encoding.to_json(endless)


@pytest.mark.parametrize("stored", ["", "{", "[1]", '"a"', "1"])
def test_a_damaged_object_is_named(stored: str) -> None:
    """Breaks if damaged text is taken for an empty object."""
    with pytest.raises(Corrupt, match="stored JSON"):
        encoding.object_of(stored)
