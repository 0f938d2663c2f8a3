"""Every mistake that a person can make, through every face: one sentence, the field named, and nothing half done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from atoll.client.synchronous import Client
from atoll.core.errors import AtollError, Denied, Invalid, NotFound, TooLarge, Unauthenticated
from tests.support.platform import RunningPlatform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
refused = pytest.mark.usefixtures("nothing_is_half_done")
TRUE: dict[str, Any] = {"command": ["true"], "memory": "16M"}
HUGE = 100 * 1024 * 1024
NO_SUCH_JOB = "999999"


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    with RunningPlatform(tmp_path_factory.mktemp("bad") / "data") as running:
        assert running.command("run", "--mem", "16M", "--", "true").returncode == 0
        yield running


@pytest.fixture
def client(platform: RunningPlatform) -> Iterator[Client]:
    with Client(platform.url, platform.token) as found:
        yield found


@pytest.fixture
def nothing_is_half_done(platform: RunningPlatform) -> Iterator[None]:
    """Whatever a test here does, it leaves no job, no part of a file, and no complaint of the platform's."""
    before = _known_jobs(platform)
    yield
    assert _known_jobs(platform) == before
    assert not list((platform.data / "files").glob("part-*"))
    assert "Traceback" not in platform.log.read_text()
    assert platform.request("GET", "/readyz").status_code == 200


def _known_jobs(platform: RunningPlatform) -> list[str]:
    return [item["id"] for item in platform.request("GET", "/api/v1/jobs?all=true&limit=1000").json()["items"]]


