"""What the tests of the coordinator start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.server.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A coordinator with one connected node."""
    made = Rig(tmp_path / "artifacts")
    made.join()
    return made
