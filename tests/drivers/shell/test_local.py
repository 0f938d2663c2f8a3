"""What holds for commands on this machine only."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from atoll.drivers.shell import LocalShell, NoAccount
from tests.contract.process_harness import until
from tests.drivers.shell.conftest import ANN, BOB


def test_other_accounts_need_root(accounts: dict, open_folder: Path) -> None:
    """As an ordinary account the shell acts as that account, by name too, and as no other."""
    program = (
        "import asyncio, sys\n"
        "from atoll.drivers.shell import LocalShell, NoAccount\n"
        "async def main():\n"
        "    shell = LocalShell()\n"
        "    for account in (None, sys.argv[1]):\n"
        "        print((await shell.run(account, ['id', '-un'])).out.decode().strip())\n"
        "    for account in (sys.argv[2], 'root'):\n"
        "        try:\n"
        "            await shell.run(account, ['true'])\n"
        "        except NoAccount as error:\n"
        "            print(error)\n"
        "asyncio.run(main())\n"
    )
    entry = accounts[BOB]
    try:
        probe = subprocess.run(
            [sys.executable, "-c", program, BOB, ANN], capture_output=True, text=True, check=False,
            user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], cwd="/",
        )  # fmt: skip
    except PermissionError:
        pytest.skip("this Python lies in a folder that is closed to other accounts")
    if "Permission" in probe.stderr or "denied" in probe.stderr:
        pytest.skip("this Python is closed to other accounts")
    assert probe.stdout.splitlines() == [
        BOB, BOB, f"The platform runs as {BOB!r} and not as root, so it cannot act as {ANN!r} here.",
        "The account 'root' is root's, and nobody is given it; map the person to another one.",
    ]  # fmt: skip


async def test_no_process_descriptor_or_thread_is_left(accounts: dict) -> None:
    shell = LocalShell()
    await shell.run(ANN, ["true"])
    me = psutil.Process()
    files, threads, before = me.num_fds(), threading.active_count(), set(me.children())
    for _ in range(10):
        await shell.run(None, ["cat"], stdin=b"x" * 100_000)
        with pytest.raises(Exception, match="did nothing"):
            await shell.run(ANN, ["sleep", "60"], seconds=0.05)
        for terminal in (False, True):
            command = await shell.open(ANN, ["sleep", "60"], terminal=terminal)
            await command.close()
    await until(lambda: me.num_fds() == files)
    await until(lambda: threading.active_count() <= threads)
    assert set(me.children()) <= before


async def test_loop_goes_on_while_commands_run(accounts: dict) -> None:
    """Nobody waits for a process on the event loop: it takes many turns while each command sleeps."""
    turns = 0
    shell = LocalShell()

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    watching = asyncio.create_task(watch())
    for account in (None, ANN):
        turns = 0
        await shell.run(account, ["sleep", "0.5"])
        assert turns > 200
    watching.cancel()


@pytest.fixture
def no_home(accounts: dict) -> Iterator[None]:
    """Ann's home is not there."""
    home = Path(accounts[ANN].pw_dir)
    away = home.with_name(f"{home.name}-away")
    home.rename(away)
    yield
    away.rename(home)


async def test_account_whose_home_is_not_there_starts_at_the_root(no_home: None) -> None:
    assert (await LocalShell().run(ANN, ["pwd"])).out == b"/\n"


async def test_more_commands_than_may_run_at_once_wait_their_turn(tmp_path: Path) -> None:
    shell = LocalShell(at_once=2)
    text = 'touch "$0/$$"; ls "$0" | wc -l; sleep 0.1; rm "$0/$$"'
    answers = await asyncio.gather(*[shell.run(None, ["sh", "-c", text, str(tmp_path)]) for _ in range(8)])
    assert max(int(answer.out) for answer in answers) == 2


async def test_uvloop_runs_commands_too(accounts: dict) -> None:
    """The platform's own event loop knows no accounts; the shell does not need it to."""
    program = (
        "import uvloop, sys\n"
        "from atoll.drivers.shell import LocalShell\n"
        "async def main():\n"
        "    shell = LocalShell()\n"
        "    ran = await shell.run(sys.argv[1], ['sh', '-c', 'id -un; cat'], stdin=b'x' * 1000000)\n"
        "    command = await shell.open(sys.argv[1], ['sh', '-c', 'read x; echo $x; tty'], terminal=True)\n"
        "    await command.write(b'typed\\n')\n"
        "    said = b''\n"
        "    while piece := await command.read(1000):\n"
        "        said += piece\n"
        "    print(ran.out.split()[0].decode(), len(ran.out), b'/dev/pts' in said, await command.wait())\n"
        "    await command.close()\n"
        "uvloop.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "error", "-c", program, ANN], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split() == [ANN, str(1_000_001 + len(ANN)), "True", "0"], done.stderr


async def test_numeric_looking_and_odd_accounts_are_not_looked_up_as_ids() -> None:
    for name in ("0", "1", str(os.getpid())):
        with pytest.raises(NoAccount):
            await LocalShell().run(name, ["true"])