def refused_by_command(platform: RunningPlatform, *words: str, code: int = Invalid.exit_code, **options: Any) -> str:
    """What the command line says of a mistake: one line on the error output, and nothing on the other."""
    done = platform.command(*words, check=False, **options)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("atoll: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.rstrip("\n").isprintable(), "nothing that steers a terminal"
    return done.stderr


def problem(answer: httpx2.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["detail"].endswith((".", "?"))
    return document


def refused_by_api(
    platform: RunningPlatform, body: Any, path: str = "/api/v1/jobs", status: int = 422
) -> dict[str, Any]:
    """What the API says of a body, which is sent as it is where it is text."""
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return problem(
        platform.request("POST", path, content=content, headers={"Content-Type": "application/json"}), status
    )


@dataclass(frozen=True)
class Mistake:
    """A mistake in a job, as it is made in each face, and what must be said of it."""

    field: str
    says: str
    document: dict[str, Any]
    script: str = ""
    """A line of a script that makes it."""
    flags: tuple[str, ...] = ()


MISTAKES = {
    "more memory than any site has": Mistake(
        "memory", "more than any site has; the largest node has", {**TRUE, "memory": "900T"},
        "#SBATCH --mem=900T", ("--mem", "900T"),
    ),
    "more CPUs than any site has": Mistake(
        "cpu", "more than any site has", {**TRUE, "cpu": 100_000}, "#ATOLL cpu: 100000", ("--cpu", "100000"),
    ),
    "an array that ends before it begins": Mistake(
        "array", "'9-1' ends before it begins: write 1-9", {**TRUE, "array": "9-1"},
        "#SBATCH --array=9-1", ("--array", "9-1"),
    ),
    "an array beyond the last task": Mistake(
        "array", "goes beyond the last task, 10000000", {**TRUE, "array": "0-99999999"},
        "#SBATCH --array=0-99999999", ("--array", "0-99999999"),
    ),
    "an array of words": Mistake(
        "array", "is not a range: write 0-99, 1,3,7 or 0-99:2", {**TRUE, "array": "all"},
        "#SBATCH --array=all", ("--array", "all"),
    ),
    "a name with control characters": Mistake(
        "name", "'\\x1b' is not allowed; use printable characters only", {**TRUE, "name": "a\x1b[2Jb"},
        "#SBATCH --job-name=a\x1b[2Jb", ("--name", "a\x1b[2Jb"),
    ),
    "a job to wait for that is not there": Mistake(
        "dependencies.0.job", f"there is no job {NO_SUCH_JOB}", {**TRUE, "dependencies": [f"ok:{NO_SUCH_JOB}"]},
        f"#SBATCH --dependency=afterok:{NO_SUCH_JOB}", ("--dependency", f"afterok:{NO_SUCH_JOB}"),
    ),
    "an output outside the working directory": Mistake(
        "files_out", "must be a path inside the working directory, without '..'", {**TRUE, "files_out": ["../x"]},
        "#ATOLL files_out: ['../x']", ("--out", "../x"),
    ),
    "an output pattern that cannot be read": Mistake(
        "files_out", "'z-a' is a range that ends before it begins", {**TRUE, "files_out": ["[z-a]"]},
        "#ATOLL files_out: ['[z-a]']", ("--out", "[z-a]"),
    ),
    "an amount that is no number": Mistake(
        "cpu", "is no amount; write for example 2, 0.5 or 500m", {**TRUE, "cpu": "NaN"},
        "#ATOLL cpu: NaN", ("--cpu", "NaN"),
    ),
}  # fmt: skip
all_mistakes = pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())


@refused
@all_mistakes
def test_the_api_names_the_field_of_a_mistake(platform: RunningPlatform, mistake: Mistake) -> None:
    told = refused_by_api(platform, mistake.document)
    assert told["field"].startswith(mistake.field)
    assert mistake.says in told["detail"]


@refused
@all_mistakes
def test_one_mistake_in_many_jobs_makes_none_of_them(platform: RunningPlatform, mistake: Mistake) -> None:
    told = refused_by_api(platform, {"jobs": [TRUE, mistake.document]}, "/api/v1/jobs/bulk")
    assert told["field"].startswith(f"jobs.1.{mistake.field}")
    assert mistake.says in told["detail"]


@refused
@all_mistakes
def test_the_python_client_names_the_field_of_a_mistake(client: Client, mistake: Mistake) -> None:
    with pytest.raises(Invalid) as caught:
        client.submit(**mistake.document)
    assert caught.value.field is not None
    assert caught.value.field.startswith(mistake.field)
    assert mistake.says in caught.value.sentence


@refused
@all_mistakes
def test_a_yaml_file_with_a_mistake_is_refused(platform: RunningPlatform, tmp_path: Path, mistake: Mistake) -> None:
    # JSON is YAML too, and escapes what cannot be written plainly
    lines = [f"{field}: {json.dumps(value)}" for field, value in mistake.document.items()]
    (tmp_path / "job.yaml").write_text("\n".join(lines))
    said = refused_by_command(platform, "submit", "job.yaml", cwd=tmp_path)
    assert mistake.field in said
    assert mistake.says in said


@refused
@all_mistakes
def test_a_script_with_a_mistake_is_refused(platform: RunningPlatform, tmp_path: Path, mistake: Mistake) -> None:
    (tmp_path / "job.sh").write_text(f"#!/bin/sh\n{mistake.script}\ntrue\n")
    assert mistake.says in refused_by_command(platform, "submit", "job.sh", cwd=tmp_path)


@refused
@all_mistakes
def test_flags_with_a_mistake_are_refused(platform: RunningPlatform, mistake: Mistake) -> None:
    assert mistake.says in refused_by_command(platform, "submit", *mistake.flags, "--", "true")


# ---- malformed files and unknown fields


@refused
@pytest.mark.parametrize(
    "body",
    [
        b'{"command": ["true"', b"", b"[" * 100_000, b'{"command": ["\xff"]}',
        b'{"command": ["true"], "name": "\\ud800"}',
        b'{"command": ["true"], "memory": ' + b"9" * 5000 + b"}", b'"true"',
    ],
    ids=["cut off", "empty", "too deep", "no UTF-8", "a lone surrogate", "a number without end", "no object"],
)  # fmt: skip
def test_the_api_refuses_what_is_no_json(platform: RunningPlatform, body: bytes) -> None:
    assert refused_by_api(platform, body)["code"] == "invalid_job"


@refused
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command: [true\n  x", "line 2"),
        ('{"command": ["true"], ', "line 1"),
        ("command: x\ncommand: y\n", "'command' is written twice"),
        ("a: &a [x]\nb: *a\n", "aliases (*name) are not supported"),
        ("[" * 100, "nested too deeply"),
        ("command: true\n", "command"),
        ("- 3\n", "A job is written as fields and values"),
        ("# nothing\n---\n", "holds no job"),
    ],
    ids=["no YAML", "no JSON", "a key twice", "an alias", "too deep", "a truth value", "no fields", "empty"],
)
def test_a_malformed_file_is_told_with_its_name(
    platform: RunningPlatform, tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "job.yaml").write_text(text)
    said = refused_by_command(platform, "submit", "job.yaml", cwd=tmp_path)
    assert "job.yaml" in said
    assert says in said


@refused
def test_an_unknown_field_gets_a_suggestion_in_every_face(
    platform: RunningPlatform, client: Client, tmp_path: Path
) -> None:
    wrong = {"command": ["true"], "memroy": "1G"}
    told = refused_by_api(platform, wrong)
    assert (told["field"], "Did you mean 'memory'?" in told["detail"]) == ("memroy", True)
    with pytest.raises(Invalid) as caught:
        client.submit(wrong)
    assert (caught.value.field, "Did you mean 'memory'?" in caught.value.sentence) == ("memroy", True)
    (tmp_path / "job.yaml").write_text("command: x\nmemroy: 1G\n")
    said = refused_by_command(platform, "submit", "job.yaml", cwd=tmp_path)
    assert "job.yaml line 2: memroy: There is no field 'memroy' here. Did you mean 'memory'?" in said
    (tmp_path / "job.sh").write_text("#!/bin/sh\n#ATOLL memroy: 1G\ntrue\n")
    said = refused_by_command(platform, "submit", "job.sh", cwd=tmp_path)
    assert "line 2" in said
    assert "'memory'" in said
    assert "Did you mean --mem?" in refused_by_command(platform, "submit", "--memm", "1G", "--", "true", code=2)


