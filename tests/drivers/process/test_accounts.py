"""Whose account a job runs as: the owner's, a mapped one where that is possible, and else nobody's."""

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.core.site import Ability
from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Launch, Refused
from tests.contract.process_harness import ProcessHarness

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run jobs as somebody else")
# of this process: several runs of the tests may share a machine
NAMES = tuple(f"atoll-test-{name}-{os.getpid()}" for name in ("ann", "bob"))


@pytest.fixture(scope="module")
def accounts() -> Iterator[tuple[pwd.struct_passwd, pwd.struct_passwd]]:
    """Two Unix accounts that exist for these tests only."""
    for name in NAMES:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/bash", name], check=True, capture_output=True)
    yield pwd.getpwnam(NAMES[0]), pwd.getpwnam(NAMES[1])
    for name in NAMES:
        subprocess.run(["userdel", "--remove", name], check=True, capture_output=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can pass; pytest's own are closed."""
    path = Path(tempfile.mkdtemp(prefix="atoll-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def shared(accounts: tuple, open_folder: Path) -> AsyncIterator[ProcessHarness]:
    harness = ProcessHarness(open_folder, {"accounts": {"ann": NAMES[0], "bob": NAMES[1]}})
    await harness.start()
    yield harness
    await harness.tear_down()


@needs_root
async def test_job_of_a_mapped_person_runs_as_that_account(shared: ProcessHarness, accounts: tuple) -> None:
    """User, groups, home and folders are the account's, and nothing is left of root."""
    text = (
        'id -u; id -g; id -G; echo $HOME $USER $LOGNAME $SHELL; touch file; stat -c %U file . "$ATOLL_SCRATCH"; umask'
    )
    launch = shared.script(text, person="ann", account=NAMES[0])
    lines = (await shared.output(launch)).splitlines()
    ann = accounts[0]
    assert lines[:3] == [str(ann.pw_uid), str(ann.pw_gid), str(ann.pw_gid)]
    assert lines[3] == f"{ann.pw_dir} {NAMES[0]} {NAMES[0]} /bin/bash"
    assert lines[4:7] == [NAMES[0]] * 3
    assert Ability.OTHER_PERSONS in (await shared.driver.describe()).abilities


@needs_root
async def test_jobs_of_others_reach_neither_each_other_nor_the_supervisor(shared: ProcessHarness) -> None:
    secret = shared.script("echo private", person="bob", account=NAMES[1])
    await shared.run(secret)
    site, other = shared.site, shared.folder_of(secret.attempt_id)
    probes = [
        f"cat {other}/stdout",
        f"ls {other}",
        f"ls {site}/attempts",
        f"ls {site}",
        f"ls {site}/supervisor",
        f"{shared.python} -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"{site}/supervisor/socket\")'",
        f"touch {site}/wrapper.sh",
        "kill -0 $(cat /proc/$PPID/stat | cut -d' ' -f4)",
    ]
    text = "; ".join(f"({probe}) >/dev/null 2>&1 && echo reached {number}" for number, probe in enumerate(probes))
    assert await shared.output(shared.script(f"{text}; true", person="ann", account=NAMES[0])) == ""


@needs_root
async def test_limits_hold_for_mapped_accounts(shared: ProcessHarness) -> None:
    take = "import time; x=[]\nfor _ in range(60): x.append(b'x' * (16 << 20)); time.sleep(0.02)\ntime.sleep(30)"
    memory = shared.launch({"command": [shared.python, "-c", take]}, person="ann", account=NAMES[0])
    walltime = shared.launch({"command": ["sleep", "60"], "grace": 0}, person="ann", account=NAMES[0], walltime=1)
    await shared.submit(memory, walltime)
    statuses = await shared.wait([memory, walltime])
    assert [status.outcome for status in statuses] == [Outcome.OUT_OF_MEMORY, Outcome.TIMED_OUT]


@needs_root
async def test_files_of_others_cannot_be_taken_out(shared: ProcessHarness) -> None:
    """By no link, and not by a working directory that holds somebody else's files."""
    launch = shared.launch({"command": ["sh", "-c", "true"], "workdir": "/etc"}, person="ann", account=NAMES[0])
    await shared.run(launch)
    assert await shared.stage.take_out(shared.held_as(launch), ["shadow", "passwd"], shared.folder / "out") == []
    own = shared.script("echo mine >a; ln -s /etc/shadow b; ln /etc/passwd c; true", person="ann", account=NAMES[0])
    await shared.run(own)
    assert await shared.stage.take_out(shared.held_as(own), ["*"], shared.folder / "out") == ["a"]
    await shared.forget(own)
    assert not shared.folder_of(own.attempt_id).exists()


@needs_root
async def test_files_are_laid_out_for_the_account(shared: ProcessHarness) -> None:
    """Also into a working directory that the platform must not write to itself."""
    inside = shared.script(
        "cat in/file; stat -c %U in/file", person="ann", account=NAMES[0], files=(shared.staged("in/file", b"x\n"),)
    )
    assert await shared.output(inside) == f"x\n{NAMES[0]}\n"
    home = shared.launch(
        {"command": ["sh", "-c", "cat in/file; stat -c %U in/file"], "workdir": f"/home/{NAMES[0]}"},
        person="ann",
        account=NAMES[0],
        files=(shared.staged("in/file", b"y\n"),),
    )
    assert await shared.output(home) == f"y\n{NAMES[0]}\n"


@pytest.fixture
def victim(open_folder: Path) -> Path:
    """A folder of root's that nobody else may write."""
    path = open_folder / "victim"
    path.mkdir(mode=0o755)
    (path / "file").write_text("root's")
    return path


def link_to(victim: Path, path: Path, owner: pwd.struct_passwd) -> None:
    """What another job of the account may do in the folder of this one."""
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(victim)
    os.lchown(path, owner.pw_uid, owner.pw_gid)


def with_file(shared: ProcessHarness) -> Launch:
    return shared.script("cat x/file", person="ann", account=NAMES[0], files=(shared.staged("x/file", b"mine\n"),))


@needs_root
async def test_attempt_handed_over_again_is_not_written_through_links(
    shared: ProcessHarness, accounts: tuple, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is the account's by then, so root must not touch what is in it."""
    launch = with_file(shared)

    async def lost(*_: object, **__: object) -> None:
        raise DriverError("the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(shared.process_driver, "_ask", lost)
        with pytest.raises(DriverError):
            await shared.driver.submit([launch])
    link_to(victim, shared.folder_of(launch.attempt_id) / "work" / "x", accounts[0])
    await shared.run(launch)
    assert (victim / "file").read_text() == "root's"
    assert (victim / "file").stat().st_uid == 0


@needs_root
async def test_attempt_laid_out_half_is_laid_out_anew(shared: ProcessHarness, accounts: tuple, victim: Path) -> None:
    """What the unfinished try left is not used, be it what it may."""
    await shared.supervisor()
    launch = with_file(shared)
    folder = shared.folder_of(launch.attempt_id)
    half = folder.with_name(f"{folder.name}.new")
    (half / "work").mkdir(parents=True)
    link_to(victim, half / "work" / "x", accounts[0])
    assert await shared.output(launch) == "mine\n"
    assert (victim / "file").read_text() == "root's"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@needs_root
async def test_checkpoint_folder_is_the_accounts(shared: ProcessHarness) -> None:
    text = 'stat -c "%U %a" "$ATOLL_CHECKPOINT_DIR"; echo 1 >"$ATOLL_CHECKPOINT_DIR/step"'
    launch = shared.script(text, person="ann", account=NAMES[0], checkpoint_key="k")
    assert await shared.output(launch) == f"{NAMES[0]} 700\n"
    assert [path.name for path in (shared.site / "checkpoints").iterdir()] == ["k"]


@needs_root
@pytest.mark.parametrize(
    ("person", "account", "word"),
    [
        ("ann", "no-such-account", "no-such-account"),
        ("ann", "root", "root"),
        ("carl", None, "carl"),
    ],
)
async def test_person_without_a_right_account_is_refused(
    shared: ProcessHarness, person: str, account: str | None, word: str
) -> None:
    launch = shared.script("true", person=person, account=account)
    (answer,) = await shared.driver.submit([launch])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert word in answer.message
    assert not shared.folder_of(launch.attempt_id).exists()


@needs_root
async def test_account_that_cannot_reach_the_folder_is_refused(tmp_path: Path, accounts: tuple) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    harness = ProcessHarness(closed, {"accounts": {"ann": NAMES[0]}})
    await harness.start()
    (answer,) = await harness.driver.submit([harness.script("true", person="ann", account=NAMES[0])])
    assert isinstance(answer, Refused)
    assert "closed" in answer.message
    await harness.tear_down()


async def test_owner_needs_no_mapping(harness: ProcessHarness) -> None:
    assert (await harness.output(harness.script("id -u"))).strip() == str(os.getuid())


async def test_nothing_of_the_platforms_environment_leaks(
    harness: ProcessHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_TOKEN", "s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:s3cret@db/atoll")
    monkeypatch.setenv("SOMETHING_ELSE", "s3cret")
    assert "s3cret" not in await harness.output(harness.script("env; cat /proc/$PPID/environ | tr '\\0' '\\n'"))


@needs_root
async def test_contract_holds_without_any_right(accounts: tuple, open_folder: Path) -> None:
    """An account that may make no cgroup: memory by looking, ends, daemons and restarts all the same."""
    become = ["setpriv", f"--reuid={NAMES[1]}", f"--regid={NAMES[1]}", "--init-groups"]
    if (await said_by(*become, sys.executable, "-c", "import pytest"))[0] != 0:
        pytest.skip(f"{sys.executable} is closed to other accounts")
    base = open_folder / "run"
    base.mkdir()
    os.chown(base, accounts[1].pw_uid, accounts[1].pw_gid)
    cases = "memory or daemon or exit_code or attempts_are_found or walltime_ends or forgotten"
    code, text = await said_by(
        *become, "env", f"HOME={accounts[1].pw_dir}", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-m", "pytest", "-q",
        "-p", "no:cacheprovider", "-p", "no:schemathesis", "--basetemp", str(base / "tmp"),
        "tests/contract/test_process.py", "-k", f"auto and ({cases})",
    )  # fmt: skip
    assert code == 0, text[-3000:]
    assert " passed" in text
    assert "skipped" not in text


async def said_by(*words: str) -> tuple[int | None, str]:
    """Exit code and output of a command in the repository's folder."""
    process = await asyncio.create_subprocess_exec(
        *words, cwd=Path(__file__).parents[3], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_shared_site_runs_everybodys_jobs_as_its_own_account(tmp_path: Path) -> None:
    """Only where the site's file says so; and it says so."""
    harness = ProcessHarness(tmp_path)
    harness.shared = True
    await harness.start()
    assert await harness.output(harness.script("id -u", person="ann")) == f"{os.geteuid()}\n"
    assert Ability.OTHER_PERSONS in (await harness.driver.describe()).abilities
    await harness.tear_down()
