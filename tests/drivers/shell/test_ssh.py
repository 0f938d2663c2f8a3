"""A login node that is not as it should be: each trouble is one sentence, and none is tried again too fast."""

import asyncio
import os
import pwd
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atoll.drivers.base import DriverError
from atoll.drivers.shell import NoAccount, SshConfig, SshShell, Unfinished, lines
from tests.contract.process_harness import until
from tests.drivers.shell.conftest import ANN, BOB
from tests.support.openssh import OpenSsh, made_accounts
from tests.support.ports import free_port
from tests.support.wire import Wire


@pytest.fixture
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed connection may be tried again at once."""
    monkeypatch.setattr(lines, "_FIRST_DELAY", 0.0)


@asynccontextmanager
async def at(config: SshConfig) -> AsyncIterator[SshShell]:
    """A shell for the length of the context."""
    shell = SshShell(config)
    try:
        yield shell
    finally:
        await shell.close()


async def says(config: SshConfig, account: str | None = None, kind: type[DriverError] = DriverError) -> str:
    """The sentence that a command fails with."""
    async with at(config) as shell:
        with pytest.raises(kind) as raised:
            await shell.run(account, ["true"])
    assert type(raised.value) is kind
    said = str(raised.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


# -- trust -----------------------------------------------------------------------------------------------------------


async def test_node_that_nobody_vouches_for_is_not_trusted(config: SshConfig, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.write_text("")
    said = await says(replace(config, known_hosts=str(empty)))
    assert said.startswith(f"127.0.0.1 is not trusted, as {empty} has no key of it")
    assert empty.read_text() == "", "and it is not added by itself"


async def test_changed_host_key_is_told_with_the_file_to_look_at(config: SshConfig, tmp_path: Path) -> None:
    stale = tmp_path / "known_hosts"
    with OpenSsh() as other:
        stale.write_text(other.known_hosts.read_text().replace(str(other.port), str(config.port)))
    said = await says(replace(config, known_hosts=str(stale)))
    assert said.startswith(f"The host key of 127.0.0.1 is another than {stale} says")


async def test_key_that_changes_while_connected_is_noticed_at_the_next_login(
    accounts: dict[str, pwd.struct_passwd],
) -> None:
    with OpenSsh() as server:
        config = SshConfig("127.0.0.1", "root", str(server.new_key("root")), str(server.known_hosts), server.port)
        async with at(config) as shell:
            assert (await shell.run(None, ["true"])).code == 0
            server.change_host_key()
            with pytest.raises(DriverError, match=r"another than .*known_hosts says"):
                await shell.run(None, ["true"])


async def test_missing_file_of_known_hosts_is_named(config: SshConfig) -> None:
    said = await says(replace(config, known_hosts="/nowhere/known_hosts"))
    assert said == "127.0.0.1 is not trusted, as its file of known hosts /nowhere/known_hosts cannot be read."


# -- keys ------------------------------------------------------------------------------------------------------------


async def test_wrong_key_is_the_sites_trouble(config: SshConfig, node: OpenSsh) -> None:
    key = node.new_key()
    said = await says(replace(config, key=str(key)))
    assert said.startswith(f"root cannot log in to 127.0.0.1, with the key {key}: Permission denied")


async def test_wrong_key_of_a_person_is_that_persons_trouble_alone(config: SshConfig, node: OpenSsh) -> None:
    wrong = replace(config, keys={BOB: str(node.new_key(ANN))})
    async with at(wrong) as shell:
        with pytest.raises(NoAccount, match=f"{BOB} cannot log in to 127.0.0.1"):
            await shell.run(BOB, ["true"])
        assert (await shell.run(None, ["true"])).code == 0
        assert (await shell.run(ANN, ["true"])).code == 0


async def test_key_that_others_can_read_is_not_used(config: SshConfig, node: OpenSsh) -> None:
    key = node.new_key("root")
    key.chmod(0o640)
    said = await says(replace(config, key=str(key)))
    assert said == (
        f"root cannot log in to 127.0.0.1, its key {key} is open to others than its owner: chmod 600 {key}."
    )


async def test_key_that_is_not_there_or_none_is_named(config: SshConfig, tmp_path: Path) -> None:
    assert "its key /nowhere/key cannot be read: No such file" in await says(replace(config, key="/nowhere/key"))
    garbage = tmp_path / "key"
    garbage.write_text("not a key")
    garbage.chmod(0o600)
    assert f"its key {garbage} is no usable private key" in await says(replace(config, key=str(garbage)))


async def test_key_with_a_passphrase_is_named(config: SshConfig, node: OpenSsh) -> None:
    key = node.new_key("root")
    node.protect(key, "very secret")
    said = await says(replace(config, key=str(key)))
    assert re.search(r"is no usable private key: .*[Pp]assphrase", said)
    assert "very secret" not in said


async def test_certificate_beside_the_key_lets_in_until_it_expires(
    config: SshConfig, node: OpenSsh, no_back_off: None
) -> None:
    key = node.new_key()
    mine = replace(config, keys={BOB: str(key)})
    await says(mine, BOB, NoAccount)
    node.certify(key, BOB)
    async with at(mine) as shell:
        assert (await shell.run(BOB, ["id", "-un"])).out.decode().strip() == BOB
    node.certify(key, BOB, "-2h:-1h")
    assert "cannot log in" in await says(mine, BOB, NoAccount)
    node.certify(key, ANN)
    assert "cannot log in" in await says(mine, BOB, NoAccount)


# -- accounts --------------------------------------------------------------------------------------------------------


async def test_account_without_key_or_impersonation_is_told_what_to_add(config: SshConfig) -> None:
    said = await says(replace(config, impersonate=()), ANN, NoAccount)
    assert said == (
        f"The site file has no key for the account {ANN!r} on 127.0.0.1, and no command to act as it: "
        "add it to keys, or set impersonate."
    )


async def test_root_is_given_to_nobody_where_the_site_itself_is_not_root(config: SshConfig, node: OpenSsh) -> None:
    """By no key and by no impersonation, whatever the site file says."""
    mine = replace(config, user=BOB, key=str(node.new_key(BOB)), keys={"root": config.key})
    assert await says(mine, "root", NoAccount) == "'root' is no account that 127.0.0.1 is asked to act as."


async def test_keys_by_template(config: SshConfig, node: OpenSsh) -> None:
    key = node.new_key(BOB)
    key.rename(key.with_name(f"key-of-{BOB}"))
    mine = replace(config, keys=str(key.with_name("key-of-{account}")), impersonate=())
    async with at(mine) as shell:
        assert (await shell.run(BOB, ["id", "-un"])).out.decode().strip() == BOB
        with pytest.raises(NoAccount, match=f"key-of-{ANN} cannot be read"):
            await shell.run(ANN, ["true"])


async def test_refused_impersonation_is_told_in_the_nodes_words(config: SshConfig) -> None:
    refusing = ("/bin/sh", "-c", "echo $0 may not do this >&2; exit 1", "{account}")
    said = await says(replace(config, impersonate=refusing), ANN, NoAccount)
    assert said == f"root cannot act as {ANN} on 127.0.0.1: {ANN} may not do this."


async def test_account_whose_shell_takes_no_commands_is_refused(config: SshConfig, node: OpenSsh) -> None:
    name = f"atoll-test-closed-{os.getpid()}"
    with made_accounts(name, shells={name: "/usr/sbin/nologin"}):
        said = await says(replace(config, keys={name: str(node.new_key(name))}), name, NoAccount)
    assert said.startswith(f"{name} cannot run commands on 127.0.0.1: This account is")


# -- the way there ---------------------------------------------------------------------------------------------------


async def test_node_that_nobody_runs_is_named(config: SshConfig) -> None:
    port = free_port()
    assert await says(replace(config, port=port)) == f"127.0.0.1:{port} cannot be reached: Connection refused."


async def test_host_without_an_address_is_named(config: SshConfig) -> None:
    said = await says(replace(config, host="no-such-host.invalid"))
    assert said.startswith("no-such-host.invalid:")
    assert "cannot be reached" in said


async def test_node_that_hangs_is_given_up_in_time(config: SshConfig) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(3):
        said = await says(replace(config, port=port, patience=0.5))
    assert said == f"127.0.0.1:{port} did not complete a login within 0.5 s."
    server.close()
    await server.wait_closed()


async def test_node_that_is_no_ssh_server_is_named(config: SshConfig) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert f"127.0.0.1:{port} cannot be logged in to" in await says(replace(config, port=port))
    server.close()
    await server.wait_closed()


async def test_nothing_is_tried_faster_than_the_back_off(config: SshConfig) -> None:
    tries = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with at(replace(config, port=server.sockets[0].getsockname()[1])) as shell:
        failures = [await failure(shell) for _ in range(50)]
        assert tries == 1
        assert len(set(failures)) == 1, "and each call hears of it"
        await asyncio.gather(*[failure(shell, BOB) for _ in range(10)])
        assert tries == 1, "whoever logs in"
        await asyncio.sleep(1.1)
        await failure(shell)
        assert tries == 2
    server.close()
    await server.wait_closed()


async def failure(shell: SshShell, account: str | None = None) -> str:
    """What a command fails with."""
    with pytest.raises(DriverError) as raised:
        await shell.run(account, ["true"])
    return str(raised.value)


async def test_many_commands_share_one_connection(ssh: SshShell, node: OpenSsh) -> None:
    before = node.accepted
    for _ in range(5):
        await asyncio.gather(*[ssh.run(None, ["true"]) for _ in range(20)])
    assert node.accepted - before == 1


async def test_more_commands_than_the_node_takes_at_once_wait_their_turn(
    accounts: dict[str, pwd.struct_passwd],
) -> None:
    with OpenSsh({"MaxSessions": "2"}) as server:
        key, known = str(server.new_key(BOB)), str(server.known_hosts)
        config = SshConfig("127.0.0.1", BOB, key, known, server.port, sessions=2)
        async with at(config) as shell:
            answers = await asyncio.gather(*[shell.run(None, ["true"]) for _ in range(30)])
            assert [answer.code for answer in answers] == [0] * 30
        async with at(replace(config, sessions=8)) as shell:
            with pytest.raises(DriverError, match=f"127.0.0.1 opens no session for {BOB}: "):
                await asyncio.gather(*[shell.run(None, ["sleep", "0.5"]) for _ in range(8)])


async def test_terminals_do_not_take_the_room_of_commands(config: SshConfig) -> None:
    async with at(replace(config, sessions=1)) as shell:
        open_ones = [await shell.open(BOB, ["cat"]) for _ in range(3)]
        with pytest.raises(DriverError, match="too many terminals"):
            await shell.open(BOB, ["cat"])
        assert (await shell.run(BOB, ["echo", "well"])).out == b"well\n"
        await open_ones.pop().close()
        open_ones.append(await shell.open(BOB, ["cat"]))
        for each in open_ones:
            await each.close()


async def test_unused_connections_are_closed(config: SshConfig, node: OpenSsh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_IDLE", 0.2)
    async with at(config) as shell:
        await until(lambda: node.logins == 0)
        await shell.run(None, ["true"])
        assert node.logins == 1
        await until(lambda: node.logins == 0)
        assert (await shell.run(None, ["true"])).code == 0


async def test_beyond_the_number_of_connections_an_idle_one_goes(
    config: SshConfig, node: OpenSsh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_LINES", 1)
    async with at(replace(config, patience=0.5)) as shell:
        for account in (None, BOB, None):
            assert (await shell.run(account, ["true"])).code == 0
        busy = await shell.open(None, ["cat"])
        with pytest.raises(DriverError, match=r"1 connections to 127\.0\.0\.1 are busy"):
            await shell.run(BOB, ["true"])
        await busy.close()
        assert (await shell.run(BOB, ["true"])).code == 0


async def test_node_that_was_restarted_is_logged_in_to_again(
    accounts: dict[str, pwd.struct_passwd], no_back_off: None
) -> None:
    with OpenSsh() as server:
        config = SshConfig("127.0.0.1", BOB, str(server.new_key(BOB)), str(server.known_hosts), server.port)
        async with at(config) as shell:
            assert (await shell.run(None, ["echo", "1"])).out == b"1\n"
            server.stop()
            with pytest.raises(DriverError, match="Connection refused"):
                await shell.run(None, ["echo", "2"])
            server.start()
            assert (await shell.run(None, ["echo", "3"])).out == b"3\n"


async def test_connection_that_ends_in_the_middle_leaves_the_command_unknown(
    accounts: dict[str, pwd.struct_passwd],
) -> None:
    with OpenSsh() as server:
        config = SshConfig("127.0.0.1", BOB, str(server.new_key(BOB)), str(server.known_hosts), server.port)
        async with at(config) as shell:
            arrived = asyncio.Event()

            async def sink(piece: bytes) -> None:
                arrived.set()

            call = asyncio.create_task(shell.run(None, ["sh", "-c", "echo begun; sleep 60"], sink=sink))
            await arrived.wait()
            server.drop_sessions()
            with pytest.raises(Unfinished, match=r"The connection to 127\.0\.0\.1 broke while sh ran"):
                await call
            assert (await shell.run(None, ["echo", "well"])).out == b"well\n"


async def test_network_that_is_cut_in_the_middle_is_noticed_and_comes_back(
    config: SshConfig, node: OpenSsh, tmp_path: Path, no_back_off: None
) -> None:
    with Wire(node.port) as wire:
        known = tmp_path / "known_hosts"
        known.write_text(node.known_hosts.read_text().replace(str(node.port), str(wire.port)))
        async with at(replace(config, port=wire.port, known_hosts=str(known), patience=1.0)) as shell:
            assert (await shell.run(None, ["echo", "1"])).out == b"1\n"
            with wire.cut():
                async with asyncio.timeout(10):
                    with pytest.raises(Unfinished, match=r"127\.0\.0\.1 did (not answer|nothing)"):
                        await shell.run(None, ["echo", "2"], seconds=1.0)
                    with pytest.raises(DriverError, match="did not complete a login within 1 s"):
                        await shell.run(None, ["echo", "3"], seconds=1.0)
            assert (await shell.run(None, ["echo", "4"])).out == b"4\n"