@refused
def test_a_circle_of_dependencies_is_shown(platform: RunningPlatform, client: Client, tmp_path: Path) -> None:
    circle = [{**TRUE, "name": "a", "dependencies": ["b"]}, {**TRUE, "name": "b", "dependencies": ["a"]}]
    told = refused_by_api(platform, {"jobs": circle}, "/api/v1/jobs/bulk")
    assert (told["code"], told["field"]) == ("dependency_cycle", "jobs.0.dependencies")
    assert "a -> b -> a" in told["detail"]
    with pytest.raises(Invalid, match="a -> b -> a"):
        client.submit_many(circle)
    (tmp_path / "jobs.yaml").write_text(json.dumps(circle))
    assert "a -> b -> a" in refused_by_command(platform, "submit", "jobs.yaml", cwd=tmp_path)


# ---- files


@refused
def test_a_missing_file_is_named(platform: RunningPlatform, client: Client, tmp_path: Path) -> None:
    assert "There is no file 'none.yaml' here" in refused_by_command(platform, "submit", "none.yaml", cwd=tmp_path)
    said = refused_by_command(platform, "submit", "--in", "none.dat", "--", "true", cwd=tmp_path)
    assert "--in: the file" in said
    assert "none.dat is not there" in said
    (tmp_path / "job.yaml").write_text("command: x\nfiles_in: [{source: none.dat}]\n")
    assert "job.yaml line 2: files_in.0.source: the file none.dat is not there" in refused_by_command(
        platform, "submit", "job.yaml", cwd=tmp_path
    )
    never_sent = {**TRUE, "files_in": [{"path": "a", "sha256": "0" * 64}]}
    with pytest.raises(Invalid, match="you have not sent a file with this hash"):
        client.submit(**never_sent)
    told = refused_by_api(platform, never_sent)
    assert (told["field"], told["code"]) == ("files_in.0.sha256", "file_not_sent")
    assert "send it first" in told["detail"]


@refused
@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "~/a", "a/../../b", "a\0b"])
def test_a_file_cannot_be_laid_outside_the_working_directory(platform: RunningPlatform, path: str) -> None:
    told = refused_by_api(platform, {**TRUE, "files_in": [{"path": path, "sha256": "0" * 64}]})
    assert told["field"] == "files_in.0.path"


@refused
def test_a_file_with_another_content_than_its_hash_is_not_kept(platform: RunningPlatform) -> None:
    told = problem(platform.request("PUT", f"/api/v1/files/{'0' * 64}", content=b"other"), 422)
    assert (told["code"], told["field"]) == ("wrong_hash", "sha256")
    assert platform.request("HEAD", f"/api/v1/files/{'0' * 64}").status_code == 404


@refused
def test_a_body_of_a_hundred_megabytes_is_refused(platform: RunningPlatform, client: Client, tmp_path: Path) -> None:
    text = b'{"command": ["true"], "name": "' + b"x" * HUGE + b'"}'
    for path in ("/api/v1/jobs", "/api/v1/jobs/bulk", "/api/v1/tokens"):
        told = refused_by_api(platform, text, path, 413)
        assert "32 MiB" in told["detail"]
        assert "PUT /api/v1/files" in told["detail"]

    def pieces() -> Iterator[bytes]:  # sent without a length
        for at in range(0, len(text), 1 << 20):
            yield text[at : at + (1 << 20)]

    problem(platform.request("POST", "/api/v1/jobs", content=pieces()), 413)
    with pytest.raises(TooLarge, match="32 MiB"):
        client.submit_many([{**TRUE, "args": [], "command": ["x" * 131_000]}] * 800)
    (tmp_path / "job.yaml").write_bytes(text)
    assert "larger than 64 MiB" in refused_by_command(platform, "submit", "job.yaml", cwd=tmp_path)


# ---- tokens and ids


