"""The wrapper itself, in every POSIX shell that this machine has, without any driver."""

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import Launch
from atoll.drivers.wrapper import WRAPPER, Place, read_record, render_launch, secret_files

SHELLS = [shell for shell in ("dash", "bash", "busybox", "ksh", "mksh", "zsh") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Words that start the shell as /bin/sh would be."""
    name: str = request.param
    if name == "busybox":
        return [str(shutil.which(name)), "sh"]
    link = tmp_path / "shells" / "sh"
    link.parent.mkdir()
    link.symlink_to(str(shutil.which(name)))
    return [str(link)]


class Attempt:
    """A folder with what is rendered for a job."""

    def __init__(self, folder: Path, spec: dict[str, Any], **place: Any) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        job = JobSpec.model_validate(spec)
        self.launch = launch = Launch(
            attempt_id="aaaaa-0123456789abcdef", job_id=7, task=None, task_count=1, number=1, checkpoint_key="7",
            person="ann", project="physics", account=None, spec=job, request=Resources(1000, 1 << 30, 0), nodes=1,
            walltime=None,
        )  # fmt: skip
        workdir = str(place.pop("workdir", self.work))
        environment = {"PATH": os.environ["PATH"]}
        where = Place(str(folder), workdir, "ann", **{"environment": environment, **place})
        (folder / "launch").write_text(render_launch(launch, where))
        if job.script is not None:
            (folder / "script").write_text(job.script)

    def start(self, shell: list[str], *more: str) -> subprocess.Popen[bytes]:
        words = [*shell, str(WRAPPER), str(self.folder), *more]
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, env={}, start_new_session=True)

    def run(self, shell: list[str], *more: str) -> int:
        with self.start(shell, *more) as process:
            return process.wait(timeout=20)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.mark.parametrize("code", [0, 3, 126, 200, 255])
def test_exit_code_is_recorded_and_passed_on(shell: list[str], tmp_path: Path, code: int) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["sh", "-c", f"exit {code}"]})
    assert attempt.run(shell, "native-7") == code
    record = read_record(str(attempt.folder))
    assert (record.exit_code, record.signal, record.native_id) == (code, None, "native-7")
    assert record.started_at is not None
    assert record.ended_at is not None
    assert record.started_at <= record.ended_at
    assert record.cpu_seconds is not None


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGPIPE", "SIGSEGV", "SIGUSR2"])
def test_signal_is_recorded(shell: list[str], tmp_path: Path, name: str) -> None:
    number = int(signal.Signals[name])
    attempt = Attempt(tmp_path / "a", {"command": ["sh", "-c", f"kill -{number} $$; sleep 9"]})
    attempt.run(shell)
    record = read_record(str(attempt.folder))
    assert (record.exit_code, record.signal) == (128 + number, number)


def test_plain_exit_code_is_no_signal_where_the_shell_can_tell(tmp_path: Path) -> None:
    """An ash tells 137 by `exit` from 137 by SIGKILL."""
    attempt = Attempt(tmp_path / "a", {"command": ["sh", "-c", "exit 137"]})
    attempt.run([str(shutil.which("dash"))])
    assert read_record(str(attempt.folder)).signal is None


def test_claimed_attempt_does_not_run_again(shell: list[str], tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["sh", "-c", "echo ran; exit 5"]})
    assert attempt.run(shell, "first") == 5
    assert attempt.run(shell, "second") == 0
    assert attempt.read("stdout") == "ran\n"
    record = read_record(str(attempt.folder))
    assert (record.exit_code, record.native_id) == (5, "first")


def test_of_many_starters_one_runs(shell: list[str], tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["sh", "-c", "echo ran; sleep 0.2"]})
    processes = [attempt.start(shell) for _ in range(10)]
    for process in processes:
        with process:
            assert process.wait(timeout=20) == 0
    assert attempt.read("stdout") == "ran\n"


def test_folder_that_cannot_be_claimed_is_an_error(shell: list[str], tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["true"]})
    (attempt.folder / "claim").write_text("in the way")
    assert attempt.run(shell) == 125
    assert not read_record(str(attempt.folder)).ended


def test_awkward_words_arrive_unchanged(shell: list[str], tmp_path: Path) -> None:
    words = ["", " ", "'", '"', "\n", "$x", "`x`", "\\", "*", "~", "é", "\x80\x81\x88", "a=b", "-n", "!", "漢"]
    show = "import sys,os; print([os.fsdecode(os.fsencode(w)) for w in sys.argv[1:]] == eval(os.environ['EXPECTED']))"
    attempt = Attempt(
        tmp_path / "a",
        {"command": ["/usr/bin/python3", "-X", "utf8", "-c", show, *words], "env": {"EXPECTED": ascii(words)}},
    )
    assert attempt.run(shell) == 0
    assert attempt.read("stdout") == "True\n"


def test_variables_of_shells_do_no_harm(shell: list[str], tmp_path: Path) -> None:
    names = ["UID", "PPID", "IFS", "OPTIND", "RANDOM", "BASH_ENV", "ENV", "PS4", "atoll_code", "status", "path"]
    attempt = Attempt(tmp_path / "a", {"command": ["env"], "env": dict.fromkeys(names, "odd value")})
    assert attempt.run(shell) == 0
    assert {f"{name}=odd value" for name in names} <= set(attempt.read("stdout").splitlines())


def test_signal_to_the_whole_group_does_not_keep_the_end_from_being_written(shell: list[str], tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["sh", "-c", "echo up; sleep 20; exit 1"]})
    with attempt.start(shell) as process:
        while not (attempt.folder / "stdout").exists() or not attempt.read("stdout"):
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
    record = read_record(str(attempt.folder))
    assert (record.exit_code, record.signal) == (143, 15)


@pytest.mark.parametrize(
    ("spec", "place", "said"),
    [
        ({}, {"workdir": "/no/such/folder"}, "/no/such/folder"),
        ({"stdin": "missing.txt"}, {}, "missing.txt"),
        ({"environment": {"venv": "/no/venv"}}, {}, "/no/venv"),
        ({"environment": {"conda": "none"}}, {"conda": "/no/conda"}, "none"),
        ({"stdout": "/no/such/folder/out.log"}, {}, "/no/such/folder/out.log"),
    ],
)
def test_what_keeps_the_command_from_starting_is_said(
    shell: list[str], tmp_path: Path, spec: dict, place: dict, said: str
) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["echo", "ran"], **spec}, **place)
    assert attempt.run(shell) == 126
    assert said in attempt.read("stderr")
    assert attempt.read("stdout") == ""
    assert read_record(str(attempt.folder)).exit_code == 126


def test_conda_environment_is_activated(shell: list[str], tmp_path: Path) -> None:
    """By what conda itself says that a POSIX shell has to do; a program that answers as conda does stands in."""
    conda = tmp_path / "conda"
    conda.write_text(
        '#!/bin/sh\n[ "$1 $2" = "shell.posix activate" ] || exit 1\n'
        'echo "export CONDA_DEFAULT_ENV=\'$3\'"\necho "export CONDA_SHLVL=1"\n'
    )
    conda.chmod(0o755)
    attempt = Attempt(
        tmp_path / "a",
        {"command": ["sh", "-c", "echo $CONDA_DEFAULT_ENV"], "environment": {"conda": "my env"}},
        conda=str(conda),
    )
    assert attempt.run(shell) == 0
    assert attempt.read("stdout") == "my env\n"


def test_output_goes_to_a_file_of_another_file_system_too(shell: list[str], tmp_path: Path) -> None:
    """Where no second name of the same file can be made, it is copied at the end."""
    other = Path("/dev/shm") / f"atoll-test-{os.getpid()}.log"
    if other.parent.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    attempt = Attempt(tmp_path / "a", {"command": ["echo", "hello"], "stdout": str(other)})
    try:
        assert attempt.run(shell) == 0
        assert other.read_text() == "hello\n"
    finally:
        other.unlink(missing_ok=True)


def test_output_file_is_the_same_file_where_that_can_be(shell: list[str], tmp_path: Path) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["echo", "hello"], "stdout": "%x-%j.log", "name": "n/m"})
    attempt.run(shell)
    assert (attempt.work / "n_m-7.log").samefile(attempt.folder / "stdout")


def test_files_are_laid_into_the_working_directory(shell: list[str], tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "in").mkdir(parents=True)
    (files / "in/.hidden").write_text("x")
    attempt = Attempt(tmp_path / "a", {"command": ["cat", "in/.hidden"]}, files=str(files))
    assert attempt.run(shell) == 0
    assert attempt.read("stdout") == "x"


def test_secrets_are_there_while_the_command_runs_and_gone_after(shell: list[str], tmp_path: Path) -> None:
    """Awkward values too; what was in the working directory under another name stays."""
    value = 'it\'s "two"\n$HOME `id` \\ %s grüße \x81\x88'
    spec = {
        "command": [
            "sh",
            "-c",
            'printf %s "$KEY" >key; cp "deep/er/-f ile" seen; ls ../secrets; test ! -e ../secrets/env',
        ],
        "secrets": [{"name": "one", "env": "KEY"}, {"name": "two", "file": "deep/er/-f ile"}],
    }
    attempt = Attempt(tmp_path / "a", spec, secrets=str(tmp_path / "a/secrets"))
    launch = replace(attempt.launch, secrets={"one": value.encode(), "two": bytes(range(256))})
    (attempt.folder / "secrets").mkdir()
    for name, content in secret_files(launch).items():
        (attempt.folder / "secrets" / name).write_bytes(content)
    assert attempt.run(shell) == 0, attempt.read("stderr")
    assert (attempt.work / "key").read_bytes() == value.encode()
    assert (attempt.work / "seen").read_bytes() == bytes(range(256))
    assert attempt.read("stdout") == "1\n"
    assert not (attempt.folder / "secrets").exists()
    assert not (attempt.work / "deep/er/-f ile").is_symlink()
    assert read_record(str(attempt.folder)).exit_code == 0


@pytest.mark.parametrize(
    ("secret", "value", "words"),
    [
        ({"name": "key", "env": "KEY"}, None, "the secret 'key' has no value"),
        ({"name": "key", "env": "KEY"}, b"a\0b", "NUL"),
        ({"name": "key", "env": "IFS"}, b"x", "'IFS' is a shell's own"),
    ],
)
def test_secret_that_cannot_be_given_is_invalid(tmp_path: Path, secret: dict, value: bytes | None, words: str) -> None:
    attempt = Attempt(tmp_path / "a", {"command": ["true"], "secrets": [secret]})
    with pytest.raises(Invalid, match=words) as caught:
        secret_files(replace(attempt.launch, secrets={} if value is None else {"key": value}))
    assert caught.value.field == "secrets"


def test_script_with_dos_line_breaks_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="DOS line breaks") as caught:
        Attempt(tmp_path / "a", {"script": "#!/bin/sh\r\ntrue\r\n"})
    assert caught.value.field == "script"
