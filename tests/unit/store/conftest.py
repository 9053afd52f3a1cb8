"""Every test that asks for `rig` runs on every engine: they mean the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.store.rig import ENGINES, Rig, open_rig


@pytest.fixture(params=ENGINES)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A fresh store; when the test is over, its state must break no invariant."""
    opened = open_rig(request.param, tmp_path)
    try:
        yield opened
        opened.check()
    finally:
        opened.close()
