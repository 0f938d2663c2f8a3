"""Indexes for what pages show as the latest: evictions, and a person's jobs that have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add them."""
    evicted = sa.text("outcome = 'evicted'")
    op.create_index("attempts_evicted", "attempts", ["ended_at"], sqlite_where=evicted, postgresql_where=evicted)
    ended = sa.text("ended_at IS NOT NULL AND array_id IS NULL")
    op.create_index("jobs_ended_of", "jobs", ["owner", "ended_at"], sqlite_where=ended, postgresql_where=ended)
