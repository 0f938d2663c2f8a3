"""What people do to jobs from pages: to the ticked ones of the list, or to one. What it will do is shown first."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from atoll.core.errors import AtollError, Invalid
from atoll.core.ids import JobRef
from atoll.core.states import ENDED, WAITING, JobState
from atoll.faces.http.auth import Here
from atoll.faces.web.forms import read_form
from atoll.faces.web.route import Page
from atoll.faces.web.templates import show
from atoll.faces.web.visitor import Visitor
from atoll.jobs import actions
from atoll.jobs.acting import act
from atoll.jobs.pages.address import PER_PAGE
from atoll.jobs.service import find
from atoll.store.people import Principal

router = APIRouter(route_class=Page)
ACTIONS = {
    "cancel": actions.cancel, "hold": actions.hold, "release": actions.release, "requeue": actions.requeue,
}  # fmt: skip
_DONE = {"cancel": "Cancelled", "hold": "Held", "release": "Released", "requeue": "Requeued"}
_MOST = 4 * PER_PAGE
_BACK = re.compile(r"/jobs(/[0-9]{1,18}(\[[0-9]{1,9}\])?)?(\?[!-~]{0,2000})?")
_DID = re.compile(r"(cancel|hold|release|requeue)-([0-9]{1,9})")


def told(did: str) -> str:
    """What was done, by the address that one comes back to; empty where it does not say."""
    match = _DID.fullmatch(did)
    if match is None:
        return ""
    number = int(match[2])
    what = "1 job or task" if number == 1 else f"{number} jobs and tasks"
    return f"{_DONE[match[1]]} {what}." if number else "Nothing had to be changed."


@router.post("/jobs/act")
async def act_on_jobs(request: Request, who: Visitor, platform: Here) -> Response:
    """Show what an action will do to some jobs; do it where that was confirmed."""
    form = await read_form(request)
    action, back = form.get("action"), form.get("back", "/jobs")
    back = back if _BACK.fullmatch(back) else "/jobs"
    if action not in ACTIONS:
        raise Invalid("no_such_action", "Choose what to do with the jobs.", field="action")
    refs = [JobRef.parse(text) for text in dict.fromkeys(form.all("job"))]
    if not refs:
        raise Invalid("no_jobs", "Tick the jobs that you mean first.", field="job")
    if len(refs) > _MOST:
        raise Invalid("too_many_jobs", f"At most {_MOST} jobs can be acted on at once.", field="job")
    values = {"action": action, "refs": [str(ref) for ref in refs], "back": back, "failures": [], "effects": []}
    if not form.get("confirmed"):
        values["effects"] = await platform.database.read(lambda connection: _effects(connection, action, refs, who))
        return show(request, "jobs/templates/act.html", values)

    results = await asyncio.gather(*(_one(platform, action, ref, who) for ref in refs))
    failures = [result for result in results if isinstance(result, str)]
    changed = sum(result for result in results if isinstance(result, int))
    if failures:
        values |= {"failures": failures, "did": told(f"{action}-{changed}") if changed else ""}
        return show(request, "jobs/templates/act.html", values, status=409)
    if len(refs) > 1:
        # one job says by itself what became of it
        back = f"{back}{'&' if '?' in back else '?'}did={action}-{changed}"
    return RedirectResponse(back, 303)


async def _one(platform: Here, action: str, ref: JobRef, who: Principal) -> int | str:
    """How many jobs and tasks it changed, or why it could not be."""
    try:
        return int((await act(platform, ACTIONS[action], ref, who))["changed"])
    except AtollError as error:
        return error.sentence


def _effects(connection: Connection, action: str, refs: Sequence[JobRef], who: Principal) -> list[str]:
    """What an action will do, in sentences; each job and task counts. Raises NotFound."""
    counts: Counter[str] = Counter()
    for ref in refs:
        short = find(connection, ref, who).summary()
        tasks = short["tasks"]
        if tasks is not None:
            held = short["state"] == JobState.HELD
            counts["held" if held else "waiting"] += tasks["waiting"]
            counts["active"] += tasks["active"]
            counts["ended"] += tasks["succeeded"] + tasks["failed"] + tasks["cancelled"]
        else:
            counts[_kind(JobState(short["state"]))] += 1
    return [
        text.format(n=counts[kind], s="s" if counts[kind] == 1 else "")
        for kind, text in _EFFECTS[action].items() if counts[kind]
    ]  # fmt: skip


def _kind(state: JobState) -> str:
    if state in WAITING:
        return "held" if state is JobState.HELD else "waiting"
    return "ended" if state in ENDED else "active"


_EFFECTS = {
    "cancel": {
        "waiting": "{n} that wait{s} will end at once.", "held": "{n} that wait{s} on hold will end at once.",
        "active": "{n} at a site will be asked to stop, and have the time to end that was asked for.",
        "ended": "{n} ended already, and will stay as it is.",
    },
    "hold": {
        "waiting": "{n} that wait{s} will be held, until somebody releases it.",
        "held": "{n} on hold will stay so.", "active": "{n} at a site cannot be held.",
        "ended": "{n} ended already, and cannot be held.",
    },
    "release": {
        "held": "{n} on hold will go on, unless it waits for other jobs.",
        "waiting": "{n} that wait{s} will not be changed.", "active": "{n} at a site will not be changed.",
        "ended": "{n} ended already, and will stay as it is.",
    },
    "requeue": {
        "ended": "{n} that ended will run again, from the beginning.",
        "active": "{n} at a site will be stopped, and run again from the beginning.",
        "waiting": "{n} that wait{s} will not be changed.", "held": "{n} on hold will not be changed.",
    },
}  # fmt: skip
"""What each action means for jobs and tasks, by where they are."""
