"""The line that a login shell is given does the same in every shell that people log in with."""

import asyncio
import os
import shutil
import subprocess

import pytest

from atoll.drivers.base import DriverError
from atoll.drivers.shell.remote import Begun, command_text
from tests.support.engines import skip_without

WORDS = ["printf", r"%s\0", "it's", 'say "no"', "$HOME `id` \\ * ~", "two\nlines\r", "bang! !!", "ünïcödé", "a\\nb", ""]


@pytest.mark.parametrize("shell", ["sh", "bash", "tcsh", "fish", "zsh", "ksh"])
@pytest.mark.parametrize("words", [WORDS, WORDS[:5]], ids=["all", "without newlines"])
async def test_words_pass_every_login_shell(shell: str, words: list[str]) -> None:
    if shutil.which(shell) is None:
        skip_without(shell, "this login shell is not installed")
    text = command_text(words, {"EXTRA": "it's!"})
    begun = Begun(reader_of(said_by([shell, "-c", text])))
    assert (await begun.read(1 << 20)).decode().split("\0") == [*words[2:], ""]
    assert begun.chatter == b""


async def test_chatter_before_the_begin_is_left_out_however_it_is_cut() -> None:
    output = said_by(["sh", "-c", command_text(["echo", "said"], {})])
    for size in (1, 2, 3, 7, 1000):
        begun = Begun(reader_of(b"welcome\n\x02atoll is\nhere\n" + output))
        said = b""
        while piece := await begun.read(size):
            assert len(piece) <= size
            said += piece
        assert (said, begun.chatter) == (b"said\n", b"welcome\n\x02atoll is\nhere\n")


async def test_command_that_never_begins_is_known_by_its_lack_of_a_mark() -> None:
    begun = Begun(reader_of(b"This account is currently not available.\n"))
    assert await begun.read(100) == b""
    assert (begun.begun, begun.chatter) == (False, b"This account is currently not available.\n")


async def test_process_group_is_told() -> None:
    text = command_text(["sh", "-c", "cut -d' ' -f5 /proc/$$/stat"], {})
    begun = Begun(reader_of(said_by(["sh", "-c", text])))
    assert int(await begun.read(100)) == begun.group


def test_command_that_no_kernel_takes_is_refused_by_name() -> None:
    with pytest.raises(DriverError, match="cat is too long"):
        command_text(["cat", "x" * 130_000], {})


def test_impersonated_command_finds_a_clean_environment_at_home() -> None:
    text = command_text(["env"], {"EXTRA": "1"}, become=["env", "OURS=1"], account="root")
    lines = said_by(["sh", "-c", text], {"SECRET": "1"}).decode().splitlines()[1:]
    assert {line.partition("=")[0] for line in lines} == {"HOME", "USER", "LOGNAME", "PATH", "EXTRA"}


def said_by(words: list[str], environment: dict[str, str] | None = None) -> bytes:
    """What a command writes, in a session of its own."""
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(words, capture_output=True, check=True, start_new_session=True, env=environment).stdout


def reader_of(content: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(content)
    reader.feed_eof()
    return reader
