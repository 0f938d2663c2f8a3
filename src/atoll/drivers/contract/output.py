"""Output: read apart, by piece, from either end, while it is written."""

import asyncio

import pytest

from atoll.drivers.base import Held, LogChunk
from atoll.drivers.contract.harness import MIB, Harness, digest


class Output:
    """What a job writes can be read exactly."""

    async def test_streams_are_apart(self, harness: Harness) -> None:
        """Standard output and error output are two streams."""
        launch = harness.script("echo out; echo error >&2; echo more")
        await harness.run(launch)
        assert await harness.read(launch, "stdout") == b"out\nmore\n"
        assert await harness.read(launch, "stderr") == b"error\n"

    async def test_empty_output_is_empty(self, harness: Harness) -> None:
        """A job that writes nothing has output of size 0, and no error."""
        launch = harness.script(":")
        await harness.run(launch)
        for stream in ("stdout", "stderr"):
            assert await harness.logs.read_log(harness.held_as(launch), stream, 0, 100) == LogChunk(0, b"", 0)

    async def test_ten_megabytes_of_binary_output_arrive(self, harness: Harness) -> None:
        """Large output of all byte values is the same when it is read."""
        write = "import random,sys; data=random.Random(7).randbytes(10*1024*1024); sys.stdout.buffer.write(data)"
        launch = harness.launch({"command": [harness.python, "-c", write]})
        status = await harness.run(launch)
        assert status.exit_code == 0
        import random

        assert digest(await harness.read(launch)) == digest(random.Random(7).randbytes(10 * MIB))

    async def test_output_is_read_by_offset(self, harness: Harness) -> None:
        """From the beginning, the middle, the end, beyond it, and backwards from the end."""
        launch = harness.script("printf 0123456789")
        await harness.run(launch)
        held = harness.held_as(launch)
        cases = {
            (0, 4): LogChunk(0, b"0123", 10),
            (4, 3): LogChunk(4, b"456", 10),
            (8, 100): LogChunk(8, b"89", 10),
            (10, 5): LogChunk(10, b"", 10),
            (99, 5): LogChunk(10, b"", 10),
            (-3, 100): LogChunk(7, b"789", 10),
            (-3, 2): LogChunk(7, b"78", 10),
            (-99, 100): LogChunk(0, b"0123456789", 10),
        }
        for (offset, limit), expected in cases.items():
            assert await harness.logs.read_log(held, "stdout", offset, limit) == expected, (offset, limit)

    async def test_output_is_read_while_it_is_written(self, harness: Harness) -> None:
        """What a running job has written can be read before it ends."""
        launch = harness.script("echo first; sleep 60")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"first\n")
        status = await harness.status(launch)
        assert status is not None
        assert status.ended_at is None

    async def test_output_is_followed_while_it_grows(self, harness: Harness) -> None:
        """Read again and again from where the last piece ended: each byte comes once, and before the end."""
        launch = harness.script("for n in 1 2 3 4 5 6; do echo line $n; sleep 0.4; done; echo end >&2")
        await harness.submit(launch)
        held, followed, sizes = harness.held_as(launch), b"", [0]
        async with asyncio.timeout(2 * harness.patience):
            while followed.count(b"\n") < 6:
                chunk = await harness.logs.read_log(held, "stdout", len(followed), 7)
                assert chunk.offset == len(followed)
                followed += chunk.data
                sizes.append(chunk.size)
                if not chunk.data:
                    await asyncio.sleep(0.1)  # as somebody who follows would
        await harness.wait([launch])
        assert followed == b"".join(b"line %d\n" % number for number in range(1, 7))
        assert await harness.read(launch, "stderr") == b"end\n"
        assert sizes == sorted(sizes), "the output shrinks"
        assert len({size for size in sizes if size}) > 1, "nothing could be read before the end"

    async def test_output_of_an_unknown_attempt_is_a_key_error(self, harness: Harness) -> None:
        """There is no output of what was never submitted, and none under another stream's name."""
        launch = harness.script("echo hi")
        for name in (launch.attempt_id, "../../etc", "x"):
            with pytest.raises(KeyError):
                await harness.logs.read_log(Held(name), "stdout", 0, 10)
        await harness.run(launch)
        with pytest.raises(KeyError):
            await harness.logs.read_log(harness.held_as(launch), "../launch", 0, 10)

    async def test_output_goes_to_a_named_file_too(self, harness: Harness) -> None:
        """Files named by patterns hold the same as the streams; the same name for both joins the streams."""
        text = "echo out; echo error >&2; cp out-*.log copy; cat copy err-*.log; ls"
        launch = harness.launch(
            {"command": ["sh", "-c", text], "stdout": "out-%A_%a.log", "stderr": "err-%x.log", "name": "n"}, task=3
        )
        assert await harness.output(launch) == "out\nout\nerror\ncopy\nerr-n.log\n" + f"out-{launch.job_id}_3.log\n"
        both = harness.launch(
            {"command": ["sh", "-c", "echo error >&2; echo out; ls"], "stdout": "%j.log", "stderr": "%j.log"}
        )
        assert await harness.output(both) == f"error\nout\n{both.job_id}.log\n"

    async def test_link_in_the_place_of_output_is_not_followed(self, harness: Harness) -> None:
        """A job that puts a link where its output is cannot make the platform read another file through it."""
        swap = (
            'cd "$ATOLL_SCRATCH/.." && test -f stdout && rm stdout && ln -s /etc/passwd stdout; '
            "test -L stdout && exit 5; exit 6"
        )
        launch = harness.script(swap)
        status = await harness.run(launch)
        if status.exit_code != 5:
            pytest.skip("a job cannot reach its output here")
        assert b"root:" not in await harness.read(launch)