@refused
def test_a_wrong_token_is_told_and_never_shown(platform: RunningPlatform) -> None:
    wrong = "atl_wrong-and-secret"
    for headers in ({"Authorization": f"Bearer {wrong}"}, {"Authorization": ""}, {"Authorization": "Basic cm9vdDo="}):
        answer = httpx2.post(f"{platform.url}/api/v1/jobs", headers=headers, json=TRUE, timeout=30)
        assert problem(answer, 401)["field"] == "Authorization"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert wrong not in answer.text
    with Client(platform.url, wrong) as client, pytest.raises(Unauthenticated) as caught:
        client.submit(**TRUE)
    assert "atoll token create" in caught.value.sentence
    environment = {**platform.environment(), "ATOLL_URL": platform.url, "ATOLL_TOKEN": wrong}
    del environment["ATOLL_DATA"]
    assert wrong not in platform.log.read_text()
    done = RunningPlatform.command(_With(platform, environment), "submit", "--", "true", check=False)  # type: ignore[arg-type]
    assert done.returncode == Unauthenticated.exit_code
    assert "The token is not valid" in done.stderr
    assert wrong not in done.stderr


class _With:
    """A platform as commands find it by another environment."""

    def __init__(self, platform: RunningPlatform, environment: dict[str, str]) -> None:
        self.data = platform.data
        self._environment = environment

    def environment(self) -> dict[str, str]:
        """What the command gets."""
        return self._environment


@refused
@pytest.mark.parametrize("verb", ["show", "why", "logs", "wait", "cancel", "hold", "release", "requeue", "fetch"])
def test_a_job_that_is_not_there_is_told_by_every_command(platform: RunningPlatform, verb: str) -> None:
    said = refused_by_command(platform, verb, NO_SUCH_JOB, code=NotFound.exit_code)
    assert f"There is no job {NO_SUCH_JOB}." in said
    said = refused_by_command(platform, verb, "job/1")
    assert "is not a job: write a number as in 12, or tasks of an array as in 12[3,7-9]" in said


@refused
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/why"), ("GET", "/outputs"), ("GET", "/logs"), ("POST", "/cancel"), ("POST", "/hold"),
     ("POST", "/release"), ("POST", "/requeue")],
)  # fmt: skip
def test_a_job_that_is_not_there_is_told_by_the_api(platform: RunningPlatform, method: str, path: str) -> None:
    told = problem(platform.request(method, f"/api/v1/jobs/{NO_SUCH_JOB}{path}"), 404)
    assert (told["code"], told["field"]) == ("no_such_job", "id")
    assert problem(platform.request(method, f"/api/v1/jobs/nonsense{path}"), 422)["field"] == "id"


@refused
def test_a_job_that_is_not_there_is_told_by_the_python_client(client: Client) -> None:
    calls: list[Callable[[int], object]] = [client.job, client.why, client.cancel, client.hold, client.wait]
    for call in calls:
        with pytest.raises(NotFound, match=f"There is no job {NO_SUCH_JOB}"):
            call(int(NO_SUCH_JOB))


@refused
def test_another_persons_job_is_as_if_it_were_not_there(platform: RunningPlatform, client: Client) -> None:
    mine = _known_jobs(platform)[-1]
    token = client.create_token("test", person="mallory").token
    assert token is not None
    with Client(platform.url, token) as other:
        assert list(other.jobs()) == []
        calls: list[Callable[[str], object]] = [
            other.job, other.why, other.cancel, other.requeue, other.logs, other.outputs, other.wait,
            lambda job: other.signal(job, "KILL"), lambda job: list(other.follow(job)),
            lambda job: other.change(job, priority=1),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(NotFound, match=f"There is no job {mine}"):
                call(mine)
        with pytest.raises(Denied):
            other.create_token("stolen", person=client.me().person)
        with pytest.raises(AtollError, match="No site can run it"):  # here are accounts for nobody else
            other.submit(**TRUE)


@refused
def test_a_key_that_cannot_be_kept_is_refused(platform: RunningPlatform) -> None:
    headers = {"Idempotency-Key": "bad\tkey"}
    told = problem(platform.request("POST", "/api/v1/jobs", json=TRUE, headers=headers), 422)
    assert told["field"] == "Idempotency-Key"


def test_no_form_of_a_result_lets_a_job_steer_the_terminal(platform: RunningPlatform, client: Client) -> None:
    evil = "\x1b]0;evil\x07\x9b31m\u202e"
    job = client.submit(command=["true", evil], labels={"a": evil}, env={"A": evil}, memory="16M", hold=True)
    steering = [chr(code) for code in (*range(10), *range(11, 32), *range(0x7F, 0xA0))]
    for words in (["show"], ["show", "-o", "json"], ["show", "-o", "yaml"], ["why"], ["ps"], ["ps", "-o", "json"]):
        shown = platform.command(*words, str(job.id)).stdout
        assert shown
        assert not [character for character in steering if character in shown], words
    assert json.loads(platform.command("show", "-o", "json", str(job.id)).stdout)["spec"]["labels"]["a"] == evil
