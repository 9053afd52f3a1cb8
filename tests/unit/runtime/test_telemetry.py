"""The log: one line an event, for people or machines, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from gamekeeper.runtime.telemetry import HIDDEN, configure, hide_secrets, logger


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_carry_all_fields() -> None:
    """A machine could not read the log, or miss what happened."""
    out = io.StringIO()
    configure(as_json=True, stream=out)
    logger("part").info("happened", job=17)
    logging.getLogger("uvicorn").warning("from elsewhere")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["job"], first["part"], first["level"]) == ("happened", 17, "part", "info")
    assert second["event"] == "from elsewhere"


def test_levels_below_the_chosen_one_are_left_out() -> None:
    """Debugging noise could fill the disk."""
    out = io.StringIO()
    configure(as_json=True, level="warning", stream=out)
    logger("part").info("quiet")
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    "key", ["admin_token", "token", "Authorization", "credential", "node_credential", "password"]
)
def test_secrets_are_hidden_wherever_they_stand(key: str) -> None:
    """A token could be read from a log file."""
    shown = hide_secrets(
        None, "info", {key: "s3cret", "nested": {key: ["s3cret"]}, "event": "Bearer s3cret was sent"}
    )
    assert "s3cret" not in str(shown)
    assert HIDDEN in str(shown["event"])


def test_fencing_tokens_and_plain_words_are_kept() -> None:
    """The numbers that explain a refusal could be hidden with the secrets."""
    assert hide_secrets(None, "info", {"token": 41, "event": "x"}) == {"token": 41, "event": "x"}


def test_the_console_form_is_readable() -> None:
    """People could be shown JSON."""
    out = io.StringIO()
    configure(as_json=False, stream=out)
    logger("part").warning("happened", job=17)
    assert "happened" in out.getvalue()
    assert "job=17" in out.getvalue()
