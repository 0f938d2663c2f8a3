"""slurmrestd as a client sees it: a real one where one can be started, and the documented shapes of later versions."""

import asyncio
import base64
import getpass
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from atoll.drivers.base import DriverError
from atoll.drivers.shell import LocalShell, NoAccount, Unfinished
from atoll.drivers.slurm.facts import DESCRIBE, read_facts
from atoll.drivers.slurm.jobs import read_jobs
from atoll.drivers.slurm.rest import Complaint, Slurmrestd, complaint_of
from atoll.drivers.slurm.rest_facts import read_settings
from atoll.drivers.slurm.rest_jobs import job_document
from atoll.drivers.slurm.rest_shell import RestShell
from atoll.drivers.slurm.tokens import Tokens
from tests.support.ports import free_port
from tests.support.slurm import SlurmCluster, need_slurm
from tests.support.slurmrestd import NAME, need_slurmrestd, start_slurmrestd

OWN = getpass.getuser()
OPTIONS = (
    "--parsable", "--job-name=atoll-x", "--comment=it's", "--no-requeue", "--export=ALL", "--chdir=/tmp",
    "--output=/dev/null", "--error=/dev/null", "--open-mode=append", "--input=/dev/null", "--nodes=2",
    "--ntasks-per-node=1", "--cpus-per-task=3", "--mem=100M", "--gres=gpu:a100:2", "--time=7", "--partition=main",
    "--qos=high", "--account=lab", "--reservation=r", "--constraint=a&b", "--array=0-4",
)  # fmt: skip
PLAIN = [
    option
    for option in OPTIONS
    if not option.startswith(("--gres", "--partition", "--qos", "--account", "--res", "--const", "--array", "--nodes"))
]


def jwt(end: float) -> str:
    """A token that ends at `end`; nobody signed it."""
    parts = (json.dumps(part).encode() for part in ({"alg": "HS256"}, {"exp": int(end), "sun": OWN}))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"])


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with a token of our own account's."""
    path = tmp_path / "token"
    path.write_text(jwt(time.time() + 3600))
    path.chmod(0o600)
    return path


# -- a real one ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[SlurmCluster, str]]:
    need_slurm()
    need_slurmrestd()
    with SlurmCluster(nodes=2, cpus=8, gpus=("a100", 1, 2)) as made:
        yield made, start_slurmrestd(made)


@asynccontextmanager
async def client_of(url: str, token: str) -> AsyncIterator[Slurmrestd]:
    """A client for the length of the context."""
    client = Slurmrestd(url, Tokens(token, OWN, LocalShell()))
    try:
        yield client
    finally:
        await client.close()


def command(cluster: SlurmCluster, seconds: int = 600) -> str:
    """The command that prints tokens."""
    return f"env SLURM_CONF={cluster.conf} scontrol token username={{account}} lifespan={seconds}"


async def test_version_is_agreed_on_with_a_real_slurmrestd(cluster: tuple[SlurmCluster, str]) -> None:
    made, url = cluster
    async with client_of(url, command(made)) as client:
        assert await client.version(OWN) == 38
        assert client.arrays


async def test_cluster_is_described_as_scontrol_describes_it(cluster: tuple[SlurmCluster, str]) -> None:
    """Nodes, partitions and GPUs are the same by either way; settings come from slurm.conf."""
    made, url = cluster
    local = LocalShell({"SLURM_CONF": str(made.conf)})
    expected = read_facts((await local.run(None, ["/bin/sh", "-c", DESCRIBE])).out.decode())
    shell = RestShell(url, command(made), LocalShell(), slurm_conf=str(made.conf))
    facts = read_facts((await shell.run(None, ["/bin/sh", "-c", DESCRIBE])).out.decode())
    await shell.close()
    assert facts.nodes == expected.nodes
    assert facts.partitions == expected.partitions
    assert (facts.version, facts.cluster) == (expected.version, expected.cluster)
    for name in ("MaxArraySize", "TaskPlugin", "ProctrackType"):
        assert facts.settings.get(name, "") in ("", expected.settings[name])


