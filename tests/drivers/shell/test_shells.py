"""What holds for every shell: here, over SSH as the account itself, and over SSH by impersonation."""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from atoll.drivers.base import DriverError
from atoll.drivers.shell import NoAccount, Shell, Unfinished
from tests.contract.process_harness import until
from tests.drivers.shell.conftest import ANN, BOB

AWKWARD = [
    "plain",
    "",
    "two words",
    "it's",
    'say "no"',
    "$HOME `id` \\ *",
    "line\nbreak",
    "bang!",
    "ünïcödé ☃",
    "-n",
    "%s",
]


@pytest.fixture(params=[None, ANN, BOB], ids=["own", "ann", "bob"])
def account(request: pytest.FixtureRequest) -> str | None:
    """The site's own account, one that is acted as, and one that logs in itself."""
    name: str | None = request.param
    return name


async def test_words_arrive_as_they_are(shell: Shell, account: str | None) -> None:
    ran = await shell.run(account, ["/usr/bin/printf", r"%s\0", *AWKWARD])
    assert (ran.code, ran.error if account != ANN else b"") == (0, b"")
    assert ran.out.decode().split("\0") == [*AWKWARD, ""]


async def test_command_runs_as_the_account_at_its_home(
    shell: Shell, account: str | None, accounts: dict[str, pwd.struct_passwd]
) -> None:
    """With its user, groups and home, in a clean environment, and what it writes is its own alone."""
    text = 'id -u; id -g; id -G; pwd; echo "$HOME $USER $LOGNAME"; umask; echo "$ATOLL_EXTRA"; echo "${ATOLL_SECRET-}"'
    entry = accounts[account] if account else pwd.getpwuid(os.geteuid())
    ran = await shell.run(account, ["sh", "-c", text])
    lines = ran.out.decode().splitlines()
    assert lines[:2] == [str(entry.pw_uid), str(entry.pw_gid)]
    assert set(lines[2].split()) == {str(group) for group in os.getgrouplist(entry.pw_name, entry.pw_gid)}
    assert lines[3:] == [
        entry.pw_dir, f"{entry.pw_dir} {entry.pw_name} {entry.pw_name}", "0077", "with 'quotes'", "",
    ]  # fmt: skip


async def test_nothing_of_the_platforms_environment_is_handed_on(
    shell: Shell, account: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_DATABASE", "postgresql://secret")
    assert b"postgresql" not in (await shell.run(account, ["env"])).out


async def test_exit_codes_and_signals_are_told_as_a_shell_tells_them(shell: Shell, account: str | None) -> None:
    codes = [(await shell.run(account, ["sh", "-c", text])).code for text in ("exit 3", "kill -9 $$", "kill -TERM $$")]
    assert codes == [3, 137, 143]


async def test_command_that_is_not_there_is_a_code_and_a_sentence(shell: Shell, account: str | None) -> None:
    ran = await shell.run(account, ["no-such-command", "x"])
    assert ran.code == 127
    assert "no-such-command" in ran.complaint


async def test_streams_are_apart_and_binary(shell: Shell, account: str | None) -> None:
    """A megabyte of every byte goes in and comes back."""
    content = os.urandom(1 << 20)
    ran = await shell.run(account, ["sh", "-c", "echo aside >&2; cat"], stdin=content)
    assert ran.out == content
    assert ran.error.endswith(b"aside\n")


async def test_of_error_output_the_end_is_kept(shell: Shell) -> None:
    ran = await shell.run(None, ["sh", "-c", "seq 1 100000 >&2; exit 1"])
    assert len(ran.error) == 64 << 10
    assert ran.complaint == "100000"


async def test_streams_in_and_out_are_carried_piece_by_piece(shell: Shell) -> None:
    """Of 40 MiB neither side holds more than a few pieces at once."""
    sent, got = 0, 0
    most = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent, most
        for _ in range(160):
            sent += 256 << 10
            most = max(most, sent - got)
            yield bytes(256 << 10)

    async def sink(piece: bytes) -> None:
        nonlocal got
        got += len(piece)

    ran = await shell.run(None, ["cat"], stdin=pieces(), sink=sink)
    assert (ran.code, ran.out, got) == (0, b"", 40 << 20)
    assert most < 12 << 20


async def test_output_without_a_sink_is_bounded(shell: Shell) -> None:
    with pytest.raises(Unfinished, match="more than 64 MiB"):
        await shell.run(None, ["head", "-c", "200M", "/dev/zero"])


async def test_command_that_reads_nothing_still_gives_its_answer(shell: Shell) -> None:
    ran = await shell.run(None, ["sh", "-c", "exec <&-; echo enough; exit 4"], stdin=bytes(8 << 20))
    assert (ran.code, ran.out) == (4, b"enough\n")


async def test_command_that_does_nothing_is_ended_with_all_it_started(shell: Shell, account: str | None) -> None:
    marks = (f"{1_000_000 + os.getpid()}", f"{2_000_000 + os.getpid()}")
    with pytest.raises(Unfinished, match=r"sh.* did nothing for 0.5 s"):
        await shell.run(account, ["sh", "-c", f"sleep {marks[0]} & sleep {marks[1]}"], seconds=0.5)
    await until(lambda: not running(*marks))


async def test_progress_puts_the_deadline_off(shell: Shell) -> None:
    ran = await shell.run(None, ["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.3; echo $i; done"], seconds=1.0)
    assert ran.out.split() == [b"1", b"2", b"3", b"4", b"5", b"6"]


async def test_cancelled_call_ends_its_command(shell: Shell, account: str | None) -> None:
    mark = str(3_000_000 + os.getpid())
    call = asyncio.create_task(shell.run(account, ["sh", "-c", f"sleep {mark}; true"]))
    await until(lambda: running(mark))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: not running(mark))
    assert (await shell.run(account, ["echo", "well"])).out == b"well\n"


