"""The API held against its own document by machine-made requests: no 5xx, no answer that the document lacks.

ATOLL_API_EXAMPLES sets how many requests each operation gets (100), ATOLL_API_SCENARIOS how many sequences of calls
are tried that use each other's answers (100).
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from atoll.api import openapi
from atoll.api.app import create_app
from atoll.core.project import TreeNode
from atoll.core.resources import Resources
from atoll.core.site import Flavor, SiteReport
from atoll.core.states import Outcome
from atoll.drivers.base import LogChunk
from atoll.faces.http.platform import Platform
from atoll.store import projects
from tests.support.http import Served, serving
from tests.support.postgres import PostgresServer
from tests.support.rows import end, place, run

EXAMPLES = int(os.environ.get("ATOLL_API_EXAMPLES", "100"))
SCENARIOS = int(os.environ.get("ATOLL_API_SCENARIOS", "100"))
QUIET = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.function_scoped_fixture,
    HealthCheck.data_too_large,
)

EXCLUDED = [
    # What a job asks for is judged by the sites that there are and by the jobs that it names; no schema says that.
    positive_data_acceptance,
    # People may write a list of one without its brackets, an amount with its unit; the document shows the plain form.
    negative_data_rejection,
]
CHECKED = [check for check in CHECKS.get_all() if check not in EXCLUDED]


def _operations() -> list[tuple[str, str]]:
    """Every operation of the document, which needs no running platform."""
    nothing: Any = None
    app = create_app(Platform(nothing, nothing, nothing, nothing, "test0", "1.2.3"))
    paths = openapi.document(app)["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


class Site:
    """A driver whose jobs all write the same and take every signal."""

    async def describe(self) -> SiteReport:
        """As drivers do."""
        return SiteReport((Flavor("cpu", Resources(1000, 1 << 30), Resources(1000, 1 << 30)),))

    async def read_log(self, attempt_id: str, stream: str, offset: int, limit: int) -> LogChunk:
        """As drivers do."""
        data = f"{attempt_id} {stream}\n".encode()
        start = max(0, len(data) + offset) if offset < 0 else min(offset, len(data))
        return LogChunk(start, data[start : start + limit], len(data))

    async def signal(self, attempt_id: str, signal: int) -> None:
        """As drivers do."""


class Server:
    """A platform behind a port, with jobs in every state."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.ids: list[str] = []
        self.token = ""
        self.document: dict[str, Any] = {}
        self._url = database_url
        self._folder = folder
        self._ready = threading.Event()
        self._uvicorn: uvicorn.Server | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="api")

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._uvicorn is not None
        self._uvicorn.should_exit = True
        self._thread.join(30)

    async def _serve(self) -> None:
        async with serving(self._url, self._folder) as served:
            await self._seed(served)
            served.platform.stopping.set()  # so that streams end at once
            self._uvicorn = uvicorn.Server(uvicorn.Config(served.app, log_level="critical", lifespan="off"))
            self._ready.set()
            await self._uvicorn.serve(sockets=[self._listener])

    async def _seed(self, served: Served) -> None:
        await served.add_site("here")
        driver: Any = Site()
        served.drivers["here"] = driver
        self.token = served.tokens["root"]
        queued, held, placed, running, ended, failed, cancelled = [await served.submit("root") for _ in range(7)]
        array = await served.submit("root", array="0-9")
        await served.submit("root", dependencies=[running])
        async with served.client("root") as client:
            assert (await client.post(f"/api/v1/jobs/{held}/hold")).is_success
            assert (await client.post(f"/api/v1/jobs/{cancelled}/cancel")).is_success
        await served.do(lambda connection: place(connection, placed))
        await served.do(lambda connection: run(connection, running))
        await served.do(lambda connection: end(connection, run(connection, ended)))
        await served.do(lambda connection: end(connection, run(connection, failed), Outcome.FAILED))
        await served.do(lambda connection: run(connection, array, "1-2"))
        tree = [TreeNode("institute"), TreeNode("here", "institute", people=("root",))]
        await served.do(lambda connection: projects.replace(connection, tree, 0))
        jobs = (queued, held, placed, running, ended, failed, cancelled, array)
        self.ids = [*map(str, jobs), f"{array}[1]", f"{array}[3]", f"{array}[2,5-7]", f"{running}[0]", "123456"]
        self.document = self._with_known_ids(openapi.document(served.app))

    def _with_known_ids(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document, where half of the ids that are made up are ids of jobs that are there."""
        document = copy.deepcopy(document)
        for methods in document["paths"].values():
            for operation in methods.values():
                for parameter in operation.get("parameters", ()):
                    known = {"id": self.ids, "job": self.ids, "name": ["here"]}.get(parameter["name"])
                    if known and parameter["in"] == "path":
                        parameter["schema"] = {"anyOf": [{"enum": known}, parameter["schema"]]}
        return document

    def schema(self) -> Any:
        """The document as schemathesis sees it, with the token on each request."""
        schema = schemathesis.openapi.from_dict(copy.deepcopy(self.document))
        schema.config.update(base_url=f"http://127.0.0.1:{self.port}")
        return schema

    @property
    def headers(self) -> dict[str, str]:
        """What each request has."""
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[dict[str, Server], contextlib.ExitStack]]:
    with contextlib.ExitStack() as stack:
        yield {}, stack


@pytest.fixture
def server(
    database_kind: str, servers: tuple[dict[str, Server], contextlib.ExitStack],
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest,
) -> Server:  # fmt: skip
    """One server for all tests on a kind of database."""
    known, stack = servers
    if database_kind not in known:
        folder = tmp_path_factory.mktemp("api")
        url = f"sqlite:///{folder / 'atoll.db'}"
        if database_kind == "postgresql":
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            url = postgres.create_database()
            stack.callback(postgres.drop_database, url)
        known[database_kind] = stack.enter_context(Server(url, folder))
    return known[database_kind]


@pytest.mark.parametrize(("method", "path"), _operations())
@pytest.mark.timeout(600)
def test_no_request_gets_an_answer_that_the_document_lacks(server: Server, method: str, path: str) -> None:
    operation = server.schema()[path][method]

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=QUIET,
              phases=(Phase.explicit, Phase.generate, Phase.shrink))  # fmt: skip
    @given(case=operation.as_strategy())
    def hold(case: Any) -> None:
        case.call_and_validate(headers=server.headers, checks=CHECKED)

    hold()


@pytest.mark.timeout(600)
def test_no_border_case_and_no_sequence_gets_an_answer_that_the_document_lacks(
    server: Server, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Calls that use what earlier ones answered; at full size also each limit, just kept and just broken (minutes).

    By the command, whose engine bears that answers change from call to call.
    """
    phases = "coverage,stateful" if pytestconfig.getoption("--full-size") else "stateful"
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(server.document))
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", f"http://127.0.0.1:{server.port}",
        "--header", f"Authorization: Bearer {server.token}",
        "--phases", phases,
        "--exclude-checks", ",".join(check.__name__ for check in EXCLUDED), "--max-examples", str(SCENARIOS),
        "--generation-database", "none", "--request-timeout", "60", "--no-color", "--warnings", "off",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]


def test_the_document_is_plain_json(server: Server) -> None:
    assert json.loads(json.dumps(server.document))["openapi"].startswith("3.1")
