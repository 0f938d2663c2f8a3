"""`atoll project`, `quota`, `flavor`, `reservation` and `queue` against a running platform."""

from __future__ import annotations

import getpass
import json
import os
import pty
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.client.asynchronous import AsyncClient
from atoll.core.errors import Conflict, Denied, Invalid, NotFound
from tests.cli.conftest import Atoll
from tests.support.platform import RunningPlatform

pytestmark = pytest.mark.timeout(120)
ME = getpass.getuser()
TREE = f"""
projects:
  institute: {{quotas: {{FLAVOR: {{cpu: 1}}}}}}
  physics: {{parent: institute, weight: 2, quotas: {{FLAVOR: {{cpu: {{nominal: 500m, borrowing: 1}}, memory: 4Gi}}}}}}
  astro: {{parent: physics, people: [{ME}], description: Stars}}
"""


@pytest.fixture
def flavor(there: Atoll) -> str:
    """The flavor of this machine, once it has said what it has."""
    end = time.monotonic() + 30
    while not (found := there("flavor", "-o", "name").out.split()):
        assert time.monotonic() < end, there("site", "ls").out
        time.sleep(0.1)
    return found[0]


@pytest.fixture
def tree(there: Atoll, tmp_path: Path, flavor: str) -> Path:
    """A file with a tree, the platform's for the length of a test."""
    file = tmp_path / "tree.yaml"
    file.write_text(TREE.replace("FLAVOR", flavor))
    assert there("project", "apply", "--yes", str(file)).code == 0
    return file


@pytest.fixture(autouse=True)
def _no_tree_afterwards(there: Atoll) -> Any:
    yield
    there("project", "apply", "--yes", "-", stdin="projects: {}")


def test_a_plan_shows_line_by_line_what_apply_then_does(there: Atoll, tmp_path: Path, flavor: str) -> None:
    file = tmp_path / "tree.yaml"
    file.write_text(TREE.replace("FLAVOR", flavor))
    lines = [
        f"+ institute: the root; {flavor} cpu 1",
        f"+ physics: below institute; weight 2; {flavor} cpu 500m (borrowing 1); {flavor} memory 4Gi",
        f"+ astro: below physics; people {ME}",
    ]
    assert there("project", "plan", str(file)).out.splitlines() == lines
    assert "There is no project tree" in there("project", "list").out
    assert there("project", "apply", str(file)).code == Invalid.exit_code, "nobody can be asked"
    done = there("project", "apply", "--yes", str(file)).out.splitlines()
    assert done[:3] == lines
    assert done[3].startswith("Applied: the tree is at revision ")
    assert there("project", "apply", str(file)).out == "Nothing changes.\n"
    file.write_text(file.read_text().replace("weight: 2, ", "").replace("4Gi", "8Gi"))
    assert there("project", "plan", str(file)).out.splitlines() == [
        "~ physics weight: 2 -> 1",
        f"~ physics {flavor} memory: 4Gi -> 8Gi",
    ]


@pytest.mark.parametrize(("answer", "code", "names"), [("n", 1, []), ("y", 0, ["institute"])])
def test_on_a_terminal_apply_shows_the_plan_and_asks(
    there: Atoll, platform: RunningPlatform, tmp_path: Path, answer: str, code: int, names: list[str]
) -> None:
    file = tmp_path / "tree.yaml"
    file.write_text("projects: {institute: }")
    ours, theirs = pty.openpty()
    with open(ours, "wb", buffering=0) as keyboard:  # noqa: PTH123 - a descriptor
        keyboard.write(f"{answer}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "atoll", "project", "apply", str(file)], stdin=theirs, stderr=theirs,
            stdout=subprocess.PIPE, text=True, env=platform.environment(), check=False, timeout=60,
        )  # fmt: skip
        os.close(theirs)
    assert done.stdout.startswith("+ institute: the root\n")
    assert done.returncode == code
    assert there("project", "list", "-o", "name").out.split() == names


def test_the_export_can_be_applied_again(there: Atoll, tree: Path) -> None:
    assert "parent: physics" in there("project", "export").out
    assert there("project", "plan", "-", stdin=there("project", "export").out).out == "Nothing changes.\n"
    assert json.loads(there("project", "export", "-o", "json").out)["projects"]["astro"]["people"] == [ME]


def test_projects_are_listed_as_a_tree_and_shown(there: Atoll, tree: Path) -> None:
    listed = [
        line.split("  ")[0] if line[0] != " " else line.rstrip() for line in there("project", "list").out.splitlines()
    ]
    assert [line.strip().split()[0] for line in listed] == ["PROJECT", "institute", "physics", "astro"]
    assert there("project", "list", "--mine", "-o", "name").out.split() == ["astro"]
    shown = there("project", "show", "physics").out
    assert "no: others are below it" in shown
    assert "4 GiB" in shown
    assert there("project", "show", "astor").code == NotFound.exit_code
    assert "Did you mean 'astro'?" in there("project", "show", "astor").err


def test_quotas_are_shown_with_what_is_left(there: Atoll, tree: Path, flavor: str) -> None:
    rows = [line.split() for line in there("quota").out.splitlines()]
    assert rows[0][:4] == ["PROJECT", "FLAVOR", "RESOURCE", "NOMINAL"]
    assert ["physics", flavor, "cpu", "500m", "500m", "0", "1500m", "0", "0", "borrowing", "1"] in rows
    assert "1500m" in there("quota", "astro").out, "what it may borrow is told, too"
    assert json.loads(there("quota", "physics", "-o", "json").out)[0]["quotas"][0]["nominal"] == 500


