"""How a command starts and ends: exit codes, signals, words, variables, scripts."""

import shlex
import signal

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import Phase, Refused
from atoll.drivers.contract.harness import Harness, only

AWKWARD = [
    "plain",
    "",
    " two  spaces ",
    "it's",
    'say "hi"',
    "a\nb\n",
    "tab\there",
    "*",
    "?[a-z]*",
    "~",
    "$HOME",
    "`id`",
    "$(id)",
    "\\",
    "\\n",
    "a;b|c&d<e>f",
    "#no comment",
    "-n",
    "--",
    "%s%d",
    "\x01\x7f\x80\x81\x88",
    "grüße 漢字 🏝",
    "x" * 20_000,
]
"""Texts that a careless quoting changes."""


class Exits:
    """Exit codes and signals are told as they were."""

    @pytest.mark.parametrize("code", [0, 1, 2, 126, 127, 128, 129, 255])
    async def test_exit_code_is_told(self, harness: Harness, code: int) -> None:
        """The exit code of the command is the attempt's, and 0 alone is success."""
        launch = harness.script(f"exit {code}")
        status = await harness.run(launch)
        assert status.exit_code == code
        assert status.outcome is (Outcome.SUCCEEDED if code == 0 else Outcome.FAILED)
        assert status.signal is None or code > 128  # some shells cannot tell `exit 129` from a signal

    @pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGINT", "SIGPIPE", "SIGUSR1"])
    async def test_signal_is_told(self, harness: Harness, name: str) -> None:
        """A command that a signal ended failed, with that signal, and with the exit code that shells give it."""
        number = int(signal.Signals[name])
        status = await harness.run(harness.script(f"kill -{number} $$; sleep 5"))
        assert status.outcome is Outcome.FAILED
        assert (status.signal, status.exit_code) == (number, 128 + number)

    async def test_times_are_told(self, harness: Harness) -> None:
        """Start and end lie in order, and as far apart as the job was long."""
        launch = harness.script("sleep 1")
        status = await harness.run(launch)
        assert status.started_at is not None
        assert status.ended_at is not None
        seconds = (status.ended_at - status.started_at).total_seconds()
        assert 0.9 <= seconds <= 1 + harness.slack

    async def test_missing_command_fails_with_127(self, harness: Harness) -> None:
        """A command that is not there fails as in a shell, and its error output says so."""
        launch = harness.launch({"command": ["/no/such/command", "argument"]})
        status = await harness.run(launch)
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 127)
        assert b"/no/such/command" in await harness.read(launch, "stderr")

    async def test_working_directory_that_is_missing_fails_the_attempt(self, harness: Harness) -> None:
        """An absolute working directory that is not there: exit code 126 and a sentence, and nothing is run."""
        launch = harness.launch({"command": ["echo", "ran"], "workdir": "/no/such/folder"})
        status = await harness.run(launch)
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 126)
        assert b"/no/such/folder" in await harness.read(launch, "stderr")
        assert await harness.read(launch) == b""

    async def test_working_directory_is_used(self, harness: Harness) -> None:
        """An absolute working directory is used as it is; a relative one is made below the attempt's own."""
        assert (await harness.output(harness.launch({"command": ["pwd"], "workdir": "/usr"}))) == "/usr\n"
        inner = await harness.output(harness.launch({"command": ["pwd"], "workdir": "deep/er"}))
        assert inner.endswith("/deep/er\n")

    async def test_running_attempt_is_seen(self, harness: Harness) -> None:
        """While it runs an attempt is told as running, with its start and without an end."""
        launch = harness.script("sleep 60")
        await harness.submit(launch)
        (status,) = await harness.wait([launch], Phase.RUNNING)
        assert status.phase is Phase.RUNNING
        assert status.started_at is not None
        assert (status.ended_at, status.outcome, status.exit_code) == (None, None, None)


