"""No deadlines: the machines that run these tests are busy with other things."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("cli", deadline=None)
settings.load_profile("cli")