def test_a_job_goes_to_ones_project_and_into_no_other(there: Atoll, tree: Path) -> None:
    job = there("submit", "-o", "name", "--cpu", "0.1", "--mem", "10M", "--", "true").out.strip()
    assert json.loads(there("show", job, "-o", "json").out)["project"] == "astro"
    assert there("submit", "-A", "physics", "--", "true").code == Invalid.exit_code
    assert there("submit", "--cpu", "2", "--mem", "10M", "--", "true").code == Invalid.exit_code
    assert there("wait", job).code == 0
    assert there("project", "remove-person", "astro", ME).out == f"{ME} may no longer submit to project astro.\n"
    refused = there("submit", "--", "true")
    assert refused.code == Denied.exit_code
    assert "in no project yet" in refused.err
    assert there("project", "add-person", "astro", ME, "eve").out == f"{ME}, eve may submit to project astro.\n"
    assert json.loads(there("project", "show", "astro", "-o", "json").out)["people"] == sorted([ME, "eve"])


def test_mistakes_in_a_file_are_all_told_and_nothing_is_applied(there: Atoll, tmp_path: Path) -> None:
    wrong = there("project", "apply", "--yes", "-", stdin="projects: {a: {weight: 0}, b: {parent: c}}")
    assert wrong.code == Invalid.exit_code
    assert "projects.a.weight" in wrong.err
    assert "also projects.b.parent" in wrong.err
    assert there("project", "plan", str(tmp_path / "none.yaml")).code == Invalid.exit_code


def test_a_flavor_is_shown_with_its_sites(there: Atoll, tree: Path, flavor: str) -> None:
    assert "local" in there("flavor", flavor).out
    assert "1500m CPU, 4 GiB" in there("flavor").out
    assert there("flavor", "none").code == NotFound.exit_code


def test_reservations_are_made_listed_and_removed(there: Atoll, flavor: str) -> None:
    made = there(
        "reservation", "add", "course", "--flavor", flavor, "--from", "now+1hour", "--for", "8h", "--nodes", "1",
        "--person", "ana", "--person", "ben", "-o", "name",
    )  # fmt: skip
    number = made.out.strip()
    listed = there("reservation", "list").out
    assert "1 node" in listed
    assert "ana, ben" in listed
    assert there("reservation", "remove", number).out == f"Removed reservation {number}.\n"
    assert there("reservation", "remove", number).code == NotFound.exit_code
    past = there("reservation", "add", "x", "--flavor", flavor, "--from", "2000-01-01", "--for", "1h", "--nodes", "1",
                 "--maintenance")  # fmt: skip
    assert past.code == Invalid.exit_code
    assert "in the past" in past.err
    both = ("--until", "now+2hours", "--for", "1h", "--nodes", "1")
    assert there("reservation", "add", "x", "--flavor", flavor, "--from", "now", *both).code == Invalid.exit_code


def test_the_queue_is_told_in_figures(there: Atoll) -> None:
    job = there("submit", "-o", "name", "--hold", "--", "true").out.strip()
    told = there("queue").out
    assert "1 held" in told
    assert "batch" in told
    assert json.loads(there("queue", "-o", "json").out)["items"][0]["class"] == "batch"
    there("cancel", job)


def test_a_project_with_jobs_does_not_go(there: Atoll, tree: Path, flavor: str) -> None:
    job = there("submit", "-o", "name", "--hold", "--cpu", "0.1", "--mem", "10M", "--", "true").out.strip()
    tree.write_text(f"projects: {{institute: {{quotas: {{{flavor}: {{cpu: 1}}}}}}, physics: {{parent: institute}}}}")
    planned = there("project", "plan", str(tree))
    assert "- astro" in planned.out
    assert "warning: These have jobs that have not ended" in planned.err
    assert there("project", "apply", "--yes", str(tree)).code == Conflict.exit_code
    there("cancel", job)


async def test_the_async_client_has_the_same_methods(there: Atoll, platform: RunningPlatform, flavor: str) -> None:
    async with AsyncClient(platform.url, platform.token) as client:
        plan = await client.put_projects({"all": {"people": [ME]}}, dry_run=True)
        done = await client.put_projects({"all": {"people": [ME]}}, revision=plan.revision)
        assert done.applied
        with pytest.raises(Conflict):
            await client.put_projects({}, revision=plan.revision)
        assert (await client.change_people("all", add=["eve"])).people == tuple(sorted((ME, "eve")))
        assert (await client.tree()).projects["all"]["people"] == sorted((ME, "eve"))
        assert [project.name for project in (await client.projects()).items] == ["all"]
        assert (await client.project("all")).member
        assert (await client.flavor(flavor)) in await client.flavors()
        begin = datetime.now(UTC) + timedelta(hours=1)
        kept = await client.add_reservation(
            name="x", flavor=flavor, cpu="500m", project="all", starts_at=begin, ends_at=begin + timedelta(hours=1)
        )
        assert (kept.cpu, kept.starts_at) == (500, begin)
        assert kept in await client.reservations()
        await client.remove_reservation(kept.id)
        assert (await client.queue()).running == 0
