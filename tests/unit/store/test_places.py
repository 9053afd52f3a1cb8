"""Which store is meant, what may be shown of it, and who needs a driver for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import UsageError
from gamekeeper.store import places
from gamekeeper.store.engine import FileStore, Store


def test_a_file_is_no_server(tmp_path: Path) -> None:
    """Breaks if a path is taken for an address, or an address makes a folder."""
    for place in ("gamekeeper.db", "/tmp/postgresql.db", "postgresql:/x", "postgresqlx://a/b"):
        assert not places.is_server(place)
        assert places.shown(place) == place
    assert places.is_server("postgres://a/b")
    with Store.open(tmp_path / "postgresql.db", SystemClock()) as store:
        assert isinstance(store, FileStore)


@given(password=st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6))
def test_no_password_is_ever_shown(password: str) -> None:
    """Breaks if any spelling of a password, encoded or not, gets into what people see."""
    rest = "host.example:5432/games"
    shown = places.shown(f"postgresql://me:{password}@{rest}?sslmode=require&password={password}")
    assert shown in {f"postgresql://me@{rest}", "postgresql://..."}
    assert places.shown(f"postgresql://{rest}?password={password.replace('@', '')}") == f"postgresql://{rest}"


def test_a_missing_driver_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if those who did not install the extra meet a traceback."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match="psycopg") as caught:
        Store.open("postgresql://me@host/db", SystemClock())
    assert "gamekeeper[postgres]" in caught.value.remedy


def test_files_need_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Breaks if users of SQLite must install what only a server needs."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with Store.open(tmp_path / "gamekeeper.db", SystemClock()) as store:
        assert store.write(lambda w: w.next_token()) == 1
