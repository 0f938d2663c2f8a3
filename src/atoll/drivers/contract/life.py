"""The life of attempts between platform and site: once, many, forgotten, found again, carried files, refusals."""

import random
from typing import Any

import pytest

from atoll.core.clock import system_clock
from atoll.core.resources import Resources
from atoll.core.site import Ability
from atoll.core.states import Outcome
from atoll.drivers.base import Held, Phase, Refused, StopReason, Submitted
from atoll.drivers.contract.harness import Harness, digest, only


class Life:
    """Each attempt runs once, is known until it is forgotten, and survives the control plane."""

    async def test_attempt_runs_once_however_often_it_is_submitted(self, harness: Harness) -> None:
        """Submitting again, before and after the end, is answered as before and runs nothing."""
        key = "once"
        text = 'echo ran >>"$ATOLL_CHECKPOINT_DIR/runs"; sleep 0.3'
        launch = harness.script(text, checkpoint_key=key)
        first = await harness.submit(launch)
        again = await harness.submit(launch, launch)
        await harness.wait([launch])
        last = await harness.submit(launch)
        assert first == last == again[:1] == again[1:]
        await harness.wait([launch])
        count = harness.script('wc -l <"$ATOLL_CHECKPOINT_DIR/runs"', checkpoint_key=key)
        assert (await harness.output(count)).strip() == "1"

    async def test_two_hundred_attempts_at_once(self, harness: Harness) -> None:
        """A batch is taken in one call; each has its own end and output."""
        launches = [harness.script(f"echo {number}; exit {number % 5}") for number in range(200)]
        await harness.submit(*launches)
        statuses = await harness.wait(launches, patience=60 + harness.patience)
        assert [status.exit_code for status in statuses] == [number % 5 for number in range(200)]
        for number in (0, 77, 199):
            assert await harness.read(launches[number]) == f"{number}\n".encode()

    async def test_observation_is_complete_and_dated_before_the_question(self, harness: Harness) -> None:
        """An observation says when its question was begun, and holds ended attempts too."""
        launch = harness.script(":")
        await harness.run(launch)
        before = system_clock()
        observation = await harness.driver.observe(harness.held())
        after = system_clock()
        assert observation.complete
        assert before <= observation.as_of <= after
        assert observation.states[launch.attempt_id].outcome is Outcome.SUCCEEDED

    async def test_observation_holds_only_this_platforms_attempts(self, harness: Harness) -> None:
        """All ids are of this platform, and nothing else at the site is taken for ours."""
        launch = harness.script("sleep 30")
        await harness.submit(launch)
        states = (await harness.driver.observe(harness.held())).states
        assert set(states) == {launch.attempt_id}
        assert all(name == status.attempt_id for name, status in states.items())

    async def test_nothing_submitted_nothing_observed(self, harness: Harness) -> None:
        """An empty site answers, with nothing; empty questions are allowed."""
        assert await harness.driver.submit([]) == []
        await harness.driver.stop([])
        await harness.driver.forget([])
        assert dict((await harness.driver.observe(harness.held())).states) == {}

    async def test_forgotten_attempt_is_gone(self, harness: Harness) -> None:
        """Forgetting removes an ended attempt and its output; again it is harmless."""
        launch = harness.script("echo hi; mkdir -p deep/er; echo x >deep/er/file; chmod 0 deep/er")
        await harness.run(launch)
        await harness.forget(launch)
        assert await harness.status(launch) is None
        with pytest.raises(KeyError):
            await harness.logs.read_log(harness.held_as(launch), "stdout", 0, 10)
        await harness.forget(launch)

    async def test_running_attempt_is_not_forgotten(self, harness: Harness) -> None:
        """Forgetting is for ended attempts: a running one goes on and stays known."""
        launch = harness.script("sleep 3; exit 9")
        await harness.submit(launch)
        await harness.wait([launch], Phase.RUNNING)
        await harness.forget(launch)
        (status,) = await harness.wait([launch])
        assert status.exit_code == 9

    async def test_attempts_are_found_after_a_restart_of_the_platform(self, harness: Harness) -> None:
        """One that runs, one that ended before and one that ends while nobody watches: each has its right end."""
        ended, ends, runs = harness.script("exit 11"), harness.script("sleep 0.5; exit 12"), harness.script("sleep 60")
        await harness.submit(ended, ends, runs)
        await harness.wait([ended])
        await harness.wait([ends, runs], Phase.RUNNING)
        await harness.driver.close()
        import asyncio

        await asyncio.sleep(1.0)  # nobody watches
        await harness.start()
        statuses = await harness.wait([ended, ends])
        assert [status.exit_code for status in statuses] == [11, 12]
        status = await harness.status(runs)
        assert status is not None
        assert status.phase is Phase.RUNNING
        await harness.stop(runs, StopReason.CANCELLED, grace=5)
        (status,) = await harness.wait([runs])
        assert status.outcome is Outcome.CANCELLED

    async def test_checkpoint_folder_survives_attempts_and_forgetting(self, harness: Harness) -> None:
        """The next attempt with the same key finds what the one before wrote; another key does not."""
        save = 'echo step 5 >"$ATOLL_CHECKPOINT_DIR/state"'
        first = harness.script(save, checkpoint_key="shared")
        await harness.run(first)
        await harness.forget(first)
        load = 'cat "$ATOLL_CHECKPOINT_DIR/state" 2>/dev/null || echo nothing'
        assert await harness.output(harness.script(load, checkpoint_key="shared")) == "step 5\n"
        assert await harness.output(harness.script(load, checkpoint_key="other")) == "nothing\n"

    async def test_scratch_is_the_attempts_own(self, harness: Harness) -> None:
        """Scratch space begins empty for each attempt."""
        text = 'ls "$ATOLL_SCRATCH"; echo x >"$ATOLL_SCRATCH/left"'
        assert await harness.output(harness.script(text)) == ""
        assert await harness.output(harness.script(text)) == ""

    async def test_hint_follows_a_change(self, harness: Harness) -> None:
        """A driver with Watch wakes whoever waits when an attempt ends."""
        from atoll.drivers.base import Watch
        from atoll.drivers.contract.harness import Hints

        if not isinstance(harness.driver, Watch):
            pytest.skip("the driver gives no hints")
        await harness.driver.observe(harness.held())
        hints = Hints(harness.driver, harness.patience)
        import time

        begun = time.monotonic()
        launch = harness.script("sleep 0.2")
        await harness.submit(launch)
        try:
            ended = False
            while not ended:
                # after a hint an observation need not be complete
                status = (await harness.driver.observe(harness.held())).states.get(launch.attempt_id)
                ended = status is not None and status.phase is Phase.ENDED
                if not ended:
                    await hints.next()
        finally:
            await hints.close()
        assert time.monotonic() - begun < harness.patience / 2


