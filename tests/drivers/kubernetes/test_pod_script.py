"""pod.sh, by the system's own shell and in process namespaces of this machine: what runs in every pod."""

import io
import tarfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import Launch, StagedFile
from tests.support.engines import skip_without
from tests.support.kubernetes_pod import Pod, can_unshare

Make = Callable[..., Pod]
FOREVER = "while :; do sleep 0.05; done"


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    if not await can_unshare():
        skip_without("process namespaces", "this account may not make them")
    pods: list[Pod] = []

    def pod(spec: dict[str, Any] | str, config: dict[str, Any] | None = None, **values: Any) -> Pod:
        job = JobSpec.model_validate({"command": ["/bin/sh", "-c", spec]} if isinstance(spec, str) else spec)
        usual: dict[str, Any] = {
            "attempt_id": new_attempt_id("abcde"), "job_id": 1, "task": None, "task_count": 1, "number": 1,
            "checkpoint_key": "k", "person": "ada", "project": "p", "account": None, "spec": job,
            "request": Resources(1000, 1 << 28), "nodes": job.nodes, "walltime": job.walltime,
            "environment": {"ATOLL_JOB_ID": "1"},
        }  # fmt: skip
        pods.append(Pod(tmp_path / str(len(pods)), Launch(**(usual | values)), config))
        return pods[-1]

    yield pod
    for each in pods:
        await each.close()


