"""Which nodes attempts are on, when engines expect to start them, and usual waits by class."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, and bring the usual waits into their new form."""
    op.add_column("attempts", sa.Column("spots", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("expected_at", sa.BigInteger(), nullable=True))
    connection = op.get_bind()
    known = connection.execute(sa.text("SELECT name, wait FROM sites WHERE wait > 0")).all()
    with op.batch_alter_table("sites") as sites:
        sites.drop_column("wait")
        sites.add_column(sa.Column("wait", sa.Text(), server_default="{}", nullable=False))
    for name, seconds in known:
        change = sa.text("UPDATE sites SET wait = :wait WHERE name = :name")
        connection.execute(change, {"name": name, "wait": json.dumps({"all": seconds})})
