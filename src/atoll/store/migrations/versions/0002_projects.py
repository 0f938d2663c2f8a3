"""The project tree with its people and quotas, and reservations."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create their tables."""
    op.create_table(
        "projects",
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("parent", sa.String(length=63), nullable=True),
        sa.Column("weight", sa.Float(), nullable=False),
        sa.Column("clearance", sa.Text(), server_default="[]", nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("ends", sa.String(length=10), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "project_people",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("member", sa.Boolean(), nullable=False),
        sa.Column("manager", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("project", "person"),
    )
    op.create_table(
        "quotas",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("flavor", sa.String(length=63), nullable=False),
        sa.Column("resource", sa.String(length=16), nullable=False),
        sa.Column("nominal", sa.BigInteger(), nullable=False),
        sa.Column("borrowing", sa.BigInteger(), nullable=True),
        sa.Column("lending", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("project", "flavor", "resource"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("flavor", sa.String(length=63), nullable=False),
        sa.Column("site", sa.String(length=63), nullable=True),
        sa.Column("nodes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cpu", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("memory", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("gpu", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("project", sa.String(length=63), nullable=True),
        sa.Column("people", sa.Text(), server_default="[]", nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_reservations_ends_at"), "reservations", ["ends_at"], unique=False)