async def test_job_runs_as_the_account_whose_token_it_is(cluster: tuple[SlurmCluster, str]) -> None:
    """With the options of sbatch; and it is never requeued."""
    made, url = cluster
    async with client_of(url, command(made)) as client:
        options = [*PLAIN, "--nodes=2", "--partition=main"]
        number = await client.submit("nobody", options, ["sleep", "30"], {"PATH": "/usr/bin:/bin"})
        shown = made.run("scontrol", "show", "job", number)
        expected = (
            "UserId=nobody", "JobName=atoll-x", "Comment=it's", "Requeue=0", "TimeLimit=00:07:00", "CPUs/Task=3",
            "NumNodes=2", "Partition=main", "MinMemoryNode=100M", "WorkDir=/tmp", "StdOut=/dev/null",
        )  # fmt: skip
        for words in expected:
            assert words in shown
        with pytest.raises(Complaint, match="denied"):
            await client.kill("bin", number, None)
        await client.kill("nobody", number, None)


async def test_signal_reaches_the_batch_script(cluster: tuple[SlurmCluster, str], tmp_path: Path) -> None:
    made, url = cluster
    begun, got = tmp_path / "begun", tmp_path / "got"
    async with client_of(url, command(made)) as client:
        text = f"trap 'echo got >{got}; exit 0' USR1; echo >{begun}; while :; do sleep 0.1; done"
        number = await client.submit(OWN, PLAIN, ["/bin/sh", "-c", text], {"PATH": "/usr/bin:/bin"})
        await until(begun.exists)
        await client.kill(OWN, number, "10")
        await until(got.exists)


async def test_one_task_of_an_array_is_cancelled_alone(cluster: tuple[SlurmCluster, str]) -> None:
    made, url = cluster
    async with client_of(url, command(made)) as client:
        number = await client.submit(OWN, [*PLAIN, "--array=0-2"], ["sleep", "60"], {"PATH": "/usr/bin:/bin"})
        await client.kill(OWN, f"{number}_1", None)

        def live() -> list[str]:
            return sorted(made.run("squeue", "--noheader", "--array", f"--jobs={number}", "--format=%K").split())

        await until(lambda: live() == ["0", "2"])
        await client.kill(OWN, number, None)


async def test_refusal_is_told_in_slurms_words(cluster: tuple[SlurmCluster, str]) -> None:
    made, url = cluster
    async with client_of(url, command(made)) as client:
        with pytest.raises(Complaint, match=r"^Invalid partition name specified$"):
            await client.submit(OWN, [*PLAIN, "--partition=nowhere"], ["true"], {"PATH": "/bin"})
        with pytest.raises(Complaint, match="Invalid job id specified"):
            await client.kill(OWN, "999999", None)


async def test_expired_token_is_told_before_it_is_used(cluster: tuple[SlurmCluster, str], tmp_path: Path) -> None:
    made, url = cluster
    path = tmp_path / "token"
    path.write_text(made.token(OWN, 1))
    path.chmod(0o600)
    await asyncio.sleep(2.1)
    async with client_of(url, str(path)) as client:
        with pytest.raises(NoAccount) as raised:
            await client.version(OWN)
    assert str(raised.value) == f"The token of {OWN} for slurmrestd has expired: renew {path}."


async def test_token_that_the_controller_refuses_is_told(cluster: tuple[SlurmCluster, str], token: Path) -> None:
    _, url = cluster
    async with client_of(url, str(token)) as client:
        with pytest.raises(DriverError, match="the token is expired or another's"):
            await client.get("nodes", OWN)


async def test_jobs_are_read_from_a_real_answer(cluster: tuple[SlurmCluster, str]) -> None:
    made, url = cluster
    async with client_of(url, command(made)) as client:
        number = await client.submit(OWN, PLAIN, ["sh", "-c", "exit 3"], {"PATH": "/usr/bin:/bin"})
        answer = bytearray()

        async def sink(piece: bytes) -> None:
            answer.extend(piece)

        async def ended() -> bool:
            answer.clear()
            await client.jobs(OWN, sink)
            return any(job.job_id == int(number) and job.over for job in read_jobs(answer))

        async with asyncio.timeout(20):
            while not await ended():  # noqa: ASYNC110  # nothing else tells
                await asyncio.sleep(0.2)
        job = next(job for job in read_jobs(answer) if job.job_id == int(number))
        assert (job.exit_code, job.name, job.user) == (3, "atoll-x", OWN)


