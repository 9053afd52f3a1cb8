"""The filter of operations on many jobs: what people write is what is meant, and slips are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import UsageError
from gamekeeper.core.job_filter import JobFilter, parse
from gamekeeper.core.jobs import JobState

TEXTS = st.text(
    st.characters(categories=("L", "N", "P", "S"), include_characters=" "), min_size=1, max_size=20
)
LISTS = st.lists(TEXTS, max_size=3).map(tuple)
AGES = st.integers(0, 10**8)


@st.composite
def filters(draw: st.DrawFn) -> JobFilter:
    ages = sorted(draw(st.lists(AGES, min_size=2, max_size=2)))
    return JobFilter(
        ids=tuple(draw(st.lists(st.integers(1, 10**9), max_size=4))),
        state=tuple(draw(st.lists(st.sampled_from(sorted(JobState)), max_size=3))),
        line=draw(LISTS),
        kind=draw(LISTS),
        purpose=draw(LISTS),
        producer=draw(LISTS),
        reason=draw(st.just("") | TEXTS),
        older=draw(st.none() | st.just(ages[0])),
        newer=draw(st.none() | st.just(ages[1])),
    )


@given(filters())
def test_a_filter_is_what_its_words_say(wanted: JobFilter) -> None:
    """A stored operation would go on with another filter after a restart."""
    assert parse(str(wanted)) == wanted


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_usage_error(text: str) -> None:
    """A slip of a person would be a fault of ours."""
    try:
        found = parse(text)
    except UsageError:
        return
    assert parse(str(found)) == found


def test_all_conditions_are_read() -> None:
    """A condition that is dropped makes an operation hit more jobs than were named."""
    text = """state=failed,dead line=c4 kind=train purpose= reason~'out of memory' older=2d newer=1w producer=x"""
    assert parse(text, [3, 4]) == JobFilter(
        (3, 4), (JobState.FAILED, JobState.DEAD), ("c4",), ("train",), ("",), ("x",), "out of memory",
        2 * 86400, 7 * 86400,
    )  # fmt: skip
    assert parse("").is_empty
    assert not parse("older=0s").is_empty


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("state=fialed", "'fialed' is not a job state"),
        ("lin=c4", "nothing jobs are chosen by"),
        ("state~failed", "compared by ="),
        ("reason=x", "compared by ~"),
        ("reason~", "needs a text"),
        ("older=2x", "is no age"),
        ("older=3d newer=2d", "older"),
        ("state=failed state=dead", "given twice"),
        ("id=1,x", "not a job number"),
        ("id=0", "ids"),
        ("line=", "names nothing"),
        ("line='a", "cannot be read"),
        ("failed", "no condition"),
        ("line='a\\'", "backslash"),
        ("line=" + ",".join("a" * 51), "more than 50"),
    ],
)
def test_slips_are_named(text: str, words: str) -> None:
    """A condition that is misread would hit other jobs than the person meant."""
    with pytest.raises(UsageError, match=words) as caught:
        parse(text)
    assert caught.value.message
