"""The pages of jobs: the list, and each job."""

from fastapi import APIRouter, FastAPI

from atoll.faces.web.live import Live
from atoll.faces.web.route import Page
from atoll.jobs.pages import acts, job, listing, views
from atoll.jobs.pages.log import follow
from atoll.jobs.pages.rows import JobRows, OneJob

router = APIRouter(route_class=Page)
for part in (listing.router, views.router, acts.router, job.router):
    router.include_router(part)


def install(app: FastAPI) -> None:
    """Have the streams of live pages tell of jobs."""
    live: Live = app.state.live
    live.sources |= {"jobs": JobRows(app.state.estimates), "job": OneJob()}
    live.follows["log"] = follow