async def test_what_a_sink_raises_ends_the_command(shell: Shell) -> None:
    async def sink(piece: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await shell.run(None, ["yes", "sink"], sink=sink)
    await until(lambda: not running("sink"))


async def test_what_stays_behind_with_the_output_does_not_hold_the_answer_up(shell: Shell) -> None:
    mark = str(4_000_000 + os.getpid())
    async with asyncio.timeout(10):
        ran = await shell.run(None, ["sh", "-c", f"sleep {mark} & echo begun; exit 5"])
    assert (ran.code, ran.out) == (5, b"begun\n")
    for process in running(mark):
        process.kill()


async def test_many_commands_at_once_all_answer(shell: Shell) -> None:
    answers = await asyncio.gather(*[shell.run(BOB, ["echo", str(number)]) for number in range(40)])
    assert [int(answer.out) for answer in answers] == list(range(40))


async def test_account_that_is_not_there_is_named(shell: Shell) -> None:
    with pytest.raises(NoAccount, match="atoll-nobody-at-all"):
        await shell.run("atoll-nobody-at-all", ["true"])


@pytest.mark.parametrize("name", ["a b", "-x", "$(id)", "../etc", "ann\nbob", ""])
async def test_accounts_that_nobody_is_given_are_refused(shell: Shell, name: str) -> None:
    with pytest.raises(NoAccount):
        await shell.run(name, ["true"])


# -- channels ------------------------------------------------------------------------------------------------------


async def test_command_as_a_channel_is_spoken_with(shell: Shell, account: str | None) -> None:
    command = await shell.open(account, ["sh", "-c", "read line; echo got $line; echo aside >&2; cat; exit 6"])
    await command.write(b"this\n")
    assert await read_until(command, b"aside\n") == b"got this\naside\n"
    await command.write(b"rest")
    await command.end()
    assert await read_until(command, b"rest") == b"rest"
    assert await command.read(100) == b""
    assert await command.wait() == 6
    await command.close()


async def test_command_on_a_terminal_knows_its_size_and_its_end(shell: Shell, account: str | None) -> None:
    command = await shell.open(
        account, ["sh", "-c", "echo ready; read x; stty size; id -u; tty; exit 7"], terminal=True
    )
    await read_until(command, b"ready\r\n")
    await command.resize(132, 43)
    await command.write(b"\n")
    said = await read_until(command, b"/dev/pts/")
    assert b"43 132\r\n" in said
    assert await command.wait() == 7
    await command.close()


async def test_control_c_interrupts_on_a_terminal(shell: Shell) -> None:
    # not a shell that starts something: between fork and exec it may swallow the signal
    command = await shell.open(ANN, ["sed", "-u", "s/asked/answered/"], terminal=True)
    await command.write(b"asked\n")
    await read_until(command, b"answered\r\n")
    await command.write(b"\x03")
    assert await command.wait() == 130
    await command.close()


async def test_closing_a_channel_ends_its_command(shell: Shell, account: str | None) -> None:
    mark = str(5_000_000 + os.getpid())
    command = await shell.open(account, ["sh", "-c", f"echo ready; sleep {mark}"])
    await read_until(command, b"ready\n")
    await command.close()
    await until(lambda: not running(mark))


async def test_port_of_the_site_is_reached(shell: Shell, account: str | None, echo_port: int) -> None:
    channel = await shell.connect(account, "127.0.0.1", echo_port)
    await channel.write(b"hello")
    assert await channel.read(100) == b"hello"
    await channel.end()
    assert await channel.read(100) == b""
    await channel.close()


async def test_port_without_a_listener_is_named(shell: Shell) -> None:
    with pytest.raises(DriverError, match=r"127\.0\.0\.1:1 cannot be reached.*refused"):
        await shell.connect(None, "127.0.0.1", 1)


async def test_unix_socket_is_reached_with_the_accounts_own_rights(shell: Shell, echo_socket: Path) -> None:
    channel = await shell.connect_unix(ANN, str(echo_socket))
    content = os.urandom(1 << 20)
    writing = asyncio.create_task(send(channel, content))
    got = b""
    while len(got) < len(content):
        got += await channel.read(1 << 16)
    await writing
    assert got == content
    await channel.end()
    assert await channel.read(100) == b""
    await channel.close()
    with pytest.raises(DriverError, match=f"{echo_socket} cannot be reached"):
        await shell.connect_unix(BOB, str(echo_socket))
    with pytest.raises(DriverError, match="no-such-socket cannot be reached"):
        await shell.connect_unix(ANN, "/tmp/no-such-socket")


async def send(channel: object, content: bytes) -> None:
    for start in range(0, len(content), 1 << 16):
        await channel.write(content[start : start + (1 << 16)])  # type: ignore[attr-defined]


async def read_until(channel: object, text: bytes) -> bytes:
    """What comes up to `text`."""
    said = b""
    async with asyncio.timeout(10):
        while text not in said:
            piece = await channel.read(4096)  # type: ignore[attr-defined]
            assert piece, said
            said += piece
    return said


def running(*marks: str) -> list[psutil.Process]:
    """Living processes with one of `marks` as their last word."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"]
        if words and words[-1] in marks and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