class Files:
    """Files go in before the start and come out after the end."""

    async def test_files_are_laid_into_the_working_directory(self, harness: Harness) -> None:
        """With their content, in their folders, executable where asked."""
        await harness.need(Ability.FILES)
        content = bytes(range(256)) * 1000
        files = (
            harness.staged("data/in put.bin", content),
            harness.staged("run.sh", b"#!/bin/sh\necho ran\n", executable=True),
            harness.staged("plain.sh", b"#!/bin/sh\necho ran\n"),
        )
        launch = harness.script(
            "sha256sum <'data/in put.bin'; ./run.sh; test -x plain.sh || echo not executable", files=files
        )
        assert await harness.output(launch) == f"{digest(content)}  -\nran\nnot executable\n"

    async def test_files_keep_their_checksums_in_and_out(self, harness: Harness) -> None:
        """What goes in, is copied by the job and taken out is the same, byte for byte, whatever its name."""
        await harness.need(Ability.FILES)
        stage = harness.stage
        contents = {
            "in/blob.bin": random.Random(3).randbytes(3_000_001),
            "in/leer": b"",
            "in/grüße 漢字.txt": b"\r\n\0",
        }
        launch = harness.script(
            "mkdir out && cp -R in/. out/ && cd out && sha256sum *",
            files=tuple(harness.staged(path, content) for path, content in contents.items()),
        )
        told = dict(line.split("  ")[::-1] for line in (await harness.output(launch)).splitlines())
        names = {path.removeprefix("in/"): digest(content) for path, content in contents.items()}
        assert told == names
        into = harness.folder / "taken"
        taken = await stage.take_out(harness.held_as(launch), ["out/*"], into)
        assert taken == sorted(f"out/{name}" for name in names)
        assert {path.name: digest(path.read_bytes()) for path in into.glob("out/*")} == names

    async def test_input_is_read_from_a_file(self, harness: Harness) -> None:
        """A file of the working directory is the standard input; without one it is empty."""
        await harness.need(Ability.FILES)
        launch = harness.launch(
            {"command": ["cat"], "stdin": "in.txt"}, files=(harness.staged("in.txt", b"from a file\n"),)
        )
        assert await harness.output(launch) == "from a file\n"
        assert await harness.output(harness.launch({"command": ["cat"]})) == ""

    async def test_files_are_taken_out_by_pattern(self, harness: Harness) -> None:
        """Matching files come out with their content and relative paths; others stay."""
        stage = harness.stage
        launch = harness.script(
            "mkdir -p out/deep; echo 1 >out/a.csv; echo 2 >out/b.txt; echo 3 >out/deep/c.csv; echo 4 >top.csv; "
            "echo 5 >'out/od d.csv'"
        )
        await harness.run(launch)
        into = harness.folder / "taken"
        taken = await stage.take_out(harness.held_as(launch), ["out/*.csv", "top.csv"], into)
        assert taken == ["out/a.csv", "out/od d.csv", "top.csv"]
        assert (into / "out/a.csv").read_text() == "1\n"
        assert sorted(str(path.relative_to(into)) for path in into.rglob("*") if path.is_file()) == taken
        assert await stage.take_out(harness.held_as(launch), ["nothing-*"], harness.folder / "none") == []

    async def test_links_out_of_the_working_directory_are_not_followed(self, harness: Harness) -> None:
        """Neither a file nor a folder outside can be taken out by way of a link; one inside can."""
        stage = harness.stage
        launch = harness.script(
            "echo mine >real; ln -s real inside; ln -s /etc/passwd passwd; ln -s ../launch up; ln -s /etc etc; "
            "ln -s loop loop; mkfifo pipe; mkdir d; ln -s ../real d/inside; ln -s ../../launch d/up"
        )
        await harness.run(launch)
        into = harness.folder / "taken"
        patterns = ["*", "etc/passwd", "etc/*", "d/*", "../launch", "**/passwd"]
        assert await stage.take_out(harness.held_as(launch), patterns, into) == ["d/inside", "inside", "real"]
        assert (into / "inside").read_text() == "mine\n"

    async def test_taking_out_of_an_unknown_attempt_is_a_key_error(self, harness: Harness) -> None:
        """Nothing comes out of what is not there."""
        stage = harness.stage
        for name in (harness.script(":").attempt_id, "../../etc"):
            with pytest.raises(KeyError):
                await stage.take_out(Held(name), ["*"], harness.folder / "taken")


