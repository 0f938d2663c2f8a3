"""Makes what a driver needs to run an attempt out of the rows of the attempt, its job and its array."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from sqlalchemy import Connection

from atoll.control.relay.secret import relayed_port, secret_environment
from atoll.core.environ import attempt_environment
from atoll.core.resources import Resources
from atoll.core.site_file import Identity
from atoll.core.spec import JobSpec, read_spec_json
from atoll.drivers.base import Launch, StagedFile
from atoll.store import jobs, settings, sites
from atoll.store.attempts import AttemptRow
from atoll.store.files import FileStore
from atoll.store.jobs import JobRow
from atoll.store.spots import read_spots
from atoll.store.tables import jobs as job_table


@lru_cache(maxsize=2048)
def spec_of(text: str) -> JobSpec:
    """The specification that a stored JSON text says; the tasks of an array share one."""
    return read_spec_json(text)


def with_arrays(connection: Connection, ids: Sequence[int]) -> dict[int, tuple[JobRow, JobRow]]:
    """Each job row of `ids` beside the row that has its specification: its array's, or itself."""
    rows = jobs.get_many(connection, ids, tuple(job_table.c))
    missing = {row.array_id for row in rows.values() if row.array_id is not None} - set(rows)
    arrays = rows | jobs.get_many(connection, sorted(missing), tuple(job_table.c))
    return {
        row.id: (row, arrays[row.array_id] if row.array_id is not None else row)
        for row in rows.values()
        if row.array_id is None or row.array_id in arrays
    }


def load(connection: Connection, rows: Sequence[AttemptRow], files: FileStore) -> list[Launch]:
    """The launches of attempts, in their order."""
    found = with_arrays(connection, sorted({row.job_id for row in rows}))
    accounts = {site: sites.get_identity(connection, site) for site in {row.site for row in rows}}
    launches = [_launch(row, *found[row.job_id], accounts[row.site], files) for row in rows if row.job_id in found]
    return [_with_relay(connection, launch) for launch in launches]


def sizes(connection: Connection, rows: Sequence[AttemptRow], files: FileStore) -> dict[str, int]:
    """Bytes of files to send with each attempt."""
    found = with_arrays(connection, sorted({row.job_id for row in rows}))
    specs = {row.id: spec_of(found[row.job_id][1].spec or "") for row in rows if row.job_id in found}
    return {name: sum(files.size(entry.sha256) for entry in spec.files_in) for name, spec in specs.items()}


def _launch(row: AttemptRow, job: JobRow, whole: JobRow, identity: Identity | None, files: FileStore) -> Launch:
    assert whole.spec is not None
    spec = spec_of(whole.spec)
    request = Resources(row.cpu, row.memory, row.gpu)
    return Launch(
        attempt_id=row.id,
        job_id=whole.id,
        task=job.task,
        task_count=whole.task_count,
        number=row.number,
        checkpoint_key=_checkpoint_key(spec, job, whole),
        person=job.owner,
        project=job.project or "",
        account=identity.account_of(job.owner) if identity is not None else None,
        spec=spec,
        request=request,
        nodes=row.nodes,
        flavor=row.flavor,
        on_nodes=tuple(spot.node for spot in read_spots(row.spots)),
        walltime=spec.walltime,
        environment=attempt_environment(
            spec,
            job_id=whole.id,
            task=job.task,
            number=row.number,
            request=request,
            person=job.owner,
            project=job.project,
            site=row.site,
        ),
        files=tuple(
            StagedFile(entry.path, files.path(entry.sha256), entry.executable, files.size(entry.sha256))
            for entry in spec.files_in
        ),
    )


def _with_relay(connection: Connection, launch: Launch) -> Launch:
    """The launch, with its secret where it is one whose streams the relay carries."""
    if relayed_port(launch.spec) is None:
        return launch
    more = secret_environment(launch.attempt_id, settings.relay_key(connection))
    return replace(launch, environment={**launch.environment, **more})


def _checkpoint_key(spec: JobSpec, job: JobRow, whole: JobRow) -> str:
    """Attempts of one job share a folder; jobs of one person do where they name the same one."""
    if spec.checkpoint is not None and spec.checkpoint.folder is not None:
        owner = job.owner.encode().hex()
        return f"named-{owner}-{spec.checkpoint.folder}"
    return f"job-{whole.id}" if job.task is None else f"job-{whole.id}-{job.task}"
