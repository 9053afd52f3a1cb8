"""The error tree: codes, exit codes, and the way over the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core import errors
from gamekeeper.core.errors import Busy, GamekeeperError, from_json


def tree(cls: type[GamekeeperError]) -> list[type[GamekeeperError]]:
    return [cls, *(one for child in cls.__subclasses__() for one in tree(child))]


KINDS = [cls for cls in tree(GamekeeperError) if cls.__module__ == errors.__name__]
EXIT_CODES = {
    "error": 1, "usage": 2, "settings": 2, "not-found": 1, "unreachable": 4, "not-allowed": 4, "refused": 5,
    "role-held": 5, "stale-token": 5, "illegal-transition": 5, "busy": 6, "storage-full": 1, "corrupt": 1,
}  # fmt: skip


def test_codes_and_exit_codes_are_as_documented() -> None:
    """Scripts rely on both; a change is a break."""
    assert {cls.code: cls.exit_code for cls in KINDS} == EXIT_CODES
    assert len(KINDS) == len(EXIT_CODES)


def test_the_tree_in_the_text_is_the_tree_in_the_code() -> None:
    """The first thing people read must not lie."""
    text = errors.__doc__ or ""
    for cls in KINDS[1:]:
        (row,) = [row for row in text.splitlines() if f"── {cls.__name__} " in row]
        assert row.split(cls.__name__)[1].split()[0] == str(cls.exit_code)


@pytest.mark.parametrize("cls", KINDS)
@given(message=st.text(max_size=30), remedy=st.text(max_size=30))
def test_errors_survive_the_wire(cls: type[GamekeeperError], message: str, remedy: str) -> None:
    """An error that comes back as another class ends with another exit code."""
    error = cls(message, remedy=remedy)
    back = from_json(dict(error.as_json()))
    assert type(back) is cls
    assert (back.message, back.remedy, str(back)) == (message, remedy, message)
    assert back.as_json() == error.as_json() == {"code": cls.code, "message": message, "remedy": remedy}


@pytest.mark.parametrize(
    "document", [{}, {"code": "gone"}, {"code": None}, {"code": ["busy"]}, {"code": "error"}]
)
def test_an_unknown_code_is_a_plain_error(document: dict[str, object]) -> None:
    """A later coordinator may know more codes; its message must still be shown."""
    back = from_json({**document, "message": "as it said"})
    assert type(back) is GamekeeperError
    assert back.message == "as it said"
    assert from_json(document).message == "unknown error"


def test_busy_says_when_to_come_back() -> None:
    """Without a time, clients hammer."""
    assert Busy("full", retry_after_s=7.5).retry_after_s == 7.5
    assert Busy("full").retry_after_s == 1.0


def test_busy_keeps_its_time_over_the_wire() -> None:
    """The server's wish is lost if the wire drops it."""
    body: dict[str, object] = {"code": "busy", "message": "full", "remedy": "", "retry_after_s": 7.5}
    back = from_json(body)
    assert isinstance(back, Busy)
    assert back.retry_after_s == 7.5


@pytest.mark.parametrize("value", [None, "soon", -1.0, float("nan"), float("inf"), True])
def test_a_nonsense_time_is_the_default(value: object) -> None:
    """A wait of NaN or for ever would hang the client."""
    back = from_json({"code": "busy", "message": "full", "retry_after_s": value})
    assert isinstance(back, Busy)
    assert back.retry_after_s == 1.0
