"""Views of the list of jobs that people keep, and an index for the list."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table and the index."""
    op.create_table(
        "views",
        sa.Column("person", sa.String(255), nullable=False),
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("query", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("person", "name"),
    )
    whole = sa.text("array_id IS NULL")
    op.create_index(
        "jobs_listed", "jobs",
        ["owner", "id", "state", "class", "site", "project", "name", "started_at", "array_id"],
        sqlite_where=whole, postgresql_where=whole,
    )  # fmt: skip