async def test_slurmrestd_that_is_away_is_named_and_found_again(cluster: tuple[SlurmCluster, str]) -> None:
    made, _ = cluster
    with SlurmCluster(nodes=1) as other:
        url = start_slurmrestd(other)
        async with client_of(url, command(other)) as client:
            assert await client.version(OWN) == 38
            other.stop(NAME)
            with pytest.raises(DriverError, match=r"cannot be reached: Connection refused|broke off"):
                await client.get("nodes", OWN)
    assert made.run("sinfo")


# -- one that is not as it should be ---------------------------------------------------------------------------------

Answer = Callable[[web.Request], Any]


@asynccontextmanager
async def pretended(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that answers as told."""

    async def handle(request: web.Request) -> web.StreamResponse:
        said = answer(request)
        if asyncio.iscoroutine(said):
            said = await said
        return said if isinstance(said, web.StreamResponse) else web.json_response(said)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def offers(*numbers: int) -> dict[str, Any]:
    """The OpenAPI document of a slurmrestd with these versions."""
    return {"paths": {f"/slurm/v0.0.{number}/jobs/": {} for number in numbers} | {"/slurmdb/v0.0.50/jobs/": {}}}


@pytest.mark.parametrize(("offered", "chosen"), [((37, 38), 38), ((39, 40, 41), 41), ((42, 43, 44, 45), 43)])
async def test_newest_common_version_is_spoken(offered: tuple[int, ...], chosen: int, token: Path) -> None:
    async with pretended(lambda request: offers(*offered)) as url, client_of(url, str(token)) as client:
        assert await client.version(OWN) == chosen


@pytest.mark.parametrize("offered", [(36, 37), (44, 45), ()])
async def test_no_common_version_is_told(offered: tuple[int, ...], token: Path) -> None:
    async with pretended(lambda request: offers(*offered)) as url, client_of(url, str(token)) as client:
        with pytest.raises(DriverError) as raised:
            await client.version(OWN)
    told = ", ".join(f"v0.0.{number}" for number in offered) or "nothing of Slurm's"
    assert str(raised.value) == f"slurmrestd at {url} offers {told}; v0.0.38 to v0.0.43 are understood."


@pytest.mark.parametrize("garbage", [b"<html>hello</html>", b"[1, 2]", b"\xff\xfe", b"", b'{"paths": 7}', b"null"])
async def test_garbage_is_one_sentence(garbage: bytes, token: Path) -> None:
    async with pretended(lambda request: web.Response(body=garbage)) as url, client_of(url, str(token)) as client:
        with pytest.raises(DriverError) as raised:
            await client.version(OWN)
    assert str(raised.value).endswith(".")


async def test_garbage_after_a_submission_leaves_it_unknown(token: Path) -> None:
    def answer(request: web.Request) -> Any:
        return offers(38) if request.method == "GET" else web.Response(body=b"oops")

    async with pretended(answer) as url, client_of(url, str(token)) as client:
        with pytest.raises(Unfinished, match="not Slurm's: 'oops'"):
            await client.submit(OWN, PLAIN, ["true"], {})


async def test_hanging_slurmrestd_is_given_up(token: Path) -> None:
    """A question costs nothing; of a submission nobody knows whether it landed."""

    async def answer(request: web.Request) -> Any:
        if request.path == "/openapi/v3":
            return offers(38)
        await asyncio.sleep(30)
        return {}

    async with pretended(answer) as url, client_of(url, str(token)) as client:
        with pytest.raises(DriverError) as raised:
            await client.get("nodes", OWN, seconds=0.3)
        assert (type(raised.value), str(raised.value)) == (DriverError, f"slurmrestd at {url} timed out.")
        with pytest.raises(Unfinished, match="timed out"):
            await client.submit(OWN, PLAIN, ["true"], {}, seconds=0.3)


async def test_token_is_not_carried_elsewhere(token: Path) -> None:
    """A redirection is no answer, and is not followed."""
    seen: list[str] = []

    def answer(request: web.Request) -> Any:
        seen.append(request.path)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    async with pretended(answer) as url, client_of(url, str(token)) as client:
        with pytest.raises(DriverError, match="does not tell which versions it speaks"):
            await client.version(OWN)
    assert seen == ["/openapi/v3"]


async def test_refused_token_is_the_accounts_trouble(token: Path) -> None:
    def answer(request: web.Request) -> Any:
        return web.Response(status=401, text="Authentication failure")

    async with pretended(answer) as url, client_of(url, str(token)) as client:
        with pytest.raises(NoAccount, match=f"does not accept the token of {OWN}: Authentication failure"):
            await client.version(OWN)


# -- documented shapes -----------------------------------------------------------------------------------------------


def test_submission_in_v0_0_38() -> None:
    document = job_document(38, OPTIONS, ["/bin/sh", "/a b/keeper.sh"], {"PATH": "/bin"})
    assert document["script"] == "#!/bin/sh\nexec '/bin/sh' '/a b/keeper.sh'\n"
    job = document["job"]
    assert (job["no_requeue"], job["nodes"], job["memory_per_node"], job["time_limit"]) == (True, "2", 100, 7)
    assert (job["gres"], job["open_mode"], job["environment"]) == ("gpu:a100:2", "append", {"PATH": "/bin"})
    assert "requeue" not in job, "which would mean yes, whatever its value"


@pytest.mark.parametrize("version", [39, 40, 41, 42, 43])
def test_submission_in_later_versions(version: int) -> None:
    document = job_document(version, OPTIONS, ["true"], {"PATH": "/bin"})
    job = document["job"]
    assert "#!/bin/sh\nexec 'true'\n" in (document.get("script"), job.get("script"))
    assert ("script" in job) is (version >= 40)
    number = {"set": True, "infinite": False}
    assert job["time_limit"] == number | {"number": 7}
    assert job["memory_per_node"] == number | {"number": 100}
    assert (job["requeue"], job["minimum_nodes"], job["maximum_nodes"]) == (False, 2, 2)
    assert job["environment"] == ["PATH=/bin"]
    assert job["tres_per_node"] == ("gres:gpu:a100:2" if version == 39 else "gres/gpu:a100:2")
    assert (job["open_mode"], job["constraints"], job["array"]) == (["APPEND"], "a&b", "0-4")


def test_option_that_slurmrestd_cannot_be_told_is_an_error_and_not_left_out() -> None:
    with pytest.raises(DriverError, match="--nice=5"):
        job_document(41, ["--nice=5"], ["true"], {})


def node(**fields: Any) -> dict[str, Any]:
    """A node as v0.0.41 has it."""
    return {
        "name": "n1", "address": "10.0.0.1", "cpus": 64, "effective_cpus": 62, "alloc_cpus": 2, "real_memory": 256000,
        "specialized_memory": 6000, "alloc_memory": 50000, "state": ["MIXED"], "gres": "gpu:h100:4(S:0-1)",
        "gres_used": "gpu:h100:1(IDX:0)", "features": ["a", "b"], "active_features": ["a"], "partitions": ["main"],
    } | fields  # fmt: skip


PARTITION = {
    "name": "main", "partition": {"state": ["UP"]}, "nodes": {"configured": "n[1-2]", "total": 2},
    "maximums": {"time": {"set": True, "infinite": False, "number": 2880},
                 "nodes": {"set": False, "infinite": True, "number": 0}},
}  # fmt: skip


async def described(version: int, partitions: list[Any], token: Path) -> str:
    """What the shell makes of a cluster's answers."""

    def answer(request: web.Request) -> Any:
        match request.path.rpartition("/")[2]:
            case "v3":
                return offers(version)
            case "ping":
                return {"meta": {"slurm": {"version": {"major": "24"}, "release": "24.05.3", "cluster": "alpha"}}}
            case "nodes":
                return {"nodes": [node(), node(name="n2", state=["IDLE", "DRAIN"], gres="", gres_used="")]}
            case "partitions":
                return {"partitions": partitions}
            case _:
                return {"reservations": [{"name": "maint"}]}

    async with pretended(answer) as url:
        shell = RestShell(url, str(token), LocalShell())
        try:
            return (await shell.run(None, ["/bin/sh", "-c", DESCRIBE])).out.decode()
        finally:
            await shell.close()


async def test_cluster_in_the_shapes_of_later_versions(token: Path) -> None:
    facts = read_facts(await described(41, [PARTITION], token))
    first, second = facts.nodes
    assert (facts.cluster, facts.version, facts.reservations) == ("alpha", (24, 5), ("maint",))
    assert (first.total.cpu, first.total.memory, first.total.gpu) == (62_000, 250_000 << 20, 4000)
    assert (first.free.cpu, first.free.gpu, first.gpu_type, first.address) == (60_000, 3000, "h100", "10.0.0.1")
    assert first.features == {"a"}
    assert first.partitions == {"main"}
    assert first.available
    assert (second.available, second.total.gpu) == (False, 0)
    main = facts.partitions["main"]
    assert (main.default, main.up, main.max_time, main.max_nodes) == (True, True, 2880 * 60, None)


async def test_among_several_partitions_none_is_taken_for_the_default(token: Path) -> None:
    facts = read_facts(await described(41, [PARTITION, PARTITION | {"name": "long"}], token))
    assert [partition.default for partition in facts.partitions.values()] == [False, False]


@pytest.mark.parametrize(("version", "most"), [(39, 1), (40, 1), (41, 1001), (43, 1001)])
async def test_no_arrays_where_a_task_cannot_be_cancelled_alone(version: int, most: int, token: Path) -> None:
    facts = read_facts(await described(version, [PARTITION], token))
    assert facts.number("MaxArraySize", 1001) == most


def test_complaints_of_all_versions_are_read() -> None:
    old = {"errors": [{"error_code": 2000, "error": "Invalid partition name specified"}]}
    new = {"errors": [{"description": "Batch job submission failed", "error_number": 2000,
                       "error": "Invalid partition name specified", "source": "slurm_submit_batch_job()"}]}  # fmt: skip
    empty = {"errors": [{"description": "Failed while looking for jobs", "error": "Unspecified error"}]}
    assert complaint_of(json.dumps(old).encode()) == ("Invalid partition name specified", False)
    said = "Batch job submission failed; Invalid partition name specified"
    assert complaint_of(json.dumps(new).encode()) == (said, False)
    assert complaint_of(json.dumps(empty).encode()) == ("Failed while looking for jobs", True)
    for garbage in (b"", b"x", b"[]", b'{"errors": 3}', b'{"errors": [3]}'):
        assert complaint_of(garbage)[1]


def test_settings_are_read_from_slurm_conf(tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=x # mine\n#MaxArraySize=5\nMaxArraySize = 4000\nNodeName=a CPUs=1\n\n")
    assert read_settings(str(conf)) == {"ClusterName": "x", "MaxArraySize": "4000"}


# -- tokens ----------------------------------------------------------------------------------------------------------


def rewrite(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def tokens(reference: str) -> Tokens:
    return Tokens(reference, OWN, LocalShell())


async def test_token_of_each_account_is_its_own(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        path = tmp_path / name
        path.write_text(f"SLURM_JWT=token-of-{name}\n")
        path.chmod(0o600)
    assert await tokens(f"{tmp_path}/{{account}}").of("ann") == "token-of-ann"
    assert await tokens("echo token-of-{account}").of("bob") == "token-of-bob"


async def test_token_without_a_place_for_the_account_is_our_own_alone(token: Path) -> None:
    assert await tokens(str(token)).of(OWN)
    with pytest.raises(NoAccount, match=r"write {account} into config\.token, so that ann has one too"):
        await tokens(str(token)).of("ann")


async def test_token_files_that_are_open_missing_or_empty_are_named(token: Path) -> None:
    rewrite(token, "something", 0o644)
    with pytest.raises(NoAccount, match=f"{token} is open to others than its owner"):
        await tokens(str(token)).of(OWN)
    rewrite(token, " \n")
    with pytest.raises(NoAccount, match="There is no token"):
        await tokens(str(token)).of(OWN)
    with pytest.raises(NoAccount, match="No such file"):
        await tokens("/nowhere/{account}").of(OWN)


async def test_secret_of_a_token_is_in_no_error(token: Path) -> None:
    rewrite(token, "very secret")
    with pytest.raises(NoAccount) as raised:
        await tokens(str(token)).of(OWN)
    assert "very" not in str(raised.value)


async def test_printed_token_is_kept_until_shortly_before_its_end(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = tmp_path / "print"
    end = time.time() + 31.0
    script.write_text(f"#!/bin/sh\necho >>{count}\necho {jwt(end)}\n")
    script.chmod(0o755)
    kept = tokens(f"env {script} {{account}}")
    for _ in range(3):
        await kept.of(OWN)
    assert count.read_text() == "\n"
    await asyncio.sleep(max(0.0, end - 29.5 - time.time()))
    await kept.of(OWN)
    assert count.read_text() == "\n\n"
    kept.drop(OWN)
    await kept.of(OWN)
    assert count.read_text() == "\n\n\n"


async def test_command_that_fails_is_told_in_its_words() -> None:
    with pytest.raises(DriverError, match=f"The command for the token of {OWN} failed: no key"):
        await tokens("sh -c 'echo no key >&2; exit 1' {account}").of(OWN)


# -- scripts ---------------------------------------------------------------------------------------------------------


async def test_calls_of_a_script_are_made_and_told_as_if_by_the_commands(tmp_path: Path, token: Path) -> None:
    """The job's number is written down; what Slurm refuses is told in its words."""
    asked: list[tuple[str, str, Any]] = []

    async def answer(request: web.Request) -> Any:
        if request.path == "/openapi/v3":
            return offers(38)
        body: Any = await request.json() if request.method == "POST" else request.query_string
        asked.append((request.method, request.path, body))
        if request.method == "POST" and body["job"]["name"] == "wrong":
            return web.json_response({"errors": [{"error": "Invalid qos specification"}]}, status=500)
        return {"job_id": 17, "errors": []}

    text = (
        "set -- --job-name=$2 --nodes=1\n"
        'if job=$(sbatch --parsable "$@" keeper "$0" one wrapper 2>/dev/null </dev/null); then echo "job one $job"\n'
        'else echo "failed one $? no"; fi\n'
        "scancel --quiet 12_3 13\nscancel --full --signal=TERM 14\necho done\n"
    )
    (tmp_path / "batches" / "one").mkdir(parents=True)
    async with pretended(answer) as url:
        shell = RestShell(url, str(token), LocalShell())
        root = str(tmp_path)
        ran = await shell.run(None, ["/bin/sh", "-c", text.replace('"$0"', f"'{root}'"), "atoll", root, "fine"])
        assert ran.out == b"done\njob one 17\n"
        assert (tmp_path / "batches" / "one" / "job").read_text() == "17\n"
        again = await shell.run(None, ["/bin/sh", "-c", text, "atoll", root, "wrong"])
        assert again.out == b"done\nfailed one 1 Invalid qos specification\n"
        await shell.close()
    submitted: list[Any] = [body for method, _, body in asked if method == "POST"]
    assert submitted[0]["script"] == f"#!/bin/sh\nexec '/bin/sh' 'keeper' '{root}' 'one' 'wrapper'\n"
    assert submitted[0]["job"]["nodes"] == "1"
    ended = {(path.rpartition("/")[2], query) for method, path, query in asked if method == "DELETE"}
    assert ended == {("12_3", ""), ("13", ""), ("14", "signal=TERM")}


async def test_other_commands_run_here_as_ever(token: Path) -> None:
    shell = RestShell("http://127.0.0.1:1", str(token), LocalShell())
    assert (await shell.run(None, ["sh", "-c", "cat; exit 3"], stdin=b"x")).out == b"x"
    with pytest.raises(DriverError, match=r"slurmrestd at http://127\.0\.0\.1:1 cannot be reached: Connection refused"):
        await shell.run(None, ["squeue", "--json"])
    with pytest.raises(DriverError, match="starts no commands inside a running job"):
        await shell.open(None, ["srun", "true"])
    await shell.close()


async def until(condition: Callable[[], object]) -> None:
    """Wait for what only looking again tells."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
