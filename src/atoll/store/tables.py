"""The tables, as SQLAlchemy Core knows them. Times are integer microseconds UTC, amounts integers in base units."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Sequence,
    String,
    Table,
    Text,
    false,
    text,
)  # fmt: skip

metadata = MetaData()

job_ids = Sequence("job_ids", metadata=metadata)
"""Where PostgreSQL takes job ids from; SQLite has the row `job_ids` of `counters`."""

FIRST_TASK_ROW = 2**40
task_ids = Sequence("task_ids", metadata=metadata, start=FIRST_TASK_ROW)
"""Ids of the rows of array tasks: apart from job ids, so that those rise by one from job to job."""

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about this platform, such as its instance id."""

people = Table(
    "people",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("account", String(64)),
    Column("created_at", BigInteger, nullable=False),
    Column("password", Text),
    Column("disabled_at", BigInteger),
)
"""`password` is argon2id's text of it, with salt and parameters; null: cannot log in by a password."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("person", String(255), nullable=False, index=True),
    Column("name", String(255), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

logins = Table(
    "logins",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("person", String(255), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False),
)
"""Browsers in which somebody is logged in: the digest of what is in the cookie, and about when it was last sent."""

once_links = Table(
    "once_links",
    metadata,
    Column("person", String(255), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("expires_at", BigInteger, nullable=False),
)
"""Links by which a person chooses a password; a new one replaces the former."""

tries = Table(
    "tries",
    metadata,
    Column("key", LargeBinary(32), primary_key=True),
    Column("tried", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
)
"""How often something was tried in vain by a name or from an address (whose digest is the key), and when last."""

device_logins = Table(
    "device_logins",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("code", String(8), nullable=False, unique=True),
    Column("machine", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("gap", Integer, nullable=False),
    Column("asked_at", BigInteger),
    Column("person", String(255)),
    Column("approved", Boolean),
)
"""Command lines that wait to be let in; `gap` is how many seconds apart they may ask."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    # a task of an array that has left its ranges is a row of its own: array_id and task are set, spec is the array's
    Column("array_id", BigInteger),
    Column("task", Integer),
    Column("owner", String(255), nullable=False),
    Column("project", String(63)),
    Column("name", String(255), nullable=False),
    Column("class", String(16), nullable=False, key="class_"),
    Column("spec", Text),
    Column("state", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("sentence", Text),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("cpu", BigInteger, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("gpu", BigInteger, nullable=False),
    Column("nodes", Integer, nullable=False),
    Column("submitted_at", BigInteger, nullable=False),
    Column("not_before", BigInteger, nullable=False, server_default="0"),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("hold", Boolean, nullable=False, server_default=false()),
    Column("blockers", Integer, nullable=False, server_default="0"),
    Column("cancel", Boolean, nullable=False, server_default=false()),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("faults", Integer, nullable=False, server_default="0"),
    Column("attempt_id", String(32)),
    Column("site", String(63)),
    Column("outcome", String(16)),
    Column("exit_code", Integer),
    # in seconds: how long it may run at most, and takes to end once asked to
    Column("walltime", BigInteger),
    Column("grace", Integer, nullable=False, server_default="30"),
    Column("evictions", Integer, nullable=False, server_default="0"),
    # while it waits: room that others leave for it, so many times its size
    Column("promised_site", String(63)),
    Column("promised_flavor", String(63)),
    Column("promised_count", Integer),
    # arrays: tasks that wait and tasks that were cancelled unstarted are ranges; the others are rows
    Column("width", Integer),
    Column("task_count", Integer, nullable=False, server_default="1"),
    Column("waiting", Text),
    Column("dropped", Text),
    Column("waiting_count", Integer, nullable=False, server_default="0"),
    Column("active_count", Integer, nullable=False, server_default="0"),
    Column("succeeded_count", Integer, nullable=False, server_default="0"),
    Column("failed_count", Integer, nullable=False, server_default="0"),
    Column("cancelled_count", Integer, nullable=False, server_default="0"),
)
Index("jobs_array", jobs.c.array_id, jobs.c.task, unique=True, sqlite_where=jobs.c.array_id.is_not(None),
      postgresql_where=jobs.c.array_id.is_not(None))  # fmt: skip
_UNENDED = text("state NOT IN ('succeeded', 'failed', 'cancelled')")
Index("jobs_unended", jobs.c.state, jobs.c.id, sqlite_where=_UNENDED, postgresql_where=_UNENDED)
Index("jobs_ended", jobs.c.ended_at, sqlite_where=jobs.c.ended_at.is_not(None),
      postgresql_where=jobs.c.ended_at.is_not(None))  # fmt: skip
Index("jobs_owner", jobs.c.owner, jobs.c.id)
# all that the list of jobs sorts, filters and counts by: it need not read the rows of a hundred thousand for a page
Index("jobs_listed", jobs.c.owner, jobs.c.id, jobs.c.state, jobs.c.class_, jobs.c.site, jobs.c.project, jobs.c.name,
      jobs.c.started_at, jobs.c.array_id, sqlite_where=jobs.c.array_id.is_(None),
      postgresql_where=jobs.c.array_id.is_(None))  # fmt: skip
# what a person's first page shows of what has ended
_WHOLE_ENDED = text("ended_at IS NOT NULL AND array_id IS NULL")
Index("jobs_ended_of", jobs.c.owner, jobs.c.ended_at, sqlite_where=_WHOLE_ENDED, postgresql_where=_WHOLE_ENDED)

dependencies = Table(
    "dependencies",
    metadata,
    Column("job_id", BigInteger, nullable=False),
    Column("on_job", BigInteger, nullable=False),
    Column("on_task", Integer),
    Column("kind", String(8), nullable=False),
    Column("open", Boolean, nullable=False),
    Index("dependencies_job", "job_id"),
    Index("dependencies_on", "on_job", "open"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("job_id", BigInteger, nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("site", String(63), nullable=False),
    Column("flavor", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("cpu", BigInteger, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("gpu", BigInteger, nullable=False),
    Column("nodes", Integer, nullable=False),
    # what it holds of the nodes that Atoll chose, see `spots`; none: the engine chooses
    Column("spots", Text),
    Column("placed_at", BigInteger, nullable=False),
    # the call that hands it over is written down before it is made, with the time by which it has landed or not
    Column("submit_began_at", BigInteger),
    Column("submit_deadline", BigInteger),
    Column("submitted_at", BigInteger),
    # the account at the site that it runs as; none: the site's own
    Column("account", String(255)),
    Column("native_id", Text),
    Column("native_state", Text),
    # when the engine expects to start it, while it waits in the engine's own queue
    Column("expected_at", BigInteger),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("outcome", String(16)),
    Column("permanent", Boolean, nullable=False, server_default=false()),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("message", Text),
    Column("max_memory", BigInteger),
    Column("cpu_seconds", Float),
    Column("stop_reason", String(16)),
    Column("stop_asked_at", BigInteger),
    Column("stop_sent_at", BigInteger),
    Column("grace", Integer),
    # the waiting job that it leaves for, or will, and when it will be asked to, where it was told first
    Column("evicted_for", BigInteger),
    Column("notice_at", BigInteger),
    # when it last wrote a checkpoint; none: never, or nobody knows
    Column("saved_at", BigInteger),
    # begin of the first complete observation that lacked it
    Column("missing_since", BigInteger),
    # whether the site still keeps something of it
    Column("kept", Boolean, nullable=False),
)
Index("attempts_kept", attempts.c.site, attempts.c.state, sqlite_where=attempts.c.kept,
      postgresql_where=attempts.c.kept)  # fmt: skip
_EVICTED = text("outcome = 'evicted'")
Index("attempts_evicted", attempts.c.ended_at, sqlite_where=_EVICTED, postgresql_where=_EVICTED)

logs = Table(
    "logs",
    metadata,
    Column("attempt_id", String(32), nullable=False),
    Column("stream", String(8), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("tail", BigInteger, nullable=False),
    PrimaryKeyConstraint("attempt_id", "stream"),
)
"""What the log store has of an attempt: `head` first and `tail` last bytes of `size`."""

outputs = Table(
    "outputs",
    metadata,
    Column("job_id", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    PrimaryKeyConstraint("job_id", "path"),
)
"""Files that jobs brought out."""

files = Table(
    "files",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=False, index=True),
)
"""Contents in the file store."""

inputs = Table(
    "inputs",
    metadata,
    Column("job_id", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    PrimaryKeyConstraint("job_id", "sha256"),
)
"""Contents that jobs take in: they stay as long as the job is known, so that it can run again."""

file_owners = Table(
    "file_owners",
    metadata,
    Column("sha256", String(64), nullable=False),
    Column("person", String(255), nullable=False),
    PrimaryKeyConstraint("sha256", "person"),
)
"""Who may use a content: those who once showed that they have it by sending it."""

events = Table(
    "events",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("job_id", BigInteger),
    Column("array_id", BigInteger),
    Column("task", Integer),
    Column("owner", String(255)),
    Column("state", String(16)),
    Column("data", Text),
    sqlite_autoincrement=True,
)
"""The outbox. Ids rise in the order of commits, see `events.append`."""

leases = Table(
    "leases",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("person", String(255), nullable=False),
    Column("key", String(255), nullable=False),
    Column("request", LargeBinary(32), nullable=False),
    Column("answer", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("person", "key"),
)

sites = Table(
    "sites",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("driver", String(63), nullable=False),
    Column("labels", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("identity", Text),
    Column("backlog", Text, nullable=False, server_default="{}"),
    Column("clearance", Text, nullable=False, server_default="[]"),
    Column("price", Text),
    Column("energy", Float),
    # the machine of one replica, which alone works with it
    Column("local", Boolean, nullable=False, server_default=false()),
    # rises with each change of the columns above
    Column("revision", Integer, nullable=False, server_default="1"),
    Column("drained", Boolean, nullable=False, server_default=false()),
    Column("health", String(16), nullable=False),
    Column("message", Text, nullable=False, server_default=""),
    Column("report", Text),
    Column("seen_at", BigInteger),
    # JSON: seconds that attempts usually wait in the engine's queue, of all classes and of each
    Column("wait", Text, nullable=False, server_default="{}"),
)

projects = Table(
    "projects",
    metadata,
    Column("name", String(63), primary_key=True),
    # none: the root
    Column("parent", String(63)),
    Column("weight", Float, nullable=False),
    Column("clearance", Text, nullable=False, server_default="[]"),
    Column("description", Text, nullable=False, server_default=""),
    # the last day, as in 2030-01-31
    Column("ends", String(10)),
)
"""The nodes of the project tree. The row `tree` of `counters` rises with each change of it."""

project_people = Table(
    "project_people",
    metadata,
    Column("project", String(63), nullable=False),
    Column("person", String(255), nullable=False),
    Column("member", Boolean, nullable=False),
    Column("manager", Boolean, nullable=False),
    PrimaryKeyConstraint("project", "person"),
)
"""Who may submit to a project, and who may change that."""

quotas = Table(
    "quotas",
    metadata,
    Column("project", String(63), nullable=False),
    Column("flavor", String(63), nullable=False),
    Column("resource", String(16), nullable=False),
    Column("nominal", BigInteger, nullable=False),
    # none: no limit
    Column("borrowing", BigInteger),
    Column("lending", BigInteger),
    PrimaryKeyConstraint("project", "flavor", "resource"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("name", String(63), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("flavor", String(63), nullable=False),
    # none: wherever the flavor is
    Column("site", String(63)),
    # whole nodes, or amounts; the other is 0
    Column("nodes", Integer, nullable=False, server_default="0"),
    Column("cpu", BigInteger, nullable=False, server_default="0"),
    Column("memory", BigInteger, nullable=False, server_default="0"),
    Column("gpu", BigInteger, nullable=False, server_default="0"),
    Column("project", String(63)),
    Column("people", Text, nullable=False, server_default="[]"),
    Column("starts_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger, nullable=False, index=True),
    Column("created_by", String(255), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)
"""Room that is kept for somebody, or for maintenance, from one time to another."""

reserved = Table(
    "reserved",
    metadata,
    Column("job_id", BigInteger, primary_key=True, autoincrement=False),
    Column("site", String(63), nullable=False),
    Column("flavor", String(63), nullable=False),
    Column("start", BigInteger, nullable=False),
)
"""The starts that the queue has reserved for waiting jobs."""

forecasts = Table(
    "forecasts",
    metadata,
    # there is one row, 1
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("learnt", Text, nullable=False, server_default="{}"),
)
"""When the jobs that wait are expected to start, all in one piece, and what was learnt of forecasts before."""

questions = Table(
    "questions",
    metadata,
    Column("person", String(255), primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("columns", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("answer", Text),
)
"""Questions on jobs that nobody has submitted, and their answers."""

spent = Table(
    "spent",
    metadata,
    # empty: none
    Column("project", String(63), nullable=False),
    Column("person", String(255), nullable=False),
    Column("flavor", String(63), nullable=False),
    Column("opportunistic", Boolean, nullable=False),
    # days since 1970 UTC
    Column("day", Integer, nullable=False),
    # milli-CPU, MiB and milli-GPU, each times seconds
    Column("cpu", BigInteger, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("gpu", BigInteger, nullable=False),
    PrimaryKeyConstraint("project", "person", "flavor", "opportunistic", "day"),
    Index("spent_day", "day"),
)
"""What ended attempts used, by the day on which they were placed: what fair shares are made of."""

views = Table(
    "views",
    metadata,
    Column("person", String(255), nullable=False),
    Column("name", String(40), nullable=False),
    # what follows the question mark in the address of a page
    Column("query", Text, nullable=False),
    PrimaryKeyConstraint("person", "name"),
)
"""What people want to see again of the list of jobs, under names of their own."""