@pytest.mark.parametrize(
    ("text", "code", "signal"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -TERM $$", 143, 15), ("kill -INT $$", 130, 2)],
)
async def test_end_is_told_to_the_engine(make: Make, text: str, code: int, signal: int | None) -> None:
    pod = make(f"echo out; echo error >&2; {text}")
    await pod.start()
    ended, report = await pod.ended()
    assert (ended, report.exit_code, report.signal, report.asked) == (code, code, signal, "")
    assert report.cpu_seconds is not None
    assert (pod.run / "stdout").read_bytes() == b"out\n"
    assert (pod.run / "stderr").read_bytes() == b"error\n"


async def test_stop_lets_the_job_tidy_up(make: Make) -> None:
    pod = make(f"trap 'echo tidied; exit 3' TERM; echo up; {FOREVER}")
    await pod.start()
    await pod.wait_for(b"up")
    await pod.verb("main", "stop", "cancelled", "20")
    assert (await pod.ended())[1].asked == "cancelled"
    assert (pod.run / "stdout").read_bytes() == b"up\ntidied\n"


async def test_job_that_ignores_the_signal_is_killed_after_the_first_grace(make: Make) -> None:
    """A second stop neither prolongs it nor changes the reason."""
    pod = make(f"trap '' TERM; echo up; {FOREVER}")
    await pod.start()
    await pod.wait_for(b"up")
    begun = time.monotonic()
    await pod.verb("main", "stop", "evicted", "2")
    await pod.verb("main", "stop", "cancelled", "60")
    code, report = await pod.ended()
    assert (code, report.signal, report.asked) == (137, 9, "evicted")
    assert 1.8 < time.monotonic() - begun < 6


async def test_stop_without_grace_is_told_as_such_every_time(make: Make) -> None:
    for _ in range(5):
        pod = make(f"trap '' TERM; echo up; {FOREVER}")
        await pod.start()
        await pod.wait_for(b"up")
        await pod.verb("main", "stop", "cancelled", "0")
        code, report = await pod.ended()
        assert (code, report.signal, report.asked) == (137, 9, "cancelled")


async def test_walltime_signals_first_and_then_ends(make: Make) -> None:
    spec = {
        "command": ["/bin/sh", "-c", f"trap 'echo warned' USR1; trap '' TERM; echo up; {FOREVER}"],
        "signal": {"name": "USR1", "before": 1}, "walltime": 2, "grace": 1,
    }  # fmt: skip
    pod = make(spec)
    begun = time.monotonic()
    await pod.start()
    code, report = await pod.ended()
    assert (code, report.asked) == (137, "timed_out")
    assert 2.5 < time.monotonic() - begun < 8
    assert b"warned" in (pod.run / "stdout").read_bytes()


async def test_signal_reaches_the_job_and_not_its_clock(make: Make) -> None:
    pod = make({"command": ["/bin/sh", "-c", f"trap 'echo got' USR1; echo up; {FOREVER}"], "walltime": 2, "grace": 0})
    await pod.start()
    await pod.wait_for(b"up")
    await pod.verb("main", "tell", "USR1")
    await pod.wait_for(b"got")
    assert (await pod.ended())[1].asked == "timed_out"


async def test_files_and_secrets_are_laid_out_and_taken_out(make: Make, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * 6000)
    text = (
        'cmp in/large "$1" && test "$KEY" = secret && cat deep/file && mkdir out && cp in/large out/copy && '
        "ln -s copy out/link && ln -s /etc/passwd out/away && ln out/copy out/same && exit 5"
    )
    pod = make(
        {
            "command": ["/bin/sh", "-c", text, "sh", str(source)],
            "secrets": [{"name": "a", "env": "KEY"}, {"name": "b", "file": "deep/file"}],
        },
        files=(StagedFile("in/large", source),), secrets={"a": b"secret", "b": b"in a file"},
    )  # fmt: skip
    await pod.start()
    assert (await pod.ended())[0] == 5, (pod.run / "stderr").read_bytes()
    assert (pod.run / "stdout").read_bytes() == b"in a file"
    _, listed = await pod.verb("keeper", "list")
    names = {name.decode() for name in listed.split(b"\0") if name}
    assert {"./out/copy", "./out/link", "./out/away", "./in/large"} <= names
    wanted = "".join(f"{name}\n" for name in sorted(names)) + "\n"
    _, archive = await pod.verb("keeper", "take", stdin=wanted.encode())
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        taken = {member.name for member in members}
    assert {"./out/copy", "./out/link", "./out/same", "./in/large"} <= taken
    assert "./out/away" not in taken
    assert not any("deep" in name for name in taken), "a secret has come out with the files"


async def test_output_is_read_by_offset_and_no_link_is_followed(make: Make) -> None:
    pod = make("printf 0123456789; rm -f ../stderr; ln -s /etc/passwd ../stderr")
    await pod.start()
    await pod.ended()
    for offset, limit, said in (
        (0, 4, b"10 0\n0123"),
        (8, 100, b"10 8\n89"),
        (-3, 2, b"10 7\n78"),
        (99, 5, b"10 10\n"),
    ):
        assert (await pod.verb("keeper", "read", "stdout", str(offset), str(limit)))[1] == said
    assert (await pod.verb("keeper", "read", "stderr", "0", "100"))[1] == b"0 0\n"


async def test_output_goes_to_the_log_when_nobody_reads_any_more(make: Make) -> None:
    pod = make("printf abc; exit 1")
    await pod.start(keep="1")
    assert (await pod.ended())[0] == 1
    assert await pod.said() == b"atoll stdout 3 0\nYWJj\natoll stderr 0 0\n"


async def test_command_beside_the_job_has_its_environment_and_place(make: Make) -> None:
    pod = make({"command": ["/bin/sh", "-c", f"echo up; {FOREVER}"], "env": {"MARK": "it's $x", "IFS": "y"}})
    await pod.start()
    await pod.wait_for(b"up")
    code, out = await pod.verb("main", "enter", "/bin/sh", "-c", 'pwd; echo "$MARK"; cat; exit 4', stdin=b"in")
    assert (code, out.decode()) == (4, f"{pod.run}/work\nit's $x\nin")
    assert (await pod.verb("main", "enter", "/no/such"))[0] == 127
    await pod.verb("main", "stop", "cancelled", "0")
    await pod.ended()


def getent(folder: Path, answer: str) -> str:
    """A PATH on which `getent` answers like this."""
    folder.mkdir()
    program = folder / "getent"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("there", "rank", "code", "asked", "out"),
    [(True, 1, 0, "", b"1/2\n"), (False, 1, 125, "late", None), (True, 0, 0, "", b"0/2\n")],
)
async def test_nodes_wait_for_each_other(
    make: Make, tmp_path: Path, there: bool, rank: int, code: int, asked: str, out: bytes | None
) -> None:
    spec = {"command": ["/bin/sh", "-c", 'echo "$ATOLL_NODE_RANK/$ATOLL_NODES"'], "nodes": 2, "launch": "each"}
    pod = make(spec, {"start_within": 1})
    name = f"atoll-{pod.launch.attempt_id}"
    other = f'test "$2" = {name}-{1 - rank}.{name}' if there else "exit 2"
    pod.environment = {"PATH": getent(tmp_path / "bin", other), "HOSTNAME": f"{name}-{rank}"}
    pod.environment["JOB_COMPLETION_INDEX"] = str(rank)
    await pod.start()
    ended, report = await pod.ended()
    assert (ended, report.asked) == (code, asked)
    assert (pod.run / "stdout").exists() == (out is not None)
    assert out is None or (pod.run / "stdout").read_bytes() == out


async def test_other_nodes_of_a_command_that_runs_once_run_nothing(make: Make, tmp_path: Path) -> None:
    pod = make({"command": ["echo", "ran"], "nodes": 2, "launch": "once"})
    name = f"atoll-{pod.launch.attempt_id}"
    pod.environment = {"PATH": getent(tmp_path / "bin", "exit 0"), "HOSTNAME": f"{name}-1", "JOB_COMPLETION_INDEX": "1"}
    await pod.start()
    await pod.verb("main", "stop", "cancelled", "5")  # before, while or after it is laid out
    assert (await pod.ended())[1].asked == "cancelled"
    assert not (pod.run / "stdout").exists()


async def test_job_ends_whole_where_the_kernel_killed_one_process_for_memory(make: Make) -> None:
    """With cgroup 1 nothing else would end it."""
    pod = make(f"echo up; {FOREVER}")
    counts = pod.folder / "cgroup" / "memory" / "memory.oom_control"
    counts.parent.mkdir(parents=True)
    counts.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    await pod.start()
    await pod.wait_for(b"up")
    counts.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    code, report = await pod.ended()
    assert (code, report.asked, report.memory_kills) == (137, "out_of_memory", 1)
