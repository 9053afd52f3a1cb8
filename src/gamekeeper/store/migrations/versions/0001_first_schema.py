"""The first schema."""

from __future__ import annotations

from alembic import op

from gamekeeper.store import schema

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    schema.metadata.create_all(op.get_bind())
    op.execute("INSERT INTO fence (id, value) VALUES (1, 0)")
