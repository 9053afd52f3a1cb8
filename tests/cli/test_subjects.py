"""How people name things."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.cli.subjects import KINDS, Subject, parse_subject
from gamekeeper.core.errors import UsageError


@given(st.integers(0, 10**9))
def test_all_spellings_of_a_job_mean_the_same(number: int) -> None:
    """`why j17` would explain something else than `why job 17`."""
    spellings = [("job", str(number)), (f"job/{number}", None), (f"j{number}", None), ("j", str(number)),
                 ("JOB", f"#{number}")]  # fmt: skip
    assert {parse_subject(*words, kinds=KINDS) for words in spellings} == {Subject("job", str(number))}


@pytest.mark.parametrize(
    "words",
    [("job", None), ("17", None), ("jb", "17"), ("job", "x17"), ("job/", None), ("job", "../../etc"), ("job", ""),
     ("model", "a b"), ("artifact", "ff"), ("line", "x/y"), ("", None), ("job", "17?x=1")],
)  # fmt: skip
def test_what_names_nothing_is_refused_with_an_example(words: tuple[str, str | None]) -> None:
    """A mistyped name would reach the coordinator as a path of its API."""
    with pytest.raises(UsageError) as caught:
        parse_subject(*words, kinds=KINDS)
    assert caught.value.remedy


def test_stories_may_be_of_more_kinds_than_explanations() -> None:
    """`events --of artifact/...` would be impossible."""
    assert str(parse_subject("artifact/" + "f" * 64, None)) == "artifact/" + "f" * 64