REFUSALS: dict[str, tuple[Ability, dict[str, Any], str]] = {
    "image": (Ability.IMAGE, {"environment": {"image": "example.org/image:1"}}, "image"),
    "conda": (Ability.CONDA, {"environment": {"conda": "base"}}, "conda"),
    "volumes": (Ability.VOLUMES, {"volumes": [{"name": "data", "path": "/data"}]}, "volumes"),
    "secrets": (Ability.SECRETS, {"secrets": [{"name": "key", "env": "KEY"}]}, "secrets"),
    "nodes": (Ability.MULTINODE, {"nodes": 2}, "nodes"),
}


class Refusals:
    """What a site cannot do it refuses, for good, and says which field it was."""

    @pytest.mark.parametrize("case", sorted(REFUSALS))
    async def test_what_the_site_cannot_do_is_refused_by_name(self, harness: Harness, case: str) -> None:
        """Refused permanently, the field named, and nothing is run."""
        ability, extra, field = REFUSALS[case]
        if ability in (await harness.driver.describe()).abilities:
            pytest.skip(f"the site can do {ability}")
        launch = harness.launch({"command": ["true"], **extra})
        answer = only(await harness.driver.submit([launch]))
        assert isinstance(answer, Refused)
        assert answer.permanent
        assert field in answer.message
        assert await harness.status(launch) is None

    async def test_more_than_the_site_has_is_refused(self, harness: Harness) -> None:
        """More memory than there is: refused, and the others of the same call are taken."""
        large = harness.launch({"command": ["true"]}, request=Resources(cpu=100, memory=1 << 60))
        small = harness.script(":")
        refused, taken = await harness.driver.submit([large, small])
        assert isinstance(refused, Refused)
        assert refused.permanent
        assert "memory" in refused.message
        assert isinstance(taken, Submitted)
        await harness.wait([small])

    async def test_other_person_without_an_account_is_refused(self, harness: Harness) -> None:
        """A job never runs as somebody else: no mapping, no run."""
        launch = harness.script("true", person="somebody-else", account=None)
        answer = only(await harness.driver.submit([launch]))
        assert isinstance(answer, Refused)
        assert "somebody-else" in answer.message

    async def test_description_tells_what_there_is(self, harness: Harness) -> None:
        """At least one flavor, with room for something, and nodes no larger than the whole."""
        report = await harness.driver.describe()
        assert report.flavors
        for flavor in report.flavors:
            assert flavor.node.fits(flavor.total)
            assert flavor.total.cpu > 0
            assert flavor.total.memory > 0
