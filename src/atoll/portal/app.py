"""The portal's part of the HTTP application: the rooms' pages, and what they load."""

from fastapi import FastAPI

from atoll.faces.http.platform import Platform
from atoll.faces.web import assets, live, visitor
from atoll.jobs import pages as jobs_pages
from atoll.people.pages import router as people_router
from atoll.portal.pages import router as home_router
from atoll.queue import pages as queue_pages
from atoll.sites.pages import router as sites_router


def install(app: FastAPI, platform: Platform) -> None:
    """Add the portal to the application."""
    visitor.install(app)
    app.state.live = live.Live(platform)
    app.include_router(assets.router)
    jobs_pages.install(app)
    queue_pages.install(app, platform)
    for router in (
        home_router, live.router, people_router, jobs_pages.router, sites_router, queue_pages.router,
    ):  # fmt: skip
        app.include_router(router, include_in_schema=False)
