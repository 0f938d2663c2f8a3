"""The project tree with its people and quotas, reservations, and what the queue knows of jobs by it."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables and columns."""
    _create_tree()
    _create_reservations()
    _extend_jobs()
    _extend_attempts()
    _extend_sites()
    _create_queue()


def _create_tree() -> None:
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


def _create_reservations() -> None:
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


def _extend_jobs() -> None:
    for column in (
        sa.Column("walltime", sa.BigInteger(), nullable=True),
        sa.Column("grace", sa.Integer(), server_default="30", nullable=False),
        sa.Column("evictions", sa.Integer(), server_default="0", nullable=False),
        sa.Column("promised_site", sa.String(length=63), nullable=True),
        sa.Column("promised_flavor", sa.String(length=63), nullable=True),
        sa.Column("promised_count", sa.Integer(), nullable=True),
    ):
        op.add_column("jobs", column)
    _fill_jobs()


def _fill_jobs() -> None:
    """Give jobs that have not ended, and the tasks of such arrays, the limits that their specifications say."""
    connection = op.get_bind()
    query = sa.text("SELECT id, spec FROM jobs WHERE spec IS NOT NULL AND ended_at IS NULL")
    change = sa.text("UPDATE jobs SET walltime = :walltime, grace = :grace WHERE id = :id OR array_id = :id")
    rows = []
    for row in connection.execute(query):
        spec = json.loads(row.spec)
        walltime, grace = spec.get("walltime"), spec.get("grace", 30)
        if walltime is not None or grace != 30:
            rows.append({"id": row.id, "walltime": walltime, "grace": grace})
    if rows:
        connection.execute(change, rows)


def _extend_attempts() -> None:
    for column in (
        sa.Column("evicted_for", sa.BigInteger(), nullable=True),
        sa.Column("notice_at", sa.BigInteger(), nullable=True),
        sa.Column("saved_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("attempts", column)


def _extend_sites() -> None:
    for column in (
        sa.Column("clearance", sa.Text(), server_default="[]", nullable=False),
        sa.Column("price", sa.Text(), nullable=True),
        sa.Column("energy", sa.Float(), nullable=True),
        sa.Column("wait", sa.Integer(), server_default="0", nullable=False),
    ):
        op.add_column("sites", column)


def _create_queue() -> None:
    op.create_table(
        "reserved",
        sa.Column("job_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("site", sa.String(length=63), nullable=False),
        sa.Column("flavor", sa.String(length=63), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "forecasts",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("learnt", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "questions",
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("person"),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "spent",
        sa.Column("project", sa.String(length=63), nullable=False),
        sa.Column("person", sa.String(length=255), nullable=False),
        sa.Column("flavor", sa.String(length=63), nullable=False),
        sa.Column("opportunistic", sa.Boolean(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("cpu", sa.BigInteger(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("gpu", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "person", "flavor", "opportunistic", "day"),
    )
    op.create_index("spent_day", "spent", ["day"], unique=False)
