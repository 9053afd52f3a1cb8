"""Secrets in settings are shown to nobody."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.settings import load, look
from gamekeeper.settings.masking import masked
from gamekeeper.settings.overview import rows
from tests.unit.settings.documents import refusal

SECRET = "geheim"
URL = ("store", "url")


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        (URL, f"postgresql://u:{SECRET}@h:5432/d", "postgresql://u:***@h:5432/d"),
        (URL, f"postgresql://u:{SECRET}@h1,h2:5/d", "postgresql://u:***@h1,h2:5/d"),
        (URL, f"postgresql://:{SECRET}@h/d", "postgresql://:***@h/d"),
        (URL, f"postgresql://u@h/d?password={SECRET}&a=1", "postgresql://u@h/d?password=***&a=1"),
        (URL, f"host=h password='{SECRET} x' user=u", "host=h password=*** user=u"),
        (URL, f"postgresql://u:a@{SECRET}@h/d", "postgresql://u:***@h/d"),
        (URL, f"u:{SECRET}@h/d", "***"),
        (URL, "postgresql://u@h/d", "postgresql://u@h/d"),
        (URL, "", ""),
        (("agent", "url"), f"https://u:{SECRET}@h", "https://u:***@h"),
        (("lines", "x", "train", "parameters", "api_key"), SECRET, "***"),
        (("parameters",), {"a_token": SECRET, "max_tokens": 5}, {"a_token": "***", "max_tokens": 5}),
        (("lines", "x", "train", "command"), ["p", f"s3://a:{SECRET}@b"], ["p", "s3://a:***@b"]),
        (("store", "passfile"), "pg.pass", "pg.pass"),
        (("seed",), 5, 5),
    ],
)  # fmt: skip
def test_secrets_are_hidden_and_nothing_else(path: tuple[str, ...], value: object, shown: object) -> None:
    """A password could be read on a screen, or a plain value be hidden from its owner."""
    assert masked(path, value) == shown


@given(
    secret=st.text(alphabet="abcXYZ019!$%^*()_+-=:;,.@~ '\"", max_size=12).map("zq{}qz".format),
    form=st.sampled_from(["postgresql://user:{}@host/name", "postgres://user:{}@host", "user:{}@host/name"]),
)
def test_no_password_is_ever_shown_or_repeated_by_an_error(secret: str, form: str) -> None:
    """A password with odd characters in it could be shown in part."""
    url = form.format(secret)
    assert secret not in str(masked(URL, url))
    read = partial(load, None, environment={"GAMEKEEPER_STORE__URL": url})
    error = refusal(read)
    if error is not None:
        assert secret not in f"{error.message} {error.remedy}"
        return
    found = read()
    assert secret not in repr([row for row in rows(found) if row.path == URL])
    assert secret not in repr(found)
    assert secret not in repr(look(None, environment={"GAMEKEEPER_STORE__URL": url}))
    assert secret not in repr(found.store)