class Texts:
    """What a person writes reaches the process unchanged."""

    async def test_arguments_arrive_unchanged(self, harness: Harness) -> None:
        """Quotes, newlines, patterns, Unicode and control characters are not touched by any shell."""
        show = "import sys,os; [print(ascii(os.fsdecode(os.fsencode(word)))) for word in sys.argv[1:]]"
        words = [harness.python, "-X", "utf8", "-c", show, *AWKWARD]
        text = await harness.output(harness.launch({"command": words}))
        assert text.splitlines() == [ascii(word) for word in AWKWARD]

    async def test_variables_arrive_unchanged(self, harness: Harness) -> None:
        """The same for values of environment variables."""
        variables = {f"VALUE_{number}": text for number, text in enumerate(AWKWARD)}
        show = f"import os; [print(ascii(os.environ['VALUE_%d' % n])) for n in range({len(AWKWARD)})]"
        launch = harness.launch({"command": [harness.python, "-X", "utf8", "-c", show], "env": variables})
        assert (await harness.output(launch)).splitlines() == [ascii(text) for text in AWKWARD]

    async def test_variables_of_shells_arrive_and_do_no_harm(self, harness: Harness) -> None:
        """A job may set variables that mean something to a shell; what starts it must not stumble over them."""
        variables = {
            "UID": "5", "PPID": "7", "IFS": "x", "OPTIND": "no number", "PS4": "$(touch harm)", "BASH_ENV": "/no/file",
            "ENV": "/no/file", "RANDOM": "1", "atoll_code": "99", "atoll_workdir": "/", "LINENO": "3",
        }  # fmt: skip
        show = "import os,json; print(json.dumps(dict(os.environ)))"
        launch = harness.launch({"command": [harness.python, "-c", show], "env": variables})
        import json

        seen = json.loads(await harness.output(launch))
        assert {name: seen.get(name) for name in variables} == variables

    async def test_command_is_never_a_shell_builtin(self, harness: Harness) -> None:
        """`exit`, `cd` or `:` as a command are programs to look for, not words to the shell that starts the job."""
        for word in ("exit", ":", "set", "eval"):
            status = await harness.run(harness.launch({"command": [word, "0"]}))
            assert status.exit_code == 127, word

    @pytest.mark.parametrize("shebang", ["bash", "python", "env", "none"])
    async def test_script_runs_by_its_first_line(self, harness: Harness, shebang: str) -> None:
        """A script runs by its #! line, without one by the shell, and gets its arguments."""
        python_lines = "import sys\nprint('python', sys.argv[1:])\n"
        scripts = {
            "bash": '#!/bin/bash\nwords=("$@"); echo "bash ${#words[@]} ${words[1]}"\n',
            "python": f"#!{harness.python} -u\n{python_lines}",
            "env": f"#!/usr/bin/env python3\n{python_lines}",
            "none": 'echo "sh $# $2"\n',
        }
        expected = {
            "bash": "bash 2 b  c\n", "python": "python ['a', 'b  c']\n", "env": "python ['a', 'b  c']\n",
            "none": "sh 2 b  c\n",
        }  # fmt: skip
        launch = harness.launch({"script": scripts[shebang], "args": ["a", "b  c"]})
        assert await harness.output(launch) == expected[shebang]

    async def test_text_of_a_script_arrives_unchanged(self, harness: Harness) -> None:
        """Quotes, here-documents, blanks at line ends, Unicode, backslashes, and a last line without an end."""
        script = (
            "#!/bin/sh\n"
            "cat <<'END'\n"
            "it's \"so\" $HOME `id` $(id) \\n \\\\ %s ' \n"
            "\ttab, trailing blanks   \n"
            "grüße 漢字 🏝\n"
            "END\n"
            'for word in "$@"; do printf "<%s>" "$word"; done\n'
            "# a comment with a quote: don't\n"
            "exit 0"
        )
        awkward = [word for word in AWKWARD if len(word) < 100]
        text = await harness.output(harness.launch({"script": script, "args": awkward}))
        lines = script.splitlines(keepends=True)
        assert text == "".join(lines[2:5]) + "".join(f"<{word}>" for word in awkward)

    async def test_name_that_is_a_shell_command_is_only_a_name(self, harness: Harness) -> None:
        """A job's name is text wherever it goes, also in the name of a file for its output."""
        name = "$(touch harm); `touch harm` ; touch harm # '\""
        launch = harness.launch(
            {"name": name, "command": ["sh", "-c", "echo out; ls"], "stdout": "%x.log"},
        )
        listed = await harness.output(launch)
        assert "harm" not in listed.splitlines()[1:] or f"{name}.log" in listed
        assert f"{name}.log" in listed
        assert "harm" not in listed.splitlines()

    async def test_unicode_is_kept_in_names_and_paths(self, harness: Harness) -> None:
        """In the job's name, in its working directory, in names of files, and in what it writes."""
        word = "grüße 漢字 🏝 ñ"
        launch = harness.launch(
            {
                "name": word,
                "command": ["/bin/sh", "-c", f"pwd; echo out >'{word}.txt'; ls; printf '%s\\n' '{word}' >&2"],
                "workdir": word,
                "stdout": "%x.log",
            }
        )
        folder, *listed = (await harness.output(launch)).splitlines()
        assert folder.endswith(f"/{word}")
        assert sorted(listed) == sorted([f"{word}.txt", f"{word}.log"])
        assert (await harness.read(launch, "stderr")).decode() == f"{word}\n"

    async def test_script_with_windows_line_ends_says_so(self, harness: Harness) -> None:
        """A script that no interpreter here can read is refused, or fails, with a sentence that names the reason."""
        launch = harness.launch({"script": "#!/bin/sh\r\necho hello\r\nexit 0\r\n"})
        answer = only(await harness.driver.submit([launch]))
        if isinstance(answer, Refused):
            assert answer.permanent
            told = answer.message
        else:
            await harness.submit(launch)
            (status,) = await harness.wait([launch])
            assert status.outcome is Outcome.FAILED
            told = status.message + (await harness.read(launch, "stderr")).decode()
        assert "line breaks" in told or "line ends" in told
        assert "DOS" in told or "Windows" in told

    async def test_environment_is_the_platforms(self, harness: Harness) -> None:
        """Each process finds the ATOLL_* variables, folders that are there, and nothing secret of the platform."""
        check = (
            'test -d "$ATOLL_SCRATCH" && test -w "$ATOLL_SCRATCH" && test -d "$ATOLL_CHECKPOINT_DIR" && '
            'test -w "$ATOLL_CHECKPOINT_DIR" && test -n "$HOME" && test -n "$PATH" && env'
        )
        text = await harness.output(harness.script(check))
        names = {line.partition("=")[0] for line in text.splitlines()}
        expected = {
            "ATOLL_JOB_ID", "ATOLL_TASK_COUNT", "ATOLL_NODE_RANK", "ATOLL_NODES", "ATOLL_MASTER_ADDR", "ATOLL_CPUS",
            "ATOLL_SCRATCH", "ATOLL_CHECKPOINT_DIR",
        }  # fmt: skip
        assert expected <= names
        assert not names & {"ATOLL_TOKEN", "ATOLL_DATA", "ATOLL_URL", "DATABASE_URL", "PYTHONPATH", "VIRTUAL_ENV"}

    async def test_venv_is_entered(self, harness: Harness) -> None:
        """In a venv `python` is the venv's; one that is not there fails the attempt with a sentence."""
        from atoll.core.site import Ability

        await harness.need(Ability.VENV)
        key = "venv"
        make = (
            f'{shlex.quote(harness.python)} -m venv --without-pip "$ATOLL_CHECKPOINT_DIR/v" && '
            'cd "$ATOLL_CHECKPOINT_DIR/v" && pwd'
        )
        folder = (await harness.output(harness.script(make, checkpoint_key=key))).strip()
        show = {"command": ["python", "-c", "import sys; print(sys.prefix)"], "environment": {"venv": folder}}
        assert (await harness.output(harness.launch(show, checkpoint_key=key))).strip() == folder
        launch = harness.launch({**show, "environment": {"venv": "/no/venv"}})
        status = await harness.run(launch)
        assert status.exit_code == 126
        assert b"/no/venv" in await harness.read(launch, "stderr")
